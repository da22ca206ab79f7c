"""A client whose map of keys is old: the shards refuse it, and it finds the way by itself where that is certain to be safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.engines.etcd_members import etcd_members
from tests.engines.replicated import Replicated, replicated

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.client.placed import KEY as MAP
from pgfleet.control.connect import tls
from pgfleet.errors import DeadlineExceeded, NotOwned, OutcomeUnknown, PlacementMoved
from pgfleet.providers.ownership import change_map
from pgfleet.routing.placement import Placement
from pgfleet.runtime.sql import Connection, Login, connect
from pgfleet.topology.etcd import EtcdClient

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

INSERT = "insert into questions (subject, id) values ($1, $2)"


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(("one", "two"), ("us-east", "us-west")) as made:
        yield made


async def put(stage: Replicated, **listed: str) -> Placement:
    """The next map, with these keys listed elsewhere; in force on the shards, and nobody is told."""
    before = stage.placement
    rule = before.tables["questions"]
    after = Placement({"questions": replace(rule, listed={**rule.listed, **listed})}, epoch=before.epoch + 1)

    @asynccontextmanager
    async def reach(shard: str) -> AsyncIterator[Connection]:
        server = stage.shards[shard].servers[stage.shards[shard].primary]
        login = Login("pgfleet_owner", "app", "pgfleet_owner", tls(stage.folder))
        connection = await connect("127.0.0.1", server.port, login, settings={}, seconds=10)
        try:
            yield connection
        finally:
            connection.terminate()

    await change_map(reach, ["one", "two"], after)
    stage.placement = after
    return after


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    """A client that was opened under the map of now; the next map is put in force under it."""
    if stage.placement.epoch == 1:
        await put(stage)
    stage.write_state()
    async with stage.client() as opened:
        yield opened


async def where(stage: Replicated, row: object) -> list[str]:
    found = []
    for shard in ("one", "two"):
        connection = await stage.connect(shard)
        if await connection.fetchval("select true from questions where id = $1", row):
            found.append(shard)
        await connection.close()
    return found


async def test_a_statement_finds_the_new_shard(stage: Replicated, fleet: Fleet) -> None:
    key, row = f"k-{uuid4()}", uuid4()
    home = fleet.explain("questions", key=key).shard
    other = "two" if home == "one" else "one"
    await put(stage, **{key: other})
    assert await fleet.execute("questions", INSERT, key, row, key=key) == "INSERT 0 1"
    assert await where(stage, row) == [other]
    assert fleet.explain("questions", key=key).shard == other


async def test_a_function_is_run_again_on_the_new_shard(stage: Replicated, fleet: Fleet) -> None:
    key, row = f"k-{uuid4()}", uuid4()
    other = "two" if fleet.explain("questions", key=key).shard == "one" else "one"
    await put(stage, **{key: other})
    runs = 0

    async def insert(connection: Any) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(INSERT, key, row)

    await fleet.transact("questions", insert, key=key)
    assert (runs, await where(stage, row)) == (2, [other])


@pytest.mark.parametrize("verb", ["insert", "update", "delete"])
async def test_a_block_says_that_its_key_moved(stage: Replicated, fleet: Fleet, verb: str) -> None:
    key, row = f"k-{uuid4()}", uuid4()
    other = "two" if fleet.explain("questions", key=key).shard == "one" else "one"
    await put(stage, **{key: other})
    sql = {
        "insert": INSERT,
        "update": "update questions set stem = 'x' where subject = $1 and id = $2",
        "delete": "delete from questions where subject = $1 and id = $2",
    }[verb]
    with pytest.raises(PlacementMoved):
        async with fleet.write("questions", key=key) as connection:
            await connection.execute(sql, key, row)
    async with fleet.write("questions", key=key) as connection:
        await connection.execute(sql, key, row)
    assert await where(stage, row) == ([other] if verb == "insert" else [])


async def test_a_key_that_is_not_the_rows_is_the_callers_mistake(stage: Replicated, fleet: Fleet) -> None:
    with pytest.raises(NotOwned, match="one-a"):
        await fleet.execute("questions", INSERT, "two-a", uuid4(), key="one-a")
    with pytest.raises(NotOwned):
        async with fleet.write("questions", key="one-a") as connection:
            await connection.execute(INSERT, "two-a", uuid4())


async def test_a_frozen_client_does_nothing_wrong(stage: Replicated, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight writers whose map never changes, while keys move under them: nothing they wrote is where it should not be."""

    async def never() -> None:
        await asyncio.sleep(0.001)

    monkeypatch.setattr(fleet._open.placed, "refresh", never)
    monkeypatch.setattr(fleet._open.placed, "doubt", never)
    keys = [f"k-{uuid4()}" for _ in range(4)]
    homes = {key: fleet.explain("questions", key=key).shard for key in keys}
    acknowledged: list[tuple[str, object]] = []
    refused = 0
    stop = asyncio.Event()

    async def writer(number: int) -> None:
        nonlocal refused
        while not stop.is_set():
            key, row = keys[number % len(keys)], uuid4()
            try:
                match number % 3:
                    case 0:
                        await fleet.execute("questions", INSERT, key, row, key=key, deadline=0.3)
                        acknowledged.append((key, row))
                    case 1:
                        async with fleet.write("questions", key=key, deadline=0.3) as connection:
                            await connection.execute("delete from questions where subject = $1 and id = $2", key, row)
                    case _:
                        sql = "update questions set stem = 'x' where subject = $1 and id = $2"
                        await fleet.execute("questions", sql, key, row, key=key, deadline=0.3)
            except (PlacementMoved, NotOwned, DeadlineExceeded, OutcomeUnknown):
                refused += 1
            await asyncio.sleep(0)

    unused = [f"k-{uuid4()}" for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(writer(number))
        await asyncio.sleep(0.5)
        before = len(acknowledged)
        for key in unused:  # what a shard owns changes, though not for the writers' keys: their epoch is old all the same
            await put(stage, **{key: "two" if fleet.explain("questions", key=key).shard == "one" else "one"})
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.5)
        late = len(acknowledged)
        await asyncio.sleep(1.0)
        assert len(acknowledged) == late, "nothing is acknowledged under the old map any more"
        stop.set()
    assert before > 0
    assert refused > 0
    for key, row in acknowledged:
        assert await where(stage, row) == [homes[key]]


async def test_a_change_that_was_ended_before_etcd_told_it_blocks_no_writer(
    stage: Replicated, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, row = f"k-{uuid4()}", uuid4()
    placed = fleet._open.placed
    before = placed.now
    home = fleet.explain("questions", key=key).shard
    other = "two" if home == "one" else "one"
    with etcd_members(tmp_path, 1) as members:
        async with EtcdClient(members.urls, timeout=3.0) as etcd:
            await etcd.put(MAP, before.to_json())
            monkeypatch.setattr(placed, "_etcd", etcd)
            await put(stage, **{key: other})
            await placed.refresh()
            assert placed.now.epoch == before.epoch, "etcd is believed while nobody is refused"
            assert await fleet.execute("questions", INSERT, key, row, key=key) == "INSERT 0 1"
            assert await where(stage, row) == [other]
            await placed.refresh()
            assert placed.now.epoch == before.epoch + 1, "it never goes back"


async def test_the_shards_alone_tell_the_new_map(stage: Replicated, fleet: Fleet) -> None:
    epoch = (await put(stage, **{f"k-{uuid4()}": "one"})).epoch
    await fleet._open.placed.refresh()
    assert fleet._open.placed.now.epoch == epoch


def test_they_can_be_caught_by_the_shop_windows_names() -> None:
    assert pgfleet.PlacementMoved is PlacementMoved
    assert pgfleet.NotOwned is NotOwned
