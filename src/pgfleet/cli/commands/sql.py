"""``pgfleet sql``: psql on the node that holds a shard or a key, or one statement's rows as JSON."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view
from pgfleet.cli.durations import DURATION, duration

if TYPE_CHECKING:
    from pgfleet.cli.options import Options
    from pgfleet.control.ask import Answer
    from pgfleet.facts.addresses import AddressBook, NodeAddress
    from pgfleet.spec.fleet import Fleet


class Role(StrEnum):
    primary = "primary"
    replica = "replica"


class As(StrEnum):
    owner = "owner"
    app = "app"
    monitor = "monitor"
    superuser = "superuser"


#: PostgreSQL's role for each word of ``--as``.
ROLES = {As.owner: "pgfleet_owner", As.app: "pgfleet_app", As.monitor: "pgfleet_monitor", As.superuser: "postgres"}

ALL = "all"


def sql(
    context: typer.Context,
    psql: Annotated[list[str] | None, typer.Argument(metavar="-- PSQL OPTIONS", help="Given to psql as they are.")] = None,
    shard: Annotated[str | None, typer.Option("--shard", metavar="S", help="The shard; `all` for every one, with -c.")] = None,
    table: Annotated[str | None, typer.Option("--table", metavar="T", help="The shard that holds --key of this table.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="K", help="The key.")] = None,
    second: Annotated[
        str | None, typer.Option("--second", metavar="V", help="The second column's value, for a key that is spread.")
    ] = None,
    role: Annotated[Role, typer.Option("--role", help="The shard's primary, or a replica that answers.")] = Role.primary,
    as_: Annotated[As, typer.Option("--as", help="The role to connect as.")] = As.owner,
    command: Annotated[str | None, typer.Option("-c", "--command", metavar="SQL", help="One statement instead of psql.")] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar=DURATION, help="For the statement of -c with --json or --shard all.")
    ] = "60 s",
) -> None:
    """psql at the right place.

    That is the primary, or a replica, of the shard that is named, or of the one that holds a key. In a fleet of one
    shard none need be named. The password reaches psql through memory: it is in no file, argument or environment.
    With -c, --json gives the rows as one document."""
    from pgfleet.runtime.state import read_addresses

    options: Options = context.obj
    fleet = options.fleet()
    if as_ is not As.owner and not fleet.traits.roles:
        from pgfleet.errors import WrongUsage

        raise WrongUsage(f"provider {fleet.provider} has no roles: every DSN names its own user", hint="without --as")
    place = _place(fleet, shard, table, key, second)
    book = read_addresses(options.folder(fleet.fleet))
    if command is not None and (options.json or place.shard == ALL):
        shards = tuple(fleet.shards) if place.shard == ALL else (place.shard,)
        _ask(book, shards, ROLES[as_], role, command, duration(timeout, "--timeout"), as_json=options.json)
        return
    if options.json or place.shard == ALL:
        from pgfleet.errors import WrongUsage

        raise WrongUsage("--json and --shard all need a statement", hint="pgfleet sql -c 'select 1'")
    node = asyncio.run(_node(book, place.shard, ROLES[as_], role))
    if os.isatty(2) and command is None:
        view.note(f"{node.name} ({role}), because {place.because}")
    _become_psql(book, node, ROLES[as_], [*(["-c", command] if command is not None else []), *(psql or [])])


@dataclass(frozen=True, slots=True)
class _Place:
    shard: str
    because: str


def _place(fleet: Fleet, shard: str | None, table: str | None, key: str | None, second: str | None) -> _Place:
    from pgfleet.errors import WrongUsage
    from pgfleet.routing.placement import Placement

    known = ", ".join(fleet.shards)
    if shard is not None and (table is not None or key is not None):
        raise WrongUsage("--shard says it all: --table and --key would say it again")
    if shard is not None:
        if shard != ALL and shard not in fleet.shards:
            raise WrongUsage(f"the file declares no shard {shard!r}", hint=f"known: {known}")
        return _Place(shard, "it was named")
    if key is not None and table is None:
        raise WrongUsage("--key needs --table: the key of which table?", hint=f"known: {', '.join(fleet.tables)}")
    if table is not None:
        placement = Placement.of(fleet)
        if key is not None:
            placed = placement.shard(table, key, second)
            return _Place(placed.shard, placed.because)
        shards = placement.shards(table)
        if len(shards) != 1:
            raise WrongUsage(f"{table} is on {len(shards)} shards", hint=f"give --key, or one of --shard {', '.join(shards)}")
        return _Place(shards[0], f"all of {table} is there")
    if len(fleet.shards) != 1:
        raise WrongUsage(f"which of {len(fleet.shards)} shards?", hint=f"--shard: {known}; or --table and --key")
    return _Place(next(iter(fleet.shards)), "it is the only shard")


def _ask(book: AddressBook, shards: tuple[str, ...], role: str, wanted: Role, sql: str, seconds: float, *, as_json: bool) -> None:
    from pgfleet.control.ask import ask

    answers = asyncio.run(ask(book, shards, role, wanted.value, sql, seconds=seconds))
    _check(answers)
    if as_json:
        view.document({"fleet": book.fleet, "results": answers})
        return
    columns = next((answer.columns for answer in answers if answer.columns), ())
    if columns:
        view.table("", ["shard", *columns], [[answer.shard, *row] for answer in answers for row in answer.rows])
    else:
        view.table("", ["shard", "status"], [[answer.shard, answer.status] for answer in answers])


def _check(answers: tuple[Answer, ...]) -> None:
    """:raises PgfleetError: what one shard said; StatementFailed with every answer when there were several."""
    from pgfleet.errors import StatementFailed

    failed = [answer for answer in answers if answer.error is not None]
    if not failed:
        return
    error = failed[0].error
    if error is not None and len(answers) == 1:
        raise error
    raise StatementFailed(
        f"{len(failed)} of {len(answers)} shards did not answer; on the others it was done",
        seen=[f"{answer.shard}: {answer.error.message}" for answer in failed if answer.error],
        shards=[answer.to_json() for answer in answers],
    )


async def _node(book: AddressBook, shard: str, role: str, wanted: Role) -> NodeAddress:
    from pgfleet.control.connect import connect

    connected = await connect(book, shard, role, wanted=wanted.value)
    connected.connection.terminate()
    return connected.node


def _become_psql(book: AddressBook, node: NodeAddress, role: str, words: list[str]) -> None:
    from pgfleet.errors import EnginesMissing
    from pgfleet.runtime.login import login_of

    program = shutil.which("psql")
    if program is None:
        raise EnginesMissing("there is no psql on the PATH", hint="script/bootstrap, or apt install postgresql-client")
    folder = Path(book.folder)
    login = login_of(folder, book, node, role)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG") or name == "PGFLEET_STATE"}
    environment |= {
        "PGHOST": node.host, "PGPORT": str(node.port), "PGUSER": login.role, "PGDATABASE": login.database,
        "PGAPPNAME": "pgfleet sql", "PGCONNECT_TIMEOUT": "5", **_protection(folder, node),
    }  # fmt: skip
    if login.password is not None:
        environment["PGPASSFILE"] = _password_in_memory(login.password)
    else:  # libpq's own ways, as the DSN without a password leaves it to them
        environment |= {name: os.environ[name] for name in ("PGPASSWORD", "PGPASSFILE") if name in os.environ}
    os.execve(program, ["psql", *words], environment)  # noqa: S606 - no shell is meant; psql takes this process's place


def _protection(folder: Path, node: NodeAddress) -> dict[str, str]:
    """libpq's words for how ``node`` is protected."""
    from pgfleet.runtime.login import system_authorities

    match node.protection:
        case "fleet":
            return {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(folder / "certificates" / "ca.crt")}
        case "off":
            return {"PGSSLMODE": "disable"}
        case "require":
            return {"PGSSLMODE": "require"}
        case "verify-ca" | "verify-full":
            return {"PGSSLMODE": node.protection, "PGSSLROOTCERT": node.authority or system_authorities()}


def _password_in_memory(password: str) -> str:
    """A password file that is in no file system and ends with the process.

    libpq wants a plain file that only its owner may read (``passwordFromFile`` in fe-connect.c), which this is; each
    opening of its name begins at its first byte, so psql's ``\\c`` finds it, too.

    :raises WrongUsage: the password is of several lines, and such a file's entry is one.
    """
    from pgfleet.errors import WrongUsage

    if "\n" in password or password.endswith("\r"):
        message = "the password has a line break, and psql has no way to be given one that no other process sees"
        raise WrongUsage(message, hint="with --json and -c no psql is needed; or a password without line breaks")
    handle = os.memfd_create("pgpass", 0)  # 0: not closed by exec
    os.fchmod(handle, 0o600)
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    os.write(handle, f"*:*:*:*:{escaped}\n".encode())
    return f"/proc/self/fd/{handle}"
