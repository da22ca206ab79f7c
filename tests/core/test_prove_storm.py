"""What a storm consists of, how long nobody wrote around a fault, and what ledgers and the database say together."""

from __future__ import annotations

import math
from collections import Counter
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.prove.ledger import Entry, Said, reckon
from pgfleet.prove.strikes import APART, KINDS, STOP_LONGEST, STOP_SHORTEST, draw, gap_around

SHARDS = ("certification", "stem", "humanities", "test-prep")

said = st.sampled_from(get_args(Said))
entries = st.builds(
    Entry,
    st.uuids(),
    st.sampled_from(SHARDS),
    st.sampled_from(("execute", "block", "transact")),
    said,
    st.integers(0, 10**6).map(float),
    st.integers(0, 10**6).map(float),
    st.text(max_size=20),
)


def entry(number: int, word: Said, how: str = "block", error: str = "") -> Entry:
    return Entry(UUID(int=number), "stem", how, word, 1.0, 2.0, error)


@given(st.integers(0, 10**9), st.integers(0, 200), st.integers(1, 4))
def test_every_kind_is_as_frequent_and_no_shard_is_struck_twice_at_once(seed: int, count: int, at_once: int) -> None:
    groups = draw(seed, count, SHARDS, (1, at_once))
    strikes = [strike for group in groups for strike in group]
    assert len(strikes) == count
    assert all(1 <= len(group) <= at_once and len({s.shard for s in group}) == len(group) for group in groups)
    counts = Counter(strike.kind for strike in strikes)
    assert max(counts.values(), default=0) - min((counts[kind] for kind in KINDS), default=0) <= 1
    assert all(group[0].after == 0 and all(0 <= s.after <= APART for s in group) for group in groups)
    assert all((STOP_SHORTEST <= s.seconds <= STOP_LONGEST) == (s.kind == "stop") for s in strikes)


def test_a_seed_repeats_a_storm_and_another_is_another() -> None:
    assert draw(7, 200, SHARDS) == draw(7, 200, SHARDS)
    assert draw(7, 200, SHARDS) != draw(8, 200, SHARDS)


def test_more_shards_than_there_are_cannot_be_struck() -> None:
    with pytest.raises(ValueError, match="2 of 1"):
        draw(1, 2, ("stem",))


def test_a_gap_is_that_of_its_fault() -> None:
    times = [0.0, 5.0, 9.9, 10.0, 10.4, 10.5, 12.0, 30.0]
    assert gap_around(times, 10.1, 12.0) == pytest.approx(1.5)
    assert gap_around(times, 10.1, 20.0) == pytest.approx(8.0), "nobody wrote to the end"
    assert gap_around(times, 9.95, 10.45) == pytest.approx(0.4), "the five seconds before are another's"
    assert gap_around([], 1.0, 2.0) == math.inf


@given(entries)
def test_a_line_says_what_the_entry_says(one: Entry) -> None:
    line = one.to_line()
    assert "\n" not in line
    assert Entry.parse(line) == one


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_line_that_was_cut_is_none(cut: int) -> None:
    line = entry(1, "acknowledged").to_line()
    with pytest.raises(ValueError):
        Entry.parse(line[:-cut])
    with pytest.raises(ValueError, match="is not said"):
        Entry.parse(line.replace("acknowledged", "perhaps"))


@pytest.mark.parametrize(
    ("word", "times", "wrong"),
    [
        ("acknowledged", 1, set()),
        ("acknowledged", 0, {"lost"}),
        ("acknowledged", 2, {"twice"}),
        ("unknown", 0, set()),
        ("unknown", 1, set()),
        ("unknown", 2, {"twice"}),
        ("committed", 1, set()),
        ("committed", 0, {"wrong"}),
        ("committed", 2, {"twice"}),
        ("aborted", 0, set()),
        ("aborted", 1, {"wrong"}),
        ("lost", 0, set()),
        ("lost", 1, {"wrong"}),
        ("failed", 0, set()),
        ("failed", 1, {"denied"}),
    ],
)
def test_what_was_said_agrees_with_what_is_there(word: Said, times: int, wrong: set[str]) -> None:
    found = reckon([entry(1, word)], {UUID(int=1): (3,) * times} if times else {})
    assert {name for name in ("lost", "twice", "wrong", "denied") if getattr(found, name)} == wrong
    assert found.said == {word: 1}
    assert found.unknown_there == (word == "unknown" and times > 0)
    assert found.resolved == (word in ("committed", "aborted", "lost"))


def test_what_nobody_wrote_is_told() -> None:
    assert reckon([entry(1, "acknowledged")], {UUID(int=1): (1,), UUID(int=2): (1,)}).strangers == (UUID(int=2),)


def test_who_tries_again_may_only_be_late() -> None:
    broken = entry(1, "failed", "transact", "ConnectionDoesNotExistError")
    late = entry(2, "failed", "transact", "DeadlineExceeded PGF-U131")
    block = entry(3, "failed", "block", "ConnectionDoesNotExistError")
    found = reckon([broken, late, block], {})
    assert found.given_up == (broken,)
    assert found.errors == {
        "block: ConnectionDoesNotExistError": 1,
        "transact: ConnectionDoesNotExistError": 1,
        "transact: DeadlineExceeded PGF-U131": 1,
    }


@given(st.lists(entries, max_size=30, unique_by=lambda e: e.id), st.data())
def test_a_true_ledger_has_nothing_to_hide(listed: list[Entry], data: st.DataObject) -> None:
    held = {}
    for one in listed:
        there = one.said in ("acknowledged", "committed") or (one.said == "unknown" and data.draw(st.booleans()))
        if there:
            held[one.id] = (1,)
    found = reckon(listed, held)
    assert (found.lost, found.twice, found.wrong, found.denied, found.strangers) == ((), (), (), (), ())
    assert sum(found.said.values()) == len(listed)
