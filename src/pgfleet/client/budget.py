"""How many connections one process opens to one node: what its pools share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgfleet.client.pools import NodePool


#: Seconds for which readers and writers of one node wait behind each other's lines: to make way costs a connection.
PATIENCE = 0.1


def one_at_least(what: str, size: int) -> int:
    """``size``.

    :raises ValueError: it is no number of connections with which anything could be done.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{what} is {size!r}; it is a whole number, 1 or more")
    return size


class Budget:
    """:param size: at most."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pools: list[NodePool] = []
        self.waiters = 0

    @property
    def used(self) -> int:
        return sum(pool.open for pool in self.pools)

    def room(self, asking: NodePool) -> bool:
        """Whether ``asking`` may open one more; an idle connection of another pool makes way."""
        return self.used < self.size or any(pool.spare() for pool in self.pools if pool is not asking)

    def waits_too_long(self, here: NodePool) -> bool:
        """Whether somebody waits for another pool than ``here`` so much longer than anybody waits for this, that a connection of
        this one is to make way."""
        first = min(pool.waits_since for pool in self.pools)
        return first + PATIENCE < min(here.waits_since, asyncio.get_running_loop().time())

    def freed(self) -> None:
        """A connection is gone: whoever waits longest may open one."""
        if self.waiters:
            min(self.pools, key=lambda pool: pool.waits_since).wake()
