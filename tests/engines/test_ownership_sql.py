"""What a shard's functions say is what the map says, on a real PostgreSQL, for every map and every key that both can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.test_ownership import KEYS, SHARDS, keys, placements
from tests.engines.owning import prepare
from tests.engines.scratch import Shards, running

from pgfleet.errors import PlacementError
from pgfleet.render.ownership import functions, placed_rows
from pgfleet.routing.ownership import ownership
from pgfleet.routing.placement import Hashed, Placement, TablePlacement

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("owned", "one") as started:
        yield started


async def say(connection: asyncpg.Connection[Any], placement: Placement, rows: list[tuple[str, str, str]]) -> list[list[str]]:
    """For each row (key, id, author) the shards whose functions own it."""
    said: list[list[str]] = [[] for _ in rows]
    for shard in SHARDS:
        await connection.execute(functions([ownership(placement, shard)]))
        answers = await connection.fetch(
            """select pgfleet.owns_q(k, jsonb_build_object('id', i, 'author', a)) is true as own,
                      pgfleet.owns_answers(k, jsonb_build_object('id', i, 'author', a)) is true as follows,
                      pgfleet.holds('answers', 'q:' || k) as holds, pgfleet.owns_q(k, null) is true as unspread
               from unnest($1::text[], $2::text[], $3::text[]) with ordinality u(k, i, a, n) order by n""",
            *map(list, zip(*rows, strict=True)),
        )
        for (key, *_), answer, there in zip(rows, answers, said, strict=True):
            assert answer["own"] == answer["follows"]
            assert bool(answer["holds"]) == (shard in may_hold(placement, key)) == answer["unspread"]
            if answer["own"]:
                there.append(shard)
    return said


def may_hold(placement: Placement, key: str) -> tuple[str, ...]:
    try:
        return placement.shards_of_key("q", key)
    except PlacementError:
        return ()


def owners(placement: Placement, key: str, row_id: str, author: str) -> list[str]:
    try:
        second = {"id": row_id, "author": author, None: None}[placement.second_column("q", key)]
        return [placement.shard("q", key, second).shard]
    except PlacementError:
        return []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(placements(), st.lists(st.tuples(keys, keys, keys), max_size=6))
async def test_the_functions_say_what_the_map_says(
    shards: Shards, placement: Placement, drawn: list[tuple[str, str, str]]
) -> None:
    named = [*placement.tables["q"].listed, *placement.tables["q"].spread]
    rows = [*drawn, *((key, "1", "2") for key in (*KEYS, *named))]
    connection = await shards.connect("one")
    try:
        await connection.execute("create schema if not exists pgfleet")
        assert await say(connection, placement, rows) == [owners(placement, *row) for row in rows]
    finally:
        await connection.close()


async def test_a_list_of_many_keys_is_the_same(shards: Shards) -> None:
    names = [f"key {number}'\\\"" for number in range(3000)]
    listed = {name: SHARDS[at % 3] for at, name in enumerate(names)}
    placement = Placement({"q": TablePlacement("k", listed, {}, None)}, {"answers": "q"})
    connection = await shards.connect("one")
    try:
        await connection.execute("create schema if not exists pgfleet")
        rows = [(name, "", "") for name in (*names, "none of them")]
        assert await say(connection, placement, rows) == [owners(placement, *row) for row in rows]
    finally:
        await connection.close()


async def test_no_key_is_owned_by_nobody_and_none_at_all_by_none(shards: Shards) -> None:
    connection = await shards.connect("one")
    try:
        await connection.execute("create schema if not exists pgfleet")
        for text in ("a", "b"):
            placement = Placement({"q": TablePlacement("k", {"x": text}, {}, None)}, {"answers": "q"})
            await connection.execute(functions([ownership(placement, "a")]))
            assert await connection.fetchval("select pgfleet.owns_q(null, null) is true") is False
            assert await connection.fetchval("select pgfleet.owns_q('y', null) is true") is False
        assert await connection.fetchval("select pgfleet.holds('q', 'other:x')") is None
        assert await connection.fetchval("select pgfleet.holds('other', 'q:x')") is None
    finally:
        await connection.close()


async def test_what_two_maps_say_at_once(shards: Shards) -> None:
    one = Placement({"q": TablePlacement("k", {"x": "a", "y": "a", "z": "b"}, {}, None)})
    two = Placement({"q": TablePlacement("k", {"x": "a", "y": "b", "z": "a"}, {}, None)})
    connection = await shards.connect("one")
    try:
        await connection.execute("create schema if not exists pgfleet")
        await connection.execute(functions([ownership(one, "a"), ownership(two, "a")]))
        rows = await connection.fetch(
            "select pgfleet.owns_q(k, null) o, pgfleet.holds('q', 'q:' || k) h from unnest(array['x','y','z']) k"
        )
        assert [tuple(row) for row in rows] == [(True, True), (False, False), (False, False)]
    finally:
        await connection.close()


async def test_a_table_that_is_placed_since_the_newer_map_hides_no_claim_of_its_root(shards: Shards) -> None:
    one = Placement({"q": TablePlacement("k", {"x": "a"}, {}, None)})
    two = Placement(one.tables, {"answers": "q"})
    connection = await shards.connect("one")
    try:
        await connection.execute("create schema if not exists pgfleet")
        await connection.execute(functions([ownership(one, "a"), ownership(two, "a")]))
        assert await connection.fetchval("select pgfleet.holds('q', 'q:x')") is True
        assert await connection.fetchval("select pgfleet.holds('q', 'q:y')") is False
    finally:
        await connection.close()


async def test_a_collation_that_ignores_case_is_not_followed(shards: Shards) -> None:
    """Python compares keys as they are; so do the functions, also for a column whose collation does not."""
    await prepare(shards, "")
    placement = Placement({"q": TablePlacement("k", {"PMP": "a"}, {}, None)})
    many = Placement({"q": TablePlacement("k", {f"PMP{n}": "a" for n in range(20)} | {"PMP": "a"}, {}, None)})
    connection = await shards.connect("one")
    try:
        await connection.execute("create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        await connection.execute("create table c (k text collate blind); insert into c values ('pmp'), ('PMP'), ('Pmp')")
        assert await connection.fetchval("select count(*) from c where k = 'PMP'") == 3
        hashed = Placement({"q": TablePlacement("k", {"pmp": "b", "PMP": "a"}, {}, Hashed(64, ("a", "b")))})
        for each in (placement, many, hashed):
            await connection.execute(functions([ownership(each, "a")]))
            said = [row[0] for row in await connection.fetch("select pgfleet.owns_q(k, null) from c")]
            assert said == [owners(each, key, "", "") == ["a"] for key in ("pmp", "PMP", "Pmp")]
    finally:
        await connection.close()


def test_a_table_has_one_row_of_what_its_guards_need() -> None:
    placement = Placement({"q": TablePlacement("k", {"x": "a"}, {}, None)}, {"t": "q"}, {"t": "topic"})
    assert placed_rows([ownership(placement, "b")]) == [("q", "k", [], "owns_q"), ("t", "topic", [], "owns_t")]
    assert json.dumps(placed_rows([ownership(placement, "b")]))
