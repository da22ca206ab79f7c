"""Logical replication's apply passes the guards, on two real servers: rows of a key come to a shard before it owns the key, while
clients are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest
from tests.engines.owning import prepare, put, session
from tests.engines.scratch import Shards, running

from pgfleet.routing.placement import Placement, TablePlacement

pytestmark = pytest.mark.engines


def mapped(epoch: int, **listed: str) -> Placement:
    regions = TablePlacement("region", {"eu": listed["AWS"]}, {}, None)
    return Placement({"q": TablePlacement("subject", listed, {}, None), "audit_logs": regions}, epoch=epoch)


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("copying", "a", "b") as started:
        for server in started.servers.values():
            server.psql("alter system set wal_level = logical")
            server.stop()
            server.start()
        yield started


async def until(shards: Shards, shard: str, query: str, expected: object) -> None:
    """Wait until ``shard`` answers ``query`` so."""
    found: object = None
    try:
        async with asyncio.timeout(30):
            while (found := await shards.fetch(shard, query, role="postgres")) != expected:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{shard} answers {found}, not {expected}") from None


async def test_apply_brings_rows_that_clients_may_not_write(shards: Shards) -> None:
    await prepare(shards)
    await put(shards, mapped(1, PMP="a", AWS="a"))
    day = "'2024-05-01'"
    await shards.fetch("a", "insert into q select s, n from unnest(array['PMP', 'AWS']) s, generate_series(1, 50) n")
    await shards.fetch("a", f"insert into audit_logs values ('eu', 1, {day})")
    shards.servers["a"].psql(
        "create publication aws for table q where (subject = 'AWS'), audit_logs with (publish_via_partition_root = true)", "app"
    )
    login = f"host=127.0.0.1 port={shards.servers['a'].port} dbname=app user=postgres password=postgres"
    shards.servers["b"].psql(f"create subscription aws connection '{login}' publication aws", "app")
    try:
        # The first copy, then what changes; also while a client of b is refused the same rows.
        await until(shards, "b", "select subject, count(*) from q group by 1", [("AWS", 50)])
        await until(shards, "b", "select region, id from audit_logs_p1", [("eu", 1)])
        async with session(shards, "a") as writer, session(shards, "b") as stranger:
            for statement in (
                "insert into q (subject, id) values ('AWS', 99)",
                "update q set note = 'changed' where subject = 'AWS' and id = 1",
                "delete from q where subject = 'AWS' and id = 2",
            ):
                await writer.execute(statement)
                with pytest.raises(asyncpg.PostgresError) as caught:
                    await stranger.execute(statement.replace("99", "98").replace("id = 2", "id = 3"))  # not yet gone
                assert caught.value.sqlstate == "PF002"
            await writer.execute(f"insert into audit_logs values ('eu', 2, {day})")
        await until(shards, "b", "select count(*), max(note) from q", [(50, "changed")])
        await until(shards, "b", "select region, id from audit_logs_p1 order by 2", [("eu", 1), ("eu", 2)])

        # The cutover, with the subscription still there: what a may still write, b has before it owns the key.
        async with session(shards, "a") as writer:
            await writer.execute("insert into q (subject, id) values ('AWS', 100)")
            await put(shards, mapped(2, PMP="a", AWS="b"))
            with pytest.raises(asyncpg.PostgresError) as caught:
                await writer.execute("insert into q (subject, id) values ('AWS', 101)")
            assert caught.value.sqlstate == "PF002"
        await until(shards, "b", "select count(*) from q where id = 100", [(1,)])
        async with session(shards, "b", settings={"pgfleet.epoch": "2"}) as client:
            await client.execute("insert into q (subject, id) values ('AWS', 102)")
        assert await shards.fetch("b", "select subenabled from pg_subscription", role="postgres") == [(True,)]
        query = "select apply_error_count, sync_error_count from pg_stat_subscription_stats"
        assert await shards.fetch("b", query, role="postgres") == [(0, 0)]
    finally:
        shards.servers["b"].psql("drop subscription aws", "app")
