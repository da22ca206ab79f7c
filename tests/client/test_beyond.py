"""A position read after COMMIT may cover others' WAL that no replica has yet: its loss is not the caller's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.errors import DeadlineExceeded, OutcomeUnknown

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]
INSERT = "insert into questions (subject, id) values ($1, $2)"


@pytest.fixture
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east", "us-west")) as made:
        yield made


async def test_a_write_that_lived_on_is_not_called_lost_because_of_somebody_elses(stage: Replicated) -> None:
    shard = stage.shards["one"]
    mine, theirs = uuid4(), uuid4()
    shard.psql("alter system set synchronous_standby_names = '*'"); shard.psql("select pg_reload_conf()")
    await asyncio.sleep(0.5)
    async with stage.client() as fleet:
        await fleet.execute("questions", INSERT, "one-a", mine, key="one-a")  # on both servers
        await asyncio.sleep(0.3)
        shard.signal("us-west", signal.SIGSTOP)

        async def another() -> None:
            try:
                await fleet.execute("questions", INSERT, "one-a", theirs, key="one-a", deadline=30)
            except (OutcomeUnknown, DeadlineExceeded):
                pass

        waiting = asyncio.create_task(another())  # flushed here, and on no replica
        await asyncio.sleep(0.5)
        # A second write of mine, which needs no replica: its position is where the primary has flushed to, theirs included.
        await fleet.execute("questions", "update questions set stem = '' where subject = $1 and id = $2", "one-a", uuid4(), key="one-a")
        token = fleet.token()
        shard.signal("us-east", signal.SIGKILL)
        shard.servers["us-east"].stop()
        shard.signal("us-west", signal.SIGCONT)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(shard.promote, "us-west")
        shard.psql("alter system set synchronous_standby_names = ''"); shard.psql("select pg_reload_conf()")
        await waiting
        print(token.of("one"))
        rows = await fleet.fetch("questions", "select id from questions where id = $1", mine, key="one-a", deadline=20)
        assert [row["id"] for row in rows] == [mine]
