"""A user's program with a mistake on every line that says so. Both type checkers must find each, and nothing else."""

from __future__ import annotations

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet, Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions


async def main(fleet: pgfleet.Fleet, people: AsyncFleet, sessions: FleetSessions) -> None:
    await fleet.fetch("questions", "select 1")  # mistake: no key
    await fleet.execute("questions", "select 1", key=None)  # mistake: NULL is no key
    await fleet.execute("questions", "select 1", key=1.5)  # mistake: nor is a float
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
    fleet.route("questions", key="PMP", write="yes")  # mistake: a bool
