"""Nodes that do not answer: nobody sends them anything until they answer again, which is asked of them in the background.

Health is the node's, not the query's: a query that takes long is nobody's fault, and one that is refused was answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.topology.probe import Prober
from pgfleet.topology.watch import FULL

#: Seconds that a node has to answer a question that is about nothing.
ANSWERS_WITHIN = 0.5
#: Seconds between two questions to a silent node.
EVERY = 0.25


class Breaker:
    """:param answers: asks a node whether it is there. :param changed: called when a node falls silent or speaks again."""

    def __init__(self, answers: Callable[[NodeAddress], Awaitable[bool]], changed: Callable[[NodeName], None]) -> None:
        self._answers, self._changed = answers, changed
        self._asking: dict[NodeName, asyncio.Task[None]] = {}
        self._closed = False
        self.silent: set[NodeName] = set()

    def opened(self, node: NodeAddress) -> None:
        """``node`` failed to answer: it is silent until it speaks."""
        if node.name not in self.silent:
            self.silent.add(node.name)
            self._changed(node.name)
        self._ask(node)

    def suspect(self, node: NodeAddress, fell_silent: Callable[[], None]) -> None:
        """``node`` has not answered for a moment: ask it. :param fell_silent: called if it does not answer that either."""

        async def look() -> None:
            if not await self._answers(node):
                self.silent.add(node.name)
                self._changed(node.name)
                fell_silent()
            # Somebody else may have found it silent meanwhile, and has relied on us to find out when it speaks.
            if node.name in self.silent:
                await self._until_it_speaks(node)

        if not self._is_asked(node):
            self._start(node, look())
        elif node.name in self.silent:
            fell_silent()

    def _ask(self, node: NodeAddress) -> None:
        if not self._is_asked(node):
            self._start(node, self._until_it_speaks(node))

    def _is_asked(self, node: NodeAddress) -> bool:
        task = self._asking.get(node.name)
        return task is not None and not task.done()

    async def _until_it_speaks(self, node: NodeAddress) -> None:
        while not await self._answers(node):
            await asyncio.sleep(EVERY)
        self.silent.discard(node.name)
        self._changed(node.name)

    def _start(self, node: NodeAddress, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._asking[node.name] = task
        task.add_done_callback(lambda done: self._ended(node.name, done))

    def _ended(self, name: NodeName, task: asyncio.Task[None]) -> None:
        if self._asking.get(name) is task:  # else it was followed by another before we heard of its end
            del self._asking[name]

    async def aclose(self) -> None:
        self._closed = True
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def by_asking(prober: Prober) -> Callable[[NodeAddress], Awaitable[bool]]:
    """Whether a node says anything in time; that it is full is something."""

    async def answers(node: NodeAddress) -> bool:
        return await prober.ask(node, seconds=ANSWERS_WITHIN) is not None or prober.refused.get(node.name) == FULL

    return answers
