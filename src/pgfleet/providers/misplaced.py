"""Rows that a new map would lose sight of: those whose key it places on another shard than they are on.

Looked for before a changed map is put in force, and once more on each shard that lets go of keys, when nobody can write there;
a change that loses none is fine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import asyncpg

from pgfleet.errors import CannotConnect, PlacementError, PlacementLosesRows, ShardUnasked
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import quote_identifier
from pgfleet.plan.ownership import Held, Turn, known_maps
from pgfleet.plan.wanted import Wanted
from pgfleet.routing.ownership import ownership, same_map
from pgfleet.routing.placement import Hashed, Placement

#: The distinct keys of a table, found by jumping from one to the next in the index that begins with the key (PostgreSQL wiki,
#: "Loose indexscan"): as many steps as there are keys, however many rows.
_KEYS = """
with recursive keys as (
  (select {key} as key from {table} order by {key} limit 1)
  union all
  select (select {key} from {table} where {key} > keys.key order by {key} limit 1) from keys where keys.key is not null
)
select key::text from keys where key is not null limit {most}
"""
#: More keys than this are not listed but hashed ones, of which the first that moves is enough.
MOST = 100_000
#: For looking at one table while its writers wait.
LOOK_SECONDS = 5.0

#: Opens a session of whoever may read the tables of a node, in the database that holds them.
Connect = Callable[[NodeAddress], "Awaitable[asyncpg.Connection[asyncpg.Record]]"]


async def refuse_lost_rows(connect: Connect, seen: FleetSeen, wanted: Wanted) -> None:
    """Look on every shard for keys that ``wanted`` places elsewhere than they are.

    :raises PlacementLosesRows: there are some; says which, where they are and where the file wants them.
    :raises ShardUnasked: a shard that holds a table could not be asked.
    """
    new = Placement.from_json(wanted.placement)
    old = [each for each in known_maps(seen) if not same_map(each, new)]
    shards = {shard for each in old for table in (*each.tables, *each.follows) for shard in each.shards(table)}
    asked = [(shard, table) for shard in sorted(shards) for table in _tables_that_lose(shard, old, new)]
    answers = await asyncio.gather(*(_lost(connect, seen, shard, table, old, new) for shard, table in asked))
    _refuse(line for answer in answers for line in answer)


async def nothing_is_left(connection: asyncpg.Connection[asyncpg.Record], held: Held, turn: Turn) -> None:
    """Look once more, now that nobody can write: rows may have come since it was planned to give their keys away.

    :raises PlacementLosesRows: there are some.
    :raises asyncpg.PostgresError: looking took longer than writers should wait.
    """
    await connection.execute(f"set local statement_timeout = '{LOOK_SECONDS:g}s'")
    new = turn.maps[-1]
    for table in _tables_that_lose(turn.shard, held.maps, new):
        _refuse(await _misplaced(connection, turn.shard, table, held.maps, new))


async def _lost(connect: Connect, seen: FleetSeen, shard: str, table: str, old: Sequence[Placement], new: Placement) -> list[str]:
    primary = _primary(seen, shard)
    if primary is None:
        raise ShardUnasked(f"{shard} has no primary that could say which keys of {table} it holds", hint="pgfleet status")
    try:
        connection = await connect(primary)
        try:
            return await _misplaced(connection, shard, table, old, new)
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, CannotConnect) as error:
        raise ShardUnasked(f"{shard} did not say which keys of {table} it holds", seen=[str(error)]) from error


async def _misplaced(
    connection: asyncpg.Connection[asyncpg.Record], shard: str, table: str, old: Sequence[Placement], new: Placement
) -> list[str]:
    """A line for each key that has rows of ``table`` on ``shard`` and that ``new`` places elsewhere.

    :param old: the maps by which rows may have come there.
    :raises asyncpg.PostgresError: the shard could not say it.
    """
    old = [each for each in old if table in each.tables or table in each.follows]
    key = quote_identifier(old[-1].key_column(table))
    name = f"public.{quote_identifier(table)}"
    if not await connection.fetchval("select to_regclass($1) is not null", name):
        return []
    rows = await connection.fetch(_KEYS.format(key=key, table=name, most=MOST))
    found = (_moved(table, row["key"], shard, old, new) for row in rows)
    return [line for line in found if line]


def _tables_that_lose(shard: str, old: Sequence[Placement], new: Placement) -> tuple[str, ...]:
    """Tables of which ``shard`` may have rows by one of ``old``, and no longer by ``new``."""
    after = ownership(new, shard)
    found: dict[str, None] = {}
    for each in old:
        for table, owned in ownership(each, shard).items():
            if table not in after or not owned.within(after[table]):
                found[table] = None
    return tuple(found)


def _refuse(lost: Iterable[str]) -> None:
    """:raises PlacementLosesRows: ``lost`` names some."""
    seen = list(lost)
    if seen:
        raise PlacementLosesRows(
            "the file places keys elsewhere than their rows are", seen=seen[:20], hint="put the placement back as it was"
        )


def _moved(table: str, key: str, shard: str, old: Sequence[Placement], new: Placement) -> str:
    try:
        if any(each.second_column(table, key) is not None for each in (*old, new)):
            same = all(_spread(each, table, key) == _spread(new, table, key) for each in old)
            return "" if same else f"{table}: {key} is spread otherwise, and has rows on {shard}"
        there = new.shard(table, key).shard
    except PlacementError as error:
        return f"{table}: {key} has rows on {shard}, and no place in the file: {error.message}"
    return "" if there == shard else f"{table}: {key} has rows on {shard}, the file wants them on {there}"


def _spread(placement: Placement, table: str, key: str) -> Hashed | None:
    return placement.tables[placement.follows.get(table, table)].spread.get(key)


def _primary(seen: FleetSeen, shard: str) -> NodeAddress | None:
    there = seen.shards.get(shard)
    name = there.topology.primary if there is not None else None
    return seen.addresses.node(name) if name is not None and seen.addresses is not None else None
