"""Entries of lookups that a new map would not find, as it looks for a value on another shard than its entry is on.

An entry stays where it was made: what changes where that is (a lookup's shards, buckets or columns) is refused while it has any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import asyncpg

from pgfleet.errors import LookupLosesEntries, NotDrained
from pgfleet.routing.placement import Hashed, Placement
from pgfleet.runtime.sql import Connection
from pgfleet.spec.table import BUCKETS

#: A table and the name of a lookup of it.
Of = tuple[str, str]

_THERE = """
select t, l from unnest($1::text[], $2::text[]) u (t, l)
where exists (select from pgfleet.lookup e where e.table_name = u.t and e.lookup = u.l)
"""


def moved_lookups(old: Sequence[Placement], new: Placement) -> dict[Of, tuple[Hashed | None, Hashed | None]]:
    """Lookups that ``new`` has elsewhere than some of ``old``: as the newest of these has them, and as ``new`` does."""
    if not old:
        return {}
    newest = max(old, key=lambda each: each.epoch)
    every = sorted({of for each in (*old, new) for of in each.lookups})
    moved = [of for of in every if any(each.lookups.get(of) != new.lookups.get(of) for each in old)]
    return {of: (newest.lookups.get(of), new.lookups.get(of)) for of in moved}


async def entries_of(connection: asyncpg.Connection[asyncpg.Record], lookups: Iterable[Of]) -> list[Of]:
    """Those of ``lookups`` that have entries at the other end."""
    asked = list(lookups)
    if not asked or not await connection.fetchval("select to_regclass('pgfleet.lookup') is not null"):
        return []
    return [
        (row[0], row[1]) for row in await connection.fetch(_THERE, [table for table, _ in asked], [name for _, name in asked])
    ]


@asynccontextmanager
async def entries_held(
    reach: Callable[[str], AbstractAsyncContextManager[Connection]],
    held: Mapping[str, Sequence[Placement]],
    new: Placement,
    *,
    lock: float,
    whole: float,
) -> AsyncIterator[None]:
    """While a map is put in force that has lookups elsewhere, nobody makes an entry where they were: one who goes by the old map
    waits, and is refused afterwards by the shard that it writes to.

    :param held: the maps that each shard has.
    :param lock: seconds for each attempt, during which who makes entries waits. :param whole: for all of them.
    :raises LookupLosesEntries: there are entries; nothing was changed.
    :raises NotDrained: somebody made some all the time.
    """
    old = [each for maps in held.values() for each in maps]
    moved = moved_lookups(old, new)
    over = sorted({shard for each in old for of in moved if of in each.lookups for shard in each.lookups[of].over} & set(held))
    async with AsyncExitStack() as stack:
        there: dict[Of, list[str]] = {}
        # In one order everywhere, one after another: two that do this at once wait for each other, and not in a circle.
        for shard in over:
            connection = await stack.enter_async_context(reach(shard))
            await _hold(connection, shard, lock, whole)
            for of in await entries_of(connection, moved):
                there.setdefault(of, []).append(shard)
        refuse_entries(moved, there)
        yield


async def _hold(connection: Connection, shard: str, lock: float, whole: float) -> None:
    until = time.monotonic() + whole
    while True:
        # To the end of the session. What holds still is idle, on purpose.
        await connection.execute(
            f"begin; set local lock_timeout = '{lock:.3f}s'; set local idle_in_transaction_session_timeout = 0"
        )
        try:
            await connection.execute("lock table pgfleet.lookup in share mode")
            return
        except asyncpg.LockNotAvailableError as error:
            await connection.execute("rollback")
            if time.monotonic() + lock > until:
                raise NotDrained(
                    f"entries of lookups were made on {shard} for {whole:g} s, so they stay where they are", hint="pgfleet apply"
                ) from error
        await asyncio.sleep(lock)


def refuse_entries(moved: Mapping[Of, tuple[Hashed | None, Hashed | None]], there: Mapping[Of, Sequence[str]]) -> None:
    """:param there: the shards that have entries, by lookup.
    :raises LookupLosesEntries: some have.
    """
    if not there:
        return
    seen = []
    for of in sorted(there):
        (table, name), (was, now) = of, moved[of]
        seen.append(
            f"{table}: lookup {name} has entries on {', '.join(there[of])}; in force: {_said(was)}; the file: {_said(now)}"
        )
    (table, name), (was, _) = min(there), moved[min(there)]
    hint = f"delete from pgfleet.lookup where table_name = '{table}' and lookup = '{name}'"
    if was is not None:
        buckets = f", buckets: {was.buckets}" if was.buckets != BUCKETS else ""
        hint = f"lookups: {{{name}: {{columns: [{was.column}], over: [{', '.join(was.over)}]{buckets}}}}}"
    raise LookupLosesEntries("the file looks for entries of lookups elsewhere than they are", seen=seen, hint=hint)


def _said(hashed: Hashed | None) -> str:
    if hashed is None:
        return "no such lookup"
    return f"[{hashed.column}] over [{', '.join(hashed.over)}] in {hashed.buckets} buckets"
