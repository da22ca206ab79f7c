"""Processes that keep to their timetables are due evenly, also after all of them were held up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.prove.timetable import Timetable

seconds = st.floats(0, 1e6, allow_nan=False)


@given(seconds, st.floats(0.01, 10), st.floats(0, 10))
def test_the_next_is_after_now_and_at_most_one_turn_away(now: float, every: float, shift: float) -> None:
    due = Timetable(every, shift).after(now)
    assert now < due <= now + every * 1.001 + 1e-6


@given(seconds, st.integers(1, 20))
def test_after_an_outage_nobody_is_due_together_with_another(held_up_until: float, count: int) -> None:
    every = 0.5
    due = sorted(Timetable(every, every * n / count).after(held_up_until) for n in range(count))
    apart = [b - a for a, b in pairwise(due)]
    assert apart == pytest.approx([every / count] * (count - 1), abs=1e-6)
