"""Provider ``local``: the whole fleet as processes of this host. What it wants, and performing a plan's steps.

Only this folder knows that everything is on one host: the units and their keeper, and the address book.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from pgfleet.engines.etcd import authentication_enabled, enable_authentication
from pgfleet.errors import EtcdUnreachable, NotSettled
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import NodeName
from pgfleet.plan.ownership import known_maps
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Act, Step
from pgfleet.plan.wanted import Wanted, WantedShard, WantedUnit
from pgfleet.providers.driver import Doing
from pgfleet.providers.local.access import connect_as, etcd_as
from pgfleet.providers.local.addressing import HOST, assign, ports_of, with_leaving
from pgfleet.providers.local.compose import Composed, Site, compose, digest, with_digests
from pgfleet.providers.local.credentials import PLACEHOLDERS, Credentials, keep_certificates, keep_credentials
from pgfleet.providers.local.desk import Desk
from pgfleet.providers.local.endpoints import await_endpoints
from pgfleet.providers.local.engines import Engines, find_engines
from pgfleet.providers.local.keeper.control import KeeperClient, start_keeper
from pgfleet.providers.local.observe import observe
from pgfleet.providers.local.passable import refuse_impassable
from pgfleet.providers.local.placement import Placing
from pgfleet.providers.local.ports import reserving
from pgfleet.providers.local.prepare import prepare_shard, prepared_digest
from pgfleet.providers.local.removal import Removal
from pgfleet.providers.local.settings import change_settings
from pgfleet.providers.local.settle import Settling, all_streaming, sync_in_force
from pgfleet.providers.local.switchover import switch_over
from pgfleet.providers.misplaced import refuse_lost_rows
from pgfleet.render.ownership import digest as ownership_digest
from pgfleet.render.patroni import dynamic_configuration
from pgfleet.render.pgbouncer import prepared_statements
from pgfleet.routing.ownership import ownership, succeeding
from pgfleet.routing.placement import Placement
from pgfleet.runtime.files import make_folder, write_atomically
from pgfleet.runtime.state import read_addresses, state_root
from pgfleet.spec.document import Positions
from pgfleet.spec.fleet import Fleet

#: Seconds: etcd's members from their start to an answer; a shard's first primary; all of its copies. On a busy host with two
#: cores forty nodes start at once, each a Python of its own: the limits are for what is broken, not for what is slow.
ETCD_WITHIN, PRIMARY_WITHIN, COPIES_WITHIN = 30.0, 180.0, 300.0
#: A second apart: longer than Patroni's ttl, after which etcd's word is fresh.
PREPARE_TRIES = 40


@dataclass(frozen=True, slots=True)
class LocalProvider:
    """``fleet`` in ``folder``.

    :param positions: where its file says what, for ``because``.
    """

    fleet: Fleet
    positions: Positions
    folder: Path
    engines: Engines

    @classmethod
    def of(cls, fleet: Fleet, positions: Positions, folder: Path) -> LocalProvider:
        """:raises PostgresMissing, EnginesMissing: something is not installed."""
        return cls(fleet, positions, folder, find_engines(fleet.postgres))

    async def observe(self) -> FleetSeen:
        """What there is."""
        return await observe(self.folder)

    # -- what the file wants ---------------------------------------------------------------------------------------------

    def wanted(self, seen: FleetSeen) -> Wanted:
        """What the file wants here; what is new gets ports that are free now."""
        fleet = self.fleet
        shapes = fleet.shapes()
        with reserving(state_root() / "ports.json", HOST, self.folder) as ports:
            statements = prepared_statements(self.engines.pgbouncer_version)
            book = assign(fleet, shapes, self.folder, seen.addresses, ports, prepared=statements)
        # Without secrets and without what lives in etcd: a digest speaks of the process' own configuration.
        bare = compose(self._site(book, PLACEHOLDERS, bare=True))
        prepared = prepared_digest(book.database)
        known = known_maps(seen)
        placement = succeeding(Placement.of(fleet, known=known), known)
        notes = []
        if not self.engines.postgres.tested:
            notes.append(f"PostgreSQL {fleet.postgres} is untested with this pgfleet")
        return Wanted(
            fleet=fleet.fleet,
            because=self._line("fleet"),
            addresses=book,
            units={name: WantedUnit(name, digest(one), self._because(name)) for name, one in bare.items()},
            shards={
                s.name: WantedShard(
                    s.name,
                    self._line("shards", s.name),
                    self._configurations()[s.name],
                    prepared,
                    ownership_digest([ownership(placement, s.name)]),
                )
                for s in shapes
            },
            placement=placement.to_json(),
            notes=tuple(notes),
        )

    def _line(self, *path: str) -> str:
        position = self.positions.of(*path)
        return f"{position.file}:{position.line} {'.'.join(path)}"

    def _because(self, unit: str) -> str:
        kind, _, rest = unit.partition("/")
        match kind:
            case "node":
                return self._line("shards", rest.partition("/")[0])
            case "etcd":
                return self._line("regions")
            case _:
                return self._line("regions", rest)

    def _configurations(self) -> dict[str, dict[str, object]]:
        pools = self.fleet.pools
        return {
            shape.name: dynamic_configuration(shape.settings, sync=shape.sync, max_connections=pools.max_connections)
            for shape in self.fleet.shapes()
        }

    def _site(self, book: AddressBook, credentials: Credentials, *, bare: bool) -> Site:
        configurations = {} if bare else self._configurations()
        return Site(self.fleet, self.fleet.shapes(), book, self.folder, self.engines, credentials, configurations)

    # -- making it so ----------------------------------------------------------------------------------------------------

    async def perform(self, plan: Plan, wanted: Wanted, seen: FleetSeen, doing: Doing) -> None:
        """Perform ``plan``: what does not depend on one another goes side by side.

        :raises PgfleetError: the first step that failed; steps beside it were ended first where they could be.
        """
        book = wanted.addresses
        here = with_leaving(book, seen)
        for step in plan.of(Act.PREPARE):
            with doing(step):
                self._prepare(here)
        credentials = keep_credentials(self.folder)
        real = compose(self._site(book, credentials, bare=False))
        composed = with_digests(real, {name: unit.digest for name, unit in wanted.units.items()})
        desk = Desk(self.folder, wanted.fleet, composed, self.engines.user)
        if seen.keeper:
            desk.keeper_answers()
        await self._coordination(plan, desk, book, credentials, doing)
        async with Settling(self.folder, book) as settling:
            shards = {step.shard for step in plan.steps if step.shard in wanted.shards}
            async with asyncio.TaskGroup() as group:
                for shard in wanted.shards:
                    if shard in shards:
                        sync = sync_in_force(seen, shard, default=self.fleet.shape(shard).sync)
                        group.create_task(self._shard(shard, sync, plan, desk, here, credentials, settling, doing))
                group.create_task(self._poolers(plan, desk, composed, doing))
            await self._check_endpoints(plan, book)
            leaving = [node.name for node in here.nodes if book.node(node.name) is None]
            for step in plan.of(Act.CHANGE_SETTINGS):
                with doing(step) as told:
                    told["told"] = await change_settings(self.folder, here, wanted.shards[step.shard], settling, leaving)
            removal = Removal(self.folder, seen, leaving, desk, settling)
            for step in plan.of(Act.REMOVE_NODE, Act.REMOVE_SHARD, Act.REMOVE_POOLER):
                with doing(step) as told:
                    told["told"] = await removal.remove(step)
            placing = Placing(self.folder, book, settling, {s.name: [n.name for n in s.nodes] for s in self.fleet.shapes()})
            for step in plan.of(Act.RECORD_PLACEMENT):
                with doing(step) as told:
                    told["told"] = await placing.record(seen.placement, wanted.placement)
            for step in plan.of(Act.GUARD_TABLES):
                with doing(step):
                    await placing.guard(step.shard)
        if plan.of(Act.PREPARE):
            self._write_addresses(book)

    def _prepare(self, book: AddressBook) -> None:
        make_folder(self.folder)
        make_folder(self.folder / "run", mode=0o700)
        for name in ("logs", "etcd", "nodes", "poolers"):
            make_folder(self.folder / name)
        keep_credentials(self.folder)
        keep_certificates(self.folder, HOST, self.engines.user)
        self._write_addresses(book)

    def _write_addresses(self, book: AddressBook) -> None:
        write_atomically(self.folder / "addresses.json", book.to_json())
        with reserving(state_root() / "ports.json", HOST, self.folder) as ports:
            ports.give_back(keep=ports_of(book))

    async def _coordination(self, plan: Plan, desk: Desk, book: AddressBook, credentials: Credentials, doing: Doing) -> None:
        created = plan.of(Act.CREATE_ETCD)
        if created:
            await desk.put(step.subject for step in created)
        for step in plan.of(Act.START_KEEPER):
            with doing(step):
                await desk.start_keeper()
        for step in created:
            with doing(step):
                await self._etcd_answers(book)
        if not created and plan.of(Act.START_KEEPER):
            await self._etcd_answers(book)
        for step in plan.of(Act.SECURE_ETCD):
            with doing(step):
                async with etcd_as(self.folder, book, None, timeout=10.0) as etcd:
                    await enable_authentication(etcd, credentials.etcd)

    async def _etcd_answers(self, book: AddressBook) -> None:
        async with etcd_as(self.folder, book, None, timeout=1.0) as etcd:
            try:
                async with asyncio.timeout(ETCD_WITHIN):
                    while True:
                        try:
                            await authentication_enabled(etcd)
                            return
                        except EtcdUnreachable:
                            await asyncio.sleep(0.1)
            except TimeoutError:
                raise NotSettled(
                    f"etcd does not answer {ETCD_WITHIN:g} s after its start",
                    hint=f"tail {self.folder}/logs/etcd.*.log",
                ) from None

    async def _shard(
        self, shard: str, sync: int, plan: Plan, desk: Desk, book: AddressBook, credentials: Credentials, settling: Settling,
        doing: Doing,
    ) -> None:  # fmt: skip
        steps = [step for step in plan.steps if step.shard == shard]
        nodes = [node.name for node in self.fleet.shape(shard).nodes]
        changed = [s for s in steps if s.act in (Act.CHANGE, Act.START)]
        for step in changed:
            with doing(step):
                await _again(desk, f"node/{step.subject}", step)
        new = [step for step in steps if step.act is Act.CREATE_NODE]
        waiting = asyncio.TaskGroup()
        async with waiting:
            if new and len(new) == len(nodes):
                # The home's first voter alone: whoever comes first makes the shard, and it shall be the one at home.
                first, *new = new
                with doing(first) as told:
                    await desk.put([f"node/{first.subject}"])
                    await self._primary(shard, settling, nodes)
                    told["told"] = "primary"
            if new:
                await desk.put(f"node/{step.subject}" for step in new)
            for step in new:
                waiting.create_task(self._copy(step, settling, doing))
            for step in steps:
                if step.act is Act.PREPARE_SHARD:
                    waiting.create_task(self._database(step, book, credentials, settling, nodes, doing))
        # Patroni counts a new copy in for the quorum a loop or two after it streams; until then commits wait for fewer.
        await settling.until(
            shard, lambda t: all_streaming(t, nodes) and len(t.sync.voters) >= sync, nodes, within=COPIES_WITHIN,
            what="whole",
        )  # fmt: skip

    async def _primary(self, shard: str, settling: Settling, nodes: Sequence[NodeName]) -> NodeName:
        topology = await settling.until(
            shard, lambda t: t.primary is not None and t.announced, nodes, within=PRIMARY_WITHIN, what="writable"
        )
        assert topology.primary is not None  # noqa: S101 - what was waited for
        return topology.primary

    async def _copy(self, step: Step, settling: Settling, doing: Doing) -> None:
        with doing(step) as told:
            topology = await settling.until(
                step.shard, lambda t: all_streaming(t, [step.node]), [step.node], within=COPIES_WITHIN, what="streaming"
            )
            told["told"] = "primary" if topology.primary == step.node else "streaming"

    async def _database(
        self, step: Step, book: AddressBook, credentials: Credentials, settling: Settling, nodes: Sequence[NodeName],
        doing: Doing,
    ) -> None:  # fmt: skip
        with doing(step):
            said = ""
            for _ in range(PREPARE_TRIES):
                primary = book.node(await self._primary(step.shard, settling, nodes))
                if primary is None:
                    raise NotSettled(f"the primary of {step.shard} is a node that the file does not declare")
                try:
                    await prepare_shard(self.folder, book, primary, credentials)
                    return
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    # What etcd says can be of before a crash: its keys outlive their nodes by a ttl.
                    said = str(error) or type(error).__name__
                    await asyncio.sleep(1.0)
            raise NotSettled(f"the primary of {step.shard} cannot be prepared", seen=[said], hint="pgfleet status")

    async def _poolers(self, plan: Plan, desk: Desk, composed: dict[str, Composed], doing: Doing) -> None:
        steps = [s for s in plan.of(Act.CREATE_POOLER, Act.CHANGE, Act.START) if s.subject in composed]
        await desk.put(step.subject for step in steps if step.act is Act.CREATE_POOLER)
        for step in steps:
            with doing(step):  # its ports answer when the shards do: see _check_endpoints
                await _again(desk, step.subject, step)

    async def _check_endpoints(self, plan: Plan, book: AddressBook) -> None:
        if plan.of(Act.CREATE_POOLER, Act.CREATE_NODE, Act.PREPARE_SHARD, Act.START_KEEPER):
            await await_endpoints(self.folder, book)

    async def guard(self, wanted: Wanted, seen: FleetSeen) -> None:
        """:raises PlacementLosesRows, LookupLosesEntries: a key that has rows, or a value, would be looked for on another shard.
        :raises StateUnusable: the engines could not reach their folders."""
        refuse_impassable(self.folder, self.engines.user)
        database = wanted.addresses.database
        await refuse_lost_rows(lambda node: connect_as(self.folder, node, "pgfleet_owner", database, timeout=30.0), seen, wanted)

    # -- beside plans ----------------------------------------------------------------------------------------------------

    async def switch_over(self, shard: str, to: NodeName | None) -> NodeName:
        """:raises NoCandidate, PatroniRefused, NotSettled: it did not happen."""
        book = read_addresses(self.folder)
        async with Settling(self.folder, book) as settling:
            return await switch_over(self.folder, book, shard, to, settling, home=self.fleet.shape(shard).home)

    async def destroy(self, told: Callable[[str], None], *, schema: bool = False) -> None:
        """Stop every process of the fleet, then delete its folder. Can be interrupted anywhere and run again."""
        if (self.folder / "units.json").exists():
            # Processes may outlive a keeper; only a keeper knows how to end them.
            await start_keeper(self.folder)
            told("stopping every process")
            await KeeperClient(self.folder).stop_all()
        told("deleting its folder")
        await asyncio.to_thread(_delete, self.folder)
        with reserving(state_root() / "ports.json", HOST, self.folder) as ports:
            ports.give_back(keep=set())


def _delete(folder: Path) -> None:
    """Everything, the journal and the lock last: by them a folder that was deleted in part is known as a fleet's."""
    last = {"journal.db", "acting.lock"}
    for entry in folder.iterdir():
        if entry.name in last:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.rmtree(folder)


async def _again(desk: Desk, unit: str, step: Step) -> None:
    """A process that is there already: its new configuration, or another start."""
    if step.act is Act.START:
        await desk.start(unit, step.because)
    elif step.act is Act.CHANGE:
        await desk.put([unit])
