"""Looking up on a replica that is behind: what is not there is asked of the primary, and what this caller gave up is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from tests.client.test_claims import FILE, INSERT, TABLES
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

CHANGE = "update users set email = $2 where region = 'us' and email = $1"
NEAR = "us-west"


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(("one", "two"), ("us-east", NEAR), TABLES) as made:
        made.placement = Placement.of(load("fleet.yaml", FILE))
        made.write_state()
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client(region=NEAR) as opened:
        yield opened


async def near_holds(stage: Replicated, email: str) -> None:
    """Until a replica has the entry, confirmed."""
    shard = stage.placement.lookup("users", "email", email).shard
    connection = await stage.connect(shard, NEAR)
    try:
        while not await connection.fetchval("select confirmed from pgfleet.lookup where value = $1", email):
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


@pytest.fixture
def behind(stage: Replicated) -> Iterator[list[str]]:
    """Replicas stop where they are, when they are told."""
    told: list[str] = []
    yield told
    for shard in told:
        stage.shards[shard].psql("select pg_wal_replay_resume()", NEAR)


async def test_what_this_caller_gave_up_is_gone(stage: Replicated, fleet: Fleet, behind: list[str]) -> None:
    old, new = f"{uuid4()}@example.org", f"{uuid4()}@example.org"
    await fleet.execute("users", INSERT, "us", old, key="us", claims={"email": old})
    await near_holds(stage, old)
    for shard in stage.shards:
        stage.shards[shard].psql("select pg_wal_replay_pause()", NEAR)
        behind.append(shard)
    await fleet.execute("users", CHANGE, old, new, key="us", claims={"email": new}, releases={"email": old})
    assert await fleet.locate("users", email=old) is None
    found = await fleet.locate("users", email=new)
    assert found is not None
    # Somebody else, who knows nothing of it, is told what is near.
    async with stage.client(region=NEAR) as other:
        near = await asyncio.create_task(_located(other, old))
    assert near == "us"
    # Unless the token came along.
    async with stage.client(region=NEAR) as other:
        with other.after(str(fleet.token())):
            assert await other.locate("users", email=old) is None


async def _located(fleet: Fleet, email: str) -> str | None:
    with fleet.after(None):
        found = await fleet.locate("users", email=email)
    return found.key if found is not None else None
