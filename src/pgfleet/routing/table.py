"""The routing table: per shard, which nodes there are and what may be asked of each. Immutable, and swapped whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.topology import MemberSeen, ShardTopology
from pgfleet.names import NodeName


@dataclass(frozen=True, slots=True)
class NodeRoute:
    """One node, as the router sees it.

    :param lag: bytes behind the primary; None = not known.
    :param rtt: seconds to it and back, as measured; None = not measured.
    :param serves: it answers queries, and reads may be sent there.
    :param silent: it did not answer us; it is asked again in the background, not by queries.
    """

    name: NodeName
    host: str
    port: int
    lag: int | None = None
    rtt: float | None = None
    serves: bool = True
    silent: bool = False

    @property
    def region(self) -> str:
        return self.name.region

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ShardRoute:
    """One shard.

    :param primary: takes writes, which it said itself; None while there is none.
    :param draining: the primary is about to be switched over: new writes wait for its successor.
    :param because: how it is known who the primary is, or why there is none.
    """

    shard: str
    primary: NodeRoute | None = None
    replicas: tuple[NodeRoute, ...] = ()
    draining: bool = False
    because: str = "nothing was seen yet"

    def node(self, name: NodeName) -> NodeRoute | None:
        if self.primary is not None and self.primary.name == name:
            return self.primary
        return next((r for r in self.replicas if r.name == name), None)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """:param version: grows by one with every swap."""

    version: int = 0
    shards: Mapping[str, ShardRoute] = field(default_factory=dict)

    def with_shard(self, route: ShardRoute) -> RoutingTable:
        """The next version: this, with another route for one shard. The same table when nothing is different."""
        if self.shards.get(route.shard) == route:
            return self
        return RoutingTable(self.version + 1, {**self.shards, route.shard: route})


def route_shard(
    shard: str,
    nodes: Collection[NodeAddress],
    seen: ShardTopology,
    *,
    primary: NodeName | None,
    because: str,
    draining: bool = False,
    silent: Collection[NodeName] = (),
    rtt: Mapping[NodeName, float] | None = None,
) -> ShardRoute:
    """The shard's route, from its addresses and what was seen.

    :param primary: who may be written to now; it need not be the lock's holder, who may not be promoted yet.
    """
    routes = [_node(address, seen, silent, rtt or {}) for address in nodes]
    first = next((r for r in routes if r.name == primary), None)
    # The lock's holder is no replica, even before it takes writes: reads there would only slow its promotion.
    replicas = tuple(r for r in routes if r is not first and r.name != seen.primary)
    return ShardRoute(shard, first, replicas, draining and first is not None, because)


def _node(address: NodeAddress, seen: ShardTopology, silent: Collection[NodeName], rtt: Mapping[NodeName, float]) -> NodeRoute:
    name = address.name
    member = seen.members.get(name)
    return NodeRoute(
        name,
        address.host,
        address.port,
        lag=_rounded(seen.lag(name)),
        rtt=rtt.get(name),
        serves=_serves(member),
        silent=name in silent,
    )


def _serves(member: MemberSeen | None) -> bool:
    return member is not None and member.serves and member.balanced


def _rounded(lag: int | None) -> int | None:
    # To 64 kB, upwards: a table that is swapped for every byte of lag would be swapped all the time.
    return None if lag is None else -(-lag // 65536) * 65536
