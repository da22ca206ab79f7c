"""Time, sensed: the wall's for people and records, the monotonic one for deadlines. Decisions get it as a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan


def utc_now() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go back; only differences mean anything, and only on this host."""
    return time.monotonic()


def checked(seconds: float) -> float:
    """``seconds`` as a caller's deadline. None left, or less, is one that has passed: who counts down may come to that.

    :raises ValueError: it is no number.
    """
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or isnan(seconds):
        raise ValueError(f"deadline is {seconds!r}; it is a number of seconds")
    return seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant by which an answer must be there.

    :param at: on :func:`monotonic`'s clock.
    :param allowed: seconds there were in the beginning, for messages.
    """

    at: float
    allowed: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """``seconds`` from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def began(self) -> float:
        """When they began."""
        return self.at - self.allowed

    def left(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - time.monotonic()
