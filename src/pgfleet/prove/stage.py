"""A fleet for a measurement: brought up in a folder of its own, taken down afterwards whatever happens."""

from __future__ import annotations

import asyncio
import getpass
import re
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pgfleet
from pgfleet.control.apply import Teller, apply
from pgfleet.control.destroy import destroy
from pgfleet.control.drivers import driver_of
from pgfleet.control.journal import Journal
from pgfleet.control.migrate import check, migrate
from pgfleet.control.pace import Pace
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.topology import ShardTopology
from pgfleet.names import NodeName
from pgfleet.plan.migrations import read_migrations
from pgfleet.plan.steps import Step
from pgfleet.providers.driver import Driver
from pgfleet.providers.local.settle import Settling, all_streaming
from pgfleet.routing.placement import Placement
from pgfleet.runtime.state import fleet_folder, read_addresses
from pgfleet.spec.fleet import Fleet


class Silent:
    """A teller that tells nobody."""

    def began(self, name: str) -> None: ...
    def ended(self, name: str, result: str = "") -> None: ...
    def failed(self, name: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """What control needs to find a fleet's driver."""

    file: str
    root: Path

    def text(self) -> str:
        return Path(self.file).read_text(encoding="utf-8")

    def folder(self, fleet: str) -> Path:
        return fleet_folder(fleet, str(self.root))


@dataclass(frozen=True, slots=True)
class Stage:
    """:param root: the state root, which holds the fleet's folder. :param file: what declares the fleet."""

    root: Path
    file: Path
    fleet: Fleet
    driver: Driver
    folder: Path

    @property
    def book(self) -> AddressBook:
        return read_addresses(self.folder)

    @property
    def placement(self) -> Placement:
        return Placement.of(self.fleet)

    async def apply(self, teller: Teller | None = None) -> tuple[float, Sequence[Step]]:
        """Make it so; how many seconds it took, and what was done."""
        began = time.monotonic()
        done = await apply(self.driver, self.folder, teller or Silent(), lambda plan: False)
        return time.monotonic() - began, done.steps

    async def migrate(self, schema: Path) -> int:
        """Apply the files of ``schema`` that are for tables of this fleet; how many files were applied, on all shards.

        :raises MigrateFailed: one was refused.
        """
        migrations = read_migrations(str(schema), _files_for(schema, self.fleet), self.fleet.tables)
        shards_of = {table: self.placement.shards(table) for table in self.fleet.tables}
        by = f"{getpass.getuser()}@{socket.gethostname()}"
        with Journal(self.folder / "journal.db") as journal:
            done = await migrate(self.book, migrations, shards_of, self.fleet.shards, journal=journal, by=by, pace=Pace())
        check(done)
        return sum(len(shard.applied) for shard in done)

    def nodes(self, shard: str) -> list[NodeName]:
        return [node.name for node in self.fleet.shape(shard).nodes]

    async def whole(self, shards: Sequence[str], within: float = 120.0) -> dict[str, ShardTopology]:
        """Wait until every node of ``shards`` streams and commits reach as many replicas as the file says.

        :raises NotSettled: it did not become so.
        """

        def reached(topology: ShardTopology) -> bool:
            shape = self.fleet.shape(topology.shard)
            voting = sum(shape.voters.values()) - 1
            return all_streaming(topology, self.nodes(topology.shard)) and (not shape.sync or len(topology.sync.voters) == voting)

        async with Settling(self.folder, self.book) as settling:
            found = [await settling.until(shard, reached, self.nodes(shard), within=within, what="whole") for shard in shards]
        return {topology.shard: topology for topology in found}

    async def primary(self, shard: str) -> NodeName:
        """Who takes writes now."""
        async with Settling(self.folder, self.book) as settling:
            nodes = self.nodes(shard)
            topology = await settling.until(shard, lambda t: t.announced, nodes, within=30.0, what="writable")
        assert topology.primary is not None  # noqa: S101 - announced
        return topology.primary

    def client(self, region: str | None = None) -> Any:
        """The fleet's own client, for an application in ``region``."""
        return pgfleet.connect(str(self.file), region=region, state=str(self.root))

    async def destroy(self) -> None:
        await destroy(self.driver, self.folder, lambda text: None)


def _files_for(schema: Path, fleet: Fleet) -> dict[str, bytes]:
    """Without the files for tables that ``fleet`` does not declare: a demo has only some of the example's tables."""
    found: dict[str, bytes] = {}
    for path in sorted(schema.glob("*.sql")):
        text = path.read_bytes()
        head = re.search(rb"^--\s*tables\s*:(.*)$", text, re.MULTILINE)
        tables = {name.strip() for name in head[1].decode().split(",")} if head else set()
        if not tables or tables & fleet.tables.keys():
            found[path.name] = text
    return found


def open_stage(file: Path, root: Path) -> Stage:
    """The fleet that ``file`` declares, with its state below ``root``; nothing is started."""
    asked: Any = _Asked(str(file), root)
    driver, fleet, folder = driver_of(asked)
    return Stage(root, file, fleet, driver, folder)


def fresh_root(prefix: str) -> Path:
    """A new folder below the system's temporary one that the engines' user can enter."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    root.chmod(0o755)
    return root


@asynccontextmanager
async def staged(text: str) -> AsyncIterator[Stage]:
    """A fleet declared by ``text`` in a fresh folder; destroyed at the end of the block, on an error too."""
    root = await asyncio.to_thread(fresh_root, "pgfleet-prove-")
    file = root / "fleet.yaml"
    file.write_text(text, encoding="utf-8")
    stage = open_stage(file, root)
    try:
        yield stage
    finally:
        await stage.destroy()
        await asyncio.to_thread(shutil.rmtree, root)
