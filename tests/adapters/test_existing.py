"""The adapters on PostgreSQL that pgfleet did not start, and a promotion made by hand between two blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.engines.desk import make_desk
from tests.engines.outside import Outside, dsn, outside, promote

import pgfleet
from pgfleet.adapters.psycopg import Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = b"insert into questions values (%s, 'PMP', 'Why?')"
COUNT = "select count(*) from questions"


@pytest.fixture
def pair() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.mark.parametrize("more", ["", "?sslmode=verify-full&sslrootcert={authority}", "?sslmode=require"])
async def test_they_find_the_new_primary(pair: Outside, tmp_path: Path, more: str) -> None:
    desk = make_desk(pair, tmp_path)
    more = more.format(authority=pair.authority)
    desk.environment["MAIN_DSN"] = dsn(pair.primary, desk.database, more=more)
    desk.environment["REPLICA_DSN"] = dsn(pair.replica, desk.database, more=more)
    await asyncio.to_thread(desk.said, "apply")
    await asyncio.to_thread(desk.said, "migrate", str(desk.place / "schema"))
    where, state = desk.place / "fleet.yaml", str(desk.place / "state")
    async with pgfleet.connect(where, state=state, region="near", deadline=20.0) as fleet, FleetSessions(fleet) as sessions:
        with Fleet(where, state=state, region="near", deadline=20.0) as threads:
            with threads.write("questions", key="PMP") as conn:
                conn.execute(INSERT, [1])
                row = conn.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
                assert row == (bool(more),)
            async with sessions.using("questions", key="PMP", write=True) as session:
                await session.execute(text("insert into questions values (2, 'PMP', 'Why?')"))
                await session.commit()
                assert await session.using("questions", key="PMP").scalar(text(COUNT)) == 2
            pair.caught_up()
            pair.primary.stop()
            await asyncio.to_thread(promote, pair.replica)
            with threads.write("questions", key="PMP") as conn:
                conn.execute(INSERT, [3])
            async with sessions.using("questions", key="PMP", write=True) as session:
                assert await session.scalar(text(COUNT)) == 3
