"""The map of keys that this client goes by: read again at every doubt and twice a lease, never going back.

The map has an epoch. Shards refuse writes that were opened under an old one, so a client that missed a change is told by its
first write. Reads are not refused; they are bounded by the lease: whoever moves rows keeps the old copy for longer than it.
A change is in force on the shards before etcd tells it, and may be ended in between: whoever was refused asks them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

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
        self._readings: dict[Callable[[], Any], asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Read once, then follow."""
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def refresh(self) -> None:
        """Read the map now: etcd's, and where that is silent the newest of the shards."""
        await self._shared(self._read)

    async def doubt(self) -> None:
        """A shard refused: where etcd has no newer map, what do the shards go by?"""
        await self._shared(self._read_until_newer)

    async def _shared(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Callers at the same time share one reading."""
        task = self._readings.get(read)
        if task is None or task.done():
            task = self._readings[read] = asyncio.get_running_loop().create_task(read())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waited may be gone
        await asyncio.shield(task)

    async def _read(self) -> None:
        found = await self._of_etcd()
        self._learn(found if found is not None else await self._ask_shards())

    async def _read_until_newer(self) -> None:
        before = self.now.epoch
        self._learn(await self._of_etcd())
        if self.now.epoch == before:
            self._learn(await self._ask_shards())

    async def _of_etcd(self) -> Placement | None:
        if self._etcd is None:
            return None
        try:
            seen = await self._etcd.range(KEY)
        except (EtcdUnreachable, EtcdRefused):
            return None
        return None if seen.first is None else Placement.from_json(seen.first.value)

    def _learn(self, found: Placement | None) -> None:
        if found is not None and found.epoch > self.now.epoch:
            self.now = found
            self._told(found)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 2)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - who follows the map follows it to the end
                told = {"message": "pgfleet: the map of keys could not be read", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    async def aclose(self) -> None:
        tasks = [*self._readings.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
