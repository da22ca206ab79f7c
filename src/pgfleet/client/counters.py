"""Prometheus: counters and histograms of the client's calls, in the registry that the application already serves.

Every label has few values (tables, shards, nodes, kinds, outcomes); keys and SQL are never labels. Needs
``pgfleet[metrics]``::

    fleet = pgfleet.connect("fleet.yaml", observers=[Counters()])
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from pgfleet.client.observing import WatchedCall
from pgfleet.names import NodeName

#: Seconds. From a point read on the same host to a write that waits through the failover of a silent machine.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counters:
    """An :class:`pgfleet.client.observing.Observer`. One for a registry; fleets of one process may share it.

    :raises ValueError: the registry has them already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        where = ("table", "shard", "node", "kind")
        self._calls = Counter(
            "pgfleet_client_calls", "Calls of the application, by how they ended", (*where, "outcome"), registry=registry
        )
        self._seconds = Histogram(
            "pgfleet_client_call_seconds", "How long a call took in all", ("table", "shard", "kind"), buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._waits = Histogram(
            "pgfleet_client_wait_seconds", "What calls waited for: token, connection or primary", ("shard", "awaited"),
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._retries = Counter(
            "pgfleet_client_retries", "Attempts after the first", ("table", "shard", "kind"), registry=registry
        )
        self._hedges = Counter(
            "pgfleet_client_hedges", "Second nodes asked because the first was slow", ("table", "shard", "won"), registry=registry
        )
        self._connections = Gauge(
            "pgfleet_client_connections", "Connections that are open", ("driver", "shard", "node", "role"), registry=registry
        )

    def began(self, call: WatchedCall) -> None:
        pass

    def ended(self, call: WatchedCall, begun: object) -> None:
        node = call.node.member if call.node is not None else ""
        self._calls.labels(call.table, call.shard, node, call.kind, call.outcome).inc()
        self._seconds.labels(call.table, call.shard, call.kind).observe(call.seconds)
        for awaited, seconds in call.waits.items():
            self._waits.labels(call.shard, awaited).observe(seconds)
        if call.retries:
            self._retries.labels(call.table, call.shard, call.kind).inc(call.retries)
        if call.hedges:
            self._hedges.labels(call.table, call.shard, "yes" if call.hedge_won else "no").inc(call.hedges)

    def connections(self, driver: str, node: NodeName, role: Literal["read", "write"], count: int) -> None:
        self._connections.labels(driver, node.shard, node.member, role).set(count)
