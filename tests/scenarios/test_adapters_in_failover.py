"""A primary dies under writers that came by psycopg (in threads) and by SQLAlchemy: they go on, and lose nothing acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text
from tests.scenarios.fleet_stage import Stage, kill

import pgfleet
from pgfleet.adapters.psycopg import Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

INSERT = "insert into questions (subject, id, stem) values ('AWS', {id}, 'adapters')"


@dataclass
class Writer:
    """What one of them has to tell. ``gap``: the longest time between two acknowledgements, in seconds."""

    acknowledged: set[uuid.UUID] = field(default_factory=set)
    unknown: set[uuid.UUID] = field(default_factory=set)
    gap: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def acknowledge(self, row: uuid.UUID) -> None:
        self.acknowledged.add(row)
        now = time.monotonic()
        self.gap, self.last = max(self.gap, now - self.last), now


def by_psycopg(stage: Stage, stop: threading.Event, told: Writer) -> None:
    with Fleet(stage.folder, deadline=60) as fleet:
        while not stop.is_set():
            row = uuid.uuid4()
            try:
                with fleet.write("questions", key="AWS") as conn:
                    conn.execute(INSERT.format(id="%s"), [row])
            except pgfleet.OutcomeUnknown:
                told.unknown.add(row)
            except Exception as error:
                if getattr(error, "sqlstate", None) is None and "connection" not in str(error):
                    raise
                continue  # the node died before COMMIT was sent: nothing was done
            else:
                told.acknowledge(row)
            time.sleep(0.005)


async def by_sqlalchemy(stage: Stage, stop: threading.Event, told: Writer) -> None:
    async with pgfleet.connect(stage.folder, deadline=60) as fleet, FleetSessions(fleet) as sessions:
        while not stop.is_set():
            row = uuid.uuid4()
            try:
                async with sessions.using("questions", key="AWS", write=True) as session:
                    await session.execute(text(INSERT.format(id=":id")), {"id": row})
                    await session.commit()
            except pgfleet.OutcomeUnknown:
                told.unknown.add(row)
            except Exception as error:
                if getattr(error, "connection_invalidated", False) is False and not isinstance(error, pgfleet.PgfleetError):
                    raise
                continue
            else:
                told.acknowledge(row)
            await asyncio.sleep(0.005)


async def test_a_killed_primary_costs_moments_and_no_row(running_fleet: Stage) -> None:
    stop, threads, sessions = threading.Event(), Writer(), Writer()
    writers = asyncio.gather(
        asyncio.to_thread(by_psycopg, running_fleet, stop, threads), by_sqlalchemy(running_fleet, stop, sessions)
    )
    try:
        await asyncio.sleep(2)
        primary = (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]
        kill(primary["pid"])
        kill(primary["patroni_pid"])
        await asyncio.sleep(5)
    finally:
        stop.set()
        await writers
    await asyncio.to_thread(running_fleet.whole)
    async with pgfleet.connect(running_fleet.folder) as fleet, fleet.write("questions", key="AWS", deadline=30) as conn:
        there = {row["id"] for row in await conn.fetch("select id from questions where stem = 'adapters'")}
    for told in (threads, sessions):
        assert told.acknowledged <= there
        assert len(told.acknowledged) > 50
        assert told.gap < 15
        assert len(told.unknown) <= 1
    assert there <= threads.acknowledged | threads.unknown | sessions.acknowledged | sessions.unknown
