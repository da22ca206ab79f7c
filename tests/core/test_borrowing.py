"""Waiting for a node while there is none: the table says when there is one, and nobody looks again and again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgfleet.client.borrowing import PAUSE, Borrowing
from pgfleet.errors import CannotConnect, DeadlineExceeded
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline


class Nowhere:
    """A router that knows nobody, or one node that does not let us in, and notes how long it is waited for."""

    def __init__(self, node: NodeName | None = None) -> None:
        self.node = node
        self.waits: list[float | None] = []

    def choose(self, shard: str, mode: str, avoid: Any, among: Any) -> Any:
        if self.node is None or self.node in avoid:
            return None
        return type("Choice", (), {"node": type("Node", (), {"name": self.node})})

    def pool(self, node: NodeName, mode: str) -> Nowhere:
        return self

    async def acquire(self, deadline: Deadline, *, fresh: bool) -> Any:
        raise CannotConnect("nobody is at home")

    def failed(self, node: NodeName, *, silent: bool) -> None:
        return

    def why_nobody(self, shard: str, mode: str) -> str:
        return "nobody is there"

    async def change(self, deadline: Deadline, at_most: float | None = None) -> None:
        self.waits.append(at_most)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", ["read", "write"])
async def test_who_finds_nobody_waits_for_a_change(mode: Any) -> None:
    router: Any = Nowhere()
    with pytest.raises(DeadlineExceeded):
        await Borrowing(router).borrow("stem", mode, Deadline.after(0.05))
    assert set(router.waits) == {None}


async def test_who_finds_only_nodes_that_failed_tries_them_again_soon() -> None:
    router: Any = Nowhere(NodeName("stem", "east", 1))
    with pytest.raises(DeadlineExceeded):
        await Borrowing(router).borrow("stem", "read", Deadline.after(0.05))
    assert set(router.waits) == {PAUSE}
