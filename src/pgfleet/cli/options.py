"""Options that every command has, accepted before and after the command's name: ``-f FILE``, ``--json``, ``--state
DIR``.

They are taken out of the command line before typer reads it, because typer knows an option only on the side of the
command where it was declared, and nobody remembers which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgfleet.errors import FileUnreadable, WrongUsage

if TYPE_CHECKING:
    from pgfleet.spec.fleet import Fleet

DEFAULT_FILE = "fleet.yaml"

#: What ``pgfleet --help`` and every command's help say of them.
HELP = "Before or after the command: -f FILE (default fleet.yaml), --json (one document on stdout), --state DIR."


@dataclass(frozen=True, slots=True)
class Options:
    """What was said for every command; ``ctx.obj`` of typer's context.

    :param state: the folder that holds one folder a fleet; None for the default (runtime/state.py).
    """

    file: str = DEFAULT_FILE
    json: bool = False
    state: str | None = None

    def text(self) -> str:
        """The file's text; a byte that is not UTF-8 is a lone surrogate in it, which spec/ tells with its place. No more
        than spec/ will read, and one character: what is endless is too large.

        :raises FileUnreadable: there is no such file, or it may not be read.
        """
        from pgfleet.spec.document import MAX_CHARACTERS

        try:
            with Path(self.file).open(encoding="utf-8-sig", errors="surrogateescape") as stream:
                return stream.read(MAX_CHARACTERS + 1)
        except FileNotFoundError:
            raise FileUnreadable(
                f"there is no {self.file} here", seen=[f"working folder {Path.cwd()}"], hint="pgfleet init"
            ) from None
        except IsADirectoryError:
            hint = f"pgfleet -f {Path(self.file) / DEFAULT_FILE} check"
            raise FileUnreadable(f"{self.file} is a folder", seen=[f"working folder {Path.cwd()}"], hint=hint) from None
        except OSError as error:
            raise FileUnreadable(f"{self.file} cannot be read", seen=[str(error)], hint=f"ls -l {self.file}") from None

    def fleet(self) -> Fleet:
        """The fleet that the file declares.

        :raises SpecError: every mistake in it, at once.
        """
        from pgfleet.spec.load import load

        return load(self.file, self.text())

    def folder(self, fleet: str) -> Path:
        """The state folder of the fleet called ``fleet``."""
        from pgfleet.runtime.state import fleet_folder

        return fleet_folder(fleet, self.state)


def hoist(argv: Sequence[str], takes_value: Callable[[str], Collection[str]]) -> tuple[Options, list[str]]:
    """Take the options of every command out of ``argv``, up to ``--``.

    :param takes_value: the options of a command that are followed by a value, by the command's name: that value is
        never read as an option (``sql -c --json`` asks the server a strange question; it does not ask for JSON).
    :raises WrongUsage: an option without its value.
    """
    options = Options()
    rest: list[str] = []
    valued: Collection[str] = ()
    command = ""
    words = iter(argv)
    for word in words:
        if word == "--":
            return options, [*rest, word, *words]
        name, equals, value = word.partition("=")
        if word == "--json":
            options = replace(options, json=True)
        elif name in ("--file", "--state") and equals:
            options = _with(options, name, value)
        elif word in ("-f", "--file", "--state"):
            following = next(words, None)
            if following is None:
                raise WrongUsage(f"{word} needs a value")
            options = _with(options, word, following)
        elif word.startswith("-f") and not word.startswith("--"):
            options = _with(options, "-f", word[2:].removeprefix("="))
        else:
            rest.append(word)
            if word in valued:
                rest += [following] if (following := next(words, None)) is not None else []
            elif not command and not word.startswith("-"):
                command = word
                valued = takes_value(command)
    return options, rest


def _with(options: Options, name: str, value: str) -> Options:
    if not value:
        raise WrongUsage(f"{name} needs a value")
    return replace(options, state=value) if name == "--state" else replace(options, file=value)
