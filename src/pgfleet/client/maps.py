"""The map of keys as the shards mirror it: the newest that any of them has."""

from __future__ import annotations

import asyncio

import asyncpg

from pgfleet.client.router import Router
from pgfleet.client.trouble import BROKEN
from pgfleet.errors import CannotConnect
from pgfleet.names import NodeName
from pgfleet.routing.placement import Placement
from pgfleet.runtime.clock import Deadline

#: Seconds for one shard's answer.
ASK_SECONDS = 1.0


async def newest_map(router: Router) -> Placement | None:
    """The map with the highest epoch that a primary mirrors; None: none of them answered, or none has any."""
    primaries = [route.primary.name for route in router.table.shards.values() if route.primary is not None]
    answers = await asyncio.gather(*(_ask(router, node) for node in primaries))
    return max((answer for answer in answers if answer is not None), key=lambda placement: placement.epoch, default=None)


async def _ask(router: Router, node: NodeName) -> Placement | None:
    pool = router.pool(node, "read")
    try:
        connection = await pool.acquire(Deadline.after(ASK_SECONDS))
    except (CannotConnect, TimeoutError):
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
