"""What readers have open to a node is used for the client's questions, and by the first writers after a promotion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.client.pools import NodePool
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection
from pgfleet.topology.probe import ASK_PROMOTED

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(("one",), ("us-east", "us-west")) as made:
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    stage.write_state()
    async with stage.client() as opened:
        yield opened


def replicas(fleet: Fleet) -> NodePool:
    """The pool of the replica."""
    return fleet._open.router.lanes["one"].pools[0]


async def test_no_connection_is_made_for_a_question(fleet: Fleet) -> None:
    await fleet.warm(1)
    pool, prober = replicas(fleet), fleet._open.router._prober
    prober.rest()
    word = await prober.ask(pool.node, question=ASK_PROMOTED)
    assert word is not None
    assert word.recovering
    assert not prober._kept
    assert (pool.open, pool.lent) == (1, 0)


async def test_one_that_the_server_has_ended_is_no_answer(stage: Replicated, fleet: Fleet) -> None:
    await fleet.warm(1)
    pool, prober = replicas(fleet), fleet._open.router._prober
    connection = pool.take()
    assert connection is not None
    ended = connection.get_server_pid()
    pool.release(connection)
    stage.shards["one"].servers["us-west"].psql(f"select pg_terminate_backend({ended})")
    assert await prober.ask(pool.node) is not None
    assert pool.lent == 0


async def test_where_all_are_lent_it_has_its_own(fleet: Fleet) -> None:
    pool, prober = replicas(fleet), fleet._open.router._prober
    async with fleet.read("questions", key="a"):
        prober.rest()
        assert pool.lent == 1
        assert await prober.ask(pool.node) is not None
        assert pool.node.name in prober._kept


async def test_a_new_primary_is_written_to_by_what_readers_had_open(fleet: Fleet) -> None:
    router = fleet._open.router
    primary = router.primary("one")
    assert primary is not None
    reads, writes = router.pool(primary.name, "read"), router.pool(primary.name, "write")
    opened = await writes.acquire(Deadline.after(5))
    mine = await reads.acquire(Deadline.after(5))
    reads.release(mine)
    assert await parameters(mine) != await parameters(opened)
    writes.kin = reads
    taken = await writes.acquire(Deadline.after(5))
    assert taken is mine
    assert (reads.open, writes.open) == (0, 2)
    assert await parameters(taken) == await parameters(opened), "nobody can tell it from one that was opened for writes"
    await taken.execute("set search_path to elsewhere")
    for connection in (taken, opened):
        writes.release(connection)
    async with asyncio.timeout(5):
        while writes.open != 1 or writes._cleaning:
            await asyncio.sleep(0.01)
    assert taken.is_closed(), "DISCARD ALL would have made it the readers' again"


async def test_one_that_has_ended_is_not_taken_over(stage: Replicated, fleet: Fleet) -> None:
    router = fleet._open.router
    primary = router.primary("one")
    assert primary is not None
    reads, writes = router.pool(primary.name, "read"), router.pool(primary.name, "write")
    mine = await reads.acquire(Deadline.after(5))
    ended = mine.get_server_pid()
    reads.release(mine)
    stage.shards["one"].servers["us-east"].psql(f"select pg_terminate_backend({ended})")
    writes.kin = reads
    taken = await writes.acquire(Deadline.after(5))
    assert taken is not mine
    assert (reads.open, writes.open) == (0, 1)
    writes.release(taken)


async def parameters(connection: Connection) -> dict[str, str]:
    return {row["name"]: row["setting"] for row in await connection.own_rows("select name, setting from pg_settings")}
