"""Reads are never behind their caller's own writes, on replicas that lag as real ones do and worse; and a lost write is said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import pytest
from tests.engines.replicated import Replicated, replicated

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.errors import TokenUnreadable, WriteLost
from pgfleet.routing.token import Position, Token

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

INSERT = "insert into questions (subject, id) values ($1, $2)"
FIND = "select pg_is_in_recovery() as replica, exists (select from questions where subject = $1 and id = $2) as found"


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated() as made:
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client(region="us-west") as opened:
        yield opened


@contextlib.contextmanager
def paused(stage: Replicated, *regions: str) -> Iterator[None]:
    """Replicas that receive and do not replay."""
    for region in regions:
        stage.shards["one"].psql("select pg_wal_replay_pause()", region)
    try:
        yield
    finally:
        for region in regions:
            stage.shards["one"].psql("select pg_wal_replay_resume()", region)


async def insert(fleet: Fleet) -> UUID:
    row = uuid4()
    await fleet.execute("questions", INSERT, "one-a", row, key="one-a")
    return row


async def find(fleet: Fleet, row: UUID, **more: object) -> tuple[bool, bool]:
    """Whether a replica answered, and whether the row was there."""
    (found,) = await fleet.fetch("questions", FIND, "one-a", row, key="one-a", **more)  # type: ignore[arg-type]
    return found["replica"], found["found"]


async def test_a_replica_that_has_it_answers(fleet: Fleet) -> None:
    seen = [await find(fleet, await insert(fleet)) for _ in range(50)]
    assert [found for _, found in seen] == [True] * 50
    assert sum(replica for replica, _ in seen) > 25, "replicas are milliseconds behind: it is worth waiting for them"


async def test_one_that_does_not_have_it_is_passed_over(stage: Replicated, fleet: Fleet) -> None:
    with paused(stage, "us-west"):
        row = await insert(fleet)
        replica, found = await find(fleet, row)
        assert found
        explained = fleet.explain("questions", key="one-a")
        assert (explained.read, explained.passed_over) == (
            "eu-west-1",
            {"us-west-1": "is not known to have this caller's last write"},
        )
        assert replica
    with paused(stage, "us-west", "eu-west"):
        row = await insert(fleet)
        assert await find(fleet, row) == (False, True), "nobody but the primary has it"


async def test_without_the_token_a_lagging_replica_is_believed(stage: Replicated, fleet: Fleet) -> None:
    """So that the other tests can fail."""
    with paused(stage, "us-west", "eu-west"):
        row = uuid4()

        async def somebody_else() -> None:
            await fleet.execute("questions", INSERT, "one-a", row, key="one-a")

        await asyncio.create_task(somebody_else())
        assert await find(fleet, row) == (True, False)


async def test_a_token_is_carried_to_another_process(stage: Replicated, fleet: Fleet) -> None:
    with paused(stage, "us-west", "eu-west"):
        row = uuid4()
        carried: list[str] = []

        async def request() -> None:
            await fleet.execute("questions", INSERT, "one-a", row, key="one-a")
            carried.append(str(fleet.token()))

        await asyncio.create_task(request())
        async with stage.client(region="us-west") as elsewhere:
            assert await find(elsewhere, row) == (True, False)
            with elsewhere.after(carried[0]):
                assert await find(elsewhere, row) == (False, True)
            assert await find(elsewhere, row) == (True, False), "the block is over"
            elsewhere.after(carried[0])
            assert await find(elsewhere, row) == (False, True), "without a block, from now on"


async def test_child_tasks_share_a_carrier_that_was_there(fleet: Fleet) -> None:
    with fleet.after(None):
        await asyncio.gather(*(insert(fleet) for _ in range(3)))
        written = fleet.token().of("one")
        assert written != ()
    assert fleet.token().of("one") == written, "and what follows sees it, too"


async def test_blocks_see_it_too(stage: Replicated, fleet: Fleet) -> None:
    with paused(stage, "us-west", "eu-west"):
        async with fleet.write("questions", key="one-a") as connection:
            row = uuid4()
            await connection.execute(INSERT, "one-a", row)
        async with fleet.read("questions", key="one-a") as connection:
            assert await connection.fetchval("select true from questions where id = $1", row)
        rows = await fleet.everywhere("questions", "select id from questions where id = $1", row)
        assert [r["id"] for r in rows] == [row]


async def test_max_staleness_is_proven_or_the_primary_answers(stage: Replicated, fleet: Fleet) -> None:
    assert (await find(fleet, uuid4(), max_staleness="5 s"))[0]
    assert (await find(fleet, uuid4(), max_staleness=0.5))[0]
    with paused(stage, "us-west", "eu-west"):
        await asyncio.create_task(insert(fleet))
        await asyncio.sleep(0.4)
        assert (await find(fleet, uuid4(), max_staleness=0.3))[0] is False
        assert (await find(fleet, uuid4(), max_staleness=60))[0]
    with pytest.raises(ValueError, match="max_staleness"):
        await fleet.fetch("questions", "select 1", key="one-a", max_staleness=-1)


async def test_nonsense_is_refused(fleet: Fleet) -> None:
    with pytest.raises(TokenUnreadable):
        fleet.after("pgf1.nonsense")
    with pytest.raises(ValueError, match="hedge"):
        await fleet.fetch("questions", "select 1", key="one-a", hedge="often")


async def test_another_database_in_its_place_is_a_loss(fleet: Fleet) -> None:
    await insert(fleet)
    (position,) = fleet.token().of("one")
    with fleet.after(Token({"one": (Position(position.timeline, position.lsn, position.begin, 12345),)})):
        if fleet._open.router.lineage("one").system == 0:
            return  # without etcd nobody has told the system identifier
        with pytest.raises(WriteLost, match="is lost"):
            await find(fleet, uuid4())


async def test_hedged_reads_answer_when_one_replica_hangs(stage: Replicated, fleet: Fleet) -> None:
    import signal

    for _ in range(30):
        await find(fleet, uuid4())
        await fleet.fetch("questions", "select 1", key="one-a", hedge=1.0)
    stage.shards["one"].signal("us-west", signal.SIGSTOP)
    try:
        began = asyncio.get_running_loop().time()
        await fleet.fetch("questions", "select 1", key="one-a", hedge="p95", deadline=10)
        assert asyncio.get_running_loop().time() - began < 2
    finally:
        stage.shards["one"].signal("us-west", signal.SIGCONT)


async def test_a_node_that_hangs_costs_once(stage: Replicated, fleet: Fleet) -> None:
    import signal

    await find(fleet, uuid4())
    stage.shards["one"].signal("us-west", signal.SIGSTOP)
    try:
        loop = asyncio.get_running_loop()
        took = []
        for _ in range(10):
            began = loop.time()
            await fleet.fetch("questions", "select 1", key="one-a", deadline=20)
            took.append(loop.time() - began)
        assert max(took) < 5, "the deadline is twenty seconds: the node was looked at meanwhile"
        assert sorted(took)[-2] < 1, "and only one call waited for it"
    finally:
        stage.shards["one"].signal("us-west", signal.SIGCONT)
    async with asyncio.timeout(20):
        while fleet.explain("questions", key="one-a").read != "us-west-1":
            await asyncio.sleep(0.1)


async def test_a_slow_query_is_not_its_nodes_fault(fleet: Fleet) -> None:
    with pytest.raises(pgfleet.DeadlineExceeded):
        await fleet.fetch("questions", "select pg_sleep(9)", key="one-a", deadline=2.5)
    assert fleet.explain("questions", key="one-a").read == "us-west-1"
    assert await fleet.fetchval("questions", "select true from pg_sleep(2)", key="one-a", deadline=3.5)


async def test_a_hundred_waiters_share_one_question(fleet: Fleet) -> None:
    rows = await asyncio.gather(*(asyncio.create_task(_write_then_read(fleet)) for _ in range(100)))
    assert all(rows)


async def _write_then_read(fleet: Fleet) -> bool:
    return (await find(fleet, await insert(fleet)))[1]


def test_the_shop_window_has_the_errors() -> None:
    assert pgfleet.WriteLost is WriteLost
