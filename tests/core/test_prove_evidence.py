"""What acknowledgements say: gaps, writers at once, losses."""

from __future__ import annotations

import math
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.prove.evidence import (
    Ack,
    Reign,
    judge,
    late,
    longest_gap,
    lost,
    quantile,
    reigns,
    resolution,
    writers_at_once,
)

seconds = st.integers(0, 1000).map(float)  # whole: differences are exact
rows = st.lists(st.tuples(seconds, st.integers(1, 5)), max_size=60)


def uuid(number: int) -> UUID:
    return UUID(int=number)


@given(st.lists(seconds, min_size=1), seconds)
def test_the_longest_gap_is_one_that_nobody_wrote_in(times: list[float], later: float) -> None:
    ended = max(times) + later
    gap = longest_gap(times, ended)
    assert not any(gap.began < at < gap.began + gap.seconds for at in times)
    assert 0 <= gap.seconds <= ended - min(times)
    assert gap.seconds >= ended - max(times)


def test_a_service_that_never_came_back_is_an_outage_until_the_end() -> None:
    assert longest_gap([1.0, 1.1, 1.2], 21.2).seconds == pytest.approx(20)
    assert longest_gap([], 5.0).seconds == math.inf


def test_the_time_before_the_first_write_is_no_outage() -> None:
    assert longest_gap([100.0, 100.5], 100.6).seconds == pytest.approx(0.5)


def test_resolution_is_the_usual_distance() -> None:
    assert resolution([0.0, 0.01, 0.02, 0.03, 5.0]) == pytest.approx(0.01)
    assert resolution([1.0]) == math.inf


@given(rows)
def test_one_writer_at_a_time_is_the_same_as_nothing_late(found: list[tuple[float, int]]) -> None:
    """Seen from the timelines in order: once a later one has acknowledged, no earlier one does."""
    in_order = late(found) == 0
    assert in_order <= (writers_at_once(reigns(found)) <= 1)


@given(rows)
def test_every_acknowledgement_belongs_to_one_reign(found: list[tuple[float, int]]) -> None:
    spans = reigns(found)
    assert sum(reign.count for reign in spans) == len(found)
    assert 0 <= writers_at_once(spans) <= len(spans)
    assert all(reign.first <= reign.last for reign in spans)


@given(st.lists(st.lists(seconds, min_size=1, max_size=8), max_size=5))
def test_timelines_after_one_another_never_overlap(parts: list[list[float]]) -> None:
    found = [(1001 * timeline + at, timeline) for timeline, ats in enumerate(parts) for at in ats]
    assert late(found) == 0
    assert writers_at_once(reigns(found)) == (1 if found else 0)


def test_an_old_primary_that_acknowledges_once_more_is_seen() -> None:
    found = [(1.0, 1), (2.0, 2), (2.5, 1), (3.0, 2)]
    assert late(found) == 1
    assert writers_at_once(reigns(found)) == 2


def test_two_that_touch_were_both_there() -> None:
    assert writers_at_once([Reign(1, 0.0, 1.0, 9), Reign(2, 1.0, 2.0, 9)]) == 2


def test_an_older_reign_inside_a_newer_one_that_came_back_is_late_even_alone() -> None:
    # Timeline 2, then 1 only: no instant has two writers by the reigns, but the order is wrong.
    found = [(1.0, 2), (2.0, 1)]
    assert writers_at_once(reigns(found)) == 1
    assert late(found) == 1


@given(st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_lost_is_what_is_not_there(acknowledged: set[int], present: set[int]) -> None:
    found = lost([uuid(n) for n in acknowledged], {uuid(n) for n in present})
    assert {u.int for u in found} == acknowledged - present


@given(st.lists(seconds, min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_not_exceeded_by_its_part(values: list[float], part: float) -> None:
    found = quantile(values, part)
    assert found in values
    assert sum(1 for v in values if v <= found) >= part * len(values) - 1e-9


def verdict_of(times: list[float], timeline: int = 1, *, missing: int = 0, promise: float = 1.0) -> bool:
    acks = [Ack(at, "stem", uuid(n)) for n, at in enumerate(times)]
    there = {ack.id: timeline for ack in acks[missing:]}
    return judge("crash", "stem", promise, acks=acks, pooler_acks=None, timelines=there, ended=times[-1]).kept


def test_a_promise_is_kept_within_its_time_and_without_loss() -> None:
    assert verdict_of([0.0, 0.5, 0.9])
    assert not verdict_of([0.0, 0.5, 2.0])
    assert not verdict_of([0.0, 0.5, 0.9], missing=1)


def test_who_acknowledged_nothing_kept_nothing() -> None:
    assert not judge("crash", "stem", 1.0, acks=[], pooler_acks=None, timelines={}, ended=1.0).kept


def test_the_pooler_has_a_gap_of_its_own_and_its_rows_count() -> None:
    acks = [Ack(0.0, "stem", uuid(1)), Ack(0.1, "stem", uuid(2)), Ack(0.0, "other", uuid(9))]
    theirs = [Ack(0.0, "stem", uuid(3)), Ack(0.9, "stem", uuid(4))]
    there = {uuid(1): 1, uuid(2): 2, uuid(3): 1}
    verdict = judge("crash", "stem", 1.0, acks=acks, pooler_acks=theirs, timelines=there, ended=1.0)
    assert verdict.acknowledged_writes == 4
    assert verdict.acknowledged_writes_lost == 1
    assert verdict.pooler_seconds == pytest.approx(0.9)
    assert verdict.timelines == "1 → 2"
    assert verdict.to_json()["kept"] is False
