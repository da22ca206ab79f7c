"""Through the pooler of a running fleet: what the file says is what clients do, and a primary may be killed under them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from tests.scenarios.fleet_stage import Stage, kill

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.errors import OutcomeUnknown, SessionState

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

INSERT = "insert into questions (subject, id) values ($1, $2)"
FIND = "select pg_is_in_recovery() as replica, exists (select from questions where subject = $1 and id = $2) as found"


@pytest.fixture
def pooled_fleet(running_fleet: Stage) -> Iterator[Stage]:
    """The fleet that all share, told for a while that its applications are many."""
    before = running_fleet.file.read_text()
    running_fleet.file.write_text(before + "through: pooler\npools: {per_process: 4}\n")
    running_fleet.run("apply")
    yield running_fleet
    running_fleet.file.write_text(before)
    running_fleet.run("apply")


async def find(fleet: Fleet, row: UUID) -> tuple[bool, bool]:
    (one,) = await fleet.fetch("questions", FIND, "PMP", row, key="PMP")
    return one["replica"], one["found"]


async def write_until(
    fleet: Fleet, done: asyncio.Event, acknowledged: list[UUID], unknown: list[UUID], gaps: list[float]
) -> None:
    """Write rows one after the other, as an application's worker does, and read back each that was acknowledged."""
    last = time.monotonic()
    while not done.is_set():
        row = uuid4()
        try:
            await fleet.execute("questions", INSERT, "PMP", row, key="PMP", deadline=60, resolvable=True)
        except OutcomeUnknown:
            unknown.append(row)
            continue
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
        acknowledged.append(row)
        assert (await find(fleet, row))[1], "an acknowledged write is read by whoever made it"


async def test_a_killed_primary_loses_nothing_and_doubles_nothing(pooled_fleet: Stage) -> None:
    primary = (await asyncio.to_thread(pooled_fleet.shard, "one"))["primary"]
    done, acknowledged, unknown, gaps = asyncio.Event(), list[UUID](), list[UUID](), list[float]()
    async with pgfleet.connect(pooled_fleet.file, region="west", deadline=60) as fleet:
        assert fleet.explain("questions", key="PMP").write == "the pooler of west, one_rw"
        await find(fleet, uuid4())
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(write_until(fleet, done, acknowledged, unknown, gaps))
            await asyncio.sleep(1)
            before = len(acknowledged)
            kill(primary["pid"])
            kill(primary["patroni_pid"])  # so that another one takes over
            async with asyncio.timeout(120):
                while len(acknowledged) < before + 60:
                    await asyncio.sleep(0.05)
            done.set()
        async with fleet.write("questions", key="PMP") as connection:
            rows = await connection.fetch("select id, count(*) from questions where id = any($1) group by id", acknowledged)
        assert len(rows) == len(acknowledged), "nothing that was acknowledged is lost"
        assert {row["count"] for row in rows} == {1}
        assert await find(fleet, acknowledged[0]) in ((True, True), (False, True))
    assert max(gaps) < 30
    await asyncio.to_thread(pooled_fleet.whole)
    assert (await asyncio.to_thread(pooled_fleet.shard, "one"))["primary"]["node"] != primary["node"]


async def test_what_was_applied_is_what_connect_does(pooled_fleet: Stage) -> None:
    async with pgfleet.connect(pooled_fleet.file, region="east", deadline=30) as fleet:
        with pytest.raises(SessionState):
            async with fleet.write("questions", key="PMP", session=True):
                pytest.fail("there is none")
        row = uuid4()
        await fleet.execute("questions", INSERT, "PMP", row, key="PMP")
        assert (await find(fleet, row))[1]
        rows = await fleet.everywhere("questions", "select id from questions where id = $1", row)
        assert [one["id"] for one in rows] == [row]
    async with pgfleet.connect(pooled_fleet.file, region="east", deadline=30, through="direct") as fleet:
        assert (await find(fleet, row))[1]
        assert fleet.explain("questions", key="PMP").write in ("east-1", "east-2", "west-1")
    assert "nothing to do" in await asyncio.to_thread(pooled_fleet.run, "plan")


async def test_a_pooler_that_hangs_costs_a_second_once(pooled_fleet: Stage) -> None:
    """Its process is stopped: connections stay, new ones are accepted by the kernel, and nothing is answered."""
    poolers = (await asyncio.to_thread(pooled_fleet.status))["poolers"]
    [near] = [pooler["pid"] for pooler in poolers if pooler["name"] == "pgbouncer/west"]

    async def call(fleet: Fleet) -> float:
        began, row = time.monotonic(), uuid4()
        await fleet.execute("questions", INSERT, "PMP", row, key="PMP", resolvable=True)
        assert (await find(fleet, row))[1]
        return time.monotonic() - began

    async with pgfleet.connect(pooled_fleet.file, region="west", deadline=20) as fleet:
        await asyncio.gather(*(call(fleet) for _ in range(8)))
        kill(near, signal.SIGSTOP)
        try:
            first = await asyncio.gather(*(call(fleet) for _ in range(8)))
            then = [await call(fleet) for _ in range(8)]
        finally:
            kill(near, signal.SIGCONT)
        assert max(first) < 6, "it is found out, and the calls go through another region's pooler"
        assert max(then) < 2, "and it is found out once"
        pooler = fleet._open.pooled.pooler  # type: ignore[union-attr]
        async with asyncio.timeout(10):
            while pooler.breaker.silent:
                await asyncio.sleep(0.05)
        assert pooler.pools("one", reads=False)[0].pooler.region == "west", "it speaks again, and is used again"
        await call(fleet)


async def test_without_etcd_the_pooler_still_leads_to_the_primary(pooled_fleet: Stage) -> None:
    """A client that cannot reach etcd knows no histories, and needs none while nothing changes."""
    async with pgfleet.connect(pooled_fleet.file, region="east", deadline=30) as fleet:
        etcd = fleet._open.router.etcd
        assert etcd is not None
        await etcd.aclose()
        row = uuid4()
        await fleet.execute("questions", INSERT, "PMP", row, key="PMP")
        assert (await find(fleet, row))[1]
