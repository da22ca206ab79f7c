"""The routing table of one client, kept true: who is primary, who can be read, whom nobody should ask right now."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Literal

from pgfleet.client.open import Opened
from pgfleet.client.pools import NodePool
from pgfleet.errors import FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice, choose_read, choose_write
from pgfleet.routing.table import RoutingTable, ShardRoute, route_shard
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.http import fleet_context
from pgfleet.topology.etcd import EtcdClient
from pgfleet.topology.patroni import PatroniRest
from pgfleet.topology.probe import Prober, round_trip
from pgfleet.topology.watch import FleetWatch, ShardView

Mode = Literal["read", "write"]

#: Seconds for which a node that failed a call is not asked again.
SILENT_SECONDS = 1.0
#: Connections opened to a new primary before anybody asks for one: the first writes after a failover do not pay for them.
WARM = 2

_APPLICATION = {"application_name": "pgfleet"}
#: What sessions are opened with. A write has no statement_timeout: it would cancel a COMMIT's wait for the replicas, which
#: then succeeds without them (see runtime/sql.py); an idle transaction is ended instead.
SETTINGS: dict[Mode, dict[str, str]] = {
    "read": _APPLICATION | {"default_transaction_read_only": "on", "statement_timeout": "60s"},
    "write": _APPLICATION | {"default_transaction_read_only": "off", "idle_in_transaction_session_timeout": "60s"},
}


class Router:
    """Follows the fleet while it is open.

    :param size: connections to one node at most, for reads and for writes each.
    """

    def __init__(self, opened: Opened, *, region: str | None, size: int) -> None:
        self._opened, self._region, self._size = opened, region, size
        self.table = RoutingTable()
        self._changed = asyncio.Event()
        self._addresses = {node.name: node for node in opened.book.nodes}
        self._of_shard: dict[str, list[NodeAddress]] = {}
        for node in opened.book.nodes:
            self._of_shard.setdefault(node.name.shard, []).append(node)
        self._pools: dict[tuple[NodeName, Mode], NodePool] = {}
        self._silent: dict[NodeName, asyncio.TimerHandle] = {}
        self._rtt: dict[NodeName, float] = {}
        self._turn = 0
        self._background: set[asyncio.Task[None]] = set()
        self._etcd: EtcdClient | None = None
        self._rest: PatroniRest | None = None
        self._watch: FleetWatch | None = None
        self._prober = Prober(opened.login)

    async def start(self) -> None:
        """Look once, then follow."""
        self._etcd = self._opened.etcd()
        self._rest = PatroniRest(fleet_context(self._opened.folder))
        self._watch = FleetWatch(self._opened.book, self._prober, self._seen, etcd=self._etcd, rest=self._rest)
        await asyncio.gather(self._watch.start(), self._measure())

    async def aclose(self) -> None:
        for handle in self._silent.values():
            handle.cancel()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._watch is not None:
            await self._watch.aclose()
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))
        self._prober.rest()
        if self._etcd is not None:
            await self._etcd.aclose()
        if self._rest is not None:
            await self._rest.aclose()

    # -- choosing --------------------------------------------------------------------------------------------------------

    def choose(self, shard: str, mode: Mode, avoid: Collection[NodeName] = ()) -> Choice | None:
        """The node for a call now; None: nobody, wait for a change."""
        route = self.table.shards.get(shard)
        if route is None:
            return None
        if mode == "write":
            return choose_write(route)
        self._turn += 1
        return choose_read(route, region=self._region, turn=self._turn, avoid=avoid)

    def route(self, shard: str) -> ShardRoute:
        return self.table.shards.get(shard, ShardRoute(shard))

    def pool(self, node: NodeName, mode: Mode) -> NodePool:
        pool = self._pools.get((node, mode))
        if pool is None:
            pool = NodePool(self._addresses[node], self._opened.login, SETTINGS[mode], self._size)
            self._pools[node, mode] = pool
        return pool

    async def change(self, deadline: Deadline, at_most: float | None = None) -> None:
        """Wait until the table changes, or ``at_most`` seconds, or until ``deadline``."""
        if self._watch is None:
            raise FleetClosed("this fleet is not open")
        left = max(0.0, deadline.left())
        try:
            async with asyncio.timeout(left if at_most is None else min(left, at_most)):
                await self._changed.wait()
        except TimeoutError:
            return

    # -- what is learnt --------------------------------------------------------------------------------------------------

    def failed(self, node: NodeName, *, silent: bool) -> None:
        """A call to ``node`` failed: look again, and, if it did not answer at all, let others answer for a while."""
        if self._watch is not None:
            self._watch.doubt(node.shard)
        if silent and node not in self._silent:
            loop = asyncio.get_running_loop()
            self._silent[node] = loop.call_later(SILENT_SECONDS, self._speaks_again, node)
            self._publish(node.shard)

    def _speaks_again(self, node: NodeName) -> None:
        self._silent.pop(node, None)
        self._publish(node.shard)

    def _seen(self, view: ShardView) -> None:
        shard = view.topology.shard
        before = self.route(shard).primary
        self._publish(shard)
        after = self.route(shard).primary
        if before is not None and (after is None or after.name != before.name):
            # It may be writable still, in its own opinion; nothing of ours shall reach it.
            self.pool(before.name, "write").drop()
        if after is not None and (before is None or before.name != after.name):
            task = asyncio.get_running_loop().create_task(self.pool(after.name, "write").warm(WARM))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _publish(self, shard: str) -> None:
        if self._watch is None:
            return
        view = self._watch.views[shard]
        route = route_shard(
            shard, self._of_shard[shard], view.topology, primary=view.primary, because=view.because,
            draining=view.draining, silent=self._silent, rtt=self._rtt,
        )  # fmt: skip
        table = self.table.with_shard(route)
        if table is not self.table:
            self.table = table
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _measure(self) -> None:
        nodes = list(self._addresses.values())
        took = await asyncio.gather(*(round_trip(node.host, node.port) for node in nodes))
        self._rtt = {node.name: rtt for node, rtt in zip(nodes, took, strict=True) if rtt is not None}
