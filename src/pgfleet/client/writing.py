"""Writes: on the primary, waiting for a new one through a failover, sent again only where they certainly did not happen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg

from pgfleet.client.borrowing import PAUSE, Borrowing
from pgfleet.client.carrying import Carrying
from pgfleet.client.observing import Call, Said
from pgfleet.client.outcome import MARK, Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.pools import NodePool
from pgfleet.client.reading import isolation_level
from pgfleet.client.router import Router
from pgfleet.client.trouble import BROKEN, lost, not_done
from pgfleet.errors import BlockRolledBack, DeadlineExceeded, NotOwned, OutcomeUnknown, PlacementMoved
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import quote_literal
from pgfleet.routing.choose import Why
from pgfleet.routing.hashing import Key, key_text
from pgfleet.routing.token import Position
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection, sqlstate

T = TypeVar("T")

_WRITES = Said(Why.WRITE.value)
#: SQLSTATEs of the shards' guards: opened under an old map; a key that is not this shard's.
OLD_EPOCH, NOT_OWNED = "PF001", "PF002"
#: Seconds for reading, after a COMMIT, where the primary is.
POSITION_SECONDS = 1.0
#: Seconds before a function is run again: doubled from the first to the last, and a part of it by chance, so that two that
#: hindered each other do not meet again.
AGAIN_FIRST, AGAIN_LAST = 0.005, 0.25


@dataclass(frozen=True, slots=True)
class Write:
    """One write: to what, by which key. :param resolvable: it leaves a row that says what became of it."""

    table: str
    key: Key
    second: Key | None = None
    resolvable: bool = False
    isolation: str | None = None


class Writer:
    """The writes of one fleet."""

    def __init__(self, router: Router, placed: Placed, carrying: Carrying, outcomes: Outcomes) -> None:
        self._router, self._placed, self._carrying, self._outcomes = router, placed, carrying, outcomes
        self._borrowing = Borrowing(router)

    def shard(self, write: Write) -> str:
        """Where its rows are now.

        :raises PlacementError: nowhere.
        """
        return self._placed.now.shard(write.table, write.key, write.second).shard

    # -- one statement -----------------------------------------------------------------------------------------------------

    async def execute(self, write: Write, sql: str, args: tuple[Any, ...], seconds: float) -> str:
        """One statement, committed when this returns; its command tag."""
        deadline = Deadline.after(seconds)
        if write.resolvable or write.isolation is not None:

            async def one(connection: Connection) -> str:
                return await connection.run(sql, args)

            return await self.transact(write, one, deadline)
        with self._router.observing.call("execute", write.table, self.shard(write)) as call:
            return await self._execute(write, sql, args, deadline, call)

    async def _execute(self, write: Write, sql: str, args: tuple[Any, ...], deadline: Deadline, call: Call) -> str:
        shard, waits_for, moves = self.shard(write), "a primary", 0
        while deadline.left() > 0:
            pool, connection = await self._borrow(shard, deadline, call)
            node = pool.node
            try:
                status = await connection.run(sql, args, max(0.001, deadline.left()))
            except (asyncpg.PostgresError, *BROKEN) as error:
                connection.touched = True
                if lost(error):
                    pool.discard(connection)
                    self._router.failed(node.name, silent=False)
                else:
                    pool.release(connection)
                if connection.unreplicated or (lost(error) and not not_done(error)):
                    raise _unknown(write.table, shard, node.name.member, error) from error
                waits_for = f"{node.name.member}: {error}"
                if sqlstate(error) in (OLD_EPOCH, NOT_OWNED):
                    moves += 1
                    await self._moved(write, error, moves, deadline)
                    shard = self.shard(write)
                    call.retried()
                    continue
                if not not_done(error):
                    raise
                self._router.failed(node.name, silent=False)
                await self._router.change(deadline, PAUSE)
                call.retried()
                continue
            except BaseException:
                pool.discard(connection)
                raise
            unreplicated = connection.unreplicated
            pool.release(connection)
            if unreplicated:
                raise _unknown(write.table, shard, node.name.member, None)
            await self._mark(shard, node)
            return status
        raise self._borrowing.late(shard, waits_for, deadline)

    async def _borrow(self, shard: str, deadline: Deadline, call: Call) -> tuple[NodePool, Connection]:
        route = self._router.table.shards.get(shard)
        if route is not None and route.primary is not None and not route.draining:
            pool = self._router.pool(route.primary.name, "write")
            if (connection := pool.take()) is not None:
                call.at(pool.node.name, _WRITES)
                return pool, connection
        return await self._borrowing.borrow(shard, "write", deadline, call=call)

    async def _moved(self, write: Write, error: BaseException, times: int, deadline: Deadline) -> None:
        """A shard refused: read the map again. Returns when it is worth trying again.

        :raises NotOwned: the map has not changed, so the call's key is not that of its rows.
        """
        before = self._placed.now.epoch
        with suppress(ValueError):
            async with asyncio.timeout(max(0.0, deadline.left())):
                await self._placed.refresh()
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
            async with self._block(write, deadline, call, uuid4() if write.resolvable else None) as connection:
                yield connection

    @asynccontextmanager
    async def _block(self, write: Write, deadline: Deadline, call: Call, mark: UUID | None) -> AsyncIterator[Connection]:
        """:param mark: the id of its outcome row."""
        shard = self.shard(write)

        async def begin(connection: Connection) -> None:
            await connection.control(self._begin(write))
            if mark is not None:
                await connection.own(MARK, mark)
                self._outcomes.marked(shard)

        async with self._borrowing.block(shard, "write", deadline, opening=begin, call=call) as (node, connection):
            try:
                try:
                    yield connection
                except BaseException:
                    if not connection.is_closed():
                        await connection.control("rollback")
                    raise
            except asyncpg.PostgresError as error:
                if sqlstate(error) in (OLD_EPOCH, NOT_OWNED):
                    await self._block_moved(write, shard, error, deadline)
                raise
            await self._commit(connection, write, shard, mark, deadline)
        await self._mark(shard, node)

    @asynccontextmanager
    async def session(self, write: Write, deadline: Deadline) -> AsyncIterator[Connection]:
        """A session of one's own on the primary: nothing is begun, everything is possible, and all of it is discarded behind."""
        shard = self.shard(write)
        with self._router.observing.call("write", write.table, shard) as call:
            async with self._borrowing.block(shard, "write", deadline, fresh=True, call=call) as (node, connection):
                yield connection
                if connection.unreplicated:
                    raise _unknown(write.table, shard, node.name.member, None)
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
                await self._placed.refresh()
        if sqlstate(error) == NOT_OWNED and self._placed.now.epoch == before and self.shard(write) == shard:
            await self._moved(write, error, 2, deadline)
        raise PlacementMoved(f"{write.key!r} of {write.table} is not written on {shard} any more", seen=[str(error)]) from error

    async def _commit(self, connection: Connection, write: Write, shard: str, mark: UUID | None, deadline: Deadline) -> None:
        def unknown(error: BaseException | None, *, answered: bool = False) -> OutcomeUnknown:
            ask = self._outcomes.resolve
            resolver = None if mark is None else lambda seconds: ask(shard, mark, answered=answered, seconds=seconds)
            return _unknown(write.table, shard, "", error, resolver)

        try:
            # The block's own deadline is told as such; here it would hide what is known.
            status = await connection.control("commit", max(0.001, deadline.left()))
        except (asyncpg.PostgresError, *BROKEN) as error:
            if lost(error) or connection.unreplicated:
                raise unknown(error) from error
            raise
        except asyncio.CancelledError as cancelled:
            raise unknown(cancelled) from cancelled
        if connection.unreplicated:
            raise unknown(None, answered=True)
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
        while True:
            mark = uuid4() if write.resolvable else None
            began, gone, done = False, False, list[T]()
            try:
                async with self._block(write, deadline, call, mark) as connection:
                    began = True
                    try:
                        done.append(await function(connection))
                    except (asyncpg.PostgresError, *BROKEN) as error:
                        gone = lost(error, connection) and not isinstance(error, TimeoutError)
                        raise
                return done[0]
            except OutcomeUnknown as unknown:
                if not unknown.resolvable:
                    raise
                outcome = await unknown.resolve(max(0.001, deadline.left()))
                if outcome == "committed":
                    await self._mark(self.shard(write), self._router.primary(self.shard(write)))
                    return done[0]
            except PlacementMoved:
                times += 1
                if times > 1 and deadline.left() < AGAIN_LAST:
                    raise
            except (asyncpg.PostgresError, *BROKEN) as error:
                if not (not_done(error) or gone or (not began and lost(error))):
                    raise
            if deadline.left() <= pause:
                raise DeadlineExceeded(
                    f"a transaction on {self.shard(write)} was not committed within {deadline.allowed:g} s",
                    seen=["nothing of it was written"],
                )
            call.retried()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret
            pause = min(pause * 2, AGAIN_LAST)

    # -- where it is -------------------------------------------------------------------------------------------------------------

    async def _mark(self, shard: str, node: NodeAddress | None) -> None:
        """Read where the primary is after a COMMIT: this caller's reads must see as far."""
        word = await self._router.positions.ask(node) if node is not None else None
        if word is None or word.recovering:
            # It was acknowledged, and its primary is gone since. The next one has it; until that can say where it is, only a
            # primary will do.
            self._carrying.wrote(shard, Position(0, 0))
            return
        self._carrying.wrote(shard, self._router.lineage(shard).position(word.timeline, word.position))


def _unknown(
    table: str, shard: str, member: str, error: BaseException | None, resolver: Callable[[float], Awaitable[Any]] | None = None
) -> OutcomeUnknown:
    said = "the replicas did not confirm it" if error is None else (str(error) or type(error).__name__)
    state = f" ({sqlstate(error)})" if sqlstate(error) else ""
    where = f"{shard}/{member}" if member else shard
    hint = "await error.resolve()" if resolver is not None else ""
    message = f"a write to {table} on {where} was sent and its outcome is not known"
    return OutcomeUnknown(message, seen=[said + state], hint=hint, resolver=resolver)
