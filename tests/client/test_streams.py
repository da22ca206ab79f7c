"""Streams through the client, to the nodes and through the pooler: left early, read to the end, and cut off in the middle."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from tests.engines.pooled import REGION, Pooled, pooled

from pgfleet.client.fleet import Fleet
from pgfleet.errors import ShardsSilent

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

ROWS = 3000
ALL = "select subject, stem from questions"


@pytest.fixture(scope="module")
def stage() -> Iterator[Pooled]:
    with pooled(("one", "two"), servers=1, waits=5.0) as made:
        for name, shard in made.fleet.shards.items():
            shard.psql(
                f"insert into questions (subject, stem) select '{name}-' || i, repeat('x', 200) from generate_series(1, {ROWS}) i"
            )
            with_them = f"select count(*) from questions having count(*) < {ROWS}"
            shard.psql(f"do $$ begin while exists ({with_them}) loop perform pg_sleep(0.05); end loop; end $$", REGION)
        yield made


@pytest.fixture(params=["direct", "pooler"])
async def fleet(stage: Pooled, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """One connection for reads of each shard: a stream that keeps it is the last one."""
    async with stage.client(through=request.param, pool_size=1) as opened:
        yield opened


@pytest.mark.parametrize("order_by", [None, "subject"])
@pytest.mark.parametrize("read", [0, 1, 150, 600])
async def test_a_stream_that_is_left_gives_its_connections_back(fleet: Fleet, order_by: str | None, read: int) -> None:
    async with asyncio.timeout(20):
        for _ in range(5):
            async with fleet.stream("questions", ALL, order_by=order_by, prefetch=300) as rows:
                for _ in range(read):
                    await anext(rows)
                await asyncio.sleep(0.05)  # the next batch is there, and another one is on its way
        assert len(await fleet.everywhere("questions", ALL)) == 2 * ROWS


async def test_a_break_ends_the_stream(fleet: Fleet) -> None:
    async with asyncio.timeout(10):
        async with fleet.stream("questions", ALL, order_by="subject", prefetch=300) as rows:
            async for _ in rows:
                break
        async with fleet.stream("questions", ALL, order_by="subject", prefetch=300) as rows:
            subjects = [row["subject"] async for row in rows]
        assert subjects == sorted(subjects)
        assert len(subjects) == 2 * ROWS


async def test_what_died_meanwhile_does_not_keep_whoever_leaves(stage: Pooled, fleet: Fleet) -> None:
    async with asyncio.timeout(10), fleet.stream("questions", ALL, prefetch=30) as rows:
        await anext(rows)
        await asyncio.sleep(0.2)
        for shard in stage.fleet.shards:
            connection = await stage.fleet.connect(shard, REGION, "postgres")
            await connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pgfleet_app'")
            await connection.close()
        await asyncio.sleep(0.2)


async def test_what_hangs_keeps_whoever_leaves_for_a_second(stage: Pooled, fleet: Fleet) -> None:
    try:
        async with asyncio.timeout(10), fleet.stream("questions", ALL, prefetch=30) as rows:
            await anext(rows)
            await asyncio.sleep(0.2)
            stage.fleet.shards["one"].signal(REGION, signal.SIGSTOP)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 3
    finally:
        stage.fleet.shards["one"].signal(REGION, signal.SIGCONT)


async def test_what_a_shard_refuses_is_raised_with_its_name(fleet: Fleet) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError) as caught:
        async with fleet.stream("questions", "select nope from questions") as rows:
            await anext(rows)
    assert caught.value.__notes__[0].startswith("said by shard ")
    with pytest.raises(ShardsSilent):
        async with fleet.stream("questions", "select pg_sleep(2)::text", deadline=0.3) as rows:
            await anext(rows)
