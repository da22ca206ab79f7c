"""The routing table of now: made from what the watch tells and from which nodes are silent, swapped whole, waited for.

Whether a node lives is found out by node and not by query: the first failure marks it, one question a moment asks for it,
and no query is sent there until it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.table import RoutingTable, ShardRoute, route_shard
from pgfleet.runtime.clock import Deadline
from pgfleet.topology.probe import Prober, round_trip
from pgfleet.topology.watch import ShardView

#: Seconds between two questions to a silent node; they double up to the second one.
ASK_AGAIN, ASK_SELDOM = 0.25, 2.0


class Routes:
    """:param lost: called when a shard's primary must not be used any longer: its connections are cut at once.
    :param coming: called with the next primary, as soon as it is known and before it takes writes.
    :param silent: called with a node that does not answer."""

    def __init__(
        self,
        book: AddressBook,
        prober: Prober,
        *,
        lost: Callable[[NodeName, str], None],
        coming: Callable[[NodeAddress], None],
        silent: Callable[[NodeName, str], None],
    ) -> None:
        self._book, self._prober = book, prober
        self._nodes = {shard: book.of_shard(shard) for shard in {node.name.shard for node in book.nodes}}
        self._lost, self._coming, self._went_silent = lost, coming, silent
        self._views = dict[str, ShardView]()
        self._silent = set[NodeName]()
        self._asking = dict[NodeName, asyncio.Task[None]]()
        self._rtt = dict[NodeName, float]()
        self._swapped = asyncio.Event()
        self.table = RoutingTable()

    def route(self, shard: str) -> ShardRoute:
        """The shard's route; an empty one while nothing was seen."""
        return self.table.shards.get(shard) or ShardRoute(shard)

    def told(self, view: ShardView) -> None:
        """What the watch calls."""
        shard = view.topology.shard
        before = self._views.get(shard)
        self._views[shard] = view
        holder = view.topology.primary
        if before is not None and before.topology.primary != holder:
            # The lock has moved or is gone. Its holder that merely does not answer keeps its connections: it may yet.
            if (old := before.topology.primary) is not None:
                self._lost(old, f"{old} no longer holds the lock of {shard}")
            if holder is not None and (address := self._book.node(holder)) is not None:
                self._silent.discard(holder)
                self._coming(address)
        self._swap(shard)

    async def newer_than(self, version: int, deadline: Deadline, *, at_most: float) -> None:
        """Until another table is there, or ``at_most`` seconds, or the deadline."""
        if self.table.version != version:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(at_most, deadline.left()))):
                await self._swapped.wait()

    def suspect(self, node: NodeName) -> None:
        """It is late with an answer: ask whether it lives, unless somebody does."""
        self._ask(node, known=False)

    def silent(self, node: NodeName) -> None:
        """It cannot be connected to: send nothing there until it answers."""
        if node not in self._silent:
            self._mark(node)
        self._ask(node, known=True)

    async def measure(self) -> None:
        """Round trips to every node, every minute, one at a time."""
        while True:
            for shard, nodes in self._nodes.items():
                for node in nodes:
                    took = [t for _ in range(3) if (t := await round_trip(node.host, node.port)) is not None]
                    if took:
                        self._rtt[node.name] = round(min(took), 4)
                    await asyncio.sleep(0)
                self._swap(shard)
            await asyncio.sleep(60.0)

    async def aclose(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, node: NodeName, *, known: bool) -> None:
        if node in self._asking or (address := self._book.node(node)) is None:
            return
        task = asyncio.get_running_loop().create_task(self._until_it_answers(address, known=known))
        self._asking[node] = task
        task.add_done_callback(lambda _: self._asking.pop(node, None))

    async def _until_it_answers(self, address: NodeAddress, *, known: bool) -> None:
        pause = ASK_AGAIN
        if known:
            await asyncio.sleep(pause)
        while await self._prober.ask(address) is None:
            if address.name not in self._silent:
                self._mark(address.name)
            await asyncio.sleep(pause)
            pause = min(2 * pause, ASK_SELDOM)
        self._silent.discard(address.name)
        self._swap(address.name.shard)

    def _mark(self, node: NodeName) -> None:
        self._silent.add(node)
        self._went_silent(node, f"{node} does not answer")
        self._swap(node.shard)

    def _swap(self, shard: str) -> None:
        view = self._views.get(shard)
        if view is None:
            return
        route = route_shard(
            shard,
            self._nodes[shard],
            view.topology,
            primary=view.primary,
            because=view.because,
            draining=view.draining,
            silent=self._silent,
            rtt=self._rtt,
        )
        table = self.table.with_shard(route)
        if table is not self.table:
            self.table = table
            waited, self._swapped = self._swapped, asyncio.Event()
            waited.set()
