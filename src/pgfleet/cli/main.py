"""The command ``pgfleet``: its table of commands, the options that all of them have, and what becomes of an exception.

Start-up is measured (``--help`` in 300 ms or less): only the module of the command that was asked for is imported,
and it imports what is heavy (pydantic, httpx, asyncpg, rich) inside its functions.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet.cli import view
from pgfleet.cli.options import HELP, Options, hoist
from pgfleet.errors import PgfleetError, StateUnusable, WrongUsage

#: Name -> module below cli/commands and its function, in the order of ``--help``. A command that does not work is
#: not here.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "init"),
    "check": ("check", "check"),
    "schema": ("schema", "schema"),
    "plan": ("plan", "plan"),
    "apply": ("apply", "apply"),
    "status": ("status", "status"),
    "switchover": ("switchover", "switchover"),
    "destroy": ("destroy", "destroy"),
    "migrate": ("migrate", "migrate"),
    "sql": ("sql", "sql"),
    "log": ("log", "log"),
    "version": ("version", "version"),
}

INTERRUPTED = "stopped; what was done stays done, run the same command again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status (see errors/; 130 when interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    # pydantic looks through every installed distribution for plugins: 20 ms, and nothing here uses one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    options = Options(json="--json" in words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is not UTF-8, a terminal that is not: what cannot be written is escaped, and the rest is told.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options, rest = hoist(words, _takes_value)
        return _run(options, rest)
    except PgfleetError as error:
        view.error(error, json=options.json)
        return error.exit_status
    except KeyboardInterrupt:
        view.note(f"\n{INTERRUPTED}")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _quiet()
    except OSError as error:
        if (failure := _of_the_disk(error, options)) is not None:
            view.error(failure, json=options.json)
            return failure.exit_status
        view.bug(error, json=options.json)
        return 70
    except Exception as error:  # noqa: BLE001 - the outermost frame: what nobody foresaw gets its own exit status and a way to report it
        view.bug(error, json=options.json)
        return 70


#: What a disk, a quota or the rights of a user say no with.
_DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


def _of_the_disk(error: OSError, options: Options) -> StateUnusable | None:
    """What the file system said of the fleet's state, where it was that; None for any other error."""
    from pgfleet.runtime.state import state_root

    root = state_root(options.state)
    name = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    # A root that cannot even be looked for, such as one below /proc.
    nowhere = error.errno == errno.ENOENT and name is not None and name in (root, *root.parents)
    if error.errno not in _DISK and not nowhere:
        return None
    return StateUnusable(
        f"the state of fleets in {root} cannot be used: {error.strerror}", seen=[str(name)] if name else [],
        hint="--state DIR, or PGFLEET_STATE=DIR, names another folder; or be the user who applied the fleet",
    )  # fmt: skip


def _run(options: Options, words: Sequence[str]) -> int:
    if options.json and not words:
        raise WrongUsage("--json needs a command", hint="pgfleet --help")
    command: Any = typer.main.get_command(_app(_command_of(words)))
    try:
        with command.make_context("pgfleet", list(words), obj=options) as context:
            command.invoke(context)
        # What is still buffered is written here, where a reader that has gone away can be answered.
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        sys.stdout.flush()
        return done.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            view.note(error.format_message())
            return error.exit_code
        hint = f"{context.command_path} --help" if context is not None else "pgfleet --help"
        raise WrongUsage(error.format_message(), hint=hint) from None


@cache
def _app(only: str | None) -> typer.Typer:
    """The typer application: with the command ``only``, or with all (for ``--help`` and for a name that nobody
    knows)."""
    app = typer.Typer(
        name="pgfleet", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )  # fmt: skip
    app.callback()(_root)
    for name in [only] if only else COMMANDS:
        app.command(name, epilog=HELP)(_function(name))
    return app


def _version(asked: bool) -> None:
    if asked:
        view.line(import_module("pgfleet.cli.commands.version").text())
        raise typer.Exit()


def _root(
    file: Annotated[str, typer.Option("-f", "--file", metavar="FILE", help="The file that declares the fleet.")] = "fleet.yaml",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="Where the state of fleets is kept ($PGFLEET_STATE; /var/lib/pgfleet for root).",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Which pgfleet, on which Python.")
    ] = False,
) -> None:
    """One file declares a sharded, geo-replicated, highly available PostgreSQL fleet; pgfleet plans it, runs it,
    routes an application's queries to it, and proves by measurement that it keeps its promises.

    The three options -f, --json and --state are accepted before and after the command."""


def _function(name: str) -> Callable[..., Any]:
    module, function = COMMANDS[name]
    found: Callable[..., Any] = getattr(import_module(f"pgfleet.cli.commands.{module}"), function)
    return found


def _command_of(words: Sequence[str]) -> str | None:
    """The command that ``words`` name, when nothing stands before it: the root has no option left after hoisting but
    ``--help`` and ``--version``, which need every command or none."""
    return words[0] if words and words[0] in COMMANDS else None


def _takes_value(name: str) -> Collection[str]:
    if name not in COMMANDS:
        return ()
    command: Any = typer.main.get_command(_app(name)).commands[name]  # type: ignore[attr-defined]
    return {
        spelling
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.is_flag and not parameter.count
        for spelling in parameter.opts
    }


def _quiet() -> int:
    """The reader of our output went away (``pgfleet log | head``): no message, and none from the interpreter's own
    flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
