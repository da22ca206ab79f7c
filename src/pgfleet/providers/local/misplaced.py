"""Rows that a new placement would lose sight of. Asked before a changed map is recorded; a change that loses none is fine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from pgfleet.errors import ShardUnasked
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.plan.ownership import known_maps
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.local.access import connect_as
from pgfleet.providers.misplaced import misplaced, refuse, tables_that_lose
from pgfleet.routing.ownership import same_map
from pgfleet.routing.placement import Placement


async def refuse_lost_rows(folder: Path, seen: FleetSeen, wanted: Wanted) -> None:
    """Look on every shard for keys that ``wanted`` places elsewhere than they are.

    :raises PlacementLosesRows: there are some; says which, where they are and where the file wants them.
    :raises ShardUnasked: a shard that holds a table could not be asked.
    """
    new = Placement.from_json(wanted.placement)
    old = [each for each in known_maps(seen) if not same_map(each, new)]
    shards = {shard for each in old for table in (*each.tables, *each.follows) for shard in each.shards(table)}
    asked = [(shard, table) for shard in sorted(shards) for table in tables_that_lose(shard, old, new)]
    answers = await asyncio.gather(*(_lost(folder, seen, shard, table, old, new) for shard, table in asked))
    refuse(line for answer in answers for line in answer)


async def _lost(folder: Path, seen: FleetSeen, shard: str, table: str, old: Sequence[Placement], new: Placement) -> list[str]:
    primary = _primary(seen, shard)
    if primary is None or seen.addresses is None:
        raise ShardUnasked(f"{shard} has no primary that could say which keys of {table} it holds", hint="pgfleet status")
    try:
        connection = await connect_as(folder, primary, "pgfleet_owner", seen.addresses.database, timeout=30.0)
        try:
            return await misplaced(connection, shard, table, old, new)
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise ShardUnasked(f"{shard} did not say which keys of {table} it holds", seen=[str(error)]) from error


def _primary(seen: FleetSeen, shard: str) -> NodeAddress | None:
    there = seen.shards.get(shard)
    name = there.topology.primary if there is not None else None
    return seen.addresses.node(name) if name is not None and seen.addresses is not None else None
