"""A client's connections to the poolers: to its own region's, and to the others' where that one is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import asyncpg

from pgfleet.client.budget import Budget
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.lasting import Leaves, Left
from pgfleet.client.open import Opened
from pgfleet.client.pools import RESET_SECONDS, NodePool
from pgfleet.client.trouble import BROKEN
from pgfleet.errors import NoPooler, SessionState
from pgfleet.facts.addresses import READS_BEGIN, NodeAddress, PoolerAddress, read_only_database, read_write_database
from pgfleet.names import NodeName
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.pooled import PooledConnection, connect_pooled
from pgfleet.runtime.sql import Connection, Login

#: Seconds for which a pooler that nobody answered at comes last.
SHUNNED = 1.0
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

    :param login: to that database. :param gate: how many may be opened at once. :param absent: told that nobody answered.
    :param reads: whether it leads to replicas.
    """

    def __init__(
        self, pooler: PoolerAddress, shard: str, login: Login, budget: Budget, catalogue: Catalogue, gate: asyncio.Semaphore,
        absent: Callable[[PoolerPool], None], *, reads: bool,
    ) -> None:  # fmt: skip
        address = NodeAddress(NodeName(shard, pooler.region, NO_NODE), "reader", pooler.host, pooler.port, 0)
        super().__init__(address, login, {}, budget, catalogue)
        self.pooler, self.reads, self._gate, self._absent = pooler, reads, gate, absent
        self._plain: set[str] = set()

    @property
    def whose(self) -> str:
        """For people."""
        return f"the pooler of {self.pooler.region}"

    def left(self, sql: str) -> Left:
        """What ``sql`` leaves in its session, by what is known of the shard's database."""
        return self._catalogue.left(sql)

    async def _connect(self) -> Connection:
        async with self._gate:
            connection = await connect_pooled(
                self.pooler.host, self.pooler.port, self._login, prepared=self.pooler.prepared > 0,
                returns_to=READS_BEGIN if self.reads else "", plain=self._plain, seconds=LOGIN_SECONDS,
            )  # fmt: skip
        connection.watched_by(partial(self._look, connection))
        return connection

    def _not_made(self) -> None:
        self._absent(self)

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

    async def _clean(self, connection: Connection) -> bool:
        """Roll back what is open. A session is not ours to discard: whoever leaves something in it does not get so far."""
        try:
            async with asyncio.timeout(RESET_SECONDS):
                if connection.is_in_transaction():
                    await connection.control("rollback")
            return not connection.watched and not connection.touched
        except (asyncpg.PostgresError, *BROKEN):
            return False
        except BaseException:
            connection.terminate()
            raise


def _never(sql: str) -> bool:
    return False


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
        self._down: dict[str, float] = {}
        self._gate = asyncio.Semaphore(OPENING)

    @property
    def region(self) -> str:
        """Whose pooler is used while it is there."""
        return self.poolers[0].region

    def pools(self, shard: str, *, reads: bool) -> Sequence[PoolerPool]:
        """Where a connection for ``shard`` is to be had, the best first."""
        now = monotonic()
        order = sorted(self.poolers, key=lambda pooler: self._down.get(pooler.region, 0.0) > now)
        return [self._pool(pooler, shard, reads=reads) for pooler in order if shard in pooler.read_write]

    def absent(self, pool: PoolerPool) -> None:
        """Nobody answered there: others come first for a while."""
        self._down[pool.pooler.region] = monotonic() + SHUNNED

    def _pool(self, pooler: PoolerAddress, shard: str, *, reads: bool) -> PoolerPool:
        key = (pooler.region, shard, reads)
        if key not in self._pools:
            node = self._opened.book.of_shard(shard)[0]
            database = read_only_database(shard) if reads else read_write_database(shard)
            login = replace(self._opened.login_of(node), database=database)
            budget = self._budgets.setdefault((pooler.region, shard), Budget(self._size))
            catalogue = self._catalogues.setdefault(shard, Catalogue())
            self._pools[key] = PoolerPool(pooler, shard, login, budget, catalogue, self._gate, self.absent, reads=reads)
        return self._pools[key]

    @property
    def used(self) -> dict[tuple[str, str, bool], PoolerPool]:
        """Every pool that was used, by region, shard, and whether it is for reads."""
        return self._pools

    async def aclose(self) -> None:
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))
