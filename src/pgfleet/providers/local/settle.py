"""Waiting until a shard is what it shall be: one look at etcd serves everybody who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from pgfleet.errors import EtcdRefused, EtcdUnreachable, KeeperFailed, KeeperUnreachable, NotSettled
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.fleet import FleetSeen
from pgfleet.facts.topology import NAMESPACE, ShardTopology, read_shards
from pgfleet.names import NodeName
from pgfleet.providers.local.access import etcd_as
from pgfleet.providers.local.keeper.control import KeeperClient, UnitSeen
from pgfleet.runtime.process import last_lines

#: Seconds between two looks, while somebody waits. Patroni itself writes its state about once a second.
LOOK_EVERY = 0.2
#: So many ends of a process, one after another, are no accident.
GIVE_UP = 5


def all_streaming(topology: ShardTopology, nodes: Sequence[NodeName]) -> bool:
    """Whether ``topology`` has a primary that takes writes and every other node of ``nodes`` streams from it."""
    if topology.primary is None or not topology.announced:
        return False
    seen = topology.members
    return all(
        name in seen and (name == topology.primary or (seen[name].role == "replica" and seen[name].state == "streaming"))
        for name in nodes
    )


def sync_in_force(seen: FleetSeen, shard: str, *, default: int) -> int:
    """How many replicas a commit of ``shard`` waits for now, whatever the file says: what it says comes into force after the
    nodes are there.

    :param default: of a shard that was never started.
    """
    there = seen.shards.get(shard)
    if there is None or there.configuration is None:
        return default
    count = there.configuration.get("synchronous_node_count")
    return count if there.configuration.get("synchronous_mode") and isinstance(count, int) else 0


def describe(topology: ShardTopology, nodes: Sequence[NodeName]) -> list[str]:
    """What each of ``nodes`` is, a line each, for who waited in vain."""
    lines = [f"primary: {topology.primary or 'none'}"]
    for name in nodes:
        member = topology.members.get(name)
        lines.append(f"{name}: {f'{member.role}, {member.state}' if member is not None else 'not heard of'}")
    return lines


def crash_looping(units: Iterable[UnitSeen]) -> dict[str, str]:
    """Units that end as soon as they are started, and why. A node that only waits for an election is none of them, however
    often it was started in all its time."""
    return {unit.name: unit.last_because for unit in units if unit.state == "backoff" and unit.short_lives >= GIVE_UP}


class Settling:
    """Follows all shards while it is entered."""

    def __init__(self, folder: Path, book: AddressBook) -> None:
        self._etcd = etcd_as(folder, book, "keeper")
        self._names = {node.name.shard for node in book.nodes}
        self._seen: Mapping[str, ShardTopology] = {}
        self._failing: Mapping[str, str] = {}
        self._folder = folder
        self._keeper = KeeperClient(folder)
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - entered
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._etcd.aclose()

    async def _look(self) -> None:
        while True:
            try:
                keys = await self._etcd.range(NAMESPACE, prefix=True)
                failing = await self._units_that_fail()
                async with self._looked:
                    self._failing = failing
                    self._seen = read_shards(((k.key, k.value, k.mod_revision) for k in keys.kvs), self._names)
                    self._looked.notify_all()
            except (EtcdUnreachable, EtcdRefused, KeeperUnreachable, KeeperFailed):
                pass  # who waits has a deadline, and is told what was seen last
            await asyncio.sleep(LOOK_EVERY)

    async def until(
        self,
        shard: str,
        reached: Callable[[ShardTopology], bool],
        nodes: Sequence[NodeName],
        *,
        within: float,
        what: str,
    ) -> ShardTopology:
        """Wait until ``reached`` says so of ``shard``.

        :param within: seconds.
        :raises NotSettled: it did not; says what was seen last.
        """
        try:
            async with asyncio.timeout(within), self._looked:
                while shard not in self._seen or not reached(self._seen[shard]):
                    self._give_up_on(shard, nodes)
                    await self._looked.wait()
                return self._seen[shard]
        except TimeoutError:
            topology = self._seen.get(shard, ShardTopology(shard))
            raise NotSettled(
                f"shard {shard} is not {what} after {within:g} s", seen=describe(topology, nodes), hint="pgfleet status"
            ) from None

    async def _units_that_fail(self) -> dict[str, str]:
        """Units that ended again and again, and why."""
        status = await self._keeper.status()
        return crash_looping(status.units)

    def _give_up_on(self, shard: str, nodes: Sequence[NodeName]) -> None:
        """:raises NotSettled: a node that is waited for only dies: its own last words say more than a deadline would."""
        for name in nodes:
            unit = f"node/{name}"
            if name.shard == shard and unit in self._failing:
                words = last_lines(self._folder / "logs" / f"{unit.replace('/', '.')}.log")
                raise NotSettled(f"{name} ends as soon as it is started ({self._failing[unit]})", seen=words)
