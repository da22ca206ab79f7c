"""The routing table of one client, kept true: who is primary, who can be read, whom nobody should ask right now."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pgfleet.client.breaker import Breaker, by_asking
from pgfleet.client.budget import Budget
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.lent import LentProber
from pgfleet.client.observing import NOBODY, Observing
from pgfleet.client.open import Opened
from pgfleet.client.pools import NodePool
from pgfleet.client.positions import Positions
from pgfleet.errors import FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice, choose_read, choose_write, readable
from pgfleet.routing.lineage import Lineage, holds, needed
from pgfleet.routing.table import RoutingTable, ShardRoute, route_shard
from pgfleet.routing.token import Position
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.http import fleet_context
from pgfleet.topology.etcd import EtcdClient
from pgfleet.topology.patroni import PatroniRest
from pgfleet.topology.probe import OwnWord, Prober, round_trip
from pgfleet.topology.watch import FleetWatch, ShardView

Mode = Literal["read", "write"]

#: Callers' positions whose meaning is remembered.
REMEMBERED = 4096
#: Connections that a new primary is given although nobody asks for one yet, and seconds after it became one. Until then whoever
#: writes takes over what readers had open to it.
WARM, WARM_AFTER = 2, 1.0
#: Seconds in which a session can be made ready while its node is being promoted.
READY_WITHIN = 1.0

_APPLICATION = {"application_name": "pgfleet"}
#: What sessions are opened with. A write has no statement_timeout: it would cancel a COMMIT's wait for the replicas, which
#: then succeeds without them (see runtime/sql.py); an idle transaction is ended instead.
SETTINGS: dict[Mode, dict[str, str]] = {
    "read": _APPLICATION | {"default_transaction_read_only": "on", "statement_timeout": "60s"},
    "write": _APPLICATION
    | {
        "default_transaction_read_only": "off",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "60s",
    },
}


@dataclass(frozen=True, slots=True)
class Lane:
    """Where a shard's reads go now.

    :param pools: of nodes that are equally good. :param others: whether another node could answer if one of them does not.
    :param choices: why each of the nodes.
    """

    pools: tuple[NodePool, ...]
    others: bool
    choices: Mapping[NodeName, Choice]


class Router:
    """Follows the fleet while it is open.

    :param size: connections to one node at most, reads and writes together.
    :param probers: three, each of which may keep a connection to every node: who asks who is primary, how far nodes have come,
        and whether they live. None: nodes are asked directly.
    :param direct: whether there are connections to nodes at all; if not, what etcd says is all that is known.
    """

    def __init__(
        self, opened: Opened, *, region: str | None, size: int, observing: Observing = NOBODY,
        probers: tuple[Prober, Prober, Prober] | None = None, direct: bool = True,
    ) -> None:  # fmt: skip
        self.observing, self._direct = observing, direct
        self._opened, self._region, self.size = opened, region, size
        self.table = RoutingTable()
        self.lanes: dict[str, Lane] = {}
        self.turn = 0
        self._changed = asyncio.Event()
        self.addresses = {node.name: node for node in opened.book.nodes}
        self._of_shard: dict[str, list[NodeAddress]] = {}
        for node in opened.book.nodes:
            self._of_shard.setdefault(node.name.shard, []).append(node)
        self._pools: dict[tuple[NodeName, Mode], NodePool] = {}
        self._budgets: dict[NodeName, Budget] = {}
        self._catalogues: dict[str, Catalogue] = {}
        self._lineages: dict[str, Lineage] = {}
        self._needed: dict[tuple[str, tuple[Position, ...]], int] = {}
        self._ended: dict[str, int] = {}  # by shard: the timeline on which the primary before this one wrote
        self._last_primary: dict[str, NodeName] = {}
        self._next: dict[str, NodeName | None] = {}  # by shard: who holds Patroni's lock
        self._rtt: dict[NodeName, float] = {}
        self._epoch = ""
        self._background: set[asyncio.Task[object]] = set()
        self.etcd: EtcdClient | None = None
        self._rest: PatroniRest | None = None
        self._watch: FleetWatch | None = None
        self._closed = False
        login_of = opened.login_of
        probers = probers or (LentProber(login_of, self._read_pool), Prober(login_of), Prober(login_of))
        self._prober, positions, self._lives = probers
        self.positions = Positions(positions, self._heard)
        self.breaker = Breaker(by_asking(self._lives), self._spoke_or_fell_silent)

    async def start(self) -> None:
        """Look once, then follow."""
        self.etcd = self._opened.etcd()
        if self._direct:
            self._rest = PatroniRest(fleet_context(self._opened.folder))
        self._watch = FleetWatch(self._opened.book, self._prober, self._seen, etcd=self.etcd, rest=self._rest, asks=self._direct)
        await asyncio.gather(self._watch.start(), *([self._measure()] if self._direct else []))
        for shard in self._of_shard:
            self._publish(shard)

    async def aclose(self) -> None:
        self._closed = True
        self._changed.set()  # whoever waits for a node waits no longer
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._watch is not None:
            await self._watch.aclose()
        await asyncio.gather(self.breaker.aclose(), self.positions.aclose(), *(pool.aclose() for pool in self._pools.values()))
        self._prober.rest()
        self._lives.rest()
        if self.etcd is not None:
            await self.etcd.aclose()
        if self._rest is not None:
            await self._rest.aclose()

    # -- choosing --------------------------------------------------------------------------------------------------------

    def choose(
        self, shard: str, mode: Mode, avoid: Collection[NodeName] = (), among: Collection[NodeName] | None = None
    ) -> Choice | None:
        """The node for a call now; None: nobody, wait for a change.

        :param among: only these replicas are fresh enough for the read; the primary always is.
        """
        route = self.table.shards.get(shard)
        if route is None:
            return None
        if mode == "write":
            return choose_write(route)
        self.turn += 1
        return choose_read(route, region=self._region, turn=self.turn, avoid=avoid, among=among, line=self._line)

    def _line(self, node: NodeName) -> int:
        pool = self._read_pool(node)
        return pool.waiting if pool is not None else 0

    def _read_pool(self, node: NodeName) -> NodePool | None:
        """None: nobody has read from it."""
        return self._pools.get((node, "read"))

    def route(self, shard: str) -> ShardRoute:
        return self.table.shards.get(shard, ShardRoute(shard))

    def why_nobody(self, shard: str, mode: Mode) -> str:
        """For people: what is waited for, where no node will do; and what the nodes said that do not let us in."""
        waits_for = self.route(shard).because if mode == "write" else "a node that can be read"
        shut = sorted({said for node, said in self._prober.shut.items() if node.shard == shard})
        return "; ".join([waits_for, *shut])

    def replicas(self, shard: str, *, anywhere: bool = False) -> Sequence[NodeAddress]:
        """The replicas that would be read from now: the nearest; with ``anywhere`` all that can be read."""
        route = replace(self.route(shard), primary=None)
        nodes, _ = readable(route, region=None if anywhere else self._region)
        return [self.addresses[node.name] for node in nodes]

    def primary(self, shard: str) -> NodeAddress | None:
        route = self.route(shard)
        return self.addresses[route.primary.name] if route.primary is not None else None

    def lineage(self, shard: str) -> Lineage:
        """The history of ``shard``, as far as it is known."""
        return self._lineages.get(shard, Lineage())

    def needed(self, shard: str, after: tuple[Position, ...]) -> int | None:
        """The LSN that a node must have replayed to have all of ``after``; None: the history does not say, or says that there is
        none."""
        known = self._needed.get((shard, after))
        if known is None:
            verdict = needed(after, self.lineage(shard))
            if not isinstance(verdict, int):
                return None
            if len(self._needed) >= REMEMBERED:
                self._needed.clear()
            known = self._needed[shard, after] = verdict
        return known

    def position(self, shard: str, word: OwnWord, since: float | None) -> Position:
        """Where a write is, by its primary's ``word`` after COMMIT.

        :param since: its COMMIT was not sent before that, on :func:`monotonic`'s clock, and waited for the replicas; None: who
            knows.
        """
        confirmed = since is not None and word.settled is not None and word.settled > monotonic() - since
        return self.lineage(shard).position(word.timeline, word.position, (word.confirmed or 0) if confirmed else 0)

    def _has_history(self, shard: str, lineage: Lineage) -> None:
        if self._lineages.get(shard) != lineage:
            self._lineages[shard] = lineage
            self._needed.clear()

    def holds(self, node: NodeName, lsn: int) -> bool:
        """Whether ``node`` was seen to have replayed to ``lsn`` of its shard's history."""
        return holds(self.lineage(node.shard), self.positions.timeline(node), self.positions.replayed(node), lsn)

    # -- pools -----------------------------------------------------------------------------------------------------------

    def pool(self, node: NodeName, mode: Mode) -> NodePool:
        """:raises FleetClosed: there are none any more."""
        pool = self._pools.get((node, mode))
        if pool is None:
            if self._closed:
                raise FleetClosed("this fleet was closed")
            address = self.addresses[node]
            settings = SETTINGS[mode] | ({"pgfleet.epoch": self._epoch} if mode == "write" and self._epoch else {})
            budget = self._budgets.setdefault(node, Budget(self.size))
            catalogue = self._catalogues.setdefault(node.shard, Catalogue())
            stuck = self.suspect if mode == "read" else self._write_stuck
            counted = partial(self.observing.connections, "asyncpg", node, mode) if self.observing.observers else None
            login = self._opened.login_of(address)
            pool = NodePool(address, login, settings, budget, catalogue, stuck=stuck, counted=counted)
            self._pools[node, mode] = pool
        return pool

    def near(self) -> list[NodePool]:
        """Those that are used now: of the nodes that reads go to, and of the primaries for writes."""
        reads = [pool for lane in self.lanes.values() for pool in lane.pools]
        primaries = [route.primary.name for route in self.table.shards.values() if route.primary is not None]
        return [*reads, *(self.pool(node, "write") for node in primaries)]

    @property
    def pools(self) -> dict[tuple[NodeName, Mode], NodePool]:
        """Every pool that was used, for whoever counts."""
        return self._pools

    def epoch_changed(self, epoch: int) -> None:
        """Sessions that write say under which map they were opened."""
        self._epoch = str(epoch)
        for (_, mode), pool in self._pools.items():
            if mode == "write":
                pool.reopen(pool.settings | {"pgfleet.epoch": self._epoch})

    async def change(self, deadline: Deadline, at_most: float | None = None) -> None:
        """Wait until the table changes, or ``at_most`` seconds, or until ``deadline``."""
        if self._watch is None or self._closed:
            raise FleetClosed("this fleet is not open")
        left = max(0.0, deadline.left())
        try:
            async with asyncio.timeout(left if at_most is None else min(left, at_most)):
                await self._changed.wait()
        except TimeoutError:
            return

    # -- what is learnt --------------------------------------------------------------------------------------------------

    def failed(self, node: NodeName, *, silent: bool) -> None:
        """A call to ``node`` failed: look again, and, if it did not answer at all, let others answer until it does."""
        if self._watch is not None:
            self._watch.doubt(node.shard)
        if silent:
            self.breaker.opened(self.addresses[node])

    def suspect(self, pool: NodePool) -> None:
        """``pool``'s node may hang: ask it. If it does, those that wait for it are cut off, and their reads sent elsewhere."""
        self.breaker.suspect(pool.node, pool.drop)

    def _write_stuck(self, pool: NodePool) -> None:
        # What was written may have happened: nobody is cut off before the deadline. But look who is primary.
        if self._watch is not None:
            self._watch.doubt(pool.node.name.shard)

    def _heard(self, node: NodeName, word: OwnWord) -> None:
        lineage = self.lineage(node.shard)
        primary = self.route(node.shard).primary
        theirs = not self._direct or (primary is not None and primary.name == node)  # a pooler leads to the primary alone
        if not word.recovering and word.timeline > lineage.timeline and theirs:
            self._has_history(node.shard, replace(lineage, timeline=word.timeline))

    def spoke(self, shard: str, word: OwnWord) -> None:
        """A primary that a pooler led to said where it is."""
        self._heard(NodeName(shard, "", 0), word)

    def _seen(self, view: ShardView) -> None:
        shard = view.topology.shard
        before = self.route(shard).primary
        topology = view.topology
        member = topology.members.get(view.primary) if view.primary is not None else None
        known = self.lineage(shard)
        said = (member.timeline or 0) if member is not None else 0
        if said <= self._ended.get(shard, 0):
            said = 0  # when it was a replica
        timeline = max(known.timeline, said)
        if view.primary is not None and view.primary != self._last_primary.get(shard):
            self._last_primary[shard] = view.primary
            self.positions.forget(shard)
            if timeline == known.timeline:
                timeline, self._ended[shard] = 0, timeline  # it has begun another, and has not said which
        ends = view.ends if view.ends is not None else topology.ends or known.ends
        self._has_history(shard, Lineage(timeline, ends, topology.system or known.system))
        self._publish(shard)
        after = self.route(shard).primary
        if before is not None and topology.primary != before.name:
            # It may be writable still, in its own opinion; nothing of ours shall reach it. (One that has its lock and does not
            # answer keeps its connections: what was sent there may be done yet.)
            self.pool(before.name, "write").drop()
        if self._direct and after is not None and (before is None or before.name != after.name):
            pool = self.pool(after.name, "write")
            pool.kin = self._read_pool(after.name)
            self._spawn(self._warm_later(pool))
        elif self._direct and after is None and topology.primary is not None and topology.primary != self._next.get(shard):
            self._spawn(self._be_ready(self.pool(topology.primary, "write")))
        self._next[shard] = topology.primary

    async def _be_ready(self, pool: NodePool) -> None:
        """Its node is being promoted: make one of the sessions that readers have there a writer's, where one is free."""
        kin = self._read_pool(pool.node.name)
        if pool.open or kin is None or kin.open <= kin.lent:
            return
        with suppress(FleetClosed):
            await pool.make_ready(kin, Deadline.after(READY_WITHIN))

    async def _warm_later(self, pool: NodePool) -> None:
        """Who waits has a connection at once, and so has everybody else's: the new primary has enough to do just then."""
        await asyncio.sleep(WARM_AFTER)
        pool.kin = None
        await pool.warm(WARM)

    def _spoke_or_fell_silent(self, node: NodeName) -> None:
        if node in self.breaker.silent:
            self.positions.forget_node(node)  # its host may have lost power, and our connection to it would not know
        self._publish(node.shard)

    def _publish(self, shard: str) -> None:
        if self._watch is None:
            return
        view = self._watch.views[shard]
        route = route_shard(
            shard, self._of_shard[shard], view.topology, primary=view.primary, because=view.because,
            draining=view.draining, silent=self.breaker.silent, rtt=self._rtt,
        )  # fmt: skip
        table = self.table.with_shard(route)
        if table is not self.table:
            self.table = table
            nodes, why = readable(route, region=self._region)
            pools = tuple(self.pool(node.name, "read") for node in nodes)
            others = len(route.replicas) + (route.primary is not None) > len(pools) or len(pools) > 1
            self.lanes[shard] = Lane(pools, others, {node.name: Choice(node, why, len(nodes)) for node in nodes})
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _measure(self) -> None:
        nodes = list(self.addresses.values())
        took = await asyncio.gather(*(round_trip(node.host, node.port) for node in nodes))
        self._rtt = {node.name: rtt for node, rtt in zip(nodes, took, strict=True) if rtt is not None}

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
