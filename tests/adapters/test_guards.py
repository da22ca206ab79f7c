"""The shards' own guards, met through the adapters: a key that moved, and a key that is not the row's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from tests.adapters.stage import Bank, bank

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet, Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions
from pgfleet.errors import NotOwned, PlacementMoved
from pgfleet.providers.ownership import change_map
from pgfleet.routing.placement import Placement, TablePlacement
from pgfleet.runtime.sql import Login, connect

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = "insert into questions (subject, stem) values ('{}', 'guarded')"


async def put(servers: Bank, placement: Placement) -> None:
    """Make it the map of every shard."""

    @asynccontextmanager
    async def reach(shard: str) -> AsyncIterator[Any]:
        server = servers.inner.shards[shard].servers["us-east"]
        owner = Login("pgfleet_owner", "app", "pgfleet_owner")
        connection = await connect("127.0.0.1", server.port, owner, settings={}, seconds=10.0)
        try:
            yield connection
        finally:
            connection.terminate()

    await change_map(reach, servers.inner.shards, placement)


def moved(placement: Placement) -> Placement:
    """With PMP on the other shard."""
    rule = placement.tables["questions"]
    other = {"stem": "arts", "arts": "stem"}[rule.listed["PMP"]]
    listed = TablePlacement(rule.key, {**rule.listed, "PMP": other}, {}, None)
    return replace(placement, tables={"questions": listed}, epoch=placement.epoch + 1)


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(0, arts=True) as made:
        yield made


@contextmanager
def threads(servers: Bank) -> Iterator[Fleet]:
    with Fleet(servers.folder) as fleet:
        yield fleet


async def test_a_key_that_is_not_the_rows_is_refused(servers: Bank) -> None:
    await put(servers, servers.inner.placement)
    async with (
        pgfleet.connect(servers.folder) as fleet, AsyncFleet(fleet) as people, FleetSessions(fleet) as sessions,
    ):  # fmt: skip
        with pytest.raises(NotOwned):
            async with people.write("questions", key="PMP") as conn:
                await conn.execute(INSERT.format("Art").encode())
        with pytest.raises(NotOwned):
            async with sessions.using("questions", key="PMP", write=True) as session:
                await session.execute(text(INSERT.format("Art")))
        async with people.write("questions", key="PMP") as conn:
            await conn.execute(INSERT.format("PMP").encode())


async def test_a_block_is_told_that_its_key_moved_and_the_next_one_finds_it(servers: Bank) -> None:
    await put(servers, servers.inner.placement)
    async with (
        pgfleet.connect(servers.folder) as fleet, AsyncFleet(fleet) as people, FleetSessions(fleet) as sessions,
    ):  # fmt: skip
        with threads(servers) as here:
            before = people, sessions, here
            await write_by(*before)
            servers.inner.placement = moved(servers.inner.placement)
            await put(servers, servers.inner.placement)
            with pytest.raises(PlacementMoved):
                async with people.write("questions", key="PMP") as conn:
                    await conn.execute("delete from questions where stem = 'of which there is none'")
            with pytest.raises(PlacementMoved), here.write("questions", key="PMP") as lent:
                lent.execute(INSERT.format("PMP").encode())
            await write_by(*before)
            servers.inner.placement = moved(servers.inner.placement)
            await put(servers, servers.inner.placement)
            with pytest.raises(PlacementMoved):
                async with sessions.using("questions", key="PMP", write=True) as session:
                    await session.execute(text(INSERT.format("PMP")))
            await write_by(people, sessions, None)


async def write_by(people: AsyncFleet, sessions: FleetSessions, here: Fleet | None) -> None:
    async with people.write("questions", key="PMP") as conn:
        await conn.execute(INSERT.format("PMP").encode())
    async with sessions.using("questions", key="PMP", write=True) as session:
        await session.execute(text(INSERT.format("PMP")))
        await session.commit()
    if here is not None:
        with here.write("questions", key="PMP") as lent:
            lent.execute(INSERT.format("PMP").encode())
