"""Rows that a new placement would lose sight of. Asked before a changed map is recorded; a change that loses none is fine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from pgfleet.errors import CannotConnect, PlacementError, PlacementLosesRows, ShardUnasked
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import quote_identifier
from pgfleet.plan.wanted import Wanted
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

#: Opens a session of whoever may read the tables of a node, in the database that holds them.
Connect = Callable[[NodeAddress], "Awaitable[asyncpg.Connection[asyncpg.Record]]"]


async def refuse_lost_rows(connect: Connect, seen: FleetSeen, wanted: Wanted) -> None:
    """Look on every shard for keys that ``wanted`` places elsewhere than they are.

    :raises PlacementLosesRows: there are some; says which, where they are and where the file wants them.
    :raises ShardUnasked: a shard that holds a table could not be asked.
    """
    assert seen.placement is not None  # noqa: S101 - the caller looked
    old, new = Placement.from_json(seen.placement), Placement.from_json(wanted.placement)
    asked = [(table, shard) for table in (*old.tables, *old.follows) for shard in old.shards(table)]
    answers = await asyncio.gather(*(_lost(connect, seen, table, shard, old, new) for table, shard in asked))
    lost = [line for answer in answers for line in answer]
    if lost:
        raise PlacementLosesRows(
            "the file places keys elsewhere than their rows are",
            seen=lost[:20],
            hint="put the placement back as it was",
        )


async def _lost(connect: Connect, seen: FleetSeen, table: str, shard: str, old: Placement, new: Placement) -> list[str]:
    primary = _primary(seen, shard)
    if primary is None:
        raise ShardUnasked(f"{shard} has no primary that could say which keys of {table} it holds", hint="pgfleet status")
    key = quote_identifier(old.key_column(table))
    name = f"public.{quote_identifier(table)}"
    try:
        connection = await connect(primary)
        try:
            if not await connection.fetchval("select to_regclass($1) is not null", name):
                return []
            rows = await connection.fetch(_KEYS.format(key=key, table=name, most=MOST))
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, CannotConnect) as error:
        raise ShardUnasked(f"{shard} did not say which keys of {table} it holds", seen=[str(error)]) from error
    found = (_moved(table, row["key"], shard, old, new) for row in rows)
    return [line for line in found if line]


def _moved(table: str, key: str, shard: str, old: Placement, new: Placement) -> str:
    try:
        if old.second_column(table, key) is not None or new.second_column(table, key) is not None:
            same = old.shards_of_key(table, key) == new.shards_of_key(table, key)
            return "" if same else f"{table}: {key} is spread otherwise, and has rows on {shard}"
        there = new.shard(table, key).shard
    except PlacementError as error:
        return f"{table}: {key} has rows on {shard}, and no place in the file: {error.message}"
    return "" if there == shard else f"{table}: {key} has rows on {shard}, the file wants them on {there}"


def _primary(seen: FleetSeen, shard: str) -> NodeAddress | None:
    there = seen.shards.get(shard)
    name = there.topology.primary if there is not None else None
    return seen.addresses.node(name) if name is not None and seen.addresses is not None else None
