"""How stale a replica can be, proven and not guessed.

A *mark* is the primary's WAL position at an instant. A replica that has replayed up to a mark has everything that was
committed before that instant; so, at ``now``, it is at most ``now - mark.at`` seconds stale. Positions only grow within
a timeline while a node runs, so a proof weakens by time's passing only; with a new primary all marks and proofs are forgotten,
and with a node's restart those about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pgfleet.names import NodeName


@dataclass(frozen=True, slots=True)
class Mark:
    """:param position: the primary's flushed WAL position, bytes.
    :param at: seconds on the local monotonic clock, read *before* the primary was asked."""

    position: int
    at: float


@dataclass(frozen=True, slots=True)
class Proofs:
    """What is proven about one shard's replicas.

    :param primary: whose positions these are.
    :param marks: the newest last; few.
    :param fresh_at: per replica, the newest instant whose commits it is proven to have.
    """

    primary: NodeName
    marks: tuple[Mark, ...] = ()
    fresh_at: Mapping[NodeName, float] = field(default_factory=dict)

    def marked(self, mark: Mark, *, keep: int = 8) -> Proofs:
        """With a new mark of the primary's."""
        return replace(self, marks=(*self.marks, mark)[-keep:])

    def replayed(self, node: NodeName, position: int) -> Proofs:
        """With ``node`` having been seen at ``position``."""
        reached = max((m.at for m in self.marks if m.position <= position), default=None)
        if reached is None or reached <= self.fresh_at.get(node, float("-inf")):
            return self
        return replace(self, fresh_at={**self.fresh_at, node: reached})

    def without(self, node: NodeName) -> Proofs:
        """With nothing proven about ``node``: it was started again."""
        return replace(self, fresh_at={name: at for name, at in self.fresh_at.items() if name != node})

    def fresh(self, max_staleness: float, now: float) -> frozenset[NodeName]:
        """The replicas proven to be at most ``max_staleness`` seconds stale at ``now``."""
        return frozenset(n for n, at in self.fresh_at.items() if now - at <= max_staleness)

    def newest_mark(self) -> float:
        """The newest mark's instant; minus infinity without one."""
        return self.marks[-1].at if self.marks else float("-inf")
