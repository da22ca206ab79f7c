"""Lookups and all shards at once, through the client: claimed with the write, found by value, and combined. To the nodes, and
through the pooler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
from tests.engines.pooled import Pooled, pooled

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.errors import AlreadyClaimed, NotTheirs
from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

TABLES = """
create table questions (
    subject text, id uuid default gen_random_uuid(), stem text not null default '', primary key (subject, id)
);
create table users (region text, id uuid default gen_random_uuid(), email text not null, primary key (region, id));
"""
FILE = """
fleet: replicated
regions: {us-east: {}, us-west: {}}
shards: {one: {home: us-east}, two: {home: us-east}}
tables:
  questions: {key: subject, place: {one: [one-a], two: [two-a]}, elsewhere: refuse}
  users: {key: region, place: {one: [us], two: [eu]}, lookups: {email: [email]}}
"""
INSERT = "insert into users (region, email) values ($1, $2)"


@pytest.fixture(scope="module")
def stage() -> Iterator[Pooled]:
    with pooled(("one", "two"), table=TABLES) as made:
        made.fleet.placement = Placement.of(load("fleet.yaml", FILE))
        (made.fleet.folder / "placement.json").write_text(made.fleet.placement.to_json())
        yield made


@pytest.fixture(params=["direct", "pooler"])
async def fleet(stage: Pooled, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    async with stage.client(through=request.param) as opened:
        yield opened


async def test_a_value_has_one_row_in_the_whole_fleet(fleet: Fleet) -> None:
    email = f"{uuid4()}@example.org"
    assert await fleet.locate("users", email=email) is None
    await fleet.execute("users", INSERT, "eu", email, key="eu", claims={"email": email})
    found = await fleet.locate("users", email=email)
    assert found is not None
    assert (found.key, found.shard) == ("eu", "two")
    with pytest.raises(AlreadyClaimed):
        async with fleet.write("users", key="us", claims={"email": email}) as connection:
            await connection.execute(INSERT, "us", email)
    assert await rows(fleet, email) == 1


async def rows(fleet: Fleet, email: str) -> int:
    with fleet.after(None):
        (row,) = await fleet.everywhere(
            "users", "select count(*) as n from users where email = $1", email, combine={"n": "count"}
        )
        return int(row["n"])


async def test_of_ten_who_want_it_one_gets_it(fleet: Fleet) -> None:
    email = f"{uuid4()}@example.org"

    async def want(region: str) -> bool:
        async def insert(connection: Any) -> None:
            await connection.execute(INSERT, region, email)

        try:
            await fleet.transact("users", insert, key=region, claims={"email": email}, deadline=30)
        except AlreadyClaimed:
            return False
        return True

    got = await asyncio.gather(*(want("us" if n % 2 else "eu") for n in range(10)))
    assert sum(got) == 1
    assert await rows(fleet, email) == 1


async def test_a_write_that_fails_gives_it_back(fleet: Fleet) -> None:
    email = f"{uuid4()}@example.org"
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with fleet.write("users", key="us", claims={"email": email}) as connection:
            await connection.execute(INSERT, "us", email)
            raise ZeroDivisionError
    assert await fleet.locate("users", email=email) is None
    await fleet.execute("users", INSERT, "us", email, key="us", claims={"email": email})
    assert await rows(fleet, email) == 1


async def test_a_value_that_is_given_up_is_free(fleet: Fleet) -> None:
    old, new = f"{uuid4()}@example.org", f"{uuid4()}@example.org"
    await fleet.execute("users", INSERT, "us", old, key="us", claims={"email": old})
    change = "update users set email = $2 where region = 'us' and email = $1"
    await fleet.execute("users", change, old, new, key="us", claims={"email": new}, releases={"email": old})
    assert await fleet.locate("users", email=old) is None
    found = await fleet.locate("users", email=new)
    assert found is not None
    assert found.key == "us"
    await fleet.execute("users", INSERT, "eu", old, key="eu", claims={"email": old})


async def test_a_write_whose_outcome_can_be_asked_claims_too(fleet: Fleet) -> None:
    email, other = f"{uuid4()}@example.org", f"{uuid4()}@example.org"
    async with fleet.write("users", key="us", claims={"email": email}, resolvable=True) as connection:
        await connection.execute(INSERT, "us", email)
    async with fleet.write("users", key="us", releases={"email": email}, claims={"email": other}) as connection:
        await connection.execute("update users set email = $2 where region = 'us' and email = $1", email, other)
    assert await fleet.locate("users", email=email) is None
    assert (await fleet.locate("users", email=other)) is not None
    with pytest.raises(NotTheirs):
        await fleet.execute("users", "delete from users where region = 'eu'", key="eu", releases={"email": other})


async def test_everywhere_combines_and_merges(fleet: Fleet) -> None:
    await fleet.execute("questions", "delete from questions", key="one-a")
    await fleet.execute("questions", "delete from questions", key="two-a")
    for subject in ("one-a", "two-a"):
        for stem in ("b", "a", "c"):
            await fleet.execute("questions", "insert into questions (subject, stem) values ($1, $2)", subject, stem, key=subject)
    sql = "select stem, count(*) as n, min(subject) as first from questions group by stem"
    found = await fleet.everywhere("questions", sql, combine={"n": "count", "first": "min"}, order_by="stem desc", limit=2)
    assert [tuple(row) for row in found] == [("c", 2, "one-a"), ("b", 2, "one-a")]
    ordered = await fleet.everywhere(
        "questions", "select stem, subject from questions", order_by="stem, subject", limit=3, offset=1
    )
    assert [tuple(row) for row in ordered] == [("a", "two-a"), ("b", "one-a"), ("b", "two-a")]
    async with fleet.stream("questions", "select stem, subject from questions", order_by="stem, subject") as rows_:
        assert [row["stem"] async for row in rows_] == ["a", "a", "b", "b", "c", "c"]


async def test_a_lookup_that_is_not_declared_is_refused(fleet: Fleet) -> None:
    with pytest.raises(pgfleet.PlacementError):
        await fleet.locate("users", phone="1")
    with pytest.raises(pgfleet.PlacementError):
        await fleet.execute("users", INSERT, "us", "x", key="us", claims={"phone": "1"})
    assert (await fleet.sweep_lookups(older=0)).keys() == {"one", "two"}
