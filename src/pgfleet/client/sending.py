"""One statement to a primary, committed when it is answered: sent again only where it certainly did not happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from pgfleet.client.borrowing import PAUSE, Borrowing
from pgfleet.client.carrying import Carrying
from pgfleet.client.freshness import Wanted
from pgfleet.client.observing import UNHEARD, Call, Said
from pgfleet.client.pools import NodePool
from pgfleet.client.reading import Read, Reader
from pgfleet.client.router import Router
from pgfleet.client.statement import read_statement
from pgfleet.client.trouble import BROKEN, lost, not_done, unsent
from pgfleet.errors import OutcomeUnknown
from pgfleet.facts.addresses import NodeAddress
from pgfleet.routing.choose import Why
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection, sqlstate

T = TypeVar("T")

_WRITES = Said(Why.WRITE.value)
#: SQLSTATEs of the shards' guards: opened under an old map; a key that is not this shard's.
OLD_EPOCH, NOT_OWNED = "PF001", "PF002"

#: Sends it; given the connection and the seconds that are left.
Send = Callable[[Connection, float], Awaitable[T]]
#: Called with a guard's refusal and how many there were; returns when it is worth trying again.
Refusal = Callable[[asyncpg.PostgresError, int], Awaitable[None]]


class Sender:
    """Sends to the primaries that ``router`` knows."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._borrowing = Borrowing(router)

    async def send(
        self, what: str, where: Callable[[], str], send: Send[T], deadline: Deadline, call: Call,
        refused: Refusal | None = None, sql: str = "",
    ) -> tuple[NodeAddress, T]:  # fmt: skip
        """Who took it, and the answer.

        :param what: the table, for messages. :param where: the shard, asked anew for every attempt.
        :param sql: what is sent, where it is not of the client's own.
        :raises OutcomeUnknown: it was sent, and never answered, or answered without the replicas.
        """
        waits_for, refusals = "a primary", 0
        shard = where()
        while deadline.left() > 0:
            pool, connection = await self._borrow(shard, deadline, call)
            node = pool.node
            try:
                answer = await send(connection, max(0.001, deadline.left()))
            except (asyncpg.PostgresError, *BROKEN) as error:
                connection.touched = True
                if lost(error):
                    pool.discard(connection)
                    self._router.failed(node.name, silent=False)
                else:
                    pool.release(connection)
                # A procedure may have committed a part of itself before it was refused.
                parts = read_statement(sql).first in ("call", "do") and not unsent(error)
                if connection.unreplicated or (lost(error) and (parts or not not_done(error))):
                    raise unknown(what, shard, node.name.member, error) from error
                if parts:
                    raise
                waits_for = f"{node.name.member}: {error}"
                call.retried()
                if isinstance(error, asyncpg.PostgresError) and sqlstate(error) in (OLD_EPOCH, NOT_OWNED) and refused:
                    refusals += 1
                    await refused(error, refusals)
                    shard = where()
                    continue
                if not not_done(error):
                    raise
                self._router.failed(node.name, silent=False)
                await self._router.change(deadline, PAUSE)
                continue
            except BaseException:
                pool.discard(connection)
                raise
            unreplicated = connection.unreplicated
            pool.release(connection)
            if unreplicated:
                raise unknown(what, shard, node.name.member, None)
            return node, answer
        raise self._borrowing.late(shard, waits_for, deadline)

    async def _borrow(self, shard: str, deadline: Deadline, call: Call) -> tuple[NodePool, Connection]:
        route = self._router.table.shards.get(shard)
        if route is not None and route.primary is not None and not route.draining:
            pool = self._router.pool(route.primary.name, "write")
            if (connection := pool.take()) is not None:
                call.at(pool.node.name, _WRITES)
                return pool, connection
        return await self._borrowing.borrow(shard, "write", deadline, call=call)

    async def rows(self, shard: str, sql: str, *args: Any, deadline: Deadline) -> Sequence[asyncpg.Record]:
        """Rows of one statement of the fleet's own on the primary of ``shard`` (lookups)."""

        async def ask(connection: Connection, seconds: float) -> list[asyncpg.Record]:
            return await connection.ask(sql, args, seconds)

        _, rows = await self.send("pgfleet.lookup", lambda: shard, ask, deadline, UNHEARD)
        return rows


class Glance:
    """The same on a replica that is near: for what is asked of a primary where it is not found there."""

    def __init__(self, reader: Reader, carrying: Carrying) -> None:
        self._reader, self._carrying = reader, carrying

    async def __call__(self, shard: str, sql: str, *args: Any, deadline: Deadline) -> Sequence[asyncpg.Record]:
        read = Read("pgfleet.lookup", shard, Wanted(self._carrying.positions(shard)))
        return await self._reader.fetch(read, sql, args, max(0.001, deadline.left()))


def unknown(
    table: str, shard: str, member: str, error: BaseException | None, resolver: Callable[[float], Awaitable[Any]] | None = None
) -> OutcomeUnknown:
    """:param error: None: it was answered, and the replicas have not confirmed it. :param resolver: asks what became of it."""
    said = "the replicas did not confirm it" if error is None else (str(error) or type(error).__name__)
    state = f" ({sqlstate(error)})" if sqlstate(error) else ""
    where = f"{shard}/{member}" if member else shard
    hint = "await error.resolve()" if resolver is not None else ""
    message = f"a write to {table} on {where} was sent and its outcome is not known"
    return OutcomeUnknown(message, seen=[said + state], hint=hint, resolver=resolver)
