"""Which replicas have what a read must see: those that are known to, else those that say so when asked, else the primary.

A position is judged before the read is sent, from an earlier statement: a guard inside the reading statement lies now and then,
because its snapshot is older than the function that it calls (measured: 0.15 to 0.9 % of busy reads).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pgfleet.client.router import Router
from pgfleet.errors import DeadlineExceeded, WriteLost
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.lineage import Lost, Untold, needed
from pgfleet.routing.token import Position
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.units import parse_duration

#: Seconds for which a read waits for a replica to catch up before the primary answers it. Replicas of one region are a few
#: milliseconds behind; one that is not there after this is not worth waiting for.
CATCH_UP = 0.05
#: Seconds between two questions: the first pause, doubled up to the last.
FIRST, LAST = 0.001, 0.01


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a read asks for. :param after: this caller's writes. :param max_staleness: seconds; None: any."""

    after: tuple[Position, ...] = ()
    max_staleness: float | None = None

    def __bool__(self) -> bool:
        return bool(self.after) or self.max_staleness is not None


#: Nothing in particular.
ANY = Wanted()


def staleness(given: float | str | None) -> float | None:
    """Seconds, of what a caller may say: seconds, or a duration such as ``2 s``.

    :raises ValueError: no duration, or a negative one.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return parse_duration(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise ValueError(f"max_staleness is {given!r}; seconds from 0 on, or such as '2 s'")
    return float(given)


async def fresh_enough(router: Router, shard: str, wanted: Wanted, deadline: Deadline) -> Collection[NodeName]:
    """The replicas that may answer; none of them: only the primary may.

    :raises WriteLost: a position is in no history of the shard.
    :raises DeadlineExceeded: the shard's history does not say.
    """
    until = min(deadline.at, monotonic() + CATCH_UP)
    pause = FIRST
    while near := router.replicas(shard):
        if (names := known(router, shard, wanted, near)) or (names := await _ask(router, shard, wanted, near)):
            return names
        if monotonic() >= until:
            break
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST)
    # Nobody near has it: one that is far and has it still spares the primary.
    others = [node for node in router.replicas(shard, anywhere=True) if node not in near]
    if (names := known(router, shard, wanted, others)) or (others and (names := await _ask(router, shard, wanted, others))):
        return names
    return await _primary_alone(router, shard, wanted, deadline)


def known(router: Router, shard: str, wanted: Wanted, replicas: Sequence[NodeAddress]) -> list[NodeName]:
    """Those of ``replicas`` that are known to be fresh enough, without asking anybody.

    :raises WriteLost: a position is in no history of the shard.
    """
    names = [node.name for node in replicas]
    if wanted.max_staleness is not None:
        fresh = router.positions.fresh(shard, wanted.max_staleness)
        names = [name for name in names if name in fresh]
    if wanted.after:
        lsn = _needed(router, shard, wanted)
        names = [] if lsn is None else [name for name in names if router.holds(name, lsn)]
    return names


def _needed(router: Router, shard: str, wanted: Wanted) -> int | None:
    """What must be replayed; None: the history does not say.

    :raises WriteLost: it never will be.
    """
    verdict = needed(wanted.after, router.lineage(shard))
    match verdict:
        case Lost(because):
            raise WriteLost(f"a write to {shard} that was acknowledged is lost", seen=[because])
        case Untold():
            return None
        case lsn:
            return lsn


async def _ask(router: Router, shard: str, wanted: Wanted, replicas: Sequence[NodeAddress]) -> list[NodeName]:
    """Those of ``replicas`` that say they are."""
    primary = router.primary(shard)
    if primary is not None and (wanted.max_staleness is not None or _needed(router, shard, wanted) is None):
        await router.positions.prove(primary, replicas)
    else:
        await asyncio.gather(*(router.positions.ask(node) for node in replicas))
    return known(router, shard, wanted, replicas)


async def _primary_alone(router: Router, shard: str, wanted: Wanted, deadline: Deadline) -> Collection[NodeName]:
    """Nobody but the primary: it has everything that its history has. But is what was written part of that history?"""
    while wanted.after:
        verdict = needed(wanted.after, router.lineage(shard))
        if not isinstance(verdict, Untold) or any(p.timeline == 0 for p in wanted.after):
            break
        if deadline.left() <= 0:
            raise DeadlineExceeded(
                f"{shard} did not say within {deadline.allowed:g} s what became of a write", seen=[verdict.because]
            )
        primary = router.primary(shard)
        if primary is not None:
            await router.positions.ask(primary)
        await router.change(deadline, LAST)
    _needed(router, shard, wanted)
    return ()
