"""Which node answers: pure, a few microseconds, and it says because.

A read goes to a replica of the caller's region, else to the nearest replica elsewhere, else to the primary; replicas
that are equally near take turns. A write goes to the primary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from pgfleet.names import NodeName
from pgfleet.routing.table import NodeRoute, ShardRoute
from pgfleet.units import format_size

#: Bytes of WAL a replica may be behind and still be read from, where the caller asks for nothing stricter.
LAG_LIMIT = 16 * 1024 * 1024

#: Two replicas are equally near when their round trips differ by less than this (seconds): below it is noise.
NEARLY = 0.002


class Why(Enum):
    """The rule that chose."""

    SAME_REGION = "a replica in the caller's region"
    NEAREST = "no replica in the caller's region can be read, this one is nearest"
    ANY_REPLICA = "a replica; the caller named no region"
    NO_REPLICA = "no replica can be read"
    WRITE = "writes go to the primary"


@dataclass(frozen=True, slots=True)
class Choice:
    """:param among: how many nodes were equally good."""

    node: NodeRoute
    why: Why
    among: int = 1

    @property
    def because(self) -> str:
        """A sentence for people; made only when somebody reads it."""
        turns = f", one of {self.among} taking turns" if self.among > 1 else ""
        if self.node.lag is None or self.why in (Why.WRITE, Why.NO_REPLICA):
            return self.why.value + turns
        return f"{self.why.value}{turns}, at most {format_size(self.node.lag)} behind"


def readable(
    route: ShardRoute,
    *,
    region: str | None,
    lag_limit: int = LAG_LIMIT,
    avoid: Collection[NodeName] = (),
    among: Collection[NodeName] | None = None,
) -> tuple[Sequence[NodeRoute], Why]:
    """The nodes that are equally good for a read, and the rule that says so; none: no node can be read now.

    :param avoid: nodes that failed this call already.
    :param among: only these replicas (they were found fresh enough); None: all.
    """
    near: list[NodeRoute] = []
    far: list[NodeRoute] = []
    for node in route.replicas:
        if not node.serves or node.silent or node.name in avoid or (node.lag is not None and node.lag > lag_limit):
            continue
        if among is not None and node.name not in among:
            continue
        (near if region is None or node.name.region == region else far).append(node)
    if near:
        return near, Why.ANY_REPLICA if region is None else Why.SAME_REGION
    if far:
        nearest = min((n.rtt for n in far if n.rtt is not None), default=None)
        if nearest is not None:
            far = [n for n in far if n.rtt is not None and n.rtt <= nearest + NEARLY]
        return far, Why.NEAREST
    primary = route.primary
    if primary is None or primary.silent or primary.name in avoid:
        return (), Why.NO_REPLICA
    return (primary,), Why.NO_REPLICA


def choose_read(
    route: ShardRoute,
    *,
    region: str | None,
    turn: int,
    lag_limit: int = LAG_LIMIT,
    avoid: Collection[NodeName] = (),
    among: Collection[NodeName] | None = None,
    line: Callable[[NodeName], int] = lambda _: 0,
) -> Choice | None:
    """The node for a read, of those that are :func:`readable`; None: no node can be read now.

    :param turn: any counter; nodes that are equally good take turns by it.
    :param line: how many wait for a node already: of those that are equally good the shortest line is joined.
    """
    nodes, why = readable(route, region=region, lag_limit=lag_limit, avoid=avoid, among=among)
    if not nodes:
        return None
    count = len(nodes)
    first = min(range(turn, turn + count), key=lambda n: line(nodes[n % count].name)) if count > 1 else 0
    return Choice(nodes[first % count], why, count)


def choose_write(route: ShardRoute) -> Choice | None:
    """The node for a write; None: wait, there is no primary or it is about to hand over."""
    if route.primary is None or route.draining:
        return None
    return Choice(route.primary, Why.WRITE)


def refused(route: ShardRoute, node: NodeRoute, *, lag_limit: int = LAG_LIMIT) -> str | None:
    """Why a replica is not read from, as a sentence; None: it may be."""
    if node.silent:
        return "did not answer us"
    if not node.serves:
        return "Patroni does not say that it serves reads"
    if node.lag is not None and node.lag > lag_limit:
        return f"{format_size(node.lag)} behind, the limit is {format_size(lag_limit)}"
    return None
