"""What happened to a shard, and when: its keys in etcd are watched while a fault is measured.

Every moment is on the monotonic clock of this process, taken when the watch told of it (2 ms after etcd knew, median).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pgfleet.errors import EtcdRefused, EtcdUnreachable
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.topology import NAMESPACE, ShardTopology
from pgfleet.providers.local.access import etcd_as


@dataclass(frozen=True, slots=True)
class Moment:
    """:param what: ``asked`` for a switchover, lock ``released``, lock ``taken``, ``announced`` (the new primary says
    itself that it takes writes), ``quorum`` (replicas take part in commits again), ``state`` (Patroni's word for a node
    changed).
    :param who: which node, or which."""

    at: float
    what: str
    who: str = ""


def moments(at: float, before: ShardTopology, after: ShardTopology) -> list[Moment]:
    """What one changed key says."""
    found = []
    if after.switching and not before.switching:
        found.append(Moment(at, "asked"))
    if before.primary != after.primary:
        if before.primary is not None:
            found.append(Moment(at, "released", before.primary.member))
        if after.primary is not None:
            found.append(Moment(at, "taken", after.primary.member))
    if after.announced and after.primary is not None and (not before.announced or before.primary != after.primary):
        found.append(Moment(at, "announced", after.primary.member))
    for name, member in after.members.items():
        old = before.members.get(name)
        if old is None or (old.role, old.state) != (member.role, member.state):
            found.append(Moment(at, "state", f"{name.member} is {member.role}, {member.state}"))
    if after.sync.voters and after.sync.leader == after.primary and before.sync != after.sync:
        found.append(Moment(at, "quorum", ", ".join(voter.member for voter in after.sync.voters)))
    return found


class Chronicle:
    """Watches ``shard`` while it is entered; ``moments`` grows."""

    def __init__(self, folder: Path, book: AddressBook, shard: str) -> None:
        self.shard = shard
        self.moments: list[Moment] = []
        self._topology = ShardTopology(shard)
        self._prefix = f"{NAMESPACE}{shard}/"
        self._etcd = etcd_as(folder, book, "keeper")
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        async with asyncio.timeout(10.0):
            await self._ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._etcd.aclose()

    def since(self, at: float, what: str) -> float | None:
        """Seconds from ``at`` to the first ``what`` after it; None: it did not happen."""
        return next((moment.at - at for moment in self.moments if moment.what == what and moment.at >= at), None)

    async def _follow(self) -> None:
        while True:
            try:
                read = await self._etcd.range(self._prefix, prefix=True)
                topology = ShardTopology(self.shard)
                for kv in read.kvs:
                    topology = topology.with_key(kv.key.removeprefix(self._prefix), kv.value, kv.mod_revision)
                self._now(topology, first=not self._ready.is_set())
                self._ready.set()
                async with aclosing(self._etcd.watch(self._prefix, start_revision=read.revision + 1, idle=10.0)) as seen:
                    async for event in seen:
                        value = event.value if event.kind == "put" else None
                        key = event.key.removeprefix(self._prefix)
                        self._now(self._topology.with_key(key, value, event.revision))
            except (EtcdUnreachable, EtcdRefused):
                await asyncio.sleep(0.05)

    def _now(self, topology: ShardTopology, *, first: bool = False) -> None:
        if not first:
            self.moments += moments(time.monotonic(), self._topology, topology)
        self._topology = topology
