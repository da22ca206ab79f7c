"""A node's own word: is it in recovery, on which timeline, how far. Asked directly, each within a second.

PostgreSQL knows best whether it takes writes; it does not know whether it still may (that is Patroni's lock).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import asyncpg

from pgfleet.errors import CannotConnect
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.sql import Connection, Login, connect, sqlstate

# The timeline a primary writes is the first part of its WAL's file name. A replica's is in its control file: that of the last
# restartpoint, or of the WAL that it has replayed and flushed since. CASE is not evaluated early here: the functions are
# volatile. One that is promoted between two looks only turns true to false. Where a role's COMMITs wait for no disk, what it has
# written lies beyond what was flushed.
_WORD = """
select r.recovering,
       case when r.recovering then coalesce(pg_last_wal_replay_lsn(), '0/0')
            when current_setting('synchronous_commit') = 'off' then pg_current_wal_insert_lsn()
            else pg_current_wal_flush_lsn() end as position,
       case when r.recovering then (select greatest(c.timeline_id, v.min_recovery_end_timeline)
                                    from pg_control_checkpoint() c, pg_control_recovery() v)
            else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end as timeline
from (select pg_is_in_recovery() as recovering{} offset 0) r
"""
ASK = _WORD.format("")
#: The same, answered once the node takes writes, or after 0.2 s: a promotion takes that long, and many processes that asked over
#: and over would take from it what it needs most. Those that were waiting when it came are answered by chance within 10 ms for
#: each of them, 0.2 s at most: else all would write at once, each for the first time in its session, and none be done early.
ASK_PROMOTED = """
with waited as materialized (
    select count(*) as times from generate_series(1, 40)
    where case when pg_is_in_recovery() then pg_sleep(0.005)::text is not null end
), turn as materialized (
    select case when times > 0 and not pg_is_in_recovery() then pg_sleep(random() * least(0.2, 0.01 * (
        select count(*) - 1 from pg_stat_activity as other join pg_stat_activity as own on own.pid = pg_backend_pid()
        where other.query = own.query and other.state = 'active'))) end
    from waited
)""" + _WORD.format(" from turn")
# For who has nobody else to ask: which database it is, and how far a primary had followed before it was promoted, which is where
# the timeline before its own ended. (After a restart there is none; after a crash it is where the crash was, so only a promotion
# that was watched counts.)
_ASK_ALL = ASK.replace(
    "\nfrom (select",
    """,
       (select system_identifier from pg_control_system()) as system,
       case when not r.recovering then pg_last_wal_replay_lsn() end as replayed
from (select""",
)
#: And how far the replicas have confirmed what it writes (providers/local/confirmed.sql). Asked of a shard that has no such
#: function, it is refused with one of NO_SUCH.
ASK_CONFIRMED = "select w.*, c.lsn as confirmed, c.settled from (" + ASK + ") w, pgfleet.confirmed() c"
#: No function, no schema, no right to either.
NO_SUCH = frozenset({"42883", "3F000", "42501"})
#: Of who writes: all timelines before its own, and where each ended (providers/local/timelines.sql).
HISTORY = "select timeline, ended from pgfleet.timelines()"
_SETTINGS = {"application_name": "pgfleet probe", "default_transaction_read_only": "on", "statement_timeout": "2000"}

#: Seconds for making a connection, however little time whoever asks first has: of a node that is far away, or on a busy machine,
#: no question would be answered if each began with a connection of its own and gave it up half-way.
_MAKING = 3.0

#: Seconds that the others have, once one has said that it is the primary, to say the same.
_GRACE = 0.1


@dataclass(frozen=True, slots=True)
class OwnWord:
    """:param position: bytes; a primary has flushed them, a replica has replayed them. :param rtt: seconds it took.
    :param system: the system identifier; 0 = not asked. :param replayed: by a primary, before it was one; None = not known.
    :param confirmed: of the COMMITs that were sent in the last ``settled`` seconds, none that waited for the replicas was
        answered beyond that, bytes; None = it does not say.
    """

    recovering: bool
    position: int
    timeline: int
    rtt: float
    system: int = 0
    replayed: int | None = None
    confirmed: int | None = None
    settled: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """:param took: seconds."""

    rows: Sequence[asyncpg.Record]
    took: float


class Prober:
    """Asks nodes, each by one connection at most: who asks meanwhile waits. It is kept for the next one, until :meth:`rest`.

    :param login: how every node is logged in to, or each.
    """

    def __init__(self, login: Login | Callable[[NodeAddress], Login], *, seconds: float = 1.0) -> None:
        self.login_of: Callable[[NodeAddress], Login] = login if callable(login) else lambda _: login
        self.seconds = seconds
        self._kept: dict[NodeName, Connection] = {}
        self._spoke: dict[NodeName, Connection] = {}
        self._asking: dict[NodeName, asyncio.Lock] = {}
        self._making: dict[NodeName, asyncio.Task[None]] = {}
        #: Nodes that refused our last question in so many words (an SQLSTATE): they are full, or starting, and not silent.
        self.refused: dict[NodeName, str] = {}
        #: What the nodes said that do not let us in.
        self.shut: dict[NodeName, str] = {}
        self._newest: dict[str, int] = {}  # by shard: the highest timeline on which a node took writes
        self._followed: dict[NodeName, int] = {}  # the timeline on which a node was last seen in recovery
        self._ends: dict[str, dict[int, int]] = {}  # by shard: timeline -> where it ended, of promotions that were watched

    async def ask(self, node: NodeAddress, *, seconds: float | None = None, question: str = ASK) -> OwnWord | None:
        """Its word; None: it gave none in time."""
        answer = await self.answer(node, question, seconds)
        if answer is None or not answer.rows:
            return None
        return OwnWord(rtt=answer.took, **answer.rows[0])

    async def history(self, node: NodeAddress) -> dict[int, int] | None:
        """Timeline -> the LSN at which it ended, of all that led to the one that ``node`` writes, as it says itself; None: it
        does not say (it was prepared by an earlier pgfleet, or is gone)."""
        answer = await self.answer(node, HISTORY)
        return None if answer is None else {row[0]: row[1] for row in answer.rows}

    async def answer(self, node: NodeAddress, question: str, seconds: float | None = None) -> Answer | None:
        """What it says to any question; None: nothing in time."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(seconds or self.seconds), self._asking.setdefault(node.name, asyncio.Lock()):
                connection = await self._connected(node)
                began = monotonic()
                rows = await connection.fetch(question)
        except CannotConnect as error:
            self._heard(node.name, error.state)
            if error.state is not None:
                self.shut[node.name] = error.message
            return None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
            self._heard(node.name, sqlstate(error))
            if connection is not None:
                connection.terminate()
            return None
        except BaseException:
            if connection is not None:
                connection.terminate()
            raise
        self._heard(node.name, None)
        self._keep(node.name, connection)
        self._spoke[node.name] = connection
        return Answer(rows, monotonic() - began)

    def session(self, node: NodeName) -> Connection | None:
        """That by which ``node`` spoke last, as long as it lives; so long the node was not started again."""
        connection = self._spoke.get(node)
        return None if connection is None or connection.is_closed() else connection

    async def race(self, nodes: Iterable[NodeAddress]) -> dict[NodeName, OwnWord]:
        """Ask all at once: until all have spoken or had their second, or shortly after one said that it takes
        writes.

        One that takes writes on an older timeline than another did before was replaced, and does not know: its word does not
        count, also while its successor is silent.
        """
        asked = {asyncio.create_task(self.ask(node, question=_ASK_ALL)): node.name for node in nodes}
        words: dict[NodeName, OwnWord] = {}
        waiting, grace = set(asked), None
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    if (word := task.result()) is not None and not self._replaced(asked[task].shard, word):
                        self._remember(asked[task], word)
                        words[asked[task]] = word
                if any(not word.recovering for word in words.values()):
                    grace = _GRACE
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return {name: word for name, word in words.items() if not self._replaced(name.shard, word)}

    def ends(self, shard: str) -> Mapping[int, int]:
        """Timeline -> the LSN at which it ended, of the promotions that were seen by :meth:`race`."""
        return self._ends.get(shard, {})

    def _remember(self, node: NodeName, word: OwnWord) -> None:
        if word.recovering:
            self._followed[node] = word.timeline
            return
        parent = self._followed.pop(node, None)
        if parent is not None and parent < word.timeline and word.replayed is not None:
            self._ends[node.shard] = {**self.ends(node.shard), parent: word.replayed}

    def _replaced(self, shard: str, word: OwnWord) -> bool:
        if word.recovering:
            return False
        self._newest[shard] = max(self._newest.get(shard, 0), word.timeline)
        return word.timeline < self._newest[shard]

    def _heard(self, node: NodeName, state: str | None) -> None:
        if state is None:
            self.refused.pop(node, None)
            self.shut.pop(node, None)
        else:
            self.refused[node] = state

    async def _connected(self, node: NodeAddress) -> Connection:
        """The connection that is kept, or is being made for an earlier question that had no more time, or a new one.

        :raises CannotConnect: the node does not let us in.
        """
        while True:
            kept = self._kept.pop(node.name, None)
            if kept is not None and not kept.is_closed():
                return kept
            making = self._making.get(node.name)
            if making is None:
                making = self._making[node.name] = asyncio.get_running_loop().create_task(self._make(node))
                making.add_done_callback(partial(self._made, node.name))
            await asyncio.wait([making])  # whose time is up leaves; it goes on
            if making.cancelled():
                raise CannotConnect(f"{node.host}:{node.port} is not asked any more")
            making.result()

    async def _make(self, node: NodeAddress) -> None:
        self._keep(node.name, await connect(node.host, node.port, self.login_of(node), settings=_SETTINGS, seconds=_MAKING))

    def _made(self, name: NodeName, making: asyncio.Task[None]) -> None:
        """However it ended: one that is cancelled before its first step ends without having run."""
        if self._making.get(name) is making:
            del self._making[name]
        if not making.cancelled():
            making.exception()  # whoever waited for it has heard

    def rest(self) -> None:
        """Let every kept connection go, and every one that is being made."""
        making, self._making = self._making, {}
        for task in making.values():
            task.cancel()
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            connection.terminate()

    def forget(self, node: NodeName) -> None:
        """Let one node's go."""
        if (connection := self._kept.pop(node, None)) is not None:
            connection.terminate()

    def _keep(self, name: NodeName, connection: Connection) -> None:
        self.forget(name)  # two questions to one node at once: the later answer's is kept
        self._kept[name] = connection


async def round_trip(host: str, port: int, *, seconds: float = 1.0) -> float | None:
    """Seconds of one TCP handshake, which is one round trip (a stopped server's kernel answers too); None: none."""
    began = monotonic()
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return None
    took = monotonic() - began
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return took


def decide(
    words: Mapping[NodeName, OwnWord], *, leader: NodeName | None, etcd_answers: bool | None
) -> tuple[NodeName | None, str]:
    """Who may be written to, and because. Pure.

    :param leader: the holder of Patroni's lock, as last seen.
    :param etcd_answers: whether that is fresh; None: there is no etcd. If it is, nobody but the holder may be written to: a
        primary that outlives its Patroni calls itself primary, too. If etcd is silent, the one that says so itself is it
        (Patroni's failsafe mode goes on without etcd); of two, the one on the higher timeline was promoted later.
    """
    claims = [name for name, word in words.items() if not word.recovering]
    if leader in claims:
        return leader, "it holds Patroni's lock and says itself that it takes writes"
    if etcd_answers:
        if leader is None:
            return None, "nobody holds Patroni's lock: an election is under way"
        if leader in words:
            return None, f"{leader.member} holds Patroni's lock and is still being promoted"
        return None, f"{leader.member} holds Patroni's lock and does not answer"
    if not claims:
        silent = "" if etcd_answers is None else "etcd is silent, and "
        return None, f"{silent}no node says that it takes writes ({len(words)} answered)"
    newest = max(claims, key=lambda name: words[name].timeline)
    also = ", on the highest timeline of those that do" if len(claims) > 1 else ""
    return newest, f"it says itself that it takes writes{also}{'' if etcd_answers is None else ' (etcd is silent)'}"
