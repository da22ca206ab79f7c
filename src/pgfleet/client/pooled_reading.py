"""Reads through a pooler: on replicas, on the primary where none of them answers or has what the caller must see.

Which replica answers is the pooler's choice, anew for every transaction. So whether it has the caller's writes is asked in the
same transaction, in an earlier statement; and where a transaction sees one snapshot only (REPEATABLE READ), which would be older
than the answer, the primary is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from pgfleet.client.borrowing import PAUSE
from pgfleet.client.carrying import Carrying
from pgfleet.client.freshness import CATCH_UP, FIRST, LAST, Wanted
from pgfleet.client.hedging import Latencies
from pgfleet.client.lasting import Leaves
from pgfleet.client.observing import UNHEARD, Call
from pgfleet.client.pooled_borrowing import PooledBorrowing, no_session, waited_in_vain
from pgfleet.client.pooler import PoolerPool
from pgfleet.client.reading import TOO_LATE, Read, Reader, isolation_level, write_in_read
from pgfleet.client.router import Mode, Router
from pgfleet.client.trouble import BROKEN, Unsent, confused, read_again
from pgfleet.errors import DeadlineExceeded, WriteLost
from pgfleet.names import NodeName
from pgfleet.routing.lineage import Lost, Untold, holds, needed
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import SEQUENCE, Connection
from pgfleet.topology.probe import ASK, OwnWord

#: The share of what is left that the replicas may take of a read, while the primary could answer it.
SHARE = 0.5
#: What somebody else took from a sequence is not told.
_BEGIN = "begin{} read only; discard sequences"


class Behind(Exception):
    """Who answered does not have what the read must see, or is no primary where one was asked for. The message says which."""


class PooledReader(Reader):
    """The reads of one fleet, through a pooler."""

    def __init__(self, router: Router, carrying: Carrying, borrowing: PooledBorrowing) -> None:
        super().__init__(router, carrying)
        self._pooled = borrowing

    async def fetch(self, read: Read, sql: str, args: tuple[Any, ...], seconds: float) -> list[asyncpg.Record]:
        deadline = Deadline.after(seconds)
        with self._router.observing.call("fetch", read.table, read.shard) as call:
            if read.hedge is not None:
                return await self._hedged(read, sql, args, deadline, call)
            return await self._fetch(read, sql, args, deadline, call=call)

    async def _fetch(
        self, read: Read, sql: str, args: tuple[Any, ...], deadline: Deadline, *,
        avoid: Collection[NodeName] = (), because: BaseException | None = None, told: list[NodeName] | None = None,
        call: Call = UNHEARD,
    ) -> list[asyncpg.Record]:  # fmt: skip
        """:param avoid: somebody is asked already (a hedge's second question): the primary answers this one."""
        waits_for = str(because) if because is not None else "an answer"
        latencies = self._latencies.setdefault(read.shard, Latencies())
        mode: Mode = "write" if avoid else "read"
        while deadline.left() > 0:
            began, left = monotonic(), deadline.left()
            limit = Deadline.after(left * SHARE) if mode == "read" and left > TOO_LATE else deadline
            try:
                rows = await self._once(read, sql, args, mode, limit, told, call)
            except Behind as behind:
                waits_for = str(behind)
                call.waited("token", monotonic() - began)
                if mode == "write":
                    await self._router.change(deadline, LAST)
                mode = "write"
                continue
            except DeadlineExceeded as late:
                if deadline.left() <= TOO_LATE or mode == "write" or waited_in_vain(late.__cause__):
                    raise
                mode = "write"  # no replica answered in its share of the time
                continue
            except (asyncpg.PostgresError, *BROKEN) as error:
                if not isinstance(error, TimeoutError) and not read_again(error):
                    raise
                waits_for = str(error) or "no answer"
                if mode == "write":
                    await self._router.change(deadline, PAUSE)
                mode = "write" if mode == "read" else "read"
                call.retried()
                continue
            latencies.answered(monotonic() - began)
            return rows
        raise self._pooled.late(read.shard, waits_for, deadline)

    async def _once(
        self, read: Read, sql: str, args: tuple[Any, ...], mode: Mode, limit: Deadline, told: list[NodeName] | None, call: Call
    ) -> list[asyncpg.Record]:
        if mode == "read" and read.wanted and not await self._can_be_told(read, limit):
            raise Behind("what a replica must have is not known")
        pool, connection = await self._pooled.borrow(read.shard, mode, limit, call=call)
        if told is not None:
            told.append(pool.node.name)
        try:
            async with asyncio.timeout(max(0.001, limit.left())):
                if mode == "read" and not read.wanted and _stands_alone(pool, sql):
                    rows = await connection.ask(sql, args, None)
                else:
                    await connection.control(_BEGIN.format(""))
                    if read.wanted or mode == "write":
                        await self._has(connection, read, mode, limit)
                    rows = await connection.ask(sql, args, None)
                    await connection.control("commit")
        except asyncpg.ReadOnlySQLTransactionError as error:
            pool.release(connection)
            raise write_in_read(read.table, read.shard, error) from error
        except BaseException as error:
            self._pooled.ended(pool, connection, error)
            if waited_in_vain(error):
                raise self._pooled.in_vain(pool, error) from error
            raise
        pool.release(connection)
        return rows

    @asynccontextmanager
    async def block(
        self, read: Read, seconds: float, *, isolation: str | None = None, session: bool = False
    ) -> AsyncIterator[Connection]:
        """A READ ONLY transaction."""
        if session:
            raise no_session()
        deadline = Deadline.after(seconds)
        begin = _BEGIN.format("" if isolation is None else f" isolation level {isolation_level(isolation)}")
        one_snapshot = isolation is not None and isolation_level(isolation) != "read committed"
        with self._router.observing.call("read", read.table, read.shard) as call:
            mode: Mode = "write" if one_snapshot and read.wanted else "read"
            pool, connection = await self._begun(read, begin, deadline, mode, call)
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    yield connection
                    await connection.control("commit")
            except asyncpg.ReadOnlySQLTransactionError as error:
                pool.release(connection)
                raise write_in_read(read.table, read.shard, error) from error
            except TimeoutError as error:
                pool.discard(connection)
                if deadline.left() > 0:
                    raise  # the caller's own
                raise self._pooled.late(read.shard, f"a read block through {pool.whose}", deadline) from error
            except BaseException as error:
                self._pooled.ended(pool, connection, error, borrowers=True)
                if confused(error):
                    raise Unsent(f"{pool.whose} closed the connection") from error
                raise
            else:
                pool.release(connection)

    async def _begun(self, read: Read, begin: str, deadline: Deadline, mode: Mode, call: Call) -> tuple[PoolerPool, Connection]:
        waits_for = "a node that can be read"
        while deadline.left() > 0:
            left = deadline.left()
            limit = Deadline.after(left * SHARE) if mode == "read" and left > TOO_LATE else deadline

            async def opening(connection: Connection, mode: Mode = mode, limit: Deadline = limit) -> None:
                await connection.control(begin)
                if read.wanted or mode == "write":
                    await self._has(connection, read, mode, limit)

            try:
                if mode == "read" and read.wanted and not await self._can_be_told(read, limit):
                    raise Behind("what a replica must have is not known")
                return await self._pooled.begun(read.shard, mode, limit, opening, call=call)
            except Behind as behind:
                waits_for = str(behind)
                if mode == "write":
                    await self._router.change(deadline, LAST)
                mode = "write"
            except DeadlineExceeded as late:
                if deadline.left() <= TOO_LATE or mode == "write" or waited_in_vain(late.__cause__):
                    raise
                mode = "write"  # no replica answered in its share of the time
            except (asyncpg.PostgresError, *BROKEN) as error:
                if not read_again(error):
                    raise
                waits_for = str(error) or "no answer"
                mode = "write" if mode == "read" else "read"
        raise self._pooled.late(read.shard, waits_for, deadline)

    # -- what a read must see ------------------------------------------------------------------------------------------------

    async def _can_be_told(self, read: Read, limit: Deadline) -> bool:
        """Whether it is known what a replica must have; where it is not, the primary is asked, once for all who ask."""
        if self._enough(read.shard, read.wanted) is None:
            await self._router.positions.ask(self._pooled.anybody(read.shard))
        return self._enough(read.shard, read.wanted) is not None

    def _enough(self, shard: str, wanted: Wanted) -> int | None:
        """The LSN that a replica must have replayed; None: it is not known.

        :raises WriteLost: the caller's write is in no history.
        """
        lsn = self._after(shard, wanted)
        if isinstance(lsn, Untold):
            return None
        if wanted.max_staleness is None:
            return lsn
        mark = self._router.positions.mark(shard, wanted.max_staleness)
        return None if mark is None else max(lsn, mark.position)

    def _after(self, shard: str, wanted: Wanted) -> int | Untold:
        verdict = needed(wanted.after, self._router.lineage(shard))
        if isinstance(verdict, Lost):
            raise WriteLost(f"a write to {shard} that was acknowledged is lost", seen=[verdict.because])
        return verdict

    async def _has(self, connection: Connection, read: Read, mode: Mode, limit: Deadline) -> None:
        """Returns when who answers this transaction has what the read must see.

        :raises Behind: it has not, or is no primary.
        """
        until, pause = min(limit.at, monotonic() + CATCH_UP), FIRST
        while True:
            row = await connection.own(ASK)
            word = OwnWord(rtt=0.0, **row)
            if not word.recovering:
                return self._primary_has(read, word)
            if mode == "write":
                raise Behind("the pooler leads to a former primary")
            lsn = self._enough(read.shard, read.wanted)
            if lsn is not None and holds(self._router.lineage(read.shard), word.timeline, word.position, lsn):
                return None
            if lsn is None or monotonic() + pause >= until:
                raise Behind("the replica that answered does not have this caller's writes, or is too stale")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST)

    def _primary_has(self, read: Read, word: OwnWord) -> None:
        """A primary has everything of its history. But is it the primary, and is what was written part of that history?"""
        if word.timeline < self._router.lineage(read.shard).timeline:
            raise Behind("the pooler leads to a former primary")
        self._router.spoke(read.shard, word)
        if not read.wanted.after:
            return
        verdict = self._after(read.shard, read.wanted)
        if isinstance(verdict, Untold) and all(position.timeline for position in read.wanted.after):
            raise Behind(verdict.because)


def _stands_alone(pool: PoolerPool, sql: str) -> bool:
    """Whether ``sql`` may be sent without a transaction around it: it leaves nothing, and needs nothing of its session."""
    return pool.left(sql).leaves is Leaves.NOTHING and SEQUENCE.search(sql) is None
