"""Hedged reads: a second node is asked when the first has not answered for as long as most answers take. Within a budget, so
that a fleet which is slow as a whole is not asked twice as much."""

from __future__ import annotations

from collections import deque

#: Answers that a shard's usual time is taken from.
SAMPLES = 256
#: So few are no distribution: until then nothing is hedged.
LEAST = 20
#: Second questions per question, at most in the long run, and how many may come in a row.
SHARE, BURST = 0.1, 10.0


class Latencies:
    """How long the answers of one shard took; its quantiles, and the budget of second questions."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=SAMPLES)
        self._sorted: list[float] = []
        self._since = 0
        self._budget = BURST

    def answered(self, seconds: float) -> None:
        """One more answer."""
        self._took.append(seconds)
        self._budget = min(BURST, self._budget + SHARE)
        self._since += 1

    def quantile(self, part: float) -> float | None:
        """Seconds within which ``part`` of the answers came; None: too few are known."""
        if len(self._took) < LEAST:
            return None
        if self._since >= LEAST or not self._sorted:
            self._sorted, self._since = sorted(self._took), 0
        return self._sorted[min(len(self._sorted) - 1, int(part * len(self._sorted)))]

    def spend(self) -> bool:
        """Whether a second question may be asked now."""
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True


def patience(hedge: str | float, latencies: Latencies) -> float | None:
    """Seconds to wait for the first node; None: for ever.

    :param hedge: ``p95``, or seconds.
    :raises ValueError: neither.
    """
    if isinstance(hedge, str):
        digits = hedge.removeprefix("p")
        if not (hedge.startswith("p") and digits.isdecimal() and 0 < int(digits) < 100):
            raise ValueError(f"hedge is {hedge!r}; it is a quantile such as 'p95', or seconds")
        return latencies.quantile(int(digits) / 100)
    if isinstance(hedge, bool) or not isinstance(hedge, (int, float)) or not hedge > 0:
        raise ValueError(f"hedge is {hedge!r}; it is a quantile such as 'p95', or seconds above 0")
    return float(hedge)
