"""What a shard's history says of a position: held, lost, or not to be told yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.routing.lineage import Held, Lineage, Lost, Untold, judge, needed
from pgfleet.routing.token import Position

#: Timeline 1 ended at 1000, 2 at 2000; 3 is being written.
HISTORY = Lineage(3, {1: 1000, 2: 2000}, 77)


@pytest.mark.parametrize(
    ("position", "verdict"),
    [
        (Position(3, 2500, 2000, 77), Held),
        (Position(1, 1000, 0, 77), Held),
        (Position(1, 1001, 0, 77), Lost),
        (Position(2, 2000, 1000, 77), Held),
        (Position(2, 2001, 1000, 77), Lost),
        (Position(3, 10, 2000, 78), Lost),
        (Position(4, 10, 0, 77), Untold),
        (Position(0, 0), Untold),
        (Position(2, 1500, 900, 77), Lost),  # another timeline 2, which began at 900
        (Position(2, 850, 900, 77), Held),  # what is before its begin, both have
        (Position(1, 1200, 0, 77, within=1000), Held),  # what is behind its timeline's end is others'
        (Position(1, 1200, 0, 77, within=1001), Lost),
        (Position(2, 1500, 900, 77, within=900), Held),
        (Position(2, 1500, 900, 77, within=901), Lost),
    ],
)
def test_judged(position: Position, verdict: type) -> None:
    assert isinstance(judge(position, HISTORY), verdict)


def test_nobody_needs_more_of_a_timeline_than_it_had() -> None:
    assert judge(Position(1, 1200, 0, 77, within=900), HISTORY) == Held(1000)
    assert judge(Position(2, 1500, 900, 77, within=800), HISTORY) == Held(900)
    assert judge(Position(3, 2500, 2000, 77, within=2100), HISTORY) == Held(2500), "while it lives on, all of it is needed"


def test_where_an_old_timeline_ended_is_not_guessed() -> None:
    assert isinstance(judge(Position(1, 10), Lineage(2)), Untold)


def test_a_branch_that_nobody_followed_is_lost() -> None:
    assert isinstance(judge(Position(2, 1500, 0, 77), Lineage(4, {1: 1000, 3: 3000}, 77)), Lost)


def test_a_loss_goes_before_what_is_not_known() -> None:
    assert needed([], HISTORY) == 0
    assert needed([Position(3, 2100, 2000), Position(1, 400)], HISTORY) == 2100
    assert isinstance(needed([Position(4, 1), Position(1, 5000)], HISTORY), Lost)
    assert isinstance(needed([Position(4, 1), Position(1, 5)], HISTORY), Untold)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True), st.data())
def test_what_was_read_from_a_primary_is_held_by_every_later_one(ends: list[int], data: st.DataObject) -> None:
    """A position at or before its timeline's end is held, however many promotions come; one beyond it is lost after the first."""
    ends = sorted(ends)
    timeline = data.draw(st.integers(1, len(ends)))
    then = Lineage(timeline, dict(enumerate(ends[: timeline - 1], 1)), 5)
    begin = then.begin(timeline)
    inside = then.position(timeline, data.draw(st.integers(begin, ends[timeline - 1])))
    beyond = then.position(timeline, ends[timeline - 1] + data.draw(st.integers(1, 1000)))
    for later in range(timeline + 1, len(ends) + 2):
        now = Lineage(later, dict(enumerate(ends[: later - 1], 1)), 5)
        assert judge(inside, now) == Held(inside.lsn)
        assert isinstance(judge(beyond, now), Lost)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6, unique=True), st.data())
def test_what_is_read_before_the_promotion_is_noted_is_never_called_lost(ends: list[int], data: st.DataObject) -> None:
    """Patroni notes where a timeline ended a second or two after the next began: writes are acknowledged meanwhile."""
    ends = sorted(ends)
    timeline = data.draw(st.integers(2, len(ends)))
    noted = data.draw(st.integers(0, timeline - 1))
    early = Lineage(timeline, dict(enumerate(ends[:noted], 1)), 5)
    position = early.position(timeline, data.draw(st.integers(ends[timeline - 2], ends[timeline - 1])))
    for later in range(timeline, len(ends) + 2):
        for told in range(noted, later):
            verdict = judge(position, Lineage(later, dict(enumerate(ends[:told], 1)), 5))
            assert not isinstance(verdict, Lost)
            if told == later - 1:
                assert verdict == Held(position.lsn)


def test_where_a_timeline_begins_is_not_guessed() -> None:
    """As it was seen: 4 is being written, the newest end that is noted is that of 2."""
    assert Lineage(4, {1: 1000, 2: 2000}).begin(4) == 0
    assert Lineage(4, {1: 1000, 2: 2000, 3: 3000}).begin(4) == 3000
    assert Lineage(5, {1: 1000, 4: 3000}).begin(4) == 1000, "4 is an ancestor, and 1 the one before it"
