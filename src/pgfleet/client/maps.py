"""The map of keys as the shards mirror it: the newest that any of them has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import asyncpg

from pgfleet.client.pools import NodePool
from pgfleet.client.router import Router
from pgfleet.client.trouble import BROKEN
from pgfleet.errors import CannotConnect
from pgfleet.routing.placement import Placement
from pgfleet.runtime.clock import Deadline

#: Seconds for one shard's answer.
ASK_SECONDS = 1.0


async def newest_map(router: Router) -> Placement | None:
    """The map with the highest epoch that a primary mirrors; None: none of them answered, or none has any."""
    primaries = [route.primary.name for route in router.table.shards.values() if route.primary is not None]
    return await newest_of([router.pool(node, "read") for node in primaries])


async def newest_of(pools: Iterable[NodePool]) -> Placement | None:
    """The map with the highest epoch that whoever the ``pools`` lead to has."""
    answers = await asyncio.gather(*(_ask(pool) for pool in pools))
    return max((answer for answer in answers if answer is not None), key=lambda placement: placement.epoch, default=None)


async def _ask(pool: NodePool) -> Placement | None:
    try:
        connection = await pool.acquire(Deadline.after(ASK_SECONDS))
    except (CannotConnect, asyncpg.PostgresError, *BROKEN):
        return None
    try:
        row = await connection.own("select map from pgfleet.placement", timeout=ASK_SECONDS)
    except asyncpg.PostgresError:
        row = None  # prepared by an earlier pgfleet
    except BROKEN:
        pool.discard(connection)
        return None
    except BaseException:
        pool.discard(connection)
        raise
    pool.release(connection)
    return Placement.from_json(row["map"]) if row is not None else None
