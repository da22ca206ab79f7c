"""Writes: done once, or not at all, or said to be unknown; and what became of an unknown one is decided by its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.errors import DeadlineExceeded, NotResolvable, OutcomeUnknown
from pgfleet.runtime.sql import Connection

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

INSERT = "insert into questions (subject, id) values ($1, $2)"


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east", "us-west")) as made:
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client() as opened:
        yield opened


@pytest.fixture
async def owner(stage: Replicated) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await stage.connect("one", role="postgres")
    yield connection
    await connection.close()


async def test_a_function_runs_again_after_a_serialization_failure(fleet: Fleet) -> None:
    runs = 0

    async def both(connection: asyncpg.Connection[Any], name: str) -> int:
        nonlocal runs
        runs += 1
        count = await connection.fetchval("select count(*) from questions where subject = 'one-b'")
        await asyncio.sleep(0.05)
        await connection.execute("insert into questions (subject, stem) values ('one-b', $1)", f"{name} {count}")
        return int(count)

    counts = await asyncio.gather(
        *(fleet.transact("questions", both, n, key="one-b", isolation="serializable", deadline=20) for n in "abc")
    )
    assert sorted(counts) == [0, 1, 2], "as if one after the other"
    assert runs > 3


async def test_deadlocks_are_retried(fleet: Fleet) -> None:
    ids = [uuid4(), uuid4()]
    for row in ids:
        await fleet.execute("questions", INSERT, "one-a", row, key="one-a")
    met = asyncio.Barrier(2)
    firsts = 0

    async def update(connection: asyncpg.Connection[Any], first: Any, second: Any) -> None:
        nonlocal firsts
        await connection.execute("update questions set stem = stem || 'x' where subject = 'one-a' and id = $1", first)
        firsts += 1
        if firsts <= 2:
            await met.wait()
        await connection.execute("update questions set stem = stem || 'x' where subject = 'one-a' and id = $1", second)

    await asyncio.gather(
        fleet.transact("questions", update, ids[0], ids[1], key="one-a", deadline=20),
        fleet.transact("questions", update, ids[1], ids[0], key="one-a", deadline=20),
    )
    rows = await fleet.fetch("questions", "select stem from questions where id = any($1)", ids, key="one-a", max_staleness=0)
    assert [row["stem"] for row in rows] == ["xx", "xx"]


async def test_the_functions_own_error_is_the_callers(fleet: Fleet) -> None:
    async def fails(connection: asyncpg.Connection[Any]) -> None:
        await connection.execute(INSERT, "one-a", uuid4())
        raise OSError("no such file")

    before = await count(fleet)
    with pytest.raises(OSError, match="no such file"):
        await fleet.transact("questions", fails, key="one-a")
    assert await count(fleet) == before


async def test_a_savepoint_inside_a_block_takes_back_its_part(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    kept, taken_back, later = uuid4(), uuid4(), uuid4()
    async with fleet.write("questions", key="one-a") as connection:
        await connection.execute(INSERT, "one-a", kept)
        with pytest.raises(asyncpg.UniqueViolationError):  # noqa: PT012 - a savepoint is what is tested
            async with connection.transaction():
                await connection.execute(INSERT, "one-a", taken_back)
                await connection.execute(INSERT, "one-a", kept)
    async with fleet.write("questions", key="one-a", session=True) as connection, connection.transaction():
        await connection.execute(INSERT, "one-a", later)
    rows = await owner.fetch("select id from questions where id = any($1)", [kept, taken_back, later])
    assert {row["id"] for row in rows} == {kept, later}


async def count(fleet: Fleet) -> int:
    async with fleet.write("questions", key="one-a") as connection:
        return int(await connection.fetchval("select count(*) from questions where subject = 'one-a'"))


async def test_a_commit_whose_wait_was_cancelled_is_unknown_and_resolved(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    await owner.execute("alter system set synchronous_standby_names = 'nobody'")
    await owner.execute("select pg_reload_conf()")
    row = uuid4()
    try:
        await asyncio.sleep(0.3)
        task = asyncio.create_task(_insert(fleet, row))
        pid = None
        async with asyncio.timeout(10):
            while pid is None:
                pid = await owner.fetchval("select pid from pg_stat_activity where wait_event = 'SyncRep' and query = 'commit'")
                await asyncio.sleep(0.02)
        await owner.execute("select pg_cancel_backend($1)", pid)
        with pytest.raises(OutcomeUnknown) as caught:
            await task
        with pytest.raises(DeadlineExceeded):
            await caught.value.resolve(deadline=1.0)  # its own answer is on no replica either
    finally:
        await owner.execute("alter system reset synchronous_standby_names")
        await owner.execute("select pg_reload_conf()")
    assert await caught.value.resolve(deadline=10) == "committed"
    assert await owner.fetchval("select true from questions where id = $1", row)


async def _insert(fleet: Fleet, row: object) -> None:
    async with fleet.write("questions", key="one-a", resolvable=True, deadline=30) as connection:
        await connection.execute(INSERT, "one-a", row)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_that_was_never_answered(fleet: Fleet, owner: asyncpg.Connection[Any], moment: str) -> None:
    """The backend is ended while it waits for the replicas: before its commit record it has done nothing, after it all."""
    row = uuid4()
    if moment == "before":

        async def lost_before(connection: asyncpg.Connection[Any]) -> None:
            await connection.execute(INSERT, "one-a", row)
            await owner.execute("select pg_terminate_backend($1)", connection.get_server_pid())
            await asyncio.sleep(0.1)

        with pytest.raises((OutcomeUnknown, asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
            async with fleet.write("questions", key="one-a", resolvable=True) as connection:
                await lost_before(connection)
        if isinstance(caught.value, OutcomeUnknown):
            assert await caught.value.resolve() == "aborted"
        assert await owner.fetchval("select true from questions where id = $1", row) is None
        return
    await owner.execute("alter system set synchronous_standby_names = 'nobody'")
    await owner.execute("select pg_reload_conf()")
    try:
        await asyncio.sleep(0.3)
        task = asyncio.create_task(_insert(fleet, row))
        pid = None
        async with asyncio.timeout(10):
            while pid is None:
                pid = await owner.fetchval("select pid from pg_stat_activity where wait_event = 'SyncRep' and query = 'commit'")
                await asyncio.sleep(0.02)
        await owner.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(OutcomeUnknown) as unknown:
            await task
    finally:
        await owner.execute("alter system reset synchronous_standby_names")
        await owner.execute("select pg_reload_conf()")
    assert unknown.value.resolvable
    assert await unknown.value.resolve() == "committed"
    assert await unknown.value.resolve() == "committed", "it says the same however often it is asked"
    assert await owner.fetchval("select true from questions where id = $1", row)


async def test_one_that_is_still_under_way_is_waited_for(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    mark, row = uuid4(), uuid4()
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("insert into pgfleet.outcome (id) values ($1)", mark)
    await owner.execute(INSERT, "one-a", row)
    outcomes = fleet._open.outcomes
    asking = asyncio.create_task(outcomes.resolve("one", mark, answered=False, seconds=20))
    await asyncio.sleep(0.3)
    assert not asking.done()
    await transaction.commit()
    assert await asking == "committed"


async def test_one_that_was_asked_about_can_never_be_committed(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    mark = uuid4()
    assert await fleet._open.outcomes.resolve("one", mark, answered=False, seconds=10) == "aborted"
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute("insert into pgfleet.outcome (id) values ($1)", mark)
    assert await fleet._open.outcomes.resolve("one", uuid4(), answered=True, seconds=10) == "lost"


async def test_without_a_row_nothing_is_decided(fleet: Fleet) -> None:
    with pytest.raises(NotResolvable):
        await OutcomeUnknown("somewhere").resolve()


async def test_old_rows_are_removed(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    await owner.execute(
        "insert into pgfleet.outcome (id, at) select gen_random_uuid(), now() - interval '2 days' from generate_series(1, 2500)"
    )
    kept = await owner.fetchval("select count(*) from pgfleet.outcome where at > now() - interval '1 day'")
    assert await fleet._open.outcomes.clean("one", seconds=30) == 2500
    assert await owner.fetchval("select count(*) from pgfleet.outcome") == kept


async def test_execute_may_be_resolvable(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    before = await owner.fetchval("select count(*) from pgfleet.outcome")
    assert await fleet.execute("questions", INSERT, "one-a", uuid4(), key="one-a", resolvable=True) == "INSERT 0 1"
    assert await owner.fetchval("select count(*) from pgfleet.outcome") == before + 1


async def test_waiting_for_a_connection_is_in_order_and_ends(stage: Replicated) -> None:
    async with stage.client(pool_size=2) as fleet:
        order: list[int] = []

        async def one(number: int) -> None:
            async with fleet.write("questions", key="one-a", deadline=20):
                order.append(number)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(one(number))
                await asyncio.sleep(0)
        assert sorted(order) == list(range(12))
        assert all(abs(place - number) <= 2 for place, number in enumerate(order)), "two connections: two may overtake"
        pools = fleet._open.router.pools.values()
        assert sum(pool.open for pool in pools if pool.node.name.region == "us-east") <= 2
        async with fleet.write("questions", key="one-a"), fleet.write("questions", key="one-a"):
            with pytest.raises(DeadlineExceeded, match="free connection"):
                await fleet.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=0.3)
        await fleet.execute("questions", INSERT, "one-a", uuid4(), key="one-a")


async def test_a_function_runs_again_when_its_connection_is_lost_before_it_began(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, cut = Connection.own, 2

    async def cut_off(self: Connection, *args: Any, **more: Any) -> Any:
        nonlocal cut
        if cut:
            cut -= 1
            self.terminate()
        return await own(self, *args, **more)

    monkeypatch.setattr(Connection, "own", cut_off)
    row, runs = uuid4(), 0

    async def once(connection: asyncpg.Connection[Any]) -> str:
        nonlocal runs
        runs += 1
        return await connection.execute(INSERT, "one-a", row)

    assert await fleet.transact("questions", once, key="one-a") == "INSERT 0 1"
    assert (runs, cut) == (1, 0), "what was lost was lost before it ran"
