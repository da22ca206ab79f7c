"""The map of keys that this client goes by: read again at every doubt and twice a lease, never going back.

The map has an epoch. Shards refuse writes that were opened under an old one, so a client that missed a change is told by its
first write. Reads are not refused; they are bounded by the lease: whoever moves rows keeps the old copy for longer than it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from pgfleet.errors import EtcdRefused, EtcdUnreachable
from pgfleet.routing.placement import Placement
from pgfleet.topology.etcd import EtcdClient

#: The key of the map in etcd, as the provider writes it.
KEY = "/pgfleet/placement"
#: Seconds for which a map may be read by without anybody having confirmed it.
LEASE = 10.0


class Placed:
    """:param ask_shards: the newest map that any shard has, where there is no etcd or it is silent; None: none answered.
    :param told: called with every newer map.
    """

    def __init__(
        self, placement: Placement, etcd: EtcdClient | None, ask_shards: Callable[[], Awaitable[Placement | None]],
        told: Callable[[Placement], None],
    ) -> None:  # fmt: skip
        self.now = placement
        self._etcd, self._ask_shards, self._told = etcd, ask_shards, told
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read once, then follow."""
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def refresh(self) -> None:
        """Read the map now; callers at the same time share one reading."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        found: Placement | None = None
        if self._etcd is not None:
            with contextlib.suppress(EtcdUnreachable, EtcdRefused):
                seen = await self._etcd.range(KEY)
                if seen.first is not None:
                    found = Placement.from_json(seen.first.value)
        if found is None:
            found = await self._ask_shards()
        if found is not None:
            self._learn(found)

    def _learn(self, found: Placement) -> None:
        if found.epoch > self.now.epoch:
            self.now = found
            self._told(found)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 2)
            with contextlib.suppress(ValueError):
                await self.refresh()

    async def aclose(self) -> None:
        tasks = [task for task in (self._task, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
