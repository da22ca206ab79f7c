"""Fence, confirm, then revoke: stand-ins for nodes, a real etcd with certificates and authentication, Patroni's keys."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.engines.etcd_members import PASSWORD, Members, etcd_members
from tests.engines.keeper_stage import Stage, alive, kill, node, pid, stage

from pgfleet.providers.local.keeper.decide import STOPPED_TOO_LONG
from pgfleet.topology.etcd import EtcdClient

pytestmark = pytest.mark.engines

ME, OTHER = "us-east-1", "us-west-1"


@pytest.fixture
def members(fleet_root: Path, tmp_path: Path) -> Iterator[Members]:
    fleet = fleet_root / "fleet"
    fleet.mkdir()
    with etcd_members(tmp_path, fleet=fleet) as started:
        started.switch_on_authentication("keeper", PASSWORD, "/service/")
        yield started


@pytest.fixture
async def etcd(members: Members) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(members.urls, tls=members.tls, user="keeper", password=PASSWORD) as client:
        yield client


@pytest.fixture
async def here(fleet_root: Path, members: Members) -> AsyncIterator[Stage]:
    async with stage(fleet_root / "fleet") as started:
        yield started


async def patroni_says(etcd: EtcdClient, leader: str = ME, standbys: str = OTHER) -> int:
    """The keys of two Patronis; returns the leader's lease, on which its member key hangs too."""
    lease = await etcd.lease_grant(60)
    await etcd.put("/service/stem/leader", leader, lease)
    sync = {"leader": leader, "sync_standby": standbys, "quorum": 0}
    await etcd.put("/service/stem/sync", json.dumps(sync))
    for member in (ME, OTHER):
        await etcd.put(f"/service/stem/members/{member}", "{}", lease if member == leader else 0)
    return lease


async def leader(etcd: EtcdClient) -> str | None:
    found = (await etcd.range("/service/stem/leader")).first
    return found.value if found else None


async def until_vacant(etcd: EtcdClient, within: float = 10.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(within):
        while await leader(etcd) is not None:
            await asyncio.sleep(0.002)
    return time.monotonic() - began


async def test_a_killed_primary_yields_its_lease_in_milliseconds_and_is_started_again(
    here: Stage, etcd: EtcdClient, record_property: object
) -> None:
    seen = await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    first = pid(seen.unit(f"node/stem/{ME}"))
    pids = seen.units[0].pids
    kill(first)
    vacant = await until_vacant(etcd)
    assert not [number for number in pids if alive(number)]  # fenced before revoked
    again = await here.running(f"node/stem/{ME}", but=first)
    assert vacant < 10
    (told,) = here.told("revoked its lease")
    print(f"kill to vacant: {vacant * 1000:.0f} ms, of which etcd {json.loads(told)['took'] * 1000:.1f} ms")  # noqa: T201
    assert again.restarts == 1
    assert (await here.running(f"node/stem/{OTHER}")).restarts == 0


async def test_a_killed_replica_costs_nobody_the_lead(here: Stage, etcd: EtcdClient) -> None:
    seen = await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    first = pid(seen.unit(f"node/stem/{OTHER}"))
    kill(first)
    await here.running(f"node/stem/{OTHER}", but=first)
    assert await leader(etcd) == ME
    assert not here.told("revoked its lease")


async def test_a_primary_without_a_candidate_keeps_its_lease(here: Stage, etcd: EtcdClient) -> None:
    seen = await here.begin(node(here.folder, ME))
    await patroni_says(etcd, standbys="")
    kill(pid(seen.units[0]))
    await here.running(f"node/stem/{ME}", but=seen.units[0].pid)
    assert await leader(etcd) == ME


async def test_a_candidate_that_died_with_the_primary_is_none(here: Stage, etcd: EtcdClient) -> None:
    """Its member key outlives it by a ttl; the keeper knows better."""
    silent = node(here.folder, OTHER, argv=("sh", "-c", "exit 1"))
    seen = await here.begin(node(here.folder, ME), silent)
    await here.until(lambda k: k.units[1].state == "backoff" and k.units[1].restarts >= 4)
    await patroni_says(etcd)
    kill(pid(seen.units[0]))
    await here.running(f"node/stem/{ME}", but=seen.units[0].pid)
    assert await leader(etcd) == ME


async def test_a_primary_that_died_while_nobody_watched_yields_when_a_keeper_is_back(here: Stage, etcd: EtcdClient) -> None:
    await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    seen = await here.twin()
    await patroni_says(etcd)
    kill(seen.keeper, signal.SIGSTOP)  # it cannot act
    kill(pid(seen.unit(f"node/stem/{ME}")))
    await asyncio.sleep(0.3)
    assert await leader(etcd) == ME
    began = time.monotonic()
    kill(seen.keeper)
    await until_vacant(etcd)
    print(f"keeper and primary killed, to vacant: {(time.monotonic() - began) * 1000:.0f} ms")  # noqa: T201
    await here.running(f"node/stem/{ME}", but=seen.units[0].pid)


async def test_a_primary_whose_postmaster_alone_was_killed_is_fenced_and_yields(here: Stage, etcd: EtcdClient) -> None:
    await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    seen = await here.until(lambda k: all(unit.postmaster for unit in k.units))
    kill(seen.units[0].postmaster)
    vacant = await until_vacant(etcd)
    print(f"postmaster killed, to vacant: {vacant * 1000:.0f} ms")  # noqa: T201
    await here.running(f"node/stem/{ME}", but=seen.units[0].pid)
    assert len(here.told("fenced")) == 1
    kill(seen.units[1].postmaster)  # a replica's: Patroni's business
    await asyncio.sleep(1.5)
    assert pid((await here.client.status()).units[1]) == pid(seen.units[1])


async def test_a_postmaster_that_ends_in_order_is_nobodys_business(here: Stage, etcd: EtcdClient) -> None:
    await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    seen = await here.until(lambda k: k.units[0].postmaster)
    (here.folder / "nodes" / ME / "postmaster.pid").unlink()
    kill(seen.units[0].postmaster)
    await asyncio.sleep(1.5)
    assert await leader(etcd) == ME
    assert (await here.client.status()).units[0].pid == seen.units[0].pid


@pytest.mark.parametrize("what", ["the whole node", "only its postgresql", "only its patroni"])
async def test_a_stopped_primary_is_fenced_after_three_seconds(here: Stage, etcd: EtcdClient, what: str) -> None:
    await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    seen = await here.until(lambda k: k.units[0].postmaster and k.units[1].postmaster)
    unit, replica = seen.units
    stopped = {"the whole node": unit.pids, "only its postgresql": [unit.postmaster], "only its patroni": [unit.pid]}
    for number in (*stopped[what], *replica.pids):
        kill(number, signal.SIGSTOP)
    took = await until_vacant(etcd)
    assert STOPPED_TOO_LONG < took < STOPPED_TOO_LONG + 15
    assert not [number for number in unit.pids if alive(number)]
    await here.running(f"node/stem/{ME}", but=unit.pid)
    after = (await here.client.status()).unit(f"node/stem/{OTHER}")
    assert pid(after) == replica.pid  # left alone


async def test_a_short_stop_is_forgiven(here: Stage, etcd: EtcdClient) -> None:
    seen = await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    for _ in range(3):
        kill(seen.units[0].pid, signal.SIGSTOP)
        await asyncio.sleep(1.2)
        kill(seen.units[0].pid, signal.SIGCONT)
        await asyncio.sleep(1.2)
    assert await leader(etcd) == ME
    assert (await here.client.status()).units[0].pid == seen.units[0].pid


async def test_without_etcd_a_node_is_started_at_once(here: Stage, members: Members) -> None:
    for index in range(3):
        members.send(index, signal.SIGKILL)
    seen = await here.begin(node(here.folder, ME))
    began = time.monotonic()
    kill(seen.units[0].pid)
    await here.running(f"node/stem/{ME}", but=seen.units[0].pid)
    assert time.monotonic() - began < 15


async def test_one_etcd_member_that_hangs_delays_nothing(here: Stage, etcd: EtcdClient, members: Members) -> None:
    seen = await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    await patroni_says(etcd)
    urls = [(await etcd.call("maintenance/status", {}))["leader"]]
    statuses = []
    for url in members.urls:
        async with EtcdClient([url], tls=members.tls, user="keeper", password=PASSWORD) as one:
            statuses.append((await one.call("maintenance/status", {}))["header"]["member_id"])
    follower = next(i for i, member in enumerate(statuses) if member != urls[0])
    members.send(follower, signal.SIGSTOP)
    try:
        kill(pid(seen.unit(f"node/stem/{ME}")))
        await until_vacant(etcd)
        for _ in range(100):  # the key is gone a moment before the keeper has written down that it revoked it
            if here.told("revoked its lease"):
                break
            await asyncio.sleep(0.05)
        (told,) = here.told("revoked its lease")
        assert json.loads(told)["took"] < 5
    finally:
        members.send(follower, signal.SIGCONT)


async def test_sync_tells_the_keeper_where_etcd_is(here: Stage, etcd: EtcdClient) -> None:
    book = here.folder / "addresses.json"
    text = book.read_text()
    book.unlink()
    seen = await here.begin(node(here.folder, ME), node(here.folder, OTHER))
    assert here.told("cannot revoke leases")
    book.write_text(text)
    await here.client.sync()
    await patroni_says(etcd)
    kill(pid(seen.units[0]))
    assert await until_vacant(etcd) < 15


async def test_no_secret_is_in_what_the_keeper_wrote(here: Stage, etcd: EtcdClient) -> None:
    await here.begin(node(here.folder, ME))
    for path in (here.folder / "logs" / "keeper.log", here.folder / "keeper-events.jsonl", here.folder / "units.json"):
        assert PASSWORD not in path.read_text()
