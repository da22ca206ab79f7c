"""When each of several processes is due, so that together they are due evenly. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timetable:
    """Due every ``every`` seconds, ``shift`` seconds after everybody's common zero, whatever was missed.

    (One that went on from where an outage left it would be due together with all whom the same outage held up.)
    """

    every: float
    shift: float = 0.0

    def after(self, now: float) -> float:
        """The first instant after ``now``; both on a clock that all share (CLOCK_MONOTONIC is the system's)."""
        due = (math.floor((now - self.shift) / self.every) + 1) * self.every + self.shift
        return due if due > now else due + self.every  # a sum of floats may fall on what it was to exceed
