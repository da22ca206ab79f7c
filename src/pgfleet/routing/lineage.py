"""Whether a position is part of a shard's history: held, lost, or not to be told yet.

A promotion ends a timeline at a position and begins the next there. What was written beyond that end, by a primary that did
not know yet, is in no later history: a write there *was lost*, and no waiting makes a replica have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pgfleet.routing.token import Position


@dataclass(frozen=True, slots=True)
class Lineage:
    """One shard's history, as far as it is known.

    :param timeline: the primary's; 0 = not known.
    :param ends: timeline -> LSN at which it ended, of those before ``timeline``.
    :param system: the system identifier; 0 = not known.
    """

    timeline: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)
    system: int = 0

    def begin(self, timeline: int) -> int:
        """The LSN at which ``timeline`` begins; 0 = not known, or the first.

        Where its predecessor ended is noted a second or two after a promotion. Until then the last end that is known is that of
        an older one: only what is an ancestor itself, or follows one by number, is known to begin there.
        """
        before = max((t for t in self.ends if t < timeline), default=0)
        return self.ends[before] if before and (timeline in self.ends or before == timeline - 1) else 0

    def position(self, timeline: int, lsn: int, within: int = 0) -> Position:
        """A position that was read from the primary on ``timeline``."""
        return Position(timeline, lsn, self.begin(timeline), self.system, within if within < lsn else 0)


@dataclass(frozen=True, slots=True)
class Held:
    """In the history: whoever follows it and has replayed to ``lsn`` has it."""

    lsn: int


@dataclass(frozen=True, slots=True)
class Lost:
    """:param because: a sentence with both positions."""

    because: str


@dataclass(frozen=True, slots=True)
class Untold:
    """The history that is known does not say: it is older than the position, or an entry is missing. Look again."""

    because: str


Verdict = Held | Lost | Untold


def judge(position: Position, lineage: Lineage) -> Verdict:
    """What ``lineage`` says of ``position``.

    :param position: read after a COMMIT that was acknowledged.
    """
    if position.system and lineage.system and position.system != lineage.system:
        return Lost(f"it belongs to system {position.system}, this is {lineage.system}: another database stands in its place")
    if position.timeline == 0:
        return Untold("the position could not be read after the commit")
    if lineage.timeline == 0 or position.timeline > lineage.timeline:
        return Untold(f"timeline {position.timeline} was not seen yet, the newest is {lineage.timeline}")
    begin = lineage.begin(position.timeline)
    if position.begin and begin and position.begin != begin:
        fork = min(position.begin, begin)
        if position.last > fork:
            return Lost(f"it is at {position}, on a timeline {position.timeline} that began elsewhere than the one that lived on")
        return Held(min(position.lsn, fork))
    if position.timeline == lineage.timeline:
        return Held(position.lsn)
    end = lineage.ends.get(position.timeline)
    if end is not None:
        if position.last <= end:
            return Held(min(position.lsn, end))
        ended = f"{end >> 32:X}/{end & 0xFFFFFFFF:08X}"
        return Lost(f"it is at {position}; timeline {position.timeline} ended {position.last - end} bytes before, at {ended}")
    if any(t > position.timeline for t in lineage.ends):
        # Its successors are known and it is none of their ancestors: it was a branch that nobody followed.
        return Lost(f"it is at {position}, and timeline {position.timeline} is not an ancestor of {lineage.timeline}")
    return Untold(f"where timeline {position.timeline} ended is not known yet")


def needed(positions: Iterable[Position], lineage: Lineage) -> int | Lost | Untold:
    """The LSN that a node of ``lineage`` must have replayed to have all of ``positions``; or why none can be named. A loss
    goes before what is not known."""
    least = 0
    untold: Untold | None = None
    for position in positions:
        verdict = judge(position, lineage)
        match verdict:
            case Held(lsn):
                least = max(least, lsn)
            case Lost():
                return verdict
            case Untold():
                untold = verdict
    return untold if untold is not None else least


def holds(lineage: Lineage, timeline: int, replayed: int, lsn: int) -> bool:
    """Whether a node that has replayed to ``replayed`` on ``timeline`` has what the history ``lineage`` has up to ``lsn``."""
    if replayed < lsn:
        return False
    if timeline == lineage.timeline:
        return True
    end = lineage.ends.get(timeline)  # it has not followed the promotion yet: then it must not be beyond it either
    return end is not None and replayed <= end
