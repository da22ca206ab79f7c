"""Reads: from a near replica that is fresh enough, sent again elsewhere when a node fails, within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import asyncpg

from pgfleet.client.borrowing import Borrowing
from pgfleet.client.breaker import ANSWERS_WITHIN
from pgfleet.client.carrying import Carrying
from pgfleet.client.freshness import ANY, Wanted, fresh_enough
from pgfleet.client.hedging import Latencies, patience
from pgfleet.client.observing import UNHEARD, Call
from pgfleet.client.pools import NodePool
from pgfleet.client.router import Router
from pgfleet.client.silence import SILENCE
from pgfleet.client.trouble import BROKEN, lost, read_again
from pgfleet.errors import WriteInRead
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import Connection

#: Seconds within which a node that hangs is found out (client/silence.py, client/breaker.py), and its reads are sent elsewhere. A
#: deadline that is shorter does not wait for that: half of it is the first node's.
FOUND_OUT = SILENCE * 2 + ANSWERS_WITHIN
#: Seconds left below which nobody else is tried any more.
TOO_LATE = 0.2


@dataclass(frozen=True, slots=True)
class Read:
    """One read: of what, and how fresh. :param hedge: a quantile (``p95``) or seconds, after which a second node is asked."""

    table: str
    shard: str
    wanted: Wanted = ANY
    hedge: str | float | None = None


class Reader:
    """The reads of one fleet."""

    def __init__(self, router: Router, carrying: Carrying) -> None:
        self._router, self._carrying = router, carrying
        self._borrowing = Borrowing(router)
        self._latencies: dict[str, Latencies] = {}
        self._losers: set[asyncio.Task[Any]] = set()

    async def fetch(self, read: Read, sql: str, args: tuple[Any, ...], seconds: float) -> list[asyncpg.Record]:
        """Rows of one statement.

        :param seconds: the deadline.
        """
        with self._router.observing.call("fetch", read.table, read.shard) as call:
            return await self._fetch_first(read, sql, args, seconds, call)

    async def _fetch_first(self, read: Read, sql: str, args: tuple[Any, ...], seconds: float, call: Call) -> list[asyncpg.Record]:
        # Most reads ask for nothing special, and find a connection that is free: for these nothing is made.
        pool = self.pool(read) if seconds > 0 else None
        connection = pool.take() if pool is not None else None
        if pool is not None and connection is not None:
            began = monotonic()
            others = self._router.lanes[read.shard].others
            if call is not UNHEARD:
                call.at(pool.node.name, self._router.lanes[read.shard].choices[pool.node.name])
            try:
                rows = await connection.ask(sql, args, seconds if seconds > FOUND_OUT else _patience(seconds, others=others))
            except BaseException as error:  # noqa: BLE001 - raised again, unless it may be sent again
                self._failed(read, pool, connection, error)
                left = Deadline(began + seconds, seconds)
                call.retried()
                return await self._fetch(read, sql, args, left, avoid={pool.node.name}, because=error, call=call)
            pool.release(connection)
            return rows
        deadline = Deadline.after(seconds)
        if read.hedge is not None:
            return await self._hedged(read, sql, args, deadline, call)
        return await self._fetch(read, sql, args, deadline, call=call)

    def pool(self, read: Read) -> NodePool | None:
        """Whose connection a read takes that needs nothing but what is known already; None: there is more to it."""
        router, wanted = self._router, read.wanted
        lane = router.lanes.get(read.shard)
        if lane is None or not lane.pools or read.hedge is not None or wanted.max_staleness is not None:
            return None
        router.turn += 1
        pool = lane.pools[router.turn % len(lane.pools)]
        if pool.waiting:
            pool = min(lane.pools, key=attrgetter("waiting"))
        if wanted.after:
            lsn = router.needed(read.shard, wanted.after)
            if lsn is None or not router.holds(pool.node.name, lsn):
                return None
        return pool

    async def _fetch(
        self, read: Read, sql: str, args: tuple[Any, ...], deadline: Deadline, *,
        avoid: Collection[NodeName] = (), because: BaseException | None = None, told: list[NodeName] | None = None,
        call: Call = UNHEARD,
    ) -> list[asyncpg.Record]:  # fmt: skip
        """:param told: filled with every node that is asked."""
        shunned = set(avoid)
        waits_for = _said(because) if because is not None else "a node that can be read"
        latencies = self._latencies.setdefault(read.shard, Latencies())
        while deadline.left() > 0:
            among = await self._among(read, deadline, call)
            judged = self._router.lineage(read.shard)
            pool, connection = await self._borrowing.borrow(read.shard, "read", deadline, avoid=shunned, among=among, call=call)
            if read.wanted and self._router.lineage(read.shard) != judged:
                pool.release(connection)  # a promotion came between: who has what, and what was lost, is another question now
                continue
            node = pool.node.name
            if told is not None:
                told.append(node)
            left = deadline.left()
            others = self._router.lanes[read.shard].others
            began = monotonic()
            try:
                rows = await connection.ask(sql, args, _patience(left, others=others))
            except BaseException as error:  # noqa: BLE001 - raised again, unless it may be sent again
                self._failed(read, pool, connection, error)
                waits_for = f"{node.member}: {_said(error)}"
                shunned.add(node)
                call.retried()
                continue
            pool.release(connection)
            latencies.answered(monotonic() - began)
            return rows
        raise self._borrowing.late(read.shard, waits_for, deadline)

    def _failed(self, read: Read, pool: NodePool, connection: Connection, error: BaseException) -> None:
        """What a failed statement means: returns when it is worth sending again.

        :raises: what the caller shall see.
        """
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            pool.release(connection)
            raise write_in_read(read.table, read.shard, error) from error
        if not isinstance(error, (asyncpg.PostgresError, *BROKEN)):
            pool.discard(connection)  # cancelled, or a mistake of somebody's
            raise error
        if lost(error):
            pool.discard(connection)
        else:
            connection.touched = True
            pool.release(connection)
        if not isinstance(error, TimeoutError) and not read_again(error):
            raise error
        # Lateness may be the query's own: then the node is asked, and is silent only if it says nothing.
        self._router.failed(pool.node.name, silent=lost(error) and not isinstance(error, TimeoutError))
        if isinstance(error, TimeoutError):
            self._router.suspect(pool)

    async def _among(self, read: Read, deadline: Deadline, call: Call) -> Collection[NodeName] | None:
        if not read.wanted:
            return None
        began = monotonic()
        among = await fresh_enough(self._router, read.shard, read.wanted, deadline)
        call.waited("token", monotonic() - began)
        return among

    async def _hedged(self, read: Read, sql: str, args: tuple[Any, ...], deadline: Deadline, call: Call) -> list[asyncpg.Record]:
        assert read.hedge is not None  # noqa: S101 - the caller looked
        latencies = self._latencies.setdefault(read.shard, Latencies())
        wait = patience(read.hedge, latencies)
        asked: list[NodeName] = []
        first = asyncio.ensure_future(self._fetch(read, sql, args, deadline, told=asked, call=call))
        first.add_done_callback(self._ended)
        second: asyncio.Future[list[asyncpg.Record]] | None = None
        tasks = {first}
        try:
            done, _ = await asyncio.wait(tasks, timeout=wait)
            if not done and latencies.spend():
                second = asyncio.ensure_future(self._fetch(read, sql, args, deadline, avoid=tuple(asked)))
                second.add_done_callback(self._ended)
                tasks.add(second)
                self.hedges += 1
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda task: task.exception() is not None):  # an answer goes before an error
                    if task.exception() is None or not tasks:
                        if second is not None:
                            call.hedged(won=task is second)
                        return task.result()
            raise self._borrowing.late(read.shard, "an answer", deadline)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        finally:
            # The slower one is left to end: cutting it off would cost its connection.
            self._losers.update(tasks)

    #: Second questions that were asked.
    hedges = 0

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._losers.discard(task)
        if not task.cancelled():
            task.exception()  # somebody else answered: what became of this one is of no interest

    @asynccontextmanager
    async def block(
        self, read: Read, seconds: float, *, isolation: str | None = None, session: bool = False
    ) -> AsyncIterator[Connection]:
        """A READ ONLY transaction, or with ``session`` a session of one's own, on a node that is fresh enough."""
        deadline = Deadline.after(seconds)
        # The second statement takes a snapshot, after which PostgreSQL refuses to make the transaction READ WRITE.
        sentence = f"begin{_isolation(isolation)} read only; select null"

        async def begin(connection: Connection) -> None:
            await connection.control(sentence)

        with self._router.observing.call("read", read.table, read.shard) as call:
            judge = partial(self._among, read, deadline, call) if read.wanted else None
            opening = None if session else begin
            lent = self._borrowing.block(read.shard, "read", deadline, judge=judge, fresh=session, opening=opening, call=call)
            async with lent as (_, connection):
                try:
                    yield connection
                except asyncpg.ReadOnlySQLTransactionError as error:
                    raise write_in_read(read.table, read.shard, error) from error

    async def aclose(self) -> None:
        for task in self._losers:
            task.cancel()
        await asyncio.gather(*self._losers, return_exceptions=True)


def _patience(left: float, *, others: bool) -> float:
    """Seconds that one node has, of those that are left."""
    return max(0.001, left / 2 if others and TOO_LATE < left <= FOUND_OUT else left)


def _isolation(level: str | None) -> str:
    return "" if level is None else f" isolation level {isolation_level(level)}"


def isolation_level(level: str) -> str:
    """``level`` as SQL has it.

    :raises ValueError: PostgreSQL has no such level.
    """
    word = level.replace("_", " ").lower() if isinstance(level, str) else ""
    if word not in ("read committed", "repeatable read", "serializable"):
        raise ValueError(f"isolation is {level!r}; it is 'read committed', 'repeatable read' or 'serializable'")
    return word


def _said(error: BaseException) -> str:
    return str(error) or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)


def write_in_read(table: str, shard: str, error: asyncpg.PostgresError) -> WriteInRead:
    return WriteInRead(f"a statement that writes to {table} was sent to read on {shard}", seen=[str(error)], hint="fleet.execute")
