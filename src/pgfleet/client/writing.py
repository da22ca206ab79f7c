"""Writes: on the primary, waiting for a new one through a failover, sent again only where they certainly did not happen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg

from pgfleet.client.borrowing import PAUSE, Borrowing
from pgfleet.client.carrying import Carrying
from pgfleet.client.claiming import write_outcome
from pgfleet.client.committing import QUESTION, WaitsFor, waits_for
from pgfleet.client.lookup_entry import On
from pgfleet.client.lookups import Lookups
from pgfleet.client.observing import Call
from pgfleet.client.outcome import Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.reading import Reader, isolation_level
from pgfleet.client.router import Router
from pgfleet.client.sending import NOT_OWNED, OLD_EPOCH, Glance, Sender, unknown
from pgfleet.client.trouble import BROKEN, Unsent, lost, not_done, unsent
from pgfleet.errors import (
    BlockEnded,
    BlockRolledBack,
    ClaimVoided,
    DeadlineExceeded,
    NotOwned,
    OutcomeUnknown,
    PlacementMoved,
    Unreachable,
)
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import quote_literal
from pgfleet.routing.hashing import Key, key_text
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection, sqlstate

T = TypeVar("T")

#: Seconds for reading, after a COMMIT, where the primary is.
POSITION_SECONDS = 1.0
#: Seconds before a function is run again: doubled from the first to the last, and a part of it by chance, so that two that
#: hindered each other do not meet again.
AGAIN_FIRST, AGAIN_LAST = 0.005, 0.25


@dataclass(frozen=True, slots=True)
class Write:
    """One write: to what, by which key.

    :param resolvable: it leaves a row that says what became of it.
    :param claims: values of the table's lookups that its row has afterwards. :param releases: that it has no more.
    """

    table: str
    key: Key
    second: Key | None = None
    resolvable: bool = False
    isolation: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    releases: Mapping[str, Any] = field(default_factory=dict)


def _cancellations() -> int:
    """How often this task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


class Writer:
    """The writes of one fleet."""

    def __init__(
        self, router: Router, placed: Placed, carrying: Carrying, outcomes: Outcomes, reader: Reader, on: On | None = None
    ) -> None:
        """:param on: sends statements of the fleet's own to primaries; None: this does."""
        self._router, self._placed, self._carrying, self._outcomes = router, placed, carrying, outcomes
        self._borrowing = Borrowing(router)
        self._sender = Sender(router)
        self.lookups = Lookups(
            lambda: placed.now, on or self._sender.rows, glance=Glance(reader, carrying), wrote=self._wrote_lookup
        )
        outcomes.needless = self.lookups.decided

    def shard(self, write: Write) -> str:
        """Where its rows are now.

        :raises PlacementError: nowhere.
        """
        return self._placed.now.shard(write.table, write.key, write.second).shard

    # -- one statement -----------------------------------------------------------------------------------------------------

    async def execute(self, write: Write, sql: str, args: tuple[Any, ...], seconds: float) -> str:
        """One statement, committed when this returns; its command tag."""
        deadline = Deadline.after(seconds)
        if write.resolvable or write.claims or write.releases:

            async def one(connection: Connection) -> str:
                return await connection.run(sql, args)

            return await self.transact(write, one, deadline)

        waited = False

        async def send(connection: Connection, left: float) -> str:
            nonlocal waited
            status = await connection.run(sql, args, left)
            waited = connection.waits_for_replicas
            return status

        async def refused(error: asyncpg.PostgresError, times: int) -> None:
            await self._moved(write, error, times, deadline)

        with self._router.observing.call("execute", write.table, self.shard(write)) as call:
            try:
                node, status = await self._sender.send(write.table, lambda: self.shard(write), send, deadline, call, refused, sql)
            except (OutcomeUnknown, asyncio.CancelledError):
                self._carrying.unsure(self.shard(write))
                raise
            await self._mark(node.name.shard, node, since=deadline.began if waited else None)
        return status

    async def _moved(self, write: Write, error: BaseException, times: int, deadline: Deadline) -> None:
        """A shard refused: read the map again. Returns when it is worth trying again.

        :raises NotOwned: the map has not changed, so the call's key is not that of its rows.
        """
        before = self._placed.now.epoch
        with suppress(ValueError, TimeoutError):
            async with asyncio.timeout(max(0.0, deadline.left())):
                await self._placed.doubt()
        if self._placed.now.epoch == before and times > 1 and sqlstate(error) == NOT_OWNED:
            detail = getattr(error, "detail", None)
            raise NotOwned(
                f"{self.shard(write)} does not own a row that was written to {write.table} under key {write.key!r}",
                seen=[str(error), *([detail] if detail else [])],
                hint=f"key= is the row's {self._placed.now.key_column(write.table)}",
            ) from error  # fmt: skip
        if self._placed.now.epoch == before:
            await asyncio.sleep(min(PAUSE, max(0.0, deadline.left())))  # the change is under way: the shards learn it one by one

    # -- blocks ------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def block(self, write: Write, deadline: Deadline) -> AsyncIterator[Connection]:
        """A transaction, committed when the block ends and rolled back when it raises."""
        with self._router.observing.call("write", write.table, self.shard(write)) as call:
            async with self._claimed(write, deadline, call) as connection:
                yield connection

    @asynccontextmanager
    async def _claimed(self, write: Write, deadline: Deadline, call: Call) -> AsyncIterator[Connection]:
        """A block that holds what it claims and gives up in lookups until it is decided."""
        shard = self.shard(write)
        if not write.claims and not write.releases:
            async with self._block(write, shard, deadline, call, uuid4() if write.resolvable else None) as connection:
                yield connection
            return
        claiming = self.lookups.claiming(
            write.table, key=write.key, second=write.second, owner=shard, claims=write.claims, releases=write.releases
        )
        async with claiming.held(deadline) as mark, self._block(write, shard, deadline, call, mark) as connection:
            yield connection

    @asynccontextmanager
    async def _block(
        self, write: Write, shard: str, deadline: Deadline, call: Call, mark: UUID | None
    ) -> AsyncIterator[Connection]:
        """:param mark: the id of its outcome row."""

        async def begin(connection: Connection) -> None:
            await connection.control(self._begin(write))
            if mark is not None:
                await write_outcome(connection, mark)
                self._outcomes.marked(shard)

        async with self._borrowing.block(shard, "write", deadline, opening=begin, call=call) as (node, connection):
            try:
                try:
                    yield connection
                except Exception:
                    # One that is cancelled or late is cut off as it is; what cannot be rolled back is not used again.
                    if not connection.is_closed():
                        with suppress(asyncpg.PostgresError, *BROKEN):
                            await connection.control("rollback")
                    raise
            except asyncpg.PostgresError as error:
                if sqlstate(error) in (OLD_EPOCH, NOT_OWNED):
                    await self._block_moved(write, shard, error, deadline)
                raise
            waited_for = await self._waits_for(connection, deadline)
            try:
                await self._commit(connection, write, shard, mark, deadline)
            except OutcomeUnknown:
                self._carrying.unsure(shard)
                raise
        if waited_for == "nobody":
            self._carrying.unsure(shard)  # where it is, its own primary does not know before it has written that to its disk
        else:
            await self._mark(shard, node, since=deadline.began if waited_for == "replicas" else None)

    async def _waits_for(self, connection: Connection, deadline: Deadline) -> WaitsFor:
        """For whom a COMMIT on ``connection`` would wait now; the server is asked only where the block may have changed it."""
        if connection.waits_for_replicas:
            return "replicas"
        row = None
        if connection.is_in_transaction() and not connection.is_closed():
            try:
                row = await connection.own(QUESTION, timeout=max(0.001, deadline.left()))
            except TimeoutError:
                raise
            except (asyncpg.PostgresError, *BROKEN):
                row = None  # the COMMIT that follows meets the same, and says what it means
        return "disk" if row is None else waits_for(row["setting"], row["key"])

    @asynccontextmanager
    async def session(self, write: Write, deadline: Deadline) -> AsyncIterator[Connection]:
        """A session of one's own on the primary: nothing is begun, everything is possible, and all of it is discarded behind."""
        shard = self.shard(write)
        with self._router.observing.call("write", write.table, shard) as call:
            try:
                async with self._borrowing.block(shard, "write", deadline, fresh=True, call=call) as (node, connection):
                    yield connection
                    if connection.unreplicated:
                        raise unknown(write.table, shard, node.name.member, None)
            except BaseException:
                self._carrying.unsure(shard)  # each of its statements may have been committed by itself
                raise
            await self._mark(shard, node)

    def _begin(self, write: Write) -> str:
        begin = "begin" if write.isolation is None else f"begin isolation level {isolation_level(write.isolation)}"
        placement = self._placed.now
        root = placement.follows.get(write.table, write.table)
        # One message: the transaction, the key that it speaks of, which the shard's guard compares with what it owns, and
        # forgetting what earlier borrowers took from sequences.
        key = quote_literal(f"{root}:{key_text(write.key)}")
        return f"{begin}; discard sequences; select set_config('pgfleet.key', {key}, true)"

    async def _block_moved(self, write: Write, shard: str, error: asyncpg.PostgresError, deadline: Deadline) -> None:
        before = self._placed.now.epoch
        with suppress(ValueError, TimeoutError):
            async with asyncio.timeout(max(0.0, deadline.left())):
                await self._placed.doubt()
        if sqlstate(error) == NOT_OWNED and self._placed.now.epoch == before and self.shard(write) == shard:
            await self._moved(write, error, 2, deadline)
        raise PlacementMoved(f"{write.key!r} of {write.table} is not written on {shard} any more", seen=[str(error)]) from error

    async def _commit(self, connection: Connection, write: Write, shard: str, mark: UUID | None, deadline: Deadline) -> None:
        def not_known(error: BaseException | None, *, answered: bool = False) -> OutcomeUnknown:
            ask = self._outcomes.resolve
            resolver = None if mark is None else lambda seconds: ask(shard, mark, answered=answered, seconds=seconds)
            return unknown(write.table, shard, "", error, resolver)

        if not connection.is_closed() and not connection.is_in_transaction():
            raise BlockEnded(f"the SQL of a write block on {shard} ended its transaction itself")
        if connection.is_closed() and not connection.touched:  # else it may have been committed by the caller's own COMMIT
            raise Unsent(f"the connection to {shard} ended before COMMIT was sent: nothing was written")
        try:
            # The block's own deadline is told as such; here it would hide what is known.
            status = await connection.control("commit", max(0.001, deadline.left()))
        except (asyncpg.PostgresError, *BROKEN) as error:
            if unsent(error) and not connection.touched:
                raise Unsent(f"{shard} closed the connection before COMMIT was sent: nothing was written") from error
            # A 57P01 may come behind the answer here: where a duration is logged, PostgreSQL looks for interrupts after
            # that (elog.c, errfinish).
            if lost(error) or connection.unreplicated:
                raise not_known(error) from error
            raise
        except asyncio.CancelledError as cancelled:
            raise not_known(cancelled) from cancelled
        if connection.unreplicated:
            raise not_known(None, answered=True)
        if status != "COMMIT":
            raise BlockRolledBack(f"a statement of the block on {shard} had failed, so PostgreSQL rolled it back")

    # -- functions that may run again ------------------------------------------------------------------------------------------

    async def transact(self, write: Write, function: Callable[[Connection], Awaitable[T]], deadline: Deadline) -> T:
        """Run ``function`` in a transaction until it is committed; what it returned then.

        It runs again after a serialization failure, a deadlock, a refused placement, and a primary that went away before its
        COMMIT. Where COMMIT was not answered, a resolvable one is asked; another one raises :class:`OutcomeUnknown`.
        """
        with self._router.observing.call("transact", write.table, self.shard(write)) as call:
            return await self._transact(write, function, deadline, call)

    async def _transact(self, write: Write, function: Callable[[Connection], Awaitable[T]], deadline: Deadline, call: Call) -> T:
        pause, times = AGAIN_FIRST, 0
        cancellations = _cancellations()
        while True:
            began, gone, done = False, False, list[T]()
            last: Exception | None = None
            try:
                async with self._claimed(write, deadline, call) as connection:
                    began = True
                    try:
                        done.append(await function(connection))
                    except (asyncpg.PostgresError, *BROKEN) as error:
                        gone = lost(error, connection) and not isinstance(error, TimeoutError)
                        raise
                return done[0]
            except OutcomeUnknown as unknown:
                # One that came out of the function itself is of another write; and whoever is cancelled ends.
                if not done or not unknown.resolvable or _cancellations() > cancellations or deadline.left() <= 0:
                    raise
                try:
                    outcome = await unknown.resolve(deadline.left())
                except Unreachable:
                    raise unknown from None
                if outcome == "committed":
                    await self._mark(self.shard(write), self._router.primary(self.shard(write)))
                    return done[0]
            except (PlacementMoved, ClaimVoided) as error:
                times += 1
                if times > 1 and deadline.left() < AGAIN_LAST:
                    raise
                last = error
            except (asyncpg.PostgresError, *BROKEN) as error:
                if not (not_done(error) or gone or (not began and lost(error))):
                    raise
                last = error
            if deadline.left() <= pause:
                raise DeadlineExceeded(
                    f"a transaction on {self.shard(write)} was not committed within {deadline.allowed:g} s",
                    seen=["nothing of it was written", *([str(last) or type(last).__name__] if last is not None else [])],
                ) from last
            call.retried()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret
            pause = min(pause * 2, AGAIN_LAST)

    # -- where it is -------------------------------------------------------------------------------------------------------------

    async def _wrote_lookup(self, shard: str, deadline: Deadline) -> None:
        await self._mark(shard, self._router.primary(shard), since=deadline.began)

    async def _mark(self, shard: str, node: NodeAddress | None, since: float | None = None) -> None:
        """Read where the primary is after a COMMIT: this caller's reads must see as far.

        :param since: as :meth:`Router.position` has it.
        """
        word = None
        if node is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(POSITION_SECONDS):
                    word = await self._router.positions.ask(node)
        if word is None or word.recovering:
            # It was acknowledged, and its primary is gone since. The next one has it; until that can say where it is, only a
            # primary will do.
            self._carrying.unsure(shard)
            return
        self._carrying.wrote(shard, self._router.position(shard, word, since))
