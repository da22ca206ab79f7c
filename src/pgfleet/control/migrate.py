"""Schema changes on every shard that holds the tables: in order, recorded, resumable after a kill.

Each shard is a level, not an edge: what is due on it follows from the records it keeps itself (plan/migrations.py),
so a run that was stopped anywhere is repeated whole. Nothing is begun on any shard before all were reached, locked
and found to agree with the folder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import asyncpg

from pgfleet.control.apply_file import Stopped, apply_file
from pgfleet.control.connect import Connected, connect
from pgfleet.control.journal import Journal
from pgfleet.control.pace import Pace
from pgfleet.errors import (
    MigrateFailed,
    MigrateInterrupted,
    MigrateUnderWay,
    MigrationChanged,
    NoSuchNode,
    ShardsUnreachable,
)
from pgfleet.facts.addresses import AddressBook
from pgfleet.plan.migrations import Applied, Migration, due

OWNER = "pgfleet_owner"

#: The advisory lock that a migrate holds on every shard it works on: "pgmigrat" in ASCII, as a bigint.
LOCK = int.from_bytes(b"pgmigrat", "big")

#: The server looks this often whether we are still there, and stops what it does for us if not: a killed migrate must
#: not go on holding its locks (PostgreSQL 14 and later).
CONNECTION_CHECK = "2s"


@dataclass(frozen=True, slots=True)
class Done:
    number: int
    file: str
    took_seconds: float

    def to_json(self) -> dict[str, object]:
        return {"number": self.number, "file": self.file, "took_seconds": self.took_seconds}


@dataclass(frozen=True, slots=True)
class ShardMigrated:
    """What a run did to one shard.

    :param already: files that had been applied before.
    :param remaining: files that are still due (all of them when nothing was to be done but look).
    """

    shard: str
    node: str
    already: tuple[str, ...]
    applied: tuple[Done, ...] = ()
    remaining: tuple[str, ...] = ()
    failure: Stopped | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "shard": self.shard, "node": self.node, "already": list(self.already),
            "applied": [done.to_json() for done in self.applied], "remaining": list(self.remaining),
            "failure": self.failure.to_json() if self.failure else None,
        }  # fmt: skip


@dataclass(slots=True)
class _Shard:
    name: str
    connected: Connected
    already: tuple[str, ...] = ()
    due: tuple[Migration, ...] = ()
    done: list[Done] = field(default_factory=list)

    def told(self, failure: Stopped | None = None) -> ShardMigrated:
        rest = tuple(m.file for m in self.due[len(self.done) :])
        return ShardMigrated(self.name, str(self.connected.node.name), self.already, tuple(self.done), rest, failure)


async def migrate(
    book: AddressBook,
    migrations: Sequence[Migration],
    shards_of: Mapping[str, Collection[str]],
    shards: Collection[str],
    *,
    journal: Journal | None,
    by: str,
    pace: Pace,
) -> tuple[ShardMigrated, ...]:
    """Apply ``migrations`` to those of ``shards`` that they are for. A shard that fails is told in its row;
    others go on.

    :param shards_of: the shards of each table that a file may name.
    :param shards: every shard of the fleet.
    :param journal: None looks only, and changes nothing: every file that is due is told as remaining.
    :param by: who asks, for the records.
    :raises NotApplied: ``book`` does not know one of them.
    :raises ShardsUnreachable: before anything was begun.
    :raises MigrateUnderWay: likewise.
    :raises MigrationChanged: likewise.
    """
    names = sorted(name for name in shards if any(m.is_for(name, shards_of) for m in migrations))
    reached = await _reach(book, names, pace)
    try:
        if journal is not None:
            # One after another in one order: two runs that start together cannot each hold a shard the other waits for.
            for shard in reached:
                await _lock(shard, pace)
        await asyncio.gather(*(_look(shard, migrations, shards_of, ours=journal is not None) for shard in reached))
        if journal is None:
            return tuple(shard.told() for shard in reached)
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(_work(shard, journal, by, pace)) for shard in reached]
        return tuple(run.result() for run in runs)
    finally:
        for shard in reached:
            shard.connected.connection.terminate()


async def _reach(book: AddressBook, names: Sequence[str], pace: Pace) -> list[_Shard]:
    settings = {
        "application_name": "pgfleet migrate", "client_connection_check_interval": CONNECTION_CHECK,
        "lock_timeout": f"{pace.lock_seconds:.3f}s", "statement_timeout": f"{pace.statement_seconds:.3f}s",
    }  # fmt: skip
    answers = await asyncio.gather(*(connect(book, name, OWNER, settings=settings) for name in names), return_exceptions=True)
    reached = [_Shard(n, c) for n, c in zip(names, answers, strict=True) if isinstance(c, Connected)]
    wrong = [answer for answer in answers if isinstance(answer, BaseException)]
    if wrong:
        for shard in reached:
            shard.connected.connection.terminate()
        absent = [error for error in wrong if isinstance(error, NoSuchNode)]
        if len(absent) < len(wrong):
            raise next(error for error in wrong if error not in absent)
        seen = [line for error in absent for line in (error.message, *error.seen)]
        raise ShardsUnreachable(
            f"{len(absent)} of {len(names)} shards cannot be reached; nothing was begun",
            seen=seen,
            hint="pgfleet status",
        )
    return reached


async def _lock(shard: _Shard, pace: Pace) -> None:
    connection = shard.connected.connection
    until = time.monotonic() + pace.turn_seconds
    while not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        if time.monotonic() > until:
            holders = await connection.fetch(_sql("lock_holder"), LOCK)
            raise MigrateUnderWay(
                f"another migrate is at work on shard {shard.name}; nothing was begun", seen=[row[0] for row in holders]
            )
        await asyncio.sleep(0.25)


async def _look(shard: _Shard, migrations: Sequence[Migration], shards_of: Mapping[str, Collection[str]], *, ours: bool) -> None:
    """Read the shard's records, and say what is due. ``ours``: its table of records may be made."""
    connection = shard.connected.connection
    exists = await connection.fetchval("select to_regclass('pgfleet.migrations') is not null")
    if not exists and ours:
        await connection.execute(_sql("migrations"))
    records: list[asyncpg.Record] = []
    if exists:
        query = "select number, name, sha256, applied_at is not null from pgfleet.migrations order by number"
        records = await connection.fetch(query)
    applied = [Applied(*record) for record in records]
    shard.due, clashes = due(migrations, shard.name, shards_of, applied)
    shard.already = tuple(record.file for record in applied if record.finished)
    if clashes:
        raise MigrationChanged(
            "the folder contradicts what was applied; nothing was begun",
            seen=[clash.why for clash in clashes],
            hint="restore the file as it was, and put the change into a new file with the next number",
        )


async def _work(shard: _Shard, journal: Journal, by: str, pace: Pace) -> ShardMigrated:
    for migration in shard.due:
        began = time.monotonic()
        try:
            with journal.act(
                actor="migrate", what="migrate", subject=f"{shard.name} {migration.file}", because="not recorded there"
            ):
                await apply_file(shard.connected.connection, migration, by, pace, journal, shard.name)
        except Stopped as stopped:
            return shard.told(stopped)
        shard.done.append(Done(migration.number, migration.file, round(time.monotonic() - began, 3)))
    return shard.told()


def _sql(name: str) -> str:
    return files("pgfleet.control").joinpath(f"{name}.sql").read_text()


def check(results: Collection[ShardMigrated]) -> None:
    """:raises MigrateFailed: PostgreSQL refused a file on some shard.
    :raises MigrateInterrupted: some shard was lost, and none refused.
    """
    failed = [result for result in results if result.failure is not None]
    if not failed:
        return
    seen: list[str] = []
    # Eight shards that stumble over one typing mistake are told once.
    for text in dict.fromkeys(str(result.failure) for result in failed):
        same = [result for result in failed if str(result.failure) == text]
        seen.append(f"{', '.join(result.shard for result in same)}: {text}")
        failure = same[0].failure
        seen += [f"    {line}" for line in (failure.source, failure.detail) if line] if failure else []
    whole = [result.shard for result in results if result.failure is None]
    seen += [f"{', '.join(whole)}: every file is applied"] if whole else []
    refused = [result.failure for result in failed if result.failure and not result.failure.lost]
    message = f"migrations stopped on {len(failed)} of {len(results)} shards"
    shards = [result.to_json() for result in results]
    if refused:
        hint = next((failure.hint for failure in refused if failure.hint), "mend it, and run the same command again")
        raise MigrateFailed(message, seen=seen, hint=hint, shards=shards)
    raise MigrateInterrupted(message, seen=seen, hint="run the same command again", shards=shards)
