"""The client's questions to a node go by a connection that its readers have, where one is free."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.client.pools import NodePool
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
