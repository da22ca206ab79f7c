"""What acknowledged writes say about a fault: how long nobody wrote, what was lost, whether two nodes wrote at once.

Pure: times are seconds on one monotonic clock, that of the process that received the acknowledgements. The timeline of
a write is what its own row says (load.py lets the inserting statement record it), not what anybody believed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Ack:
    """One acknowledged write: COMMIT was answered at ``at``."""

    at: float
    shard: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Gap:
    """:param seconds: how long nobody's write was acknowledged. :param began: when the last one before it was."""

    seconds: float
    began: float


@dataclass(frozen=True, slots=True)
class Reign:
    """What one timeline acknowledged: its first and last acknowledgement, and how many there were."""

    timeline: int
    first: float
    last: float
    count: int


def longest_gap(times: Iterable[float], ended: float) -> Gap:
    """The longest interval between two acknowledgements, or from the last one to ``ended``: a service that never came
    back has no second acknowledgement, and must not look better for it.

    It begins with the first one: what was before it is the start of the measurement, not an outage. Without any, it is
    infinite.
    """
    points = sorted(times)
    if not points:
        return Gap(float("inf"), ended)
    return max((Gap(b - a, a) for a, b in pairwise([*points, max(ended, points[-1])])), key=lambda gap: gap.seconds)


def resolution(times: Iterable[float]) -> float:
    """The median interval between two acknowledgements: a gap is known to about this. Infinite for fewer than two."""
    intervals = [b - a for a, b in pairwise(sorted(times))]
    return statistics.median(intervals) if intervals else float("inf")


def reigns(rows: Iterable[tuple[float, int]]) -> tuple[Reign, ...]:
    """One per timeline, the lowest first.

    :param rows: (when acknowledged, timeline) of writes of *one* shard.
    """
    times: dict[int, list[float]] = {}
    for at, timeline in rows:
        times.setdefault(timeline, []).append(at)
    return tuple(Reign(timeline, min(ats), max(ats), len(ats)) for timeline, ats in sorted(times.items()))


def writers_at_once(found: Sequence[Reign]) -> int:
    """The most timelines that acknowledged in one instant, each counted from its first acknowledgement to its last.

    A timeline has one primary, so more than 1 means that two nodes took writes; 0: nobody wrote at all. That later
    timelines also come later is :func:`late`'s question.
    """
    # Beginnings before ends at one instant: two that touch were both there.
    steps = sorted([(reign.first, 0) for reign in found] + [(reign.last, 1) for reign in found])
    now = most = 0
    for _, end in steps:
        now += -1 if end else 1
        most = max(most, now)
    return most


def late(rows: Iterable[tuple[float, int]]) -> int:
    """How many writes were acknowledged on a timeline after a later timeline had acknowledged its first."""
    listed = list(rows)
    firsts = {reign.timeline: reign.first for reign in reigns(listed)}
    return sum(1 for at, timeline in listed if any(t > timeline and first <= at for t, first in firsts.items()))


def lost(acknowledged: Iterable[UUID], present: Collection[UUID]) -> tuple[UUID, ...]:
    """The acknowledged writes that are not there, sorted."""
    return tuple(sorted(set(acknowledged).difference(present)))


def quantile(values: Collection[float], part: float) -> float:
    """The smallest of ``values`` that ``part`` (0 to 1) of them do not exceed; of nothing: not a number."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fault on one shard, measured; :meth:`to_json` is the shape that ``drill --json`` has (DESIGN).

    :param promise: seconds that writes may be unavailable; None: nothing was promised, only the rest must hold.
    :param rto_seconds: the longest write gap that the client saw.
    :param pooler_seconds: the same for a psycopg client behind PgBouncer and HAProxy; None: there was none.
    :param unknown: writes whose COMMIT was never answered; they may be there and count neither way.
    """

    drill: str
    shard: str
    promise: float | None
    rto_seconds: float
    resolution_seconds: float
    pooler_seconds: float | None
    acknowledged_writes: int
    acknowledged_writes_lost: int
    reigns: tuple[Reign, ...]
    late: int
    unknown: int = 0

    @property
    def writers_at_once(self) -> int:
        return writers_at_once(self.reigns)

    @property
    def kept(self) -> bool:
        """Within its time, with nothing lost, and with one writer at a time."""
        in_time = self.promise is None or self.rto_seconds <= self.promise
        whole = self.acknowledged_writes > 0 and self.acknowledged_writes_lost == 0
        return in_time and whole and self.late == 0 and self.writers_at_once == 1

    @property
    def timelines(self) -> str:
        return " → ".join(str(reign.timeline) for reign in self.reigns)

    def to_json(self) -> dict[str, object]:
        """Seconds that are null have no end: nothing was acknowledged."""
        return {
            "drill": self.drill, "shard": self.shard, "promise": self.promise,
            "rto_seconds": _finite(self.rto_seconds), "resolution_seconds": _finite(self.resolution_seconds),
            "pooler_seconds": _finite(self.pooler_seconds),
            "acknowledged_writes": self.acknowledged_writes,
            "acknowledged_writes_lost": self.acknowledged_writes_lost, "unknown_writes": self.unknown,
            "writers_at_once": self.writers_at_once, "late_acknowledgements": self.late,
            "timelines": [reign.timeline for reign in self.reigns], "kept": self.kept,
        }  # fmt: skip


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(seconds, 4)


def judge(
    drill: str,
    shard: str,
    promise: float | None,
    *,
    acks: Sequence[Ack],
    pooler_acks: Sequence[Ack] | None,
    timelines: dict[UUID, int],
    ended: float,
    began: float = 0.0,
    unknown: int = 0,
) -> Verdict:
    """Everything the acknowledgements of ``shard`` say.

    :param acks: of the client. :param pooler_acks: of the client behind the pooler, for its own gap.
    :param timelines: what was read back afterwards: the timeline in each row that is there.
    :param ended: when the load ended. :param began: gaps that end before it are of the start, when connections are
        made, and do not count.
    """
    ours = [ack for ack in acks if ack.shard == shard]
    theirs = [ack for ack in pooler_acks or () if ack.shard == shard]
    everyones = ours + theirs
    rows = [(ack.at, timelines[ack.id]) for ack in everyones if ack.id in timelines]
    times = [ack.at for ack in ours if ack.at >= began]
    their_times = [ack.at for ack in theirs if ack.at >= began]
    return Verdict(
        drill, shard, promise,
        rto_seconds=longest_gap(times, ended).seconds,
        resolution_seconds=resolution(times),
        pooler_seconds=None if pooler_acks is None else longest_gap(their_times, ended).seconds,
        acknowledged_writes=len(everyones),
        acknowledged_writes_lost=len(lost((ack.id for ack in everyones), timelines.keys())),
        reigns=reigns(rows),
        late=late(rows),
        unknown=unknown,
    )  # fmt: skip
