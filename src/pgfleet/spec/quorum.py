"""The arithmetic of quorum commit: what may be lost at one moment without losing a commit or the ability to elect.

A shard has ``voters`` nodes that can be elected; one is the primary, the other V = voters - 1 are its voting replicas.
With ``sync`` = s every acknowledged commit has reached s of the V (PostgreSQL: ``ANY s (…)``), and Patroni elects only
when it reaches V - s + 1 of the V (its quorum.py). The two sets always share a node, because s + (V - s + 1) > V: so
the one that is elected, the most advanced that was reached, has every acknowledged commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quorum:
    """One shard's arithmetic.

    :param voters: nodes that can be elected, the primary among them; at least 1.
    :param sync: voting replicas that must have a commit, 0 to ``voters - 1``; 0 is asynchronous.
    """

    voters: int
    sync: int

    @property
    def replicas(self) -> int:
        """V: the voting replicas."""
        return self.voters - 1

    @property
    def votes_needed(self) -> int:
        """How many of the V must be reached to elect one of them. Asynchronous: one is enough, and may lack commits."""
        return self.replicas - self.sync + 1 if self.sync else min(1, self.replicas)

    @property
    def survives(self) -> int:
        """How many voting replicas may be lost together with the primary; -1 where the primary alone is too much.

        Asynchronous: so many that one remains to be elected, which may lack commits.
        """
        return self.replicas - self.votes_needed if self.replicas else -1

    @property
    def lossless(self) -> bool:
        """Whether an election keeps every acknowledged commit."""
        return self.sync > 0

    def survives_region(self, region: str, voters: Mapping[str, int], *, primary_in: str) -> bool:
        """Whether writes go on by themselves after ``region`` is lost, etcd's majority being elsewhere.

        :param voters: per region; their sum is ``self.voters``.
        :param primary_in: the primary's region. Where it is not lost, it goes on with what is left.
        """
        if region != primary_in:
            return True
        return voters.get(region, 0) - 1 <= self.survives

    def sentence(self) -> str:
        """For people: what a commit waits for, and what may be lost."""
        if not self.replicas:
            return "one voter: no replica can take over"
        if not self.sync:
            return f"asynchronous: any of {self.replicas} voting replicas can take over, and may lack the last commits"
        return (
            f"a commit is on the primary and {self.sync} of {self.replicas} voting replicas; an election needs "
            f"{self.votes_needed} of them, so the primary{_and(self.survives)} may be lost at once"
        )


def _and(others: int) -> str:
    return "" if others == 0 else f" and {others} other voter{'s' if others > 1 else ''}"
