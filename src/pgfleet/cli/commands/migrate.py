"""``pgfleet migrate``: the numbered SQL files of a folder, on every shard that holds their tables."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view
from pgfleet.cli.durations import DURATION, duration

if TYPE_CHECKING:
    from pgfleet.cli.options import Options
    from pgfleet.control.migrate import ShardMigrated
    from pgfleet.control.pace import Pace
    from pgfleet.facts.addresses import AddressBook
    from pgfleet.plan.migrations import Migration
    from pgfleet.spec.fleet import Fleet


def migrate(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the files: 0001_name.sql, 0002_name.sql, …")],
    to: Annotated[int | None, typer.Option("--to", metavar="N", min=1, help="Only files numbered up to N.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due; change nothing.")] = False,
    lock_timeout: Annotated[
        str, typer.Option("--lock-timeout", metavar=DURATION, help="For each lock; then the file is tried again.")
    ] = "3 s",
    patience: Annotated[
        str, typer.Option("--patience", metavar=DURATION, help="How long a file is tried for its locks.")
    ] = "60 s",
    statement_timeout: Annotated[
        str, typer.Option("--statement-timeout", metavar=DURATION, help="For each statement.")
    ] = "10 min",
) -> None:
    """Apply numbered SQL files to the shards.

    Every shard that holds a file's tables is given it, in order; safe to stop and to repeat. A file's head says what
    it is for: `-- tables: questions, users` (without it: every shard). A file is one transaction together with its
    record, unless its head says `-- pgfleet: no-transaction`. The files are run by the role pgfleet_owner; the
    application's role may read and write every table that they make."""
    from pgfleet.control.pace import Pace
    from pgfleet.runtime.state import read_addresses

    options: Options = context.obj
    pace = Pace(
        lock_seconds=duration(lock_timeout, "--lock-timeout"),
        patience_seconds=duration(patience, "--patience"),
        statement_seconds=duration(statement_timeout, "--statement-timeout"),
    )
    fleet = options.fleet()
    migrations = [m for m in _read(folder, fleet) if to is None or m.number <= to]
    book = read_addresses(options.folder(fleet.fleet))
    results = asyncio.run(_run(book, migrations, fleet, pace, dry_run=dry_run, silent=options.json))
    _tell(fleet.fleet, results, len(migrations), dry_run=dry_run, as_json=options.json)


def _read(folder: Path, fleet: Fleet) -> tuple[Migration, ...]:
    from pgfleet.errors import FileUnreadable
    from pgfleet.plan.migrations import read_migrations

    try:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".sql"}
    except OSError as error:
        raise FileUnreadable(f"the folder {folder} cannot be read", seen=[str(error)]) from None
    return read_migrations(str(folder), files, fleet.tables)


async def _run(
    book: AddressBook, migrations: list[Migration], fleet: Fleet, pace: Pace, *, dry_run: bool, silent: bool
) -> tuple[ShardMigrated, ...]:
    import getpass
    import socket

    from pgfleet.control.journal import Journal
    from pgfleet.control.migrate import migrate as run
    from pgfleet.routing.placement import Placement

    placement = Placement.of(fleet)
    shards_of = {table: placement.shards(table) for table in fleet.tables}
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    if dry_run:
        return await run(book, migrations, shards_of, fleet.shards, journal=None, by=by, pace=pace)
    with view.Steps(silent=silent) as steps, Journal(Path(book.folder) / "journal.db", tell=steps.event) as journal:
        return await run(book, migrations, shards_of, fleet.shards, journal=journal, by=by, pace=pace)


def _tell(fleet: str, results: tuple[ShardMigrated, ...], count: int, *, dry_run: bool, as_json: bool) -> None:
    from pgfleet.control.migrate import check

    check(results)
    if as_json:
        view.document({"fleet": fleet, "files": count, "dry_run": dry_run, "shards": results})
    elif not any(result.remaining or result.applied for result in results):
        view.line(f"nothing to do: {_count(count, 'file')}, {_count(len(results), 'shard')}, as the folder says")
    elif dry_run:
        view.table("", ["shard", "applied", "due"], [[r.shard, len(r.already), ", ".join(r.remaining)] for r in results])
    else:
        applied = sum(len(result.applied) for result in results)
        reached = sum(bool(result.applied) for result in results)
        view.line(f"{_count(applied, 'file')} applied, on {reached} of {_count(len(results), 'shard')}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
