"""Changing what shards own: one transaction a shard and turn, in the order that plan/ownership.py gives.

Providers differ in how a shard's primary is reached and in what they tell afterwards (etcd, a folder); what is done there is
the same. Every deed looks first, so a run that was stopped anywhere is repeated whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from pgfleet.errors import NotDrained, NotGuarded, PgfleetError, PlacementSuperseded, ShardUnasked
from pgfleet.facts.fleet import PlacementSeen
from pgfleet.plan.ownership import Held, Turn, after, rekeyed, release, settle, superseded
from pgfleet.providers.entries import entries_held
from pgfleet.render.ownership import functions, placed_rows, turn_function
from pgfleet.routing.ownership import ownership
from pgfleet.routing.placement import Placement
from pgfleet.runtime.commit import commit
from pgfleet.runtime.sql import Connection

T = TypeVar("T")

#: A session on a shard's primary, as the owner of the schema ``pgfleet``.
Reach = Callable[[str], AbstractAsyncContextManager[Connection]]
#: Asked with the shard held still, before it lets go of keys: raises where rows are left that nobody would find any more.
Vacated = Callable[[Connection, Held, Turn], Awaitable[None]]

#: Every guarded statement holds it shared, to the end of its transaction.
LOCK = "select pg_advisory_xact_lock(1885824512, 1)"

#: Somebody else held a lock: nothing was done, and may be tried again.
_TRY_AGAIN = ("55P03", "40P01")


@dataclass(frozen=True, slots=True)
class Patience:
    """All in seconds.

    :param lock: for a lock at a time. Whoever wants to write waits as long, and below a second no deadlock is looked for.
    :param pause: after an attempt, for those who waited.
    :param whole: for all attempts of one turn or table.
    :param statement: for any one statement, and for COMMIT's answer.
    """

    lock: float = 0.5
    pause: float = 0.5
    whole: float = 30.0
    statement: float = 30.0


PATIENCE = Patience()


async def change_map(
    reach: Reach,
    shards: Iterable[str],
    placement: Placement,
    *,
    vacated: Vacated | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Put ``placement`` in force on ``shards``, which are all that there are, and attach the guards of their tables.

    :raises PlacementSuperseded: a shard has a newer map; nothing was changed.
    :raises LookupLosesEntries: entries of a lookup are where ``placement`` does not look for them; nothing was changed.
    :raises NotDrained: a shard's writers did not end; what was done so far stays, and the next run goes on.
    :raises NotGuarded: a table cannot be guarded; the map is in force.
    """
    names = sorted(shards)
    found = await _all(_looked(reach, name) for name in names)
    refused = [f"{name} {why}" for name, held in zip(names, found, strict=True) if (why := superseded(held, placement))]
    if refused:
        raise PlacementSuperseded("the map of keys was changed by somebody else", seen=refused, hint="pgfleet plan")
    held = dict(zip(names, found, strict=True))
    maps = {name: there.maps for name, there in held.items() if there is not None}
    async with entries_held(reach, maps, placement, lock=patience.lock, whole=patience.whole):
        await _change(reach, held, placement, vacated, patience)


async def _change(
    reach: Reach, held: dict[str, Held | None], placement: Placement, vacated: Vacated | None, patience: Patience
) -> None:
    names = sorted(held)
    # Guards have to tell every column that will decide before it does.
    await _all(_widen(reach, name, held[name], placement, patience) for name in names)
    released = [turn for name in names if (turn := release(held[name], placement, name)) is not None]
    await _all(_take(reach, turn, held[turn.shard], vacated, patience) for turn in released)
    held |= {turn.shard: after(turn) for turn in released}
    # Guards that ask about another column than rows are placed by are worse than none: before anything is owned by it.
    if others := frozenset[str]().union(*(rekeyed(each, placement) for each in held.values())):
        await _all(_attach_on(reach, name, patience, others) for name in names)
    settled = [turn for name in names if (turn := settle(held[name], placement, name)) is not None]
    await _all(_take(reach, turn, held[turn.shard], None, patience) for turn in settled)
    await attach_guards(reach, names, patience)


async def attach_guards(reach: Reach, shards: Iterable[str], patience: Patience = PATIENCE) -> None:
    """Attach the guards of every placed table that has none, or has others, on ``shards``.

    :raises NotGuarded: they could not be.
    """
    await _all(_attach_on(reach, shard, patience) for shard in shards)


async def look(connection: Connection) -> Held | None:
    """What the shard has in force; None: it never had a map.

    :raises ValueError: a map that this pgfleet cannot read.
    """
    row = await connection.fetchrow("select since, map, narrowed, functions from pgfleet.placement")
    if row is None:
        return None
    maps = tuple(Placement.from_json(text) for text in (*row["narrowed"], row["map"]))
    return Held(maps, row["since"], row["functions"])


async def seen_placement(connection: asyncpg.Connection[asyncpg.Record]) -> PlacementSeen:
    """The same, and what is not guarded, as it is compared with what is wanted; for whoever may read it."""
    row = await connection.fetchrow(
        "select map, narrowed, functions, array(select pgfleet.unguarded()) as unguarded from pgfleet.placement"
    )
    if row is None:
        return PlacementSeen()
    return PlacementSeen((*row["narrowed"], row["map"]), row["functions"], tuple(row["unguarded"]))


async def _looked(reach: Reach, shard: str) -> Held | None:
    async with _told(reach, shard) as connection:
        return await look(connection)


async def _take(reach: Reach, turn: Turn, held: Held | None, vacated: Vacated | None, patience: Patience) -> None:
    """Perform ``turn``, once nobody writes.

    :raises NotDrained: somebody did all the time.
    """
    async with _told(reach, turn.shard) as connection:
        until = time.monotonic() + patience.whole
        while True:
            try:
                await _transaction(connection, turn, held, vacated, patience)
                return
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _TRY_AGAIN:
                    raise
                holders = await connection.fetch(_HOLDERS)
                if time.monotonic() + patience.pause > until:
                    raise NotDrained(
                        f"writers of {turn.shard} did not end in {patience.whole:g} s, so it owns what it did",
                        seen=[f"session {pid} of {role} ({name})" for pid, role, name in holders], hint="pgfleet apply",
                    ) from error  # fmt: skip
            await asyncio.sleep(patience.pause)


async def _transaction(
    connection: Connection, turn: Turn, held: Held | None, vacated: Vacated | None, patience: Patience
) -> None:
    async with asyncio.timeout(patience.whole + 2 * patience.statement), _Rollback(connection):
        await connection.execute(f"begin isolation level read committed; set local lock_timeout = '{patience.lock:.3f}s'")
        if turn.exclusive:
            await connection.execute(LOCK)
        await connection.execute("lock table pgfleet.placement in share row exclusive mode")
        now = await look(connection)
        if now != held:
            raise PlacementSuperseded(f"what {turn.shard} owns was changed by somebody else", hint="pgfleet plan")
        if turn.loses and vacated is not None and held is not None:
            await vacated(connection, held, turn)
        if held is None or turn.functions != held.functions:
            await _put(connection, turn)
        if turn.exclusive:
            await _turn(connection, turn)
        await connection.execute(
            """insert into pgfleet.placement (epoch, since, map, narrowed, functions) values ($1, $2, $3, $4, $5)
               on conflict (only_row) do update
               set epoch = $1, since = $2, map = $3, narrowed = $4, functions = $5, at = now()""",
            turn.maps[-1].epoch, turn.since, turn.maps[-1].to_json(), [each.to_json() for each in turn.maps[:-1]],
            turn.functions,
        )  # fmt: skip
        await connection.execute("set local statement_timeout = 0")
        await commit(connection, patience.statement)


async def _put(connection: Connection, turn: Turn) -> None:
    owned = turn.ownerships()
    await connection.execute(functions(owned))
    await connection.execute("delete from pgfleet.placed")
    insert = "insert into pgfleet.placed (relation, key, seconds, owns) values ($1, $2, $3, $4)"
    await connection.executemany(insert, placed_rows(owned))


async def _turn(connection: Connection, turn: Turn) -> None:
    """Let guards know that statements which began before see less than they should."""
    number = await connection.fetchval(
        """insert into pgfleet.gate (since, turn) values ($1, 1)
           on conflict (only_row) do update set since = $1, turn = gate.turn + 1 returning turn""",
        turn.since,
    )
    await connection.execute(turn_function(number))


async def _widen(reach: Reach, shard: str, held: Held | None, placement: Placement, patience: Patience) -> None:
    if held is None or held.newest == placement:
        return
    new = ownership(placement, shard)
    wider = [(table, list(owned.seconds)) for table, owned in new.items() if owned.seconds]
    async with _told(reach, shard) as connection:
        changed = False
        for table, seconds in wider:
            status = await connection.execute(
                """update pgfleet.placed p
                   set seconds = array(select unnest(p.seconds) union select unnest($2::text[]) order by 1)
                   where relation = $1 and not p.seconds @> $2::text[]""",
                table, seconds,
            )  # fmt: skip
            changed |= status != "UPDATE 0"
        if changed:
            await _attach(connection, shard, patience)


async def _attach_on(reach: Reach, shard: str, patience: Patience, only: Collection[str] | None = None) -> None:
    async with _told(reach, shard) as connection:
        await _attach(connection, shard, patience, only)


async def _attach(connection: Connection, shard: str, patience: Patience, only: Collection[str] | None = None) -> None:
    """A transaction a table: no lock is held while another is waited for. ``only``: of these tables; None: of all."""
    until = time.monotonic() + patience.whole
    unguarded = [row[0] for row in await connection.fetch("select pgfleet.unguarded()")]
    for table in unguarded if only is None else [each for each in unguarded if each in only]:
        while True:
            try:
                async with asyncio.timeout(patience.whole + 2 * patience.statement), _Rollback(connection):
                    await connection.execute(f"begin; set local lock_timeout = '{patience.lock:.3f}s'")
                    await connection.execute("select pgfleet.attach_guard($1)", table)
                    await connection.execute("set local statement_timeout = 0")
                    await commit(connection, patience.statement)
                break
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _TRY_AGAIN or time.monotonic() + patience.pause > until:
                    raise NotGuarded(f"{table} of {shard} cannot be guarded", seen=[str(error)], hint="pgfleet apply") from error
            await asyncio.sleep(patience.pause)


@asynccontextmanager
async def _told(reach: Reach, shard: str) -> AsyncIterator[Connection]:
    """:raises ShardUnasked: whatever went wrong on the way to ``shard``, or there, that is no error of ours."""
    try:
        async with reach(shard) as connection:
            yield connection
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = str(error) or type(error).__name__
        raise ShardUnasked(f"{shard} did not take its map of keys", seen=[said], hint="pgfleet status") from error


class _Rollback:
    """Ends a transaction that failed; one whose connection is gone has ended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._connection.is_closed():
            return
        if issubclass(kind, Exception):
            await self._connection.execute("rollback")
        else:
            self._connection.terminate()


_HOLDERS = """
select l.pid, a.usename, a.application_name
from pg_locks l left join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.classid = 1885824512 and l.objid = 1 and l.granted
order by l.pid
"""


async def _all(deeds: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Side by side, each to its end: an error of one cuts no other off in the middle of its COMMIT.

    :raises BaseException: the first error of ours, else the first.
    """
    results = await asyncio.gather(*deeds, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, PgfleetError)), errors[0])
    return [result for result in results if not isinstance(result, BaseException)]
