"""Placement: one key, one shard, the same today and in ten years; what has no place is an error, never a guess."""

from __future__ import annotations

import enum
import hashlib
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.errors import PlacementError
from pgfleet.routing.hashing import MAX_BUCKETS, bucket, bucket_sql, key_text
from pgfleet.routing.placement import Placed, Placement
from pgfleet.spec.load import load

TEXT = """\
fleet: f
regions: {us: {}}
shards: {a: {}, b: {}, b-2: {}, c: {}}
tables:
  q:
    key: subject
    place:
      a: [PMP, 7]
      b: [{Mathematics: {hash: id, over: [b, b-2]}}, Art]
    elsewhere: {hash: 8, over: [a, b, c]}
    lookups: {id: [id], pair: {columns: [x, y], over: [a, c], buckets: 16}}
  answers: {with: q}
  marks: {with: answers, key: topic}
  users: {key: region, place: {c: [us]}}
"""
PLACEMENT = Placement.of(load("f", TEXT))
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.integers() | st.uuids()


def test_listed_keys_are_where_they_are_listed() -> None:
    assert PLACEMENT.shard("q", "PMP") == Placed("a", "PMP is listed")
    assert PLACEMENT.shard("q", 7) == PLACEMENT.shard("q", "7") == Placed("a", "7 is listed")
    assert PLACEMENT.shard("users", "us").shard == "c"


def test_other_keys_are_hashed_and_say_how() -> None:
    number = int.from_bytes(hashlib.sha256(b"History").digest()[:8], "big") % 8
    assert PLACEMENT.shard("q", "History") == Placed(("a", "b", "c")[number % 3], f"not listed; bucket {number} of 8")


def test_values_that_were_computed_elsewhere() -> None:
    """These never change: rows lie where they say."""
    assert bucket("History", 64) == 32
    assert bucket(12, 64) == bucket("12", 64) == 20
    assert bucket("", 64) == int("e3b0c44298fc1c14", 16) % 64
    assert bucket(uuid.UUID("018F0000-0000-7000-8000-00000000000A"), 65536) == bucket(
        "018f0000-0000-7000-8000-00000000000a", 65536
    )


def test_a_key_that_is_spread_needs_the_second_column() -> None:
    with pytest.raises(PlacementError, match="spread over b, b-2 by its id") as caught:
        PLACEMENT.shard("q", "Mathematics")
    assert caught.value.hint
    assert PLACEMENT.shards_of_key("q", "Mathematics") == ("b", "b-2")
    assert PLACEMENT.second_column("q", "Mathematics") == "id"
    placed = PLACEMENT.shard("q", "Mathematics", second=1)
    number = bucket(1, 64)
    assert placed == Placed(("b", "b-2")[number % 2], f"Mathematics is spread by id: bucket {number} of 64")


def test_keys_that_are_not_spread_have_one_shard() -> None:
    assert PLACEMENT.shards_of_key("q", "PMP") == ("a",)
    assert PLACEMENT.shards_of_key("q", "History") == (PLACEMENT.shard("q", "History").shard,)
    assert PLACEMENT.second_column("q", "PMP") is None
    # A second value is not looked at where the key is not spread.
    assert PLACEMENT.shard("q", "History", second=5) == PLACEMENT.shard("q", "History")


def test_tables_that_follow_are_where_their_table_is() -> None:
    for table in ("answers", "marks"):
        assert PLACEMENT.shard(table, "PMP") == PLACEMENT.shard("q", "PMP")
        assert PLACEMENT.shards(table) == PLACEMENT.shards("q")
    assert [PLACEMENT.key_column(table) for table in ("q", "answers", "marks")] == ["subject", "subject", "topic"]


def test_the_shards_of_a_table_are_each_said_once() -> None:
    assert PLACEMENT.shards("q") == ("a", "b", "b-2", "c")
    assert PLACEMENT.shards("users") == ("c",)
    assert PLACEMENT.tables_of("b-2") == ("answers", "marks", "q")
    assert PLACEMENT.tables_of("c") == ("answers", "marks", "q", "users")


def test_nothing_is_guessed() -> None:
    with pytest.raises(PlacementError, match="no table nope") as caught:
        PLACEMENT.shard("nope", "x")
    assert caught.value.hint == "known: answers, marks, q, users"
    with pytest.raises(PlacementError, match="'mars' is no region that users has a place for"):
        PLACEMENT.shard("users", "mars")
    for wrong in (None, True, 1.5, b"x", ["x"], "\0", "\ud800"):
        with pytest.raises(PlacementError):
            PLACEMENT.shard("q", wrong)  # type: ignore[arg-type]
    for ask in (PLACEMENT.shards, PLACEMENT.key_column):
        with pytest.raises(PlacementError):
            ask("nope")


def test_lookups_are_hashed_by_their_columns() -> None:
    number = bucket("42", 64)
    assert PLACEMENT.lookup("q", "id", 42) == Placed(PLACEMENT.shards("q")[number % 4], f"lookup id: bucket {number} of 64")
    assert PLACEMENT.lookup("q", "pair", "a", "b").shard in ("a", "c")
    assert bucket("a\x1fb", 16) % 2 == ("a", "c").index(PLACEMENT.lookup("q", "pair", "a", "b").shard)
    with pytest.raises(PlacementError, match="no lookup mail"):
        PLACEMENT.lookup("q", "mail", "x")


def test_a_fleet_of_one_shard_places_everything_there() -> None:
    placement = Placement.of(load("f", "fleet: f\nregions: {us: {}}\nshards: {main: {}}\ntables: {t: {key: id}}\n"))
    assert placement.shard("t", 5) == Placed("main", "every key lives there")
    assert placement.shards("t") == ("main",)


def test_enumerations_of_text_are_their_value() -> None:
    class Subject(enum.StrEnum):
        PMP = "PMP"

    class Old(str, enum.Enum):  # noqa: UP042 - the way before StrEnum, whose str() is another text
        PMP = "PMP"

    assert PLACEMENT.shard("q", Subject.PMP) == PLACEMENT.shard("q", Old.PMP) == PLACEMENT.shard("q", "PMP")


def test_json_gives_the_same_placement_back() -> None:
    text = PLACEMENT.to_json()
    again = Placement.from_json(text)
    assert again == PLACEMENT
    assert again.to_json() == text
    assert again.shard("marks", "History") == PLACEMENT.shard("q", "History")
    assert again.key_column("marks") == "topic"
    assert again.lookup("q", "pair", 1, 2) == PLACEMENT.lookup("q", "pair", 1, 2)
    assert Placement.of(load("f", TEXT), epoch=9).epoch == 9


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"version": 2}', '{"version": 1, "epoch": 1, "tables": 3}'])
def test_what_is_no_placement_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Placement.from_json(text)


@given(keys)
def test_every_key_has_exactly_one_place_and_it_is_stable(key: str | int | uuid.UUID) -> None:
    placed = PLACEMENT.shard("q", key, second=0)
    assert placed == Placement.from_json(PLACEMENT.to_json()).shard("q", key, second=0)
    assert placed == PLACEMENT.shard("q", key_text(key), second=0)
    assert placed.shard in PLACEMENT.shards("q")
    assert placed.shard in PLACEMENT.shards_of_key("q", key)
    assert placed.because


@given(keys, st.integers(1, MAX_BUCKETS))
def test_buckets_are_within_their_number(key: str | int | uuid.UUID, buckets: int) -> None:
    assert 0 <= bucket(key, buckets) < buckets


@pytest.mark.parametrize("buckets", [0, -1, MAX_BUCKETS + 1])
def test_impossible_numbers_of_buckets(buckets: int) -> None:
    with pytest.raises(ValueError):
        bucket("x", buckets)
    with pytest.raises(ValueError):
        bucket_sql("x", buckets)


def test_keys_fill_the_buckets_evenly() -> None:
    counts = [0] * 64
    for number in range(64_000):
        counts[bucket(number, 64)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


def test_an_application_does_not_pay_for_the_file() -> None:
    heavy = ("pydantic", "yaml", "pgfleet.spec")
    script = f"import sys, pgfleet.routing.placement; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert ran.stdout.strip() == "[]"
