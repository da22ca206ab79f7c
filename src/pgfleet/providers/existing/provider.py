"""Provider ``existing``: shards on servers that somebody else runs. Nothing is started, stopped or configured: the servers are
asked who they are, the schema ``pgfleet`` is kept on each shard's primary, and the address book here.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import asyncpg

from pgfleet.errors import CannotConnect, DsnUnreadable, NoSuchNode, NotApplied, NotSettled, PlacementSuperseded, ProviderCannot
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import NodeName
from pgfleet.plan.ownership import known_maps
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Act, Step
from pgfleet.plan.wanted import Wanted, WantedShard
from pgfleet.providers.driver import Doing
from pgfleet.providers.existing.judge import fault
from pgfleet.providers.existing.look import LoginOf, Silence, look, primary_of
from pgfleet.providers.existing.observe import freshest_login_of, observe, told_apart
from pgfleet.providers.existing.prepare import SETTINGS, drop_schema, prepare_shard, prepared_digest, refuse_others_use
from pgfleet.providers.misplaced import nothing_is_left, refuse_lost_rows
from pgfleet.providers.ownership import Reach, attach_guards, change_map
from pgfleet.render.ownership import digest
from pgfleet.routing.ownership import ownership, succeeding
from pgfleet.routing.placement import Placement
from pgfleet.runtime.files import make_folder, write_atomically
from pgfleet.runtime.given import SECRETS, Given, resolved
from pgfleet.runtime.sql import Connection, connect
from pgfleet.runtime.state import read_addresses
from pgfleet.spec.document import Positions
from pgfleet.spec.fleet import Fleet

#: Seconds for a session that writes to begin; attempts where a primary hands over meanwhile, a second apart.
CONNECT_WITHIN, TRIES = 10.0, 5
#: Seconds between two attempts at what another operator was changing.
PAUSE = 0.3


@dataclass(frozen=True, slots=True)
class ExistingProvider:
    """``fleet`` in ``folder``.

    :param positions: where its file says what, for ``because``.
    """

    fleet: Fleet
    positions: Positions
    folder: Path

    async def observe(self) -> FleetSeen:
        """What the servers say, those of the address book where there is one, and what is kept here."""
        try:
            given: Given | None = self._given()
        except DsnUnreadable:
            given = None
        return await observe(self.folder, given)

    def wanted(self, seen: FleetSeen) -> Wanted:
        """What the file wants.

        :raises DsnUnreadable: what it names as a DSN leads to none.
        """
        given = self._given()
        known = known_maps(seen)
        placement = succeeding(Placement.of(self.fleet, known=known), known)
        return Wanted(
            fleet=self.fleet.fleet,
            because=self._line("fleet"),
            addresses=given.book,
            units={},
            shards={shard: self._shard(shard, given, placement) for shard in self.fleet.shards},
            placement=placement.to_json(),
            provisions=False,
            secrets={name: told_apart(secret) for name, secret in given.secrets().items()},
        )

    def _shard(self, shard: str, given: Given, placement: Placement) -> WantedShard:
        first = given.book.of_shard(shard)[0]
        functions = digest([ownership(placement, shard)])
        return WantedShard(shard, self._line("shards", shard), {}, prepared_digest(first.user), functions)

    def _line(self, *path: str) -> str:
        position = self.positions.of(*path)
        return f"{position.file}:{position.line} {'.'.join(path)}"

    def _given(self) -> Given:
        return resolved(self.fleet, self.positions, self.folder)

    # -- making it so ----------------------------------------------------------------------------------------------------

    async def guard(self, wanted: Wanted, seen: FleetSeen) -> None:
        """Look at every server that the file names, before anything is written anywhere.

        :raises DsnRejected, NotOneShard, TwoPrimaries, NoSuchNode, TakenAlready, PrivilegeMissing, PooledEndpoint: they are not
            what the file says they are.
        :raises PlacementLosesRows, LookupLosesEntries: a key that has rows, or a value, would be looked for on another shard.
        """
        given = self._given()
        looks = await look(given.book.nodes, given.login_of)
        for shard in self.fleet.shards:
            of_shard = {name: one for name, one in looks.items() if name.shard == shard}
            if (found := fault(self.fleet.fleet, shard, of_shard, given.sources)) is not None:
                raise found
        login_of = freshest_login_of(self.folder, seen.addresses, given)
        known = replace(seen, addresses=seen.addresses or given.book)
        await refuse_lost_rows(lambda node: self._open(node, login_of), known, wanted)

    async def perform(self, plan: Plan, wanted: Wanted, seen: FleetSeen, doing: Doing) -> None:
        """Perform ``plan``.

        :raises PgfleetError: the first step that failed; shards beside it were ended first where they could be.
        """
        given = self._given()
        for step in plan.of(Act.PREPARE):
            with doing(step) as told:
                self._keep(given)
                told["told"] = await self._absent(given)
        async with asyncio.TaskGroup() as group:
            for step in plan.of(Act.PREPARE_SHARD):
                group.create_task(self._prepare(step, wanted, given, doing))
        reach = partial(self._reach, given)
        for step in plan.of(Act.RECORD_PLACEMENT):
            with doing(step) as told:
                told["told"] = await self._record(reach, wanted.placement)
        for step in plan.of(Act.GUARD_TABLES):
            with doing(step):
                await attach_guards(reach, [step.shard])

    async def _record(self, reach: Reach, text: str) -> str:
        placement = Placement.from_json(text)
        for left in reversed(range(TRIES)):
            try:
                await change_map(reach, self.fleet.shards, placement, vacated=nothing_is_left)
                break
            except PlacementSuperseded:
                # By another operator: to the same map, as likely as not, and then there is nothing left to do.
                if not left:
                    raise
                await asyncio.sleep(PAUSE)
        write_atomically(self.folder / "placement.json", text)
        return f"epoch {placement.epoch}"

    @asynccontextmanager
    async def _reach(self, given: Given, shard: str) -> AsyncIterator[Connection]:
        _, connection = await self._primary(given.book, shard, given.login_of)
        try:
            yield connection
        finally:
            connection.terminate()

    def _keep(self, given: Given) -> None:
        make_folder(self.folder)
        secrets = self.folder / "secrets"
        make_folder(secrets, mode=0o700)
        kept = given.secrets()
        for name, secret in kept.items():
            write_atomically(secrets / name, secret, mode=0o600)
        # The book last: it names no secret that is not there.
        write_atomically(self.folder / "addresses.json", given.book.to_json())
        for path in secrets.glob(f"{SECRETS}*"):
            if path.name not in kept:
                path.unlink()

    async def _absent(self, given: Given) -> str:
        looks = await look(given.book.nodes, given.login_of)
        absent = [str(name) for name, one in looks.items() if isinstance(one, Silence)]
        return f"not there yet: {', '.join(absent)}" if absent else f"{len(looks)} servers"

    async def _prepare(self, step: Step, wanted: Wanted, given: Given, doing: Doing) -> None:
        with doing(step) as told:
            digest = wanted.shards[step.shard].prepared
            said = ""
            for _ in range(TRIES):
                try:
                    primary, connection = await self._primary(given.book, step.shard, given.login_of)
                    try:
                        await prepare_shard(connection, wanted.fleet, step.shard, digest)
                    finally:
                        connection.terminate()
                    told["told"] = f"on {primary.member}"
                    return
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, CannotConnect) as error:
                    # A promotion between looking and writing: look again.
                    said = str(error) or type(error).__name__
                    await asyncio.sleep(1.0)
            raise NotSettled(f"the primary of {step.shard} cannot be prepared", seen=[said], hint="pgfleet status")

    async def _primary(self, book: AddressBook, shard: str, login_of: LoginOf) -> tuple[NodeName, Connection]:
        looks = await look(book.of_shard(shard), login_of)
        primary = primary_of(looks)
        node = book.node(primary) if primary is not None else None
        if primary is None or node is None:
            seen = [f"{name.member}: {one.why if isinstance(one, Silence) else 'it is a standby'}" for name, one in looks.items()]
            raise NoSuchNode(f"no node of {shard} is its primary and answers", seen=seen, hint="pgfleet status")
        return primary, await self._open(node, login_of)

    async def _open(self, node: NodeAddress, login_of: LoginOf) -> Connection:
        return await connect(node.host, node.port, login_of(node), settings=SETTINGS, seconds=CONNECT_WITHIN)

    # -- beside plans ----------------------------------------------------------------------------------------------------

    async def switch_over(self, shard: str, to: NodeName | None) -> NodeName:
        """:raises ProviderCannot: always."""
        raise ProviderCannot(
            f"the primary of {shard} is not pgfleet's to change",
            hint="promote a replica by the means of whoever runs it; clients follow within a second",
        )

    async def destroy(self, told: Callable[[str], None], *, schema: bool) -> None:
        """Forget the fleet: its folder is deleted, the servers and every row on them stay.

        :param schema: the schema ``pgfleet`` is dropped too, from every shard or, where one does not answer, from none.
        :raises NoSuchNode: a shard that has the schema has no primary that answers.
        :raises SchemaInUse, TakenAlready: something else depends on it, or it is another fleet's; nothing was deleted.
        """
        if schema:
            await self._drop_schemas(told)
        told("deleting its folder")
        await asyncio.to_thread(shutil.rmtree, self.folder)

    async def _drop_schemas(self, told: Callable[[str], None]) -> None:
        try:
            book = read_addresses(self.folder)
        except NotApplied:
            return
        login_of = freshest_login_of(self.folder, book, None)
        shards = dict.fromkeys(node.name.shard for node in book.nodes)
        opened: dict[str, Connection] = {}
        try:
            for shard in shards:
                _, opened[shard] = await self._primary(book, shard, login_of)
            for shard, connection in opened.items():
                await refuse_others_use(connection, book.fleet, shard)
            for shard, connection in opened.items():
                told(f"dropping the schema pgfleet of {shard}")
                await drop_schema(connection, book.fleet, shard)
        finally:
            for connection in opened.values():
                connection.terminate()
