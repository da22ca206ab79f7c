"""One migration on one shard: its statements and its record in one transaction, or, for a file without one, its record
begun before and ended after statements that can be repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import asyncpg

from pgfleet.control.journal import Journal
from pgfleet.control.pace import Pace
from pgfleet.errors import CommitUnanswered
from pgfleet.plan.migrations import Migration, needs_no_transaction
from pgfleet.plan.statements import Statement, place
from pgfleet.runtime.commit import commit
from pgfleet.runtime.sql import Connection
from pgfleet.units import format_duration

#: Somebody else held a lock, or both held one: the transaction did nothing, and may be tried again.
_TRY_AGAIN = {
    "55P03": "another transaction holds a lock it needs",
    "40P01": "deadlock",
    "40001": "serialization failure",
}

#: Seconds that a statement's answer may take beyond the server's own limit: a stopped server keeps its connections
#: open.
GRACE_SECONDS = 5.0

_BEGUN = """
    insert into pgfleet.migrations (number, name, sha256, applied_by) values ($1, $2, $3, $4)
    on conflict (number) do update
    set name = excluded.name, sha256 = excluded.sha256, applied_by = excluded.applied_by, started_at = clock_timestamp()
    where migrations.applied_at is null
    returning true
"""
_ENDED = """
    update pgfleet.migrations set applied_at = clock_timestamp(), took = extract(epoch from clock_timestamp() -
    started_at) where number = $1
"""

#: Tables that the file has made refuse what is not their shard's from the moment they can be seen. (A shard that was never
#: given a map guards nothing.)
_GUARDED = """
    do $$ begin
        if to_regprocedure('pgfleet.attach_guards()') is not null then
            perform pgfleet.attach_guards();
        end if;
    end $$
"""


class Stopped(Exception):
    """A file could not be applied to a shard.

    :param place: ``folder/file:line:column``, or the file alone where no statement is to blame.
    :param lost: the connection ended (true), or PostgreSQL said no (false).
    :param source: the line of the file that is to blame.
    """

    def __init__(
        self,
        message: str,
        *,
        place: str,
        lost: bool,
        sqlstate: str = "",
        source: str = "",
        detail: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.lost = lost
        self.sqlstate = sqlstate
        self.source = source
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f" ({self.sqlstate})" if self.sqlstate else "")

    def to_json(self) -> dict[str, object]:
        return {
            "place": self.place, "message": self.message, "sqlstate": self.sqlstate, "detail": self.detail,
            "hint": self.hint, "lost": self.lost,
        }  # fmt: skip


async def apply_file(connection: Connection, migration: Migration, by: str, pace: Pace, journal: Journal, shard: str) -> None:
    """Apply and record ``migration``; what only waits for a lock is tried again, as long as ``pace`` has patience.

    :raises Stopped: nothing of a file with a transaction was done, unless its COMMIT was never answered.
    """
    until = time.monotonic() + pace.patience_seconds
    attempt = 1
    apply = _in_transaction if migration.transaction else _without_transaction
    while True:
        try:
            async with _lost_is_told(migration):
                try:
                    await apply(connection, migration, by, pace)
                except (asyncpg.PostgresError, Stopped):
                    await _tidy(connection)
                    raise
                except BaseException:
                    connection.terminate()  # nobody knows what it is doing: it is not asked anything more
                    raise
                await _tidy(connection)
                return
        except Stopped as stopped:
            pause = pace.pause(attempt)
            if stopped.sqlstate not in _TRY_AGAIN or time.monotonic() + pause > until:
                raise
            journal.append(
                actor="migrate", what="wait", subject=f"{shard} {migration.file}", outcome="seen",
                because=f"{_TRY_AGAIN[stopped.sqlstate]} ({stopped.place}); again in {format_duration(pause)}",
            )  # fmt: skip
            await asyncio.sleep(pause)
            attempt += 1


async def _in_transaction(connection: Connection, migration: Migration, by: str, pace: Pace) -> None:
    await connection.execute("begin")
    # The record first: its primary key makes a second applier wait here, should the advisory lock ever have failed, and then see
    # that there is nothing left to do.
    if not await _begun(connection, migration, by):
        return
    for statement in migration.statements:
        await _execute(connection, migration, statement, pace)
    await connection.execute("reset role; set local statement_timeout = 0")
    await connection.execute(_GUARDED)
    await connection.execute(_ENDED, migration.number)
    await commit(connection, pace.commit_seconds)


async def _without_transaction(connection: Connection, migration: Migration, by: str, pace: Pace) -> None:
    await connection.execute("begin; set local statement_timeout = 0")
    if not await _begun(connection, migration, by):
        return
    await commit(connection, pace.commit_seconds)
    for statement in migration.statements:
        if "concurrently" in statement.tokens:
            await _drop_invalid(connection, statement)
            # It waits for transactions that are older than it, and nobody waits behind it: its limit is the
            # statement's.
            await connection.execute("set lock_timeout = 0")
        # A table and its guards in one transaction, so that nobody sees it without; what cannot be in one is guarded next.
        together = "table" in statement.tokens[:4] and not needs_no_transaction(statement)
        if together:
            await connection.execute("begin")
        await _execute(connection, migration, statement, pace)
        await connection.execute("reset lock_timeout" if together else "reset lock_timeout; begin")
        # The file's role stays for its next statement.
        await connection.execute("set local role none; set local statement_timeout = 0")
        await connection.execute(_GUARDED)
        await commit(connection, pace.commit_seconds)
    await connection.execute("reset role; begin; set local statement_timeout = 0")
    await connection.execute(_GUARDED)
    await connection.execute(_ENDED, migration.number)
    await commit(connection, pace.commit_seconds)


async def _begun(connection: Connection, migration: Migration, by: str) -> bool:
    """Record that it begins. False: somebody else has applied it meanwhile.

    :raises Stopped: what was applied under its number is another file.
    """
    if await connection.fetchval(_BEGUN, migration.number, migration.file, migration.sha256, by):
        return True
    query = "select name from pgfleet.migrations where number = $1 and sha256 <> $2"
    if (other := await connection.fetchval(query, migration.number, migration.sha256)) is not None:
        raise Stopped(
            f"somebody else has applied {other} under this number, which is another file", place=migration.path, lost=False
        )
    return False


async def _execute(connection: Connection, migration: Migration, statement: Statement, pace: Pace) -> None:
    try:
        async with asyncio.timeout(pace.statement_seconds + GRACE_SECONDS):
            await connection.execute(statement.text)
    except asyncpg.PostgresError as error:
        raise _refused(migration, statement, error) from error


def _refused(migration: Migration, statement: Statement, error: asyncpg.PostgresError) -> Stopped:
    position = getattr(error, "position", None)
    line, column = place(migration.text, statement.offset + (int(position) - 1 if position else 0))
    hint = getattr(error, "hint", None) or ""
    if error.sqlstate == "57014" and not hint:
        hint = "pgfleet migrate --statement-timeout DURATION"
    return Stopped(
        getattr(error, "message", None) or str(error),
        place=f"{migration.path}:{line}:{column}",
        lost=_ended(error),
        sqlstate=error.sqlstate or "",
        source=migration.text.split("\n")[line - 1].strip(),
        detail=getattr(error, "detail", None) or "",
        hint=hint,
    )


def _ended(error: asyncpg.PostgresError) -> bool:
    """Whether the server is going, or is no longer the primary: classes 08 and 57P (PostgreSQL docs, appendix A),
    25006."""
    return (error.sqlstate or "").startswith(("08", "57P")) or error.sqlstate == "25006"


@asynccontextmanager
async def _lost_is_told(migration: Migration) -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise Stopped(str(error), place=migration.path, lost=_ended(error), sqlstate=error.sqlstate or "") from error
    except CommitUnanswered as error:
        raise Stopped(error.message, place=migration.path, lost=True) from error
    except TimeoutError as error:
        raise Stopped("the server did not answer within the statement's limit", place=migration.path, lost=True) from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise Stopped(f"the connection ended: {error}", place=migration.path, lost=True) from error


async def _drop_invalid(connection: Connection, statement: Statement) -> None:
    tokens = [word for word in statement.tokens if word != "only"]
    if tokens[:1] != ["create"] or "on" not in tokens or "exists" not in tokens:
        return
    name = tokens[tokens.index("exists") + 1]
    table = tokens[tokens.index("on") + 1 :]
    qualified = "".join(table[:3]) if table[1:2] == ["."] else table[0]
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name
    query = files("pgfleet.control").joinpath("invalid_index.sql").read_text()
    for (drop,) in await connection.fetch(query, plain, qualified):
        await connection.execute(drop)


async def _tidy(connection: Connection) -> None:
    """Leave nothing of the file's in the session; the advisory lock, which DISCARD would drop, stays."""
    if connection.is_closed():
        return
    if connection.is_in_transaction():
        await connection.execute("rollback")
    await connection.execute("reset role; reset all")
