"""A promotion by hand, where nobody tells anybody: clients and commands find the new primary by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path

import pytest
from tests.engines.desk import FILE, Desk, make_desk
from tests.engines.outside import Outside, dsn, outside, promote, value

import pgfleet
from pgfleet import Fleet
from pgfleet.errors import DeadlineExceeded, OutcomeUnknown, WriteLost
from pgfleet.routing.token import Token

pytestmark = pytest.mark.engines


@pytest.fixture
def pair() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.fixture
def desk(pair: Outside, tmp_path: Path) -> Desk:
    made = make_desk(pair, tmp_path)
    made.said("apply")
    made.said("migrate", str(made.place / "schema"))
    return made


async def test_a_promotion_is_followed(desk: Desk) -> None:
    pair = desk.pair
    acknowledged: list[int] = []
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state"), deadline=20.0) as fleet:

        async def write(number: int) -> None:
            insert = "insert into questions values ($1, 'PMP', 'Why?')"
            try:
                await fleet.execute("questions", insert, number, key="PMP")
            except OutcomeUnknown:
                return
            acknowledged.append(number)

        for number in range(50):
            await write(number)
        pair.caught_up()
        pair.primary.stop()
        writing = asyncio.create_task(write(50))
        # Reads go on while there is no primary.
        assert await fleet.fetchval("questions", "select count(*) from questions", key="PMP") == 50
        await asyncio.to_thread(promote, pair.replica)
        await writing
        for number in range(51, 60):
            await write(number)
        assert fleet.explain("questions", key="PMP").write == "near-1"
        there = await fleet.fetch("questions", "select id from questions", key="PMP")
        assert set(acknowledged) <= {row["id"] for row in there}
        assert len(acknowledged) >= 59

    [shard] = desk.document("status")["shards"]
    assert (shard["primary"]["node"], shard["primary"]["timeline"]) == ("near-1", 2)
    assert shard["problems"][0] == "its primary is in near, away from home cloud"
    assert shard["problems"][1].startswith("cloud-1 is silent")
    assert desk.said("sql", "-c", "select inet_server_port()", "--", "-XAt") == str(pair.replica.port)
    assert desk.document("apply")["steps"] == []


async def surely(fleet: Fleet, number: int, deadline: float = 10.0) -> None:
    """A write that may be repeated, and is while nobody knows whether it happened."""
    insert = "insert into questions values ($1, 'PMP', 'Why?') on conflict do nothing"
    while True:
        try:
            await fleet.execute("questions", insert, number, key="PMP", deadline=deadline)
        except OutcomeUnknown:
            continue
        return


async def test_an_old_primary_that_comes_back_is_not_written_to(desk: Desk) -> None:
    pair = desk.pair
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state")) as fleet:
        await surely(fleet, 1)
        pair.caught_up()
        pair.primary.stop()
        promote(pair.replica)
        await surely(fleet, 2)
        pair.primary.start()  # it knows of nothing
        for number in range(3, 40):
            await surely(fleet, number)
            await asyncio.sleep(0.05)
        assert value(pair.primary, "select count(*) from questions", desk.database) == "1"
        assert value(pair.replica, "select count(*) from questions", desk.database) == "39"
        # The new one is lost sight of, the old one is not: it was replaced, and that is remembered.
        pair.replica.stop()
        with pytest.raises(DeadlineExceeded):
            await surely(fleet, 40, deadline=3.0)
        assert value(pair.primary, "select count(*) from questions", desk.database) == "1"


async def test_a_token_is_kept_across_a_promotion(desk: Desk) -> None:
    pair = desk.pair
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state")) as fleet:
        await surely(fleet, 1)
        pair.caught_up()
        token = fleet.token()
        pair.primary.stop()
        promote(pair.replica)
        await surely(fleet, 2)
        assert await count_after(fleet, token) == 2
        async with asyncio.timeout(30):
            while value(pair.replica, "select timeline from pgfleet.timeline", desk.database) != "1":
                await asyncio.sleep(0.1)
    # Somebody who was not there, and a primary that has forgotten it.
    pair.replica.stop()
    pair.replica.start()
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state")) as fleet:
        assert await count_after(fleet, token) == 2


async def test_a_write_that_the_promotion_lost_is_told(desk: Desk) -> None:
    pair = desk.pair
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state")) as fleet:
        await surely(fleet, 1)
        pair.caught_up()
        kept = fleet.token()
        pair.replica.stop()
        await surely(fleet, 2)  # acknowledged by the primary alone, as asynchronous replication has it
        lost = fleet.token()
        pair.primary.stop()
        pair.replica.start()
        await asyncio.sleep(2.0)  # it is seen as a replica once more
        promote(pair.replica)
        await surely(fleet, 3)
        assert await count_after(fleet, kept) == 2
        with pytest.raises(WriteLost):
            await count_after(fleet, lost)


async def count_after(fleet: Fleet, token: Token) -> int:
    """As another service would ask, to which ``token`` was given on."""

    async def ask() -> int:
        with fleet.after(token):
            counted: int = await fleet.fetchval("questions", "select count(*) from questions", key="PMP", deadline=10.0)
            return counted

    return await asyncio.get_running_loop().create_task(ask(), context=Context())


def test_two_primaries_are_told_and_nothing_is_done(desk: Desk) -> None:
    pair = desk.pair
    pair.primary.stop()
    promote(pair.replica)
    pair.primary.start()
    document = desk.document("status")
    assert not document["healthy"]
    assert document["problems"][0] == "main: cloud-1 and near-1 both take writes: stop the one on the lower timeline"
    (desk.place / "fleet.yaml").write_text(FILE.replace("{key: subject}", "{key: subject, place: {main: [PMP]}}"))
    error = desk.error("apply")
    assert (error["code"], error["status"]) == ("PGF-F231", 4)
    assert error["hint"].startswith("stop cloud-1")


def test_a_replica_is_replaced_by_another(desk: Desk) -> None:
    pair = desk.pair
    pair.primary.stop()
    promote(pair.replica)
    third = pair.copy(pair.replica, "three")
    desk.environment = {"MAIN_DSN": dsn(pair.replica, desk.database), "REPLICA_DSN": dsn(third, desk.database)}
    assert [step["act"] for step in desk.document("apply")["steps"]] == ["prepare"]
    document = desk.document("status")
    assert document["healthy"], document["problems"]
