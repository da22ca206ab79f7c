"""A shard of which one of two replicas confirms every COMMIT, and whose primary tells how far they have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.providers.local.prepare import superusers
from pgfleet.topology.probe import OwnWord

REPLICAS = ("us-west", "eu-west")


@contextmanager
def confirming() -> Iterator[Replicated]:
    with replicated() as made:
        shard = made.shards["one"]
        for script in superusers():
            shard.psql(script)
        for region in REPLICAS:
            source = shard.servers[region].data / "postgresql.auto.conf"
            source.write_text(
                source.read_text().replace("primary_conninfo = '", f"primary_conninfo = 'application_name={region} ")
            )
            shard.psql("select pg_reload_conf()", region)
        shard.psql('alter system set synchronous_standby_names = \'ANY 1 ("us-west","eu-west")\'')
        shard.psql("select pg_reload_conf()")
        yield made


async def asked(fleet: Fleet) -> OwnWord:
    """Its primary's word."""
    router = fleet._open.router
    primary = router.primary("one")
    assert primary is not None
    word = await router.positions.ask(primary)
    assert word is not None
    return word


async def settled(fleet: Fleet) -> None:
    """What it tells counts, for a second by now."""
    async with asyncio.timeout(30):
        while ((await asked(fleet)).settled or 0) < 1:
            await asyncio.sleep(0.1)


async def senders(stage: Replicated) -> list[int]:
    """Process ids of those that send to its replicas."""
    connection = await stage.connect("one", role="postgres")
    try:
        return [row["pid"] for row in await connection.fetch("select pid from pg_stat_replication where state = 'streaming'")]
    finally:
        await connection.close()


async def write_unreplicated(stage: Replicated) -> None:
    """Somebody else's, which no replica will have."""
    connection = await stage.connect("one")
    try:
        await connection.execute("set synchronous_commit = local")
        await connection.execute("insert into questions select 'one-b', gen_random_uuid(), '' from generate_series(1, 100)")
    finally:
        await connection.close()
