"""A user's program with a mistake on every line that says so. Both type checkers must find each, and nothing else."""

from __future__ import annotations

import asyncpg

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet, Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions


async def both(conn: asyncpg.Connection[asyncpg.Record], first: int, second: int) -> None: ...


async def main(fleet: pgfleet.Fleet, people: AsyncFleet, sessions: FleetSessions) -> None:
    await fleet.fetch("questions", "select 1")  # mistake: no key
    await fleet.execute("questions", "select 1", key=None)  # mistake: NULL is no key
    await fleet.execute("questions", "select 1", key=1.5)  # mistake: nor is a float
    await fleet.fetchval("questions", "select 1", key="PMP", dedline=1)  # mistake: no such word
    await fleet.transact("questions", both, 1, key="PMP")  # mistake: one argument is missing
    await fleet.transact("questions", both, 1, "x", key="PMP")  # mistake: a number
    await fleet.transact("questions", both, 1, 2, key="PMP")
    fleet.fetch("questions", "select 1", key="PMP").upper()  # mistake: not awaited
    with fleet.read("questions", key="PMP"):  # mistake: async with
        pass
    fleet.route("questions", key="PMP").host = "elsewhere"  # mistake: a value
    async with people.read("questions", key="PMP", deadline="2 s"):  # mistake: seconds
        pass
    sessions.using("questions", write=True)  # mistake: no key
    with people.write("questions", key="PMP"):  # mistake: async with
        pass


def threads(fleet: Fleet) -> None:
    Fleet("fleet.yaml", regions="us-west")  # mistake: no such word
    fleet.route("questions", key="PMP", write="yes")  # mistake: a bool
    fleet.route("questions", key="PMP").connect_kwargs(users="app")  # mistake: no such word
