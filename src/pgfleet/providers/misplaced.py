"""Rows that a new map would lose sight of: those whose key it places on another shard than they are on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg

from pgfleet.errors import PlacementError, PlacementLosesRows
from pgfleet.names import quote_identifier
from pgfleet.plan.ownership import Held, Turn
from pgfleet.routing.ownership import ownership
from pgfleet.routing.placement import Placement

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


async def misplaced(
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


def tables_that_lose(shard: str, old: Sequence[Placement], new: Placement) -> tuple[str, ...]:
    """Tables of which ``shard`` may have rows by one of ``old``, and no longer by ``new``."""
    after = ownership(new, shard)
    found: dict[str, None] = {}
    for each in old:
        for table, owned in ownership(each, shard).items():
            if table not in after or not owned.within(after[table]):
                found[table] = None
    return tuple(found)


def refuse(lost: Iterable[str]) -> None:
    """:raises PlacementLosesRows: ``lost`` names some."""
    seen = list(lost)
    if seen:
        raise PlacementLosesRows(
            "the file places keys elsewhere than their rows are", seen=seen[:20], hint="put the placement back as it was"
        )


async def nothing_is_left(connection: asyncpg.Connection[asyncpg.Record], held: Held, turn: Turn) -> None:
    """Look once more, now that nobody can write: rows may have come since it was planned to give their keys away.

    :raises PlacementLosesRows: there are some.
    :raises asyncpg.PostgresError: looking took longer than writers should wait.
    """
    await connection.execute(f"set local statement_timeout = '{LOOK_SECONDS:g}s'")
    new = turn.maps[-1]
    for table in tables_that_lose(turn.shard, held.maps, new):
        refuse(await misplaced(connection, turn.shard, table, held.maps, new))


def _moved(table: str, key: str, shard: str, old: Sequence[Placement], new: Placement) -> str:
    try:
        if any(each.second_column(table, key) is not None for each in (*old, new)):
            same = all(each.shards_of_key(table, key) == new.shards_of_key(table, key) for each in old)
            return "" if same else f"{table}: {key} is spread otherwise, and has rows on {shard}"
        there = new.shard(table, key).shard
    except PlacementError as error:
        return f"{table}: {key} has rows on {shard}, and no place in the file: {error.message}"
    return "" if there == shard else f"{table}: {key} has rows on {shard}, the file wants them on {there}"
