"""What another driver needs of an open fleet: where to go, who to be there, and somewhere to say how it went.

The adapters know this room of the client and no other, so that how the client keeps its own pools and tables is its own
business. What is not a coroutine may be called from any thread, :meth:`Guide.failed` excepted: it looks at values that are
swapped whole. The rest belongs to the loop that the fleet was opened on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from pgfleet.client.borrowing import PAUSE
from pgfleet.client.budget import one_at_least
from pgfleet.client.freshness import ANY, Wanted, fresh_enough, known, staleness
from pgfleet.client.observing import Call, Observing
from pgfleet.client.sending import NOT_OWNED, OLD_EPOCH
from pgfleet.errors import DeadlineExceeded, DirectOnly, NoSuchNode, NotOwned, OutcomeUnknown, PlacementMoved
from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice
from pgfleet.routing.hashing import Key, key_text
from pgfleet.routing.placement import Placed
from pgfleet.routing.route import Role, Route, Tls
from pgfleet.routing.token import Position
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.login import system_authorities
from pgfleet.runtime.sql import Login

if TYPE_CHECKING:
    from pgfleet.client.fleet import Fleet

#: SQLSTATEs of the shards' own guards.
REFUSED = frozenset({OLD_EPOCH, NOT_OWNED})


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a call's rows live and how fresh they must be, worked out once, in the caller's own context.

    :param fresh: what only a replica that has caught up may answer.
    :param mark: the id of the row that a write leaves, to tell what became of it; None: it leaves none.
    """

    table: str
    key: Key
    second: Key | None
    placed: Placed
    role: Role
    claim: str
    fresh: Wanted = ANY
    mark: UUID | None = None

    @property
    def shard(self) -> str:
        return self.placed.shard


def to_nodes(fleet: Fleet) -> Fleet:
    """``fleet``, whose nodes another driver may connect to.

    :raises DirectOnly: it goes through a pooler.
    """
    if fleet._open.pooled is not None:
        message = "this fleet goes through its poolers, and an adapter's connections go to nodes"
        raise DirectOnly(message, hint='connect(..., through="direct")')
    return fleet


class Guide:
    """Of one fleet, which must be open."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.observing: Observing = fleet._open.router.observing

    # -- where to go -----------------------------------------------------------------------------------------------------

    def aim(
        self, table: str, *, key: Key, second: Key | None = None, role: Role = "read",
        max_staleness: float | str | None = None, resolvable: bool = False,
    ) -> Aim:  # fmt: skip
        """:param max_staleness: seconds (or ``2 s``) that a replica may be behind.
        :param resolvable: a write leaves a row, by which ``OutcomeUnknown.resolve()`` can tell what became of it.
        :raises PlacementError: the table, or the key, has no place.
        """
        placement = self._fleet._open.placed.now
        placed = placement.shard(table, key, second)
        fresh = ANY
        if role == "read":
            fresh = Wanted(self._fleet._open.carrying.positions(placed.shard), staleness(max_staleness))
        claim = f"{placement.follows.get(table, table)}:{key_text(key)}"
        return Aim(table, key, second, placed, role, claim, fresh, uuid4() if resolvable else None)

    def route(self, aim: Aim, avoid: Collection[NodeName] = ()) -> Route | None:
        """Where to go now, of the nodes that are known to be fresh enough; None: nowhere, wait for a change.

        :raises WriteLost: what the caller has written is in no history of the shard.
        """
        router = self._fleet._open.router
        among = None
        if aim.fresh:
            among = known(router, aim.shard, aim.fresh, router.replicas(aim.shard, anywhere=True))
        choice = router.choose(aim.shard, aim.role, avoid, among)
        return self._route(aim, choice) if choice is not None else None

    def route_now(self, aim: Aim) -> Route:
        """:raises NoSuchNode: nowhere."""
        route = self.route(aim)
        if route is None:
            asked = "its primary" if aim.role == "write" else "a node that can be read"
            raise NoSuchNode(f"{aim.shard} has not got {asked} right now", seen=[self._because(aim)])
        return route

    async def find(self, aim: Aim, deadline: Deadline, call: Call, avoid: set[NodeName]) -> Route:
        """Where to go, waiting through a failover, and for a replica to be fresh enough.

        :param avoid: nodes that failed this call; emptied when nobody is left.
        :raises DeadlineExceeded: nobody, for all that time.
        :raises WriteLost: what the caller has written is in no history of the shard.
        """
        router, began = self._fleet._open.router, 0.0
        while True:
            among: Collection[NodeName] | None = None
            if aim.fresh:
                asked = monotonic()
                among = await fresh_enough(router, aim.shard, aim.fresh, deadline)
                call.waited("token", monotonic() - asked)
            choice = router.choose(aim.shard, aim.role, avoid, among)
            if choice is not None:
                if began:
                    call.waited("primary", monotonic() - began)
                return self._route(aim, choice)
            if deadline.left() <= 0:
                raise self.late(aim, self._because(aim), deadline)
            began = began or monotonic()
            avoid.clear()
            await router.change(deadline, None if aim.role == "write" else PAUSE)

    async def changed(self) -> None:
        """Return when the routing table is another one."""
        router = self._fleet._open.router
        version = router.table.version
        while router.table.version == version:
            await router.change(Deadline.after(60.0))

    def primary(self, shard: str) -> NodeName | None:
        """Who may be written to now."""
        node = self._fleet._open.router.primary(shard)
        return node.name if node is not None else None

    def nodes(self) -> Collection[NodeName]:
        """Every node there is."""
        return self._fleet._open.router.addresses.keys()

    # -- who to be -------------------------------------------------------------------------------------------------------

    def login(self, node: NodeName) -> Login:
        parts = self._fleet._open
        return parts.opened.login_of(parts.router.addresses[node])

    def deadline(self, seconds: float | None) -> Deadline:
        """``seconds`` from now; None: what the fleet was opened with."""
        return Deadline.after(self._fleet._limit(seconds))

    def size(self, given: int | None) -> int:
        """Connections to one node, for reads and for writes each. None: half of what the fleet was opened with, for both together
        are what ``pgfleet check`` counts.

        :raises ValueError: there must be one.
        """
        return max(1, self._fleet._open.router.size // 2) if given is None else one_at_least("size", given)

    # -- how it went -----------------------------------------------------------------------------------------------------

    def failed(self, node: NodeName, *, silent: bool) -> None:
        """A call to ``node`` failed. :param silent: it gave no answer at all."""
        self._fleet._open.router.failed(node, silent=silent)

    async def position(self, node: NodeName, since: float | None) -> Position:
        """Where a primary is, asked after COMMIT; for :meth:`wrote`.

        :param since: COMMIT was not sent before that, on :func:`monotonic`'s clock, and waited for the replicas; None: who knows.
        """
        router = self._fleet._open.router
        word = await router.positions.ask(router.addresses[node])
        if word is None or word.recovering:
            return Position(0, 0)  # it is gone since; the next one has it, and until that says where it is only a primary will do
        return router.position(node.shard, word, since)

    def wrote(self, shard: str, position: Position) -> None:
        """The caller's reads of ``shard`` must see as far as ``position``. Called in the caller's own context."""
        self._fleet._open.carrying.wrote(shard, position)

    def unsure(self, shard: str) -> None:
        """As :meth:`Carrying.unsure`."""
        self._fleet._open.carrying.unsure(shard)

    async def refused(self, aim: Aim, error: BaseException, deadline: Deadline) -> BaseException:
        """What a refusal by a shard's guard means, after a look at the map: the key has moved, or the SQL writes another key."""
        placed = self._fleet._open.placed
        before = placed.now.epoch
        with suppress(ValueError, TimeoutError):
            async with asyncio.timeout(max(0.0, deadline.left())):
                await placed.doubt()
        stays = placed.now.epoch == before and placed.now.shard(aim.table, aim.key, aim.second).shard == aim.shard
        if stays and getattr(error, "sqlstate", None) == NOT_OWNED:
            message = f"{aim.shard} does not own a row that was written to {aim.table} under key {aim.key!r}"
            return NotOwned(message, seen=[str(error)], hint=f"key= is the row's {placed.now.key_column(aim.table)}")
        return PlacementMoved(f"{aim.key!r} of {aim.table} is not written on {aim.shard} any more", seen=[str(error)])

    def marked(self, aim: Aim) -> None:
        """The row was made: now and then, old ones are removed."""
        self._fleet._open.outcomes.marked(aim.shard)

    def unknown(self, aim: Aim, node: NodeName, said: str, *, answered: bool = False) -> OutcomeUnknown:
        """The error of a COMMIT that was sent, and of which nobody knows what became.

        :param said: what was seen. :param answered: it was answered, but not confirmed by the replicas.
        """
        self.unsure(aim.shard)
        resolver = None
        if (mark := aim.mark) is not None:
            resolve = self._fleet._open.outcomes.resolve
            resolver = lambda seconds: resolve(aim.shard, mark, answered=answered, seconds=seconds)  # noqa: E731
        message = f"a write to {aim.table} on {node} was sent and its outcome is not known"
        hint = "await error.resolve()" if resolver is not None else ""
        return OutcomeUnknown(message, seen=[said], hint=hint, resolver=resolver)

    def late(self, aim: Aim, waited_for: str, deadline: Deadline) -> DeadlineExceeded:
        """The error of a call that has run out of time."""
        message = f"{aim.shard} did not answer within {deadline.allowed:g} s"
        return DeadlineExceeded(message, seen=[f"waited for: {waited_for}"])

    # -- made of -----------------------------------------------------------------------------------------------------------

    def _because(self, aim: Aim) -> str:
        return self._fleet._open.router.why_nobody(aim.shard, aim.role)

    def _route(self, aim: Aim, choice: Choice) -> Route:
        parts, node = self._fleet._open, choice.node.name
        tls = parts.tls.get(node)
        if tls is None:
            tls = parts.tls[node] = self._tls(node)
        return Route.of(
            choice, aim.placed, aim.role, database=self.login(node).database, version=parts.router.table.version,
            claim=aim.claim, epoch=parts.placed.now.epoch, tls=tls,
        )  # fmt: skip

    def _tls(self, node: NodeName) -> Tls:
        parts = self._fleet._open
        address = parts.router.addresses[node]
        match address.protection:
            case "fleet":
                authority = parts.opened.folder / "certificates" / "ca.crt"
                return Tls("verify-full", str(authority)) if authority.exists() else Tls()
            case "off":
                return Tls()
            case "require":
                return Tls("require")
            case mode:
                return Tls(mode, address.authority or system_authorities())
