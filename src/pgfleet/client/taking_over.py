"""Making a session that was opened for other work one of ours, in a round trip.

A new connection is several, a process of the server's, and work for both sides; and whoever has just been promoted is asked
for one by everybody at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import asyncpg

from pgfleet.client.trouble import BROKEN
from pgfleet.names import quote_literal
from pgfleet.runtime.sql import Connection


async def take_over(connection: Connection, settings: Mapping[str, str], seconds: float) -> bool:
    """Tell its session ``settings``; false: it has ended, or it does not take them. Nothing is known of it then, or when this is
    cancelled."""
    told = ", ".join(f"set_config({quote_literal(name)}, {quote_literal(value)}, false)" for name, value in settings.items())
    try:
        async with asyncio.timeout(seconds):
            await connection.control(f"select {told}")
    except (asyncpg.PostgresError, *BROKEN):
        return False
    connection.taken_over = True
    return True
