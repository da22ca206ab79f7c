"""What another driver needs of an open fleet: where to go, who to be there, and somewhere to say how it went.

The adapters know this room of the client and no other, so that how the client keeps its own pools and tables is its own
business. :meth:`Guide.route` and :meth:`Guide.addresses` may be called from any thread; the rest belongs to the loop that
the fleet was opened on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pgfleet.client.fleet import PAUSE, Fleet
from pgfleet.client.observing import NOBODY, Call, Observing
from pgfleet.errors import DeadlineExceeded, NoSuchNode
from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice
from pgfleet.routing.hashing import Key, key_text
from pgfleet.routing.placement import Placed
from pgfleet.routing.route import Role, Route, Tls
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import Login


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a call's rows live and how fresh they must be, worked out once, in the caller's own context.

    :param fresh: what only a replica that has caught up may answer; None: any may.
    """

    table: str
    placed: Placed
    role: Role
    claim: str
    fresh: object = None

    @property
    def shard(self) -> str:
        return self.placed.shard


class Guide:
    """Of one fleet, which must be open."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    # -- where to go -----------------------------------------------------------------------------------------------------

    def aim(
        self, table: str, *, key: Key, second: Key | None = None, role: Role = "read", max_staleness: float | str | None = None
    ) -> Aim:
        """:param max_staleness: seconds (or ``2 s``) that a replica may be behind.
        :raises PlacementError: the table, or the key, has no place.
        """
        placement = self._fleet._known.placement
        placed = placement.shard(table, key, second)
        return Aim(table, placed, role, f"{placement.follows.get(table, table)}:{key_text(key)}")

    def route(self, aim: Aim, avoid: Collection[NodeName] = ()) -> Route | None:
        """Where to go now; None: nowhere, wait for a change."""
        choice = self._fleet._live.choose(aim.shard, aim.role, avoid)
        return self._route(aim, choice) if choice is not None else None

    def route_now(self, aim: Aim) -> Route:
        """:raises NoSuchNode: nowhere."""
        route = self.route(aim)
        if route is None:
            because = self._fleet._live.route(aim.shard).because
            asked = "its primary" if aim.role == "write" else "a node that can be read"
            raise NoSuchNode(f"{aim.shard} has not got {asked} right now", seen=[because])
        return route

    async def find(self, aim: Aim, deadline: Deadline, call: Call, avoid: set[NodeName]) -> Route:
        """Where to go, waiting through a failover. :param avoid: nodes that failed this call; emptied when nobody is left.

        :raises DeadlineExceeded: nobody, for all that time.
        """
        began = 0.0
        while True:
            route = self.route(aim, avoid)
            if route is not None:
                if began:
                    call.waited("primary", monotonic() - began)
                return route
            if deadline.left() <= 0:
                raise self.late(aim, self._fleet._live.route(aim.shard).because, deadline)
            began = began or monotonic()
            avoid.clear()
            await self._fleet._live.change(deadline, None if aim.role == "write" else PAUSE)

    async def changed(self) -> None:
        """Return when the routing table is another one."""
        router, version = self._fleet._live, self._fleet._live.table.version
        while router.table.version == version:
            await router.change(Deadline.after(60.0))

    def primary(self, shard: str) -> NodeName | None:
        """Who may be written to now."""
        node = self._fleet._live.route(shard).primary
        return node.name if node is not None else None

    def nodes(self) -> frozenset[NodeName]:
        """Every node there is."""
        return frozenset(node.name for node in self._fleet._known.book.nodes)

    # -- who to be -------------------------------------------------------------------------------------------------------

    def login(self, node: NodeName) -> Login:
        """:param node: reserved for fleets whose nodes have logins of their own."""
        return self._fleet._known.login

    def deadline(self, seconds: float | None) -> Deadline:
        """``seconds`` from now; None: what the fleet was opened with."""
        return self._fleet._deadline(seconds)

    # -- how it went -----------------------------------------------------------------------------------------------------

    @property
    def observing(self) -> Observing:
        return NOBODY

    def failed(self, node: NodeName, *, silent: bool) -> None:
        """A call to ``node`` failed. :param silent: it gave no answer at all."""
        self._fleet._live.failed(node, silent=silent)

    async def position(self, node: NodeName) -> object:
        """Where a primary is, asked after COMMIT; for :meth:`wrote`."""
        return None

    def wrote(self, shard: str, position: object) -> None:
        """The caller's reads of ``shard`` must see as far as ``position``. Called in the caller's own context."""

    async def refused(self, aim: Aim, error: BaseException, deadline: Deadline) -> BaseException:
        """A shard's guard refused a write: what that means, after a look at the map."""
        return error

    def late(self, aim: Aim, waited_for: str, deadline: Deadline) -> DeadlineExceeded:
        """The error of a call that has run out of time."""
        message = f"{aim.shard} did not answer within {deadline.allowed:g} s"
        return DeadlineExceeded(message, seen=[f"waited for: {waited_for}"])

    # -- made of -----------------------------------------------------------------------------------------------------------

    def _route(self, aim: Aim, choice: Choice) -> Route:
        known = self._fleet._known
        return Route.of(
            choice, aim.placed, aim.role, database=known.book.database, version=self._fleet._live.table.version,
            claim=aim.claim, epoch=known.placement.epoch, tls=self._tls(choice.node.name),
        )  # fmt: skip

    def _tls(self, node: NodeName) -> Tls:
        known = self._fleet._known
        if self.login(node).tls is None:
            return Tls()
        return Tls("verify-full", str(known.folder / "certificates" / "ca.crt"))
