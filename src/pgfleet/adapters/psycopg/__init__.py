"""psycopg 3 by route: a near replica to read, the primary to write, asynchronously or in threads.

async with pgfleet.connect("fleet.yaml") as fleet, AsyncFleet(fleet) as people:
    async with people.read("questions", key="PMP") as conn:
        rows = await (await conn.execute("select ...")).fetchall()

with Fleet("fleet.yaml") as fleet, fleet.write("questions", key="PMP") as conn:
    conn.execute("insert ...")
"""

from __future__ import annotations

from pgfleet.adapters.psycopg.asynchronous import AsyncFleet
from pgfleet.adapters.psycopg.connection import AsyncConnection, Connection
from pgfleet.adapters.psycopg.synchronous import Fleet

__all__ = ["AsyncConnection", "AsyncFleet", "Connection", "Fleet"]
