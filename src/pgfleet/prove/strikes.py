"""Which faults a storm consists of, drawn from a seed, and how long nobody wrote around each. Pure."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from pgfleet.prove.evidence import longest_gap

#: Confirmed deaths: the keeper sees that the node has ended, and says so to those who elect.
DEATHS = ("crash", "patroni", "postmaster")
KINDS = (*DEATHS, "stop", "switchover")
#: Seconds that a stopped node stays so, from and to: on both sides of the keeper's patience with a stopped primary.
STOP_SHORTEST, STOP_LONGEST = 1.0, 5.0
#: How many shards are struck at once, group after group: now and then two, as each should be measured, and both survive.
SIZES = (1, 1, 1, 2)
#: Seconds by which what is struck at the same time comes after the first, at most: their repairs overlap, their elections now and
#: then. (Two cores elect two primaries in the time that four would, were each on machines of its own.)
APART = 4.0
#: Seconds before a fault in which a last write surely was acknowledged.
LEAD = 1.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault on the primary of ``shard``.

    :param seconds: how long it is stopped; 0 where nothing is. :param after: seconds after the first of its group.
    """

    shard: str
    kind: str
    seconds: float = 0.0
    after: float = 0.0


def draw(seed: int, count: int, shards: Sequence[str], sizes: Sequence[int] = SIZES) -> list[tuple[Strike, ...]]:
    """``count`` faults, every kind as often as any other (one more of some), in groups as large as ``sizes`` says, over and over;
    those of one group are on different shards.

    The same for the same arguments.

    :raises ValueError: there are fewer shards than are struck at once.
    """
    if max(sizes) > len(shards):
        raise ValueError(f"{max(sizes)} of {len(shards)} shards cannot be struck at once")
    chance = random.Random(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(count)]
    chance.shuffle(kinds)
    found = []
    for size in cycle(sizes):
        if not kinds:
            break
        struck = [(shard, kinds.pop()) for shard in chance.sample(list(shards), min(size, len(kinds)))]
        apart = [0.0, *(round(chance.uniform(0.0, APART), 2) for _ in struck[1:])]
        group = [Strike(shard, kind, _seconds(kind, chance), after) for (shard, kind), after in zip(struck, apart, strict=True)]
        found.append(tuple(group))
    return found


def _seconds(kind: str, chance: random.Random) -> float:
    return round(chance.uniform(STOP_SHORTEST, STOP_LONGEST), 1) if kind == "stop" else 0.0


def gap_around(times: Sequence[float], at: float, until: float) -> float:
    """Seconds: the longest interval in which nobody's write was acknowledged, from just before ``at`` to ``until``; infinite
    where there was none at all.

    :param times: of acknowledgements on the shard, sorted.
    """
    return longest_gap(times[bisect_left(times, at - LEAD) : bisect_right(times, until)], until).seconds
