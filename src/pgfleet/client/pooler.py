"""A client's connections to the poolers: to its own region's, and to the others' where that one is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pgfleet.client.breaker import ANSWERS_WITHIN, Breaker
from pgfleet.client.budget import Budget
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.lasting import Leaves, Left
from pgfleet.client.open import Opened
from pgfleet.client.pools import NodePool
from pgfleet.errors import CannotConnect, NoPooler, SessionState
from pgfleet.facts.addresses import READS_BEGIN, NodeAddress, PoolerAddress, read_only_database, read_write_database
from pgfleet.names import NodeName
from pgfleet.runtime.pooled import PooledConnection, connect_pooled, speaks
from pgfleet.runtime.sql import Connection, Login

#: Seconds for which what the catalogue said is not doubted: a statement that would be refused is judged by a younger word.
YOUNG = 1.0
#: Seconds for TCP, TLS and authentication together. A pooler is one process, and everybody comes at once when it was restarted.
LOGIN_SECONDS = 3.0
#: Connections that one process opens at once: more of them take longer each, until none is done in time.
OPENING = 8
#: Stands where a node's number would be, in the name of the pool of a pooler.
NO_NODE = 0


class PoolerPool(NodePool):
    """Connections to one database of a pooler, which stands for the primary or the replicas of ``shard``.

    :param login: to that database. :param gate: how many may be opened at once. :param reads: whether it leads to replicas.
    :param stuck: told when statements wait and nothing was answered.
    """

    #: Whoever leaves something in a session does not get so far: see :meth:`_look`.
    OURS = False

    def __init__(
        self, pooler: PoolerAddress, shard: str, login: Login, budget: Budget, catalogue: Catalogue, gate: asyncio.Semaphore,
        stuck: Callable[[PoolerAddress], None], *, reads: bool,
    ) -> None:  # fmt: skip
        super().__init__(_address(pooler, shard), login, {}, budget, catalogue, stuck=lambda _: stuck(pooler))
        self.pooler, self.reads, self._gate = pooler, reads, gate
        self._plain: set[str] = set()
        self._connecting: set[asyncio.Timeout] = set()

    @property
    def whose(self) -> str:
        """For people."""
        return f"the pooler of {self.pooler.region}"

    def left(self, sql: str) -> Left:
        """What ``sql`` leaves in its session, by what is known of the shard's database."""
        return self._catalogue.left(sql)

    async def _connect(self) -> Connection:
        limit = asyncio.timeout(None)
        try:
            async with self._gate, limit:
                self._connecting.add(limit)
                connection = await connect_pooled(
                    self.pooler.host, self.pooler.port, self._login, prepared=self.pooler.prepared > 0,
                    returns_to=READS_BEGIN if self.reads else "", plain=self._plain, seconds=LOGIN_SECONDS,
                )  # fmt: skip
        except TimeoutError as error:
            raise CannotConnect(f"{self.whose} hangs") from error
        finally:
            self._connecting.discard(limit)
        connection.watched_by(partial(self._look, connection))
        return connection

    def _lend(self, connection: Connection) -> None:
        super()._lend(connection)
        connection.lend(_never)  # what it is told here is not enough to go by: see _look

    async def _look(self, connection: PooledConnection, sql: str) -> bool:
        """Whether what ``sql`` leaves has to be undone.

        :raises SessionState: it is not to be sent.
        """
        found = self._catalogue.left(sql)
        if found.leaves is Leaves.STATE and not self._catalogue.asked_within(YOUNG):
            await self._catalogue.ask(connection)  # a function that a migration has just made is not known yet
            found = self._catalogue.left(sql)
        if found.leaves is Leaves.STATE:
            raise SessionState(
                f"{found.what} may leave something in its session, and through {self.whose} that is the next client's session",
                seen=[f"through: pooler, shard {self.node.name.shard}"],
                hint='SET LOCAL, pg_advisory_xact_lock, or connect(..., through="direct") and session=True',
            )
        return found.leaves is Leaves.HIDDEN

    def hangs(self) -> None:
        """Cut off whoever waits for an answer, but for that to a COMMIT: to wait is better than not to know what became of it."""
        self.drop(None if self.reads else _commits)
        connecting, self._connecting = self._connecting, set()
        for limit in connecting:
            limit.reschedule(asyncio.get_running_loop().time())


def _never(sql: str) -> bool:
    return False


def _commits(connection: Connection) -> bool:
    return isinstance(connection, PooledConnection) and connection.committing


async def _speaks(pooler: NodeAddress) -> bool:
    return await speaks(pooler.host, pooler.port, seconds=ANSWERS_WITHIN)


def _address(pooler: PoolerAddress, shard: str = "") -> NodeAddress:
    """Stands for a node's. :param shard: empty: of the pooler itself, whichever shard it leads to."""
    return NodeAddress(NodeName(shard, pooler.region, NO_NODE), "reader", pooler.host, pooler.port, 0)


class Pooler:
    """The poolers as one client uses them.

    :param region: whose pooler is used; None, or one without a pooler: the first in the address book.
    :param size: connections to one pooler for one shard, for reads and writes together.
    :raises NoPooler: the fleet has none.
    """

    def __init__(self, opened: Opened, *, region: str | None, size: int) -> None:
        self._opened, self._size = opened, size
        self.poolers = sorted(opened.book.poolers, key=lambda pooler: pooler.region != region)
        if not self.poolers:
            raise NoPooler(f"{opened.book.fleet} has no pooler", hint='connect(..., through="direct")')
        self._pools: dict[tuple[str, str, bool], PoolerPool] = {}
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._catalogues: dict[str, Catalogue] = {}
        self.breaker = Breaker(_speaks, lambda _: None)
        self._gate = asyncio.Semaphore(OPENING)

    @property
    def region(self) -> str:
        """Whose pooler is used while it is there."""
        return self.poolers[0].region

    def pools(self, shard: str, *, reads: bool) -> Sequence[PoolerPool]:
        """Where a connection for ``shard`` is to be had, the best first."""
        order, silent = self.poolers, self.breaker.silent
        if silent:
            order = sorted(order, key=lambda pooler: _address(pooler).name in silent)
        return [self._pool(pooler, shard, reads=reads) for pooler in order if shard in pooler.read_write]

    def absent(self, pool: PoolerPool) -> None:
        """Nobody answered there: others come first until somebody does."""
        self.breaker.opened(_address(pool.pooler))

    def suspect(self, pooler: PoolerAddress) -> None:
        """``pooler`` may hang. If it says nothing at all, whoever waits for it is cut off, and goes to another."""
        self.breaker.suspect(_address(pooler), partial(self._hangs, pooler))

    def _hangs(self, pooler: PoolerAddress) -> None:
        for pool in self._pools.values():
            if pool.pooler is pooler:
                pool.hangs()

    def _pool(self, pooler: PoolerAddress, shard: str, *, reads: bool) -> PoolerPool:
        key = (pooler.region, shard, reads)
        if key not in self._pools:
            node = self._opened.book.of_shard(shard)[0]
            database = read_only_database(shard) if reads else read_write_database(shard)
            login = replace(self._opened.login_of(node), database=database)
            budget = self._budgets.setdefault((pooler.region, shard), Budget(self._size))
            catalogue = self._catalogues.setdefault(shard, Catalogue())
            self._pools[key] = PoolerPool(pooler, shard, login, budget, catalogue, self._gate, self.suspect, reads=reads)
        return self._pools[key]

    @property
    def used(self) -> dict[tuple[str, str, bool], PoolerPool]:
        """Every pool that was used, by region, shard, and whether it is for reads."""
        return self._pools

    async def aclose(self) -> None:
        await asyncio.gather(self.breaker.aclose(), *(pool.aclose() for pool in self._pools.values()))
