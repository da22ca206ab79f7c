"""Who is primary, followed: etcd's watch first, the nodes' own word where etcd is silent or not quick enough.

One stream carries every shard. The lock moves a moment before its new holder takes writes (0.1 to 0.8 s), so a holder
that does not announce itself is asked, and answers as soon as it does. Silence of a stream proves nothing: it
is reopened elsewhere, and everything is read again. Without etcd the nodes are asked once a second, and at every doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgfleet.errors import EtcdRefused, EtcdUnreachable
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.topology import NAMESPACE, MemberSeen, ShardTopology, read_shards, split_key
from pgfleet.names import NodeName
from pgfleet.runtime.clock import monotonic
from pgfleet.topology.etcd import EtcdClient, Range, WatchEvent
from pgfleet.topology.history import History
from pgfleet.topology.patroni import PatroniRest
from pgfleet.topology.probe import ASK_PROMOTED, OwnWord, Prober, decide

#: Seconds of silence after which the stream is reopened at another member, and everything read again.
IDLE = 4.0
#: Seconds between two questions to a lock's holder that does not take writes yet: at first, and after :data:`PATIENCE`.
EAGER, CALM, PATIENCE = 0.015, 0.25, 10.0
#: Seconds after a new primary did not say where the timelines before its own ended.
HISTORY = (0.05, 0.1, 0.2, 0.4, 0.8)
#: Seconds, at most, in which everybody asks it, each by chance: writes that have waited come first.
WRITES_FIRST = 0.1
#: Seconds between two rounds of questions while etcd is silent, and between two attempts to reach it.
WITHOUT_ETCD = 1.0
#: Seconds that a switchover which was asked for may keep writes waiting, if nothing comes of it.
DRAIN = 3.0
#: SQLSTATE too_many_connections.
FULL = "53300"
#: Seconds within which a shard's keys are not read a second time because of a doubt.
REREAD = 0.5


@dataclass(frozen=True, slots=True)
class ShardView:
    """:param primary: may be written to now; None: nobody may. :param because: a sentence about that.
    :param draining: a switchover is about to begin.
    :param ends: timeline -> the LSN at which it ended, as the primary itself said when it became one; None: it did not. Patroni's
        note of it in etcd (``topology.ends``) comes two seconds after the promotion."""

    topology: ShardTopology
    primary: NodeName | None = None
    because: str = "nobody has looked yet"
    draining: bool = False
    ends: Mapping[int, int] | None = None


class FleetWatch:
    """Follows every shard of an address book, and tells each change.

    :param told: called with every new view of a shard, at once, on the loop.
    :param etcd: None: there is none; the nodes alone are asked.
    :param rest: None: Patroni's REST is not asked.
    :param asks: whether a new primary is believed by its own word only; else by what it announces to etcd, and no node is asked.
    """

    def __init__(
        self,
        book: AddressBook,
        prober: Prober,
        told: Callable[[ShardView], None],
        *,
        etcd: EtcdClient | None = None,
        rest: PatroniRest | None = None,
        asks: bool = True,
    ) -> None:
        self._nodes: dict[str, tuple[NodeAddress, ...]] = {}
        for node in book.nodes:
            self._nodes[node.name.shard] = (*self._nodes.get(node.name.shard, ()), node)
        self._address = {node.name: node for node in book.nodes}
        self._prober, self._told, self._etcd, self._rest, self._asks = prober, told, etcd, rest, asks
        self._history = History(prober.login_of)
        self._noting: set[str] = set()
        self.views = {shard: ShardView(ShardTopology(shard)) for shard in self._nodes}
        self.etcd_answers = False
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._reread_at = dict.fromkeys(self._nodes, float("-inf"))
        self._drained: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._histories = 0  # that are being asked for
        self._closed = False

    # -- living ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look once, at everything, and follow from there."""
        revision = await self._read_everything()
        if not self.etcd_answers:
            await asyncio.gather(*(self._ask_nodes(shard) for shard in self._nodes))
        if self._etcd is not None:
            self._spawn(self._follow(revision))
        self._spawn(self._stand_in())

    async def aclose(self) -> None:
        self._closed = True  # calls that fail for it are no doubt about anybody
        for handle in self._drained.values():
            handle.cancel()
        tasks = [*self._tasks, *self._settling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def doubt(self, shard: str) -> None:
        """A call to the shard's primary failed: look again, in the background, if nobody does already."""
        if self._closed:
            return
        if self._etcd is not None and monotonic() - self._reread_at[shard] > REREAD:
            self._reread_at[shard] = monotonic()
            self._spawn(self._reread(shard))
        self._settle(shard)

    # -- etcd ------------------------------------------------------------------------------------------------------

    async def _follow(self, revision: int) -> None:
        assert self._etcd is not None  # noqa: S101
        while True:
            if revision:
                with contextlib.suppress(EtcdUnreachable, EtcdRefused):
                    async for event in self._etcd.watch(NAMESPACE, start_revision=revision + 1, idle=IDLE):
                        self._event(event)
            # Broken, silent, or from before what etcd remembers: all are cured by reading everything again.
            revision = await self._read_everything()
            if not revision:
                await asyncio.sleep(WITHOUT_ETCD)

    async def _read_everything(self) -> int:
        """:returns: the revision that was read; 0: etcd is silent."""
        seen = await self._range(NAMESPACE)
        if seen is None:
            return 0
        for topology in _shards(seen, self._nodes):
            self._seen(topology)
        return seen.revision

    async def _reread(self, shard: str) -> None:
        seen = await self._range(f"{NAMESPACE}{shard}/")
        if seen is not None:
            self._seen(*_shards(seen, [shard]))

    async def _range(self, prefix: str) -> Range | None:
        if self._etcd is None:
            return None
        try:
            seen = await self._etcd.range(prefix, prefix=True)
        except (EtcdUnreachable, EtcdRefused):
            self.etcd_answers = False
            return None
        self.etcd_answers = True
        return seen

    def _event(self, event: WatchEvent) -> None:
        place = split_key(event.key)
        if place is None or place[0] not in self.views:
            return
        self.etcd_answers = True
        before = self.views[place[0]].topology
        self._seen(before.with_key(place[1], event.value if event.kind == "put" else None, event.revision))

    def _seen(self, topology: ShardTopology) -> None:
        shard, view = topology.shard, self.views[topology.shard]
        if topology.revision < view.topology.revision:
            return  # a slower answer
        draining = self._drains(shard, topology, view)
        if topology.primary is None:
            self._publish(ShardView(topology, None, "nobody holds Patroni's lock: an election is under way"))
        elif topology.primary == view.primary:
            self._publish(replace(view, topology=topology, draining=draining))
        elif view.topology.primary is None and view.topology.revision == 0 and topology.announced:
            # The first look, and nothing is changing: the holder's own announcement is enough.
            self._publish(ShardView(topology, topology.primary, "it holds Patroni's lock and announces itself", draining))
        else:
            told = f"{topology.primary.member} holds Patroni's lock and has not said that it takes writes"
            moved = topology.primary != view.topology.primary
            self._publish(ShardView(topology, None, told))
            self._settle(shard, again=moved)

    def _drains(self, shard: str, topology: ShardTopology, view: ShardView) -> bool:
        if not topology.switching:
            if (handle := self._drained.pop(shard, None)) is not None:
                handle.cancel()
            return False
        if shard not in self._drained:
            self._drained[shard] = asyncio.get_running_loop().call_later(DRAIN, self._drained_enough, shard)
            return True
        return view.draining

    def _drained_enough(self, shard: str) -> None:
        self._publish(replace(self.views[shard], draining=False))

    # -- the nodes' own word ---------------------------------------------------------------------------------------

    def _settle(self, shard: str, *, again: bool = False) -> None:
        """:param again: whom to ask has changed: do not wait for the last one's answer."""
        task = self._settling.get(shard)
        if task is not None and not task.done():
            if not again:
                return
            task.cancel()
        self._settling[shard] = self._task(self._until_settled(shard))

    async def _until_settled(self, shard: str) -> None:
        began = monotonic()
        while True:
            leader = self.views[shard].topology.primary
            if not self.etcd_answers:
                if await self._ask_nodes(shard):
                    return
            elif leader is None:
                return  # an election: the next holder comes by the stream
            elif await self._ask_holder(shard, leader):
                return
            await asyncio.sleep(EAGER if monotonic() - began < PATIENCE else CALM)

    async def _ask_holder(self, shard: str, leader: NodeName) -> bool:
        address = self._address.get(leader)
        word = await self._prober.ask(address, question=ASK_PROMOTED) if address is not None else None
        view = self.views[shard]
        if view.topology.primary != leader:
            return False  # it has moved on meanwhile
        words = {leader: word} if word is not None else {}
        primary, because = decide(words, leader=leader, etcd_answers=True)
        if view.topology.announced and not self._asks:
            primary, because = leader, "it holds Patroni's lock and announces itself"
        elif word is None and view.topology.announced and self._prober.refused.get(leader) == FULL:
            # It said so itself, by Patroni; for our question it has no connection left, which is an answer.
            primary, because = leader, "it holds Patroni's lock and announces itself (and has no connection left)"
        known = view.ends if view.primary == primary else None
        self._publish(replace(view, primary=primary, because=because, ends=known))
        if primary is not None and known is None and address is not None:
            self._spawn(self._ask_history(address))
        return primary is not None

    async def _ask_history(self, primary: NodeAddress) -> None:
        self._histories += 1
        try:
            await asyncio.sleep(random.uniform(0.0, WRITES_FIRST))  # noqa: S311 - no secret
            for pause in HISTORY:
                ends = await self._prober.history(primary)
                view = self.views[primary.name.shard]
                if view.primary != primary.name:
                    return
                if ends is not None:
                    self._publish(replace(view, ends=ends))
                    return
                await asyncio.sleep(pause)  # Patroni notes it, too, some two seconds after the promotion
        finally:
            self._histories -= 1

    async def _ask_nodes(self, shard: str) -> bool:
        if not self._asks:
            return True  # what was seen last is all there is
        nodes = self._nodes[shard]
        words, described = await asyncio.gather(self._prober.race(nodes), self._described(shard, nodes))
        if self.etcd_answers:
            return False  # it is back: its word is newer
        last = self.views[shard]
        primary, because = decide(words, leader=None, etcd_answers=None if self._etcd is None else False)
        if primary is None and last.primary is not None and self._prober.refused.get(last.primary) == FULL:
            return True  # for our question it has no connection left, which is an answer
        ends = {**self._history.ends(shard), **self._prober.ends(shard)}
        topology = _from_words(described or last.topology, words, primary, ends)
        self._publish(ShardView(topology, primary, because, ends=last.ends if primary == last.primary else None))
        if self._etcd is None and primary is not None:
            self._note(primary, topology.system)
        return primary is not None

    def _note(self, primary: NodeName, system: int) -> None:
        """Keep on the shard where its timelines ended, in the background, where it does not say so already."""
        shard, ends = primary.shard, self._prober.ends(primary.shard)
        if shard in self._noting or not self._history.due(shard, ends):
            return

        async def note() -> None:
            await self._history.keep(self._address[primary], system, ends)
            self._noting.discard(shard)

        self._noting.add(shard)
        self._spawn(note())

    async def _described(self, shard: str, nodes: Sequence[NodeAddress]) -> ShardTopology | None:
        asked = [node for node in nodes if node.rest_port]
        return await self._rest.cluster(shard, asked) if self._rest is not None and asked else None

    async def _stand_in(self) -> None:
        """Ask the nodes once a second while etcd is silent; let the probes' connections go once all is calm."""
        while True:
            await asyncio.sleep(WITHOUT_ETCD)
            busy = [s for s, t in self._settling.items() if not t.done()]
            if not self.etcd_answers:
                await asyncio.gather(*(self._ask_nodes(shard) for shard in self._nodes if shard not in busy))
            elif not busy and not self._histories:
                self._prober.rest()

    # -- telling ---------------------------------------------------------------------------------------------------

    def _publish(self, view: ShardView) -> None:
        shard = view.topology.shard
        if self.views[shard] != view:
            self.views[shard] = view
            self._told(view)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_complain)
        return task


def _shards(seen: Range, shards: Collection[str]) -> list[ShardTopology]:
    # The revision of the whole answer: a key that is gone has none of its own.
    keys = ((kv.key, kv.value, kv.mod_revision) for kv in seen.kvs)
    return [replace(topology, revision=seen.revision) for topology in read_shards(keys, shards).values()]


def _from_words(
    before: ShardTopology, words: dict[NodeName, OwnWord], primary: NodeName | None, ends: Mapping[int, int]
) -> ShardTopology:
    """The shard, with what its nodes said themselves; those that said nothing are not counted on.

    :param ends: of timelines, as promotions were seen; what was known before comes first.
    """
    members = {}
    for name, word in words.items():
        balanced = before.members[name].balanced if name in before.members else True
        role, state = ("replica", "streaming") if word.recovering else ("primary", "running")
        members[name] = MemberSeen(name, role, state, word.position, word.timeline, balanced)  # type: ignore[arg-type]
    position = words[primary].position if primary is not None else None
    system = words[primary].system if primary is not None else before.system
    return ShardTopology(
        before.shard, primary, members, before.sync, position, revision=before.revision, system=system or before.system,
        ends={**ends, **before.ends},
    )  # fmt: skip


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        told = {"message": "pgfleet: following the fleet failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(told)
