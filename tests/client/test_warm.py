"""Connections that are opened before anybody needs one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engines.replicated import Replicated, replicated

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(("one", "two"), ("us-east", "us-west")) as made:
        yield made


async def test_the_first_calls_find_a_connection(stage: Replicated) -> None:
    stage.write_state()
    async with stage.client() as fleet:
        pools = fleet._open.router.pools
        await fleet.warm(2)
        there = {key: pool.open for key, pool in pools.items() if pool.open >= 2}
        assert {(node.shard, mode) for node, mode in there} == {(s, m) for s in ("one", "two") for m in ("read", "write")}
        assert await fleet.warm(2) == 0
        await fleet.fetch("questions", "select 1", key="one-a")
        async with fleet.write("questions", key="one-a") as connection:
            await connection.execute("select 1")
        assert {key: pool.open for key, pool in pools.items() if pool.open >= 2} == there


async def test_no_more_than_a_node_may_have(stage: Replicated) -> None:
    stage.write_state()
    async with stage.client(pool_size=3) as fleet:
        await fleet.warm(50)
        counts: dict[str, int] = {}
        for (node, _), pool in fleet._open.router.pools.items():
            counts[str(node)] = counts.get(str(node), 0) + pool.open
        assert max(counts.values()) == 3
