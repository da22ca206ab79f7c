"""The client of etcd against three real members: keys, leases, watches, authentication, members that go away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.engines.etcd_members import Members, etcd_members, free_ports

from pgfleet.errors import EtcdRefused, EtcdUnreachable
from pgfleet.topology.etcd import EtcdClient, KeyValue, WatchEvent

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with etcd_members(tmp_path_factory.mktemp("etcd")) as started:
        yield started


@pytest.fixture
async def etcd(members: Members) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(members.urls, timeout=3.0) as client:
        await client.delete("/", prefix=True)
        yield client


async def test_keys_read_back_in_order_with_everything_that_is_known_of_them(etcd: EtcdClient) -> None:
    lease = await etcd.lease_grant(30)
    first = await etcd.put("/a/ö", "größe", lease)
    await etcd.put("/a/z", "")
    await etcd.put("/b", "not below /a/")
    found = await etcd.range("/a/", prefix=True)
    assert [(kv.key, kv.value) for kv in found.kvs] == [("/a/z", ""), ("/a/ö", "größe")]
    assert found.kvs[1] == KeyValue("/a/ö", "größe", lease, first, 1)
    assert found.revision == first + 2
    assert (await etcd.range("/a")).first is None
    assert len((await etcd.range("", prefix=True)).kvs) == 3
    assert await etcd.delete("/a/", prefix=True) == 2


async def test_a_swap_succeeds_once(etcd: EtcdClient) -> None:
    assert await etcd.txn_swap("/map", 0, "one")
    assert not await etcd.txn_swap("/map", 0, "two")
    seen = (await etcd.range("/map")).first
    assert seen is not None
    assert await etcd.txn_swap("/map", seen.mod_revision, "two")
    assert not await etcd.txn_swap("/map", seen.mod_revision, "three")
    assert (await etcd.range("/map")).kvs[0].value == "two"


async def test_a_revoked_lease_takes_its_keys_along_and_is_gone(etcd: EtcdClient) -> None:
    lease = await etcd.lease_grant(30)
    await etcd.put("/service/stem/leader", "us-east-1", lease)
    assert await etcd.lease_keepalive(lease) == 30
    assert await etcd.lease_revoke(lease)
    assert not await etcd.lease_revoke(lease)
    assert await etcd.lease_keepalive(lease) == 0
    assert (await etcd.range("/service/stem/leader")).kvs == ()


async def test_a_watch_tells_what_changed_and_resumes_without_a_gap(etcd: EtcdClient) -> None:
    revision = await etcd.put("/w/a", "1")
    await etcd.put("/w/a", "2")
    await etcd.delete("/w/a")
    seen: list[WatchEvent] = []
    async with aclosing(etcd.watch("/w/", start_revision=revision)) as events:
        async for event in events:
            seen.append(event)
            if len(seen) == 3:
                break
    assert [(e.kind, e.value) for e in seen] == [("put", "1"), ("put", "2"), ("delete", "")]
    assert [e.revision - revision for e in seen] == [0, 1, 2]


async def test_a_silent_watch_ends_when_its_caller_wants_it_to(etcd: EtcdClient) -> None:
    began = time.monotonic()
    with pytest.raises(EtcdUnreachable):
        async for _ in etcd.watch("/nothing/", idle=0.3):
            pass
    assert 0.25 < time.monotonic() - began < 2


async def test_a_watch_from_before_a_compaction_says_so(etcd: EtcdClient) -> None:
    revision = await etcd.put("/w/a", "1")
    last = await etcd.put("/w/a", "2")
    await etcd.call("kv/compaction", {"revision": str(last)})
    with pytest.raises(EtcdUnreachable, match="cancelled") as caught:
        async for _ in etcd.watch("/w/", start_revision=revision):
            pass
    assert f"compacted up to {last}" in str(caught.value)


async def test_a_member_that_refuses_and_one_that_hangs_cost_little(members: Members) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    members.send(0, signal.SIGSTOP)
    try:
        async with EtcdClient([nobody, members.urls[0], members.urls[1], members.urls[2]], timeout=4.0) as etcd:
            began = time.monotonic()
            await etcd.put("/x", "1")
            assert time.monotonic() - began < 3.9
            began = time.monotonic()
            await etcd.range("/x")  # it stays with the member that answered
            assert time.monotonic() - began < 1
    finally:
        members.send(0, signal.SIGCONT)


async def test_no_member_at_all_is_said_within_the_deadline() -> None:
    began = time.monotonic()
    async with EtcdClient([f"http://127.0.0.1:{port}" for port in free_ports(2)], timeout=0.5) as etcd:
        with pytest.raises(EtcdUnreachable, match="kv/range"):
            await etcd.range("/x")
    assert time.monotonic() - began < 1


async def test_with_authentication_on_everything_needs_the_right_user(tmp_path: Path) -> None:
    with etcd_members(tmp_path, 1) as members:
        early = EtcdClient(members.urls, user="keeper", password="of the keeper")
        await early.range("/service/a")  # not switched on yet: nobody is asked
        members.switch_on_authentication("keeper", "of the keeper", "/service/")
        async with (
            early,
            EtcdClient(members.urls) as nobody,
            EtcdClient(members.urls, user="keeper", password="x") as liar,
        ):
            lease = await early.lease_grant(30)
            await early.put("/service/a", "1", lease)
            with pytest.raises(EtcdRefused, match="permission denied"):
                await early.put("/pgfleet/placement", "1")
            for impostor in (nobody, liar):
                with pytest.raises(EtcdRefused):
                    await impostor.range("/service/a")
                with pytest.raises(EtcdRefused):
                    await impostor.lease_revoke(lease)
                with pytest.raises((EtcdRefused, EtcdUnreachable)):
                    async for _ in impostor.watch("/service/"):
                        pass
            watching = asyncio.ensure_future(anext(early.watch("/service/")))
            await asyncio.sleep(0.2)
            assert await early.lease_revoke(lease)
            assert (await asyncio.wait_for(watching, 5)).kind == "delete"


async def test_a_token_that_etcd_forgot_is_replaced(tmp_path: Path) -> None:
    with etcd_members(tmp_path, 1) as members:
        members.switch_on_authentication("keeper", "secret", "/service/")
        async with EtcdClient(members.urls, user="keeper", password="secret") as etcd:
            await etcd.put("/service/a", "1")
            etcd._token = "unknown.1"
            assert (await etcd.range("/service/a")).kvs[0].value == "1"
            etcd._token = "unknown.1"
            with pytest.raises(EtcdUnreachable):
                async for _ in etcd.watch("/service/"):
                    pass
            await asyncio.wait_for(anext(etcd.watch("/service/", start_revision=1)), 5)
