"""Taking nodes, shards and poolers out of a fleet. Data is gone afterwards; apply has asked before."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.fleet import FleetSeen
from pgfleet.facts.topology import NAMESPACE
from pgfleet.names import NodeName
from pgfleet.plan.steps import Act, Step
from pgfleet.providers.local.access import etcd_as
from pgfleet.providers.local.desk import Desk
from pgfleet.providers.local.settle import Settling
from pgfleet.providers.local.switchover import switch_over


class Removal:
    """:param seen: what apply saw before it began: the addresses of what goes are only in there.
    :param leaving: every node that goes: none of them is made primary meanwhile."""

    def __init__(self, folder: Path, seen: FleetSeen, leaving: Collection[NodeName], desk: Desk, settling: Settling) -> None:
        self._folder = folder
        self._seen = seen
        self._leaving = leaving
        self._desk = desk
        self._settling = settling

    async def remove(self, step: Step) -> str:
        """Do ``step``; what was done, for the progress line."""
        match step.act:
            case Act.REMOVE_NODE:
                return await self._node(step)
            case Act.REMOVE_SHARD:
                return await self._shard(step)
            case _:
                await self._desk.drop([step.subject])
                return "stopped"

    async def _node(self, step: Step) -> str:
        book = self._seen.addresses
        shard = self._seen.shards.get(step.shard)
        moved = ""
        if book is not None and shard is not None and shard.topology.primary == step.node:
            new = await switch_over(self._folder, book, step.shard, None, self._settling, leaving=self._leaving)
            moved = f", {new} is primary now"
        await self._desk.drop([f"node/{step.subject}"])
        await self._delete(step.shard, step.node.member)
        return f"stopped and deleted{moved}"

    async def _shard(self, step: Step) -> str:
        nodes = [name for name in self._seen.units if name.startswith(f"node/{step.shard}/")]
        await self._desk.drop(nodes)
        for name in nodes:
            await self._delete(step.shard, name.rpartition("/")[2])
        book: AddressBook | None = self._seen.addresses
        if book is not None:
            async with etcd_as(self._folder, book, "keeper") as etcd:
                await etcd.delete(f"{NAMESPACE}{step.shard}/", prefix=True)
        return f"{len(nodes)} nodes stopped and deleted"

    async def _delete(self, shard: str, member: str) -> None:
        await self._desk.gone(f"node/{shard}/{member}")
        folder = self._folder / "nodes" / shard / member
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=False)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
