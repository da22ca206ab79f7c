"""A connection to a pooler, and a transaction begun on it; waits through a failover, within the deadline.

Until BEGIN was answered nothing was done, whatever went wrong: it is begun again. What PgBouncer itself says comes with one
SQLSTATE for everything (08P01), so it is told by its words, which are those of PgBouncer's source.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import asyncpg

from pgfleet.client.borrowing import PAUSE, Borrowing, Judge, Opening
from pgfleet.client.observing import UNHEARD, Call, Said
from pgfleet.client.pooler import NO_NODE, Pooler, PoolerPool
from pgfleet.client.router import Mode, Router
from pgfleet.client.trouble import BROKEN, Unsent, confused, lost, not_done
from pgfleet.errors import CannotConnect, DeadlineExceeded, SessionState
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import Connection, Login, sqlstate
from pgfleet.topology.probe import ASK, Answer, OwnWord, Prober

#: SQLSTATE of BEGIN READ WRITE in recovery (src/backend/commands/variable.c): the pooler still leads to a former primary.
NO_PRIMARY = "0A000"


def waited_in_vain(error: BaseException | None) -> bool:
    """Whether PgBouncer gave up waiting for a server connection: nothing was sent to any server."""
    return isinstance(error, asyncpg.PostgresError) and "query_wait_timeout" in str(error)


class PooledBorrowing(Borrowing):
    """Borrows connections to the poolers."""

    def __init__(self, router: Router, pooler: Pooler) -> None:
        super().__init__(router)
        self._pooler = pooler

    async def borrow(
        self, shard: str, mode: Mode, deadline: Deadline, *,
        avoid: Collection[NodeName] = (), among: Collection[NodeName] | None = None, fresh: bool = False, call: Call = UNHEARD,
    ) -> tuple[PoolerPool, Connection]:  # fmt: skip
        """A connection that leads to the primary, or to replicas: which of them is the pooler's choice.

        :raises SessionState: a session of one's own was asked for.
        :raises DeadlineExceeded: says what was waited for.
        """
        if fresh:
            raise no_session()
        waits_for, began = "a pooler", monotonic()
        while deadline.left() > 0:
            for pool in self._pooler.pools(shard, reads=mode == "read"):
                try:
                    connection = pool.take() or await pool.acquire(deadline)
                except CannotConnect as error:
                    waits_for = error.message
                    if error.state is not None:
                        break  # it answered; another one would say the same
                    self._pooler.absent(pool)
                except TimeoutError:
                    if pool.open:  # else one was being opened, and why that did not go well before is more to the point
                        waits_for = f"a free connection to {pool.whose}, of {pool.open}"
                else:
                    call.waited("connection", monotonic() - began)
                    call.at(pool.node.name, Said(f"{pool.whose} leads there"))
                    return pool, connection
            await self._router.change(deadline, PAUSE)
        raise self.late(shard, waits_for, deadline)

    async def begun(
        self, shard: str, mode: Mode, deadline: Deadline, opening: Opening, *, call: Call = UNHEARD
    ) -> tuple[PoolerPool, Connection]:
        """A connection on which ``opening`` went well.

        :raises DeadlineExceeded: says what was waited for.
        """
        waits_for = "a pooler"
        while deadline.left() > 0:
            pool, connection = await self.borrow(shard, mode, deadline, call=call)
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    await opening(connection)
            except TimeoutError:
                pool.discard(connection)
                waits_for = f"a server connection of {pool.whose}"
            except (asyncpg.PostgresError, *BROKEN) as error:
                self.ended(pool, connection, error)
                if waited_in_vain(error):
                    raise self.in_vain(pool, error) from error
                if not (lost(error) or not_done(error) or sqlstate(error) == NO_PRIMARY):
                    raise
                waits_for = f"{pool.whose}: {error}"
                call.retried()
                await self._router.change(deadline, PAUSE)
            except BaseException as error:
                self.ended(pool, connection, error)
                raise
            else:
                return pool, connection
        raise self.late(shard, waits_for, deadline)

    @asynccontextmanager
    async def block(
        self, shard: str, mode: Mode, deadline: Deadline, *, judge: Judge | None = None, fresh: bool = False,
        opening: Opening | None = None, call: Call = UNHEARD,
    ) -> AsyncIterator[tuple[NodeAddress, Connection]]:  # fmt: skip
        """A connection for the length of a block, which the deadline ends in any case.

        :param opening: what the block begins with; it may be done again on another connection. None: what is sent are statements
            that stand alone, of the client's own.
        """
        if opening is None:
            pool, connection = await self.borrow(shard, mode, deadline, fresh=fresh, call=call)
        else:
            pool, connection = await self.begun(shard, mode, deadline, opening, call=call)
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                yield pool.node, connection
        except TimeoutError as error:
            pool.discard(connection)
            if deadline.left() > 0:
                raise  # the caller's own
            raise self.late(shard, f"a {mode} block through {pool.whose}", deadline) from error
        except BaseException as error:
            self.ended(pool, connection, error, borrowers=True)
            if confused(error):
                raise Unsent(f"{pool.whose} closed the connection") from error
            raise
        else:
            pool.release(connection)

    def ended(self, pool: PoolerPool, connection: Connection, error: BaseException, *, borrowers: bool = False) -> None:
        """Give a connection back on which ``error`` came.

        :param borrowers: the borrower's own code ran on it, and the error may be of that code.
        """
        if not isinstance(error, Exception):
            pool.discard(connection)
        elif lost(error, connection if borrowers else None):
            pool.discard(connection)
            self._router.failed(pool.node.name, silent=False)
        else:
            pool.release(connection)

    def anybody(self, shard: str) -> NodeAddress:
        """Who is named where the primary is meant, whichever it is."""
        return self._pooler.pools(shard, reads=False)[0].node

    def in_vain(self, pool: PoolerPool, error: BaseException) -> DeadlineExceeded:
        """PgBouncer gave up."""
        return DeadlineExceeded(
            f"{pool.whose} had no server connection for {pool.node.name.shard} within its query_wait_timeout",
            seen=[str(error)], hint="pools: {default_pool_size: …, query_wait_timeout: …}",
        )  # fmt: skip


def no_session() -> SessionState:
    return SessionState(
        "a session of one's own was asked for, and a pooler has none: after each transaction its session is another client's",
        hint='connect(..., through="direct") for what needs session=True',
    )


class PrimaryProber(Prober):
    """Asks a shard's primary, whichever it is, through a pooler.

    Who answers is the pooler's choice, which leads to the primary or to nobody: so of a node in particular it knows nothing.
    """

    def __init__(self, pooler: Pooler) -> None:
        super().__init__(Login("", ""))  # of nobody: it connects to no node
        self._pooler = pooler

    async def ask(self, node: NodeAddress, *, seconds: float | None = None, question: str = ASK) -> OwnWord | None:
        if node.name.number != NO_NODE:
            return None
        deadline = Deadline.after(seconds or 1.0)
        for pool in self._pooler.pools(node.name.shard, reads=False):
            try:
                connection = await pool.acquire(deadline)
            except CannotConnect as error:
                if error.state is None:
                    self._pooler.absent(pool)
                continue
            except TimeoutError:
                return None
            try:
                async with asyncio.timeout(max(0.001, deadline.left())):
                    began = monotonic()
                    row = await connection.own(question)
            except (asyncpg.PostgresError, *BROKEN) as error:
                self._heard(node.name, sqlstate(error))
                pool.discard(connection)
                return None
            except BaseException:
                pool.discard(connection)
                raise
            pool.release(connection)
            # One that is in recovery is no primary (any more): its word is about another position.
            word = OwnWord(rtt=monotonic() - began, **row)
            return None if word.recovering else word
        return None


class Mute(Prober):
    """Asks nobody: a client that goes through a pooler opens no connection to a node."""

    def __init__(self) -> None:
        super().__init__(Login("", ""))

    async def answer(self, node: NodeAddress, question: str, seconds: float | None = None) -> Answer | None:
        return None
