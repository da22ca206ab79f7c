"""Of what the replicas had confirmed, nothing is told lost because others wrote more that they had not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from tests.client.test_reads_after_writes import INSERT, find, insert
from tests.engines.confirming import REPLICAS, asked, confirming, senders, settled, write_unreplicated
from tests.engines.replicated import Replicated

from pgfleet.client.fleet import Fleet
from pgfleet.errors import WriteLost
from pgfleet.topology.probe import OwnWord

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]


@pytest.fixture
def stage() -> Iterator[Replicated]:
    with confirming() as made:
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client(region="us-west") as opened:
        await settled(opened)
        yield opened


async def lose_the_primary(stage: Replicated, fleet: Fleet) -> None:
    """Its replicas have what they had; the nearer of them is promoted."""
    shard = stage.shards["one"]
    shard.signal(shard.primary, signal.SIGKILL)
    await asyncio.to_thread(shard.promote, "us-west")
    async with asyncio.timeout(20):
        while (primary := fleet._open.router.primary("one")) is None or primary.name.region != "us-west":
            await asyncio.sleep(0.05)


async def test_a_write_that_was_confirmed_is_not_lost_with_what_others_wrote(
    stage: Replicated, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = fleet._open.writer._mark

    async def others_write_meanwhile(*args: object, **more: object) -> None:
        """Between the answer to COMMIT and the question where the primary is."""
        for pid in await senders(stage):
            os.kill(pid, signal.SIGSTOP)
        await write_unreplicated(stage)
        await mark(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(fleet._open.writer, "_mark", others_write_meanwhile)
    row = await insert(fleet)
    (position,) = fleet.token().of("one")
    assert 0 < position.within < position.lsn
    await lose_the_primary(stage, fleet)
    assert (await find(fleet, row, deadline=20))[1], "neither lost nor behind"


async def test_one_that_waited_for_nobody_is_said_to_be_lost(stage: Replicated, fleet: Fleet) -> None:
    row = uuid4()
    for pid in await senders(stage):
        os.kill(pid, signal.SIGSTOP)
    async with fleet.write("questions", key="one-a") as connection:
        await connection.execute("set local synchronous_commit = local")
        await connection.execute(INSERT, "one-a", row)
    await lose_the_primary(stage, fleet)
    for _ in range(2):
        with pytest.raises(WriteLost):
            await find(fleet, row, deadline=20)
    with fleet.after(None, alone=True):
        assert not (await find(fleet, row, deadline=20))[1]
        another = await insert(fleet)
        assert (await find(fleet, another, deadline=20))[1]
    with pytest.raises(WriteLost):
        await find(fleet, row, deadline=20)
    fleet.after(None, alone=True)
    assert not (await find(fleet, row, deadline=20))[1]


async def test_who_is_connected_for_less_may_have_confirmed_more_before(stage: Replicated, fleet: Fleet) -> None:
    router = fleet._open.router
    now = asyncio.get_running_loop().time
    word = await asked(fleet)
    assert word.confirmed is not None
    assert word.settled is not None
    seen = OwnWord(False, word.confirmed + 100, word.timeline, 0.0, confirmed=word.confirmed, settled=word.settled)
    assert router.position("one", seen, now() - word.settled / 2).within == word.confirmed
    assert router.position("one", seen, now() - word.settled - 1).within == 0, "sent before they were connected"
    assert router.position("one", seen, None).within == 0, "who knows for whom it waited"
    ended, before = now(), set(await senders(stage))
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(30):
        while before & set(await senders(stage)):
            await asyncio.sleep(0.05)
    await settled(fleet)
    again = await asked(fleet)
    assert again.settled is not None
    assert again.settled < now() - ended, "counted from the later connection on"


@pytest.mark.parametrize("region", REPLICAS)
async def test_while_one_of_them_is_not_there_nothing_is_told(stage: Replicated, fleet: Fleet, region: str) -> None:
    stage.shards["one"].servers[region].stop()
    async with asyncio.timeout(20):
        while (await asked(fleet)).confirmed is not None:
            await asyncio.sleep(0.1)
    word = await asked(fleet)
    assert word.settled is None
    assert fleet._open.router.position("one", word, asyncio.get_running_loop().time()).within == 0
    await insert(fleet)  # the other one confirms it


async def test_a_shard_that_cannot_tell_is_asked_plainly(stage: Replicated) -> None:
    stage.shards["one"].psql("drop function pgfleet.confirmed()")
    async with stage.client(region="us-west") as fleet:
        row = await insert(fleet)
        assert await find(fleet, row)
        assert (await asked(fleet)).confirmed is None
        assert [position.within for position in fleet.token().of("one")] == [0]
