"""The map of keys put in force: on every shard's primary, then in the state folder, then in etcd, which tells everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pgfleet.errors import NotSettled, PlacementSuperseded
from pgfleet.facts.addresses import AddressBook
from pgfleet.names import NodeName
from pgfleet.providers.local.access import etcd_as, owner_of
from pgfleet.providers.local.observe import PLACEMENT
from pgfleet.providers.local.settle import Settling
from pgfleet.providers.misplaced import nothing_is_left
from pgfleet.providers.ownership import PATIENCE, Patience, attach_guards, change_map
from pgfleet.routing.placement import Placement
from pgfleet.runtime.files import write_atomically
from pgfleet.runtime.sql import Connection

#: Seconds until a shard has a primary that takes writes: an election may be under way.
PRIMARY_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Placing:
    """:param nodes: of every shard that the file declares."""

    folder: Path
    book: AddressBook
    settling: Settling
    nodes: Mapping[str, Sequence[NodeName]]
    patience: Patience = PATIENCE

    async def record(self, before: str | None, after: str) -> str:
        """Make ``after`` the map of all shards and of the record; a word for the progress line.

        :param before: what the record said when this was planned.
        :raises PlacementSuperseded: somebody else changed it since.
        """
        placement = Placement.from_json(after)
        await change_map(self._reach, self.nodes, placement, vacated=nothing_is_left, patience=self.patience)
        # etcd last: what it says is what the next plan compares with.
        write_atomically(self.folder / "placement.json", after)
        async with etcd_as(self.folder, self.book, "keeper") as etcd:
            there = (await etcd.range(PLACEMENT)).first
            recorded, revision = (there.value, there.mod_revision) if there is not None else (None, 0)
            if recorded != after and (recorded != before or not await etcd.txn_swap(PLACEMENT, revision, after)):
                raise PlacementSuperseded("the map of keys that etcd has was changed by somebody else", hint="pgfleet plan")
        return f"epoch {placement.epoch}"

    async def guard(self, shard: str) -> None:
        """Attach guards to tables of ``shard`` that have none."""
        await attach_guards(self._reach, [shard], self.patience)

    @asynccontextmanager
    async def _reach(self, shard: str) -> AsyncIterator[Connection]:
        topology = await self.settling.until(
            shard, lambda t: t.primary is not None and t.announced, self.nodes[shard], within=PRIMARY_WITHIN, what="writable"
        )
        node = self.book.node(topology.primary) if topology.primary is not None else None
        if node is None:
            raise NotSettled(f"the primary of {shard} is a node that the file does not declare")
        async with owner_of(self.folder, self.book, node, seconds=self.patience.statement) as connection:
            yield connection
