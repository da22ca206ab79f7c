"""How far each node has come: asked when somebody needs to know, remembered because it only grows while the node runs.

A replica that is started again opens at the first position at which it is consistent, which may be before one that it had
shown. So what a node said counts as long as the session lives in which it said so.

Nothing is polled while nobody waits. Questions to one node are shared: whoever asks while one is under way takes the next
one's answer, together with all who came meanwhile (as commits share one flush of the log). So what a position is needed for
costs one round trip, or none where an earlier answer was far enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.consistency import Mark, Proofs
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.sql import Connection
from pgfleet.topology.probe import ASK, ASK_CONFIRMED, NO_SUCH, OwnWord, Prober

#: Seconds for one answer.
ASK_SECONDS = 0.5


class Positions:
    """:param prober: asks the nodes. :param heard: told every answer, for whoever keeps histories."""

    def __init__(self, prober: Prober, heard: Callable[[NodeName, OwnWord], None]) -> None:
        self._prober, self._heard = prober, heard
        self._words: dict[NodeName, OwnWord] = {}
        self._said_in: dict[NodeName, Connection | None] = {}
        self._proofs: dict[str, Proofs] = {}
        self._asking: dict[NodeName, asyncio.Task[OwnWord | None]] = {}
        self._next: dict[NodeName, asyncio.Task[OwnWord | None]] = {}
        self._plain: set[str] = set()  # shards that do not tell what is confirmed

    def replayed(self, node: NodeName) -> int:
        """The farthest that ``node`` was seen at since it was started, bytes of WAL; -1 = never."""
        word = self._words.get(node)
        return -1 if word is None or not self._counts(node) else word.position

    def _counts(self, node: NodeName) -> bool:
        session = self._prober.session(node)
        return session is not None and session is self._said_in.get(node)

    def timeline(self, node: NodeName) -> int:
        """The timeline it was last seen on; 0 = never seen."""
        word = self._words.get(node)
        return 0 if word is None else word.timeline

    def forget(self, shard: str) -> None:
        """The shard has another primary: its nodes may be rewound, and positions mean another history."""
        for node in [node for node in self._words if node.shard == shard]:
            del self._words[node]
        self._proofs.pop(shard, None)

    def forget_node(self, node: NodeName) -> None:
        """``node`` does not answer: what it said may be of a life that has ended."""
        self._words.pop(node, None)
        if (proofs := self._proofs.get(node.shard)) is not None:
            self._proofs[node.shard] = proofs.without(node)

    async def ask(self, node: NodeAddress) -> OwnWord | None:
        """Its word, given after this call began; None: it gave none in time. Shared with all who ask meanwhile."""
        name = node.name
        task = self._next.get(name)
        if task is None:
            before = self._asking.get(name)
            task = asyncio.get_running_loop().create_task(self._ask(node, before))
            if before is not None:
                self._next[name] = task
            else:
                self._asking[name] = task
        return await asyncio.shield(task)

    async def _ask(self, node: NodeAddress, before: asyncio.Task[OwnWord | None] | None) -> OwnWord | None:
        name = node.name
        if before is not None:
            await asyncio.wait([before])
            self._asking[name] = self._next.pop(name)
        began = monotonic()
        try:
            word = await self._word(node)
        finally:
            if name not in self._next:
                self._asking.pop(name, None)
        if word is not None:
            self._learn(name, word, began)
        return word

    async def _word(self, node: NodeAddress) -> OwnWord | None:
        if node.name.shard not in self._plain:
            word = await self._prober.ask(node, seconds=ASK_SECONDS, question=ASK_CONFIRMED)
            if word is not None or self._prober.refused.get(node.name) not in NO_SUCH:
                return word
            self._plain.add(node.name.shard)  # not pgfleet's own, or not prepared by this one yet
        return await self._prober.ask(node, seconds=ASK_SECONDS, question=ASK)

    def _learn(self, name: NodeName, word: OwnWord, began: float) -> None:
        self._heard(name, word)
        if not self._counts(name):
            self.forget_node(name)
            self._said_in[name] = self._prober.session(name)
        known = self._words.get(name)
        if known is None or (word.timeline, word.position) > (known.timeline, known.position):
            self._words[name] = word
        proofs = self._proofs.get(name.shard)
        if not word.recovering:
            if proofs is None or proofs.primary != name:
                proofs = Proofs(name)
            self._proofs[name.shard] = proofs.marked(Mark(word.position, began))
        elif proofs is not None:
            self._proofs[name.shard] = proofs.replayed(name, word.position)

    def fresh(self, shard: str, max_staleness: float) -> frozenset[NodeName]:
        """The replicas that are proven to be at most ``max_staleness`` seconds behind now."""
        proofs = self._proofs.get(shard)
        fresh = frozenset[NodeName]() if proofs is None else proofs.fresh(max_staleness, monotonic())
        return frozenset(node for node in fresh if self._counts(node))

    def mark(self, shard: str, max_staleness: float) -> Mark | None:
        """Where the primary was at most ``max_staleness`` seconds ago, the longest ago; None: nobody asked it since."""
        marks = proofs.marks if (proofs := self._proofs.get(shard)) is not None else ()
        return next((mark for mark in marks if monotonic() - mark.at <= max_staleness), None)

    async def prove(self, primary: NodeAddress, replicas: Sequence[NodeAddress]) -> None:
        """Ask the primary where it is, then the replicas whether they have come so far."""
        if await self.ask(primary) is not None:
            await asyncio.gather(*(self.ask(node) for node in replicas))

    async def aclose(self) -> None:
        tasks = [*self._asking.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._prober.rest()
