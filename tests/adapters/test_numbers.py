"""Numbers that a caller gives: connections, by default what the file's arithmetic counts, and seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from sqlalchemy import text
from tests.adapters.stage import Bank, bank

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet, Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(0) as made:
        yield made


@pytest.mark.parametrize(("pool_size", "size", "fits"), [(4, None, 2), (1, None, 1), (4, 3, 3)])
async def test_half_of_the_fleets_own_for_each_kind(servers: Bank, pool_size: int, size: int | None, fits: int) -> None:
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(pgfleet.connect(servers.folder, pool_size=pool_size))
        people = await stack.enter_async_context(AsyncFleet(fleet, size=size))
        for _ in range(fits):
            await stack.enter_async_context(people.write("questions", key="PMP"))
        with pytest.raises(pgfleet.DeadlineExceeded, match="did not answer") as caught:
            await stack.enter_async_context(people.write("questions", key="PMP", deadline=0.3))
        assert f"of {fits}" in caught.value.seen[0]

        sessions = await stack.enter_async_context(FleetSessions(fleet, size=size))
        for _ in range(fits):
            session = await stack.enter_async_context(sessions.using("questions", key="PMP", write=True))
            await session.execute(text("select 1"))
        more = await stack.enter_async_context(sessions.using("questions", key="PMP", write=True, deadline=0.3))
        with pytest.raises(pgfleet.DeadlineExceeded):
            await more.execute(text("select 1"))


def test_in_threads(servers: Bank) -> None:
    with Fleet(servers.folder, pool_size=3) as fleet, ExitStack() as stack:
        stack.enter_context(fleet.write("questions", key="PMP"))
        with pytest.raises(pgfleet.DeadlineExceeded):
            stack.enter_context(fleet.write("questions", key="PMP", deadline=0.3))


@pytest.mark.parametrize("seconds", ["3", "3 s", float("nan"), True, None])
async def test_a_deadline_that_means_nothing_is_refused(servers: Bank, seconds: float) -> None:
    with pytest.raises(ValueError, match="deadline is "):
        pgfleet.connect(servers.folder, deadline=seconds)
    if seconds is None:
        return  # what the fleet was opened with
    async with pgfleet.connect(servers.folder) as fleet:
        with pytest.raises(ValueError, match="deadline is "):
            await fleet.fetch("questions", "select 1", key="PMP", deadline=seconds)
        with pytest.raises(ValueError, match="deadline is "):
            fleet.write("questions", key="PMP", deadline=seconds)
        with pytest.raises(ValueError, match="deadline is "):
            await fleet.everywhere("questions", "select 1", deadline=seconds)
        async with AsyncFleet(fleet) as people:
            with pytest.raises(ValueError, match="deadline is "):
                await people.write("questions", key="PMP", deadline=seconds).__aenter__()


async def test_one_that_has_passed_is_exceeded(servers: Bank) -> None:
    async with pgfleet.connect(servers.folder) as fleet:
        for seconds in (0, -1, -0.5):
            with pytest.raises(pgfleet.DeadlineExceeded):
                await fleet.fetch("questions", "select 1", key="PMP", deadline=seconds)
        assert await fleet.fetchval("questions", "select 1", key="PMP", deadline=float("inf")) == 1


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "3"])
async def test_a_size_that_means_nothing_is_refused(servers: Bank, size: int) -> None:
    with pytest.raises(ValueError, match="pool_size is "):
        pgfleet.connect(servers.folder, pool_size=size)
    async with pgfleet.connect(servers.folder) as fleet:
        with pytest.raises(ValueError, match="size is "):
            await AsyncFleet(fleet, size=size).__aenter__()
        with pytest.raises(ValueError, match="size is "):
            await FleetSessions(fleet, size=size).__aenter__()
    with pytest.raises(ValueError, match="size is "):
        await asyncio.to_thread(Fleet(servers.folder, size=size).__enter__)
