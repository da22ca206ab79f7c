"""A connection to the node that fits, for a statement or for a block; waits through a failover, within the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

import asyncpg

from pgfleet.client.observing import UNHEARD, Call
from pgfleet.client.pools import NodePool
from pgfleet.client.router import Mode, Router
from pgfleet.client.trouble import BROKEN, Unsent, confused, lost, not_done
from pgfleet.errors import CannotConnect, DeadlineExceeded
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import Connection

Opening = Callable[[Connection], Awaitable[object]]
Judge = Callable[[], Awaitable[Collection[NodeName] | None]]

#: Seconds between two attempts while the table has not changed; any change ends the pause.
PAUSE = 0.02


class Borrowing:
    """Borrows from the pools of ``router``."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def borrow(
        self, shard: str, mode: Mode, deadline: Deadline, *,
        avoid: Collection[NodeName] = (), among: Collection[NodeName] | None = None, fresh: bool = False, call: Call = UNHEARD,
    ) -> tuple[NodePool, Connection]:  # fmt: skip
        """A connection of the node that is best now.

        :param avoid: nodes that failed this call already; they are tried again when no other is left.
        :param among: only these replicas are fresh enough. :param fresh: a session that nothing was ever done in.
        :raises DeadlineExceeded: says what was waited for.
        """
        router, waits_for = self._router, "a connection"
        shunned = set(avoid)
        while deadline.left() > 0:
            choice = router.choose(shard, mode, shunned, among)
            if choice is None:
                waits_for = router.why_nobody(shard, mode)
                # Where there is nobody at all, the table says when there is: thousands that looked again and again would keep
                # the loop from hearing it.
                began = monotonic()
                await router.change(deadline, PAUSE if shunned and mode == "read" else None)
                call.waited("primary", monotonic() - began)
                shunned.clear()
                continue
            node = choice.node.name
            pool = router.pool(node, mode)
            began = monotonic()
            try:
                connection = await pool.acquire(deadline, fresh=fresh)
            except CannotConnect as error:
                waits_for = error.message
                router.failed(node, silent=mode == "read" and error.state is None)
                shunned.add(node)
                if mode == "write":
                    await router.change(deadline, PAUSE)
            except TimeoutError:
                if pool.open:  # else one was being opened, and why that did not go well before is more to the point
                    waits_for = f"a free connection to {node.member}, of {pool.open}"
            else:
                call.waited("connection", monotonic() - began)
                call.at(node, choice)
                return pool, connection
        raise self.late(shard, waits_for, deadline)

    async def _opened(
        self, shard: str, mode: Mode, deadline: Deadline, opening: Opening | None, *,
        judge: Judge | None, fresh: bool, call: Call,
    ) -> tuple[NodePool, Connection]:  # fmt: skip
        """A connection on which ``opening`` went well. One that turns out to be gone is replaced: nothing was done on it."""
        waits_for = "a connection"
        while deadline.left() > 0:
            among = await judge() if judge is not None else None
            judged = self._router.lineage(shard)
            pool, connection = await self.borrow(shard, mode, deadline, among=among, fresh=fresh, call=call)
            if judge is not None and self._router.lineage(shard) != judged:
                pool.release(connection)  # a promotion came between: who has what, and what was lost, is another question now
                continue
            if opening is None:
                return pool, connection
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    await opening(connection)
            except (asyncpg.PostgresError, *BROKEN) as error:
                pool.discard(connection)
                if not lost(error) and not not_done(error):
                    raise
                waits_for = str(error) or type(error).__name__
                self._router.failed(pool.node.name, silent=False)
                call.retried()
                await self._router.change(deadline, PAUSE)
            except BaseException:
                pool.discard(connection)
                raise
            else:
                return pool, connection
        raise self.late(shard, waits_for, deadline)

    @asynccontextmanager
    async def block(
        self, shard: str, mode: Mode, deadline: Deadline, *, judge: Judge | None = None, fresh: bool = False,
        opening: Opening | None = None, call: Call = UNHEARD,
    ) -> AsyncIterator[tuple[NodeAddress, Connection]]:  # fmt: skip
        """A connection for the length of a block, and whose it is; it ends by the deadline, whatever the borrower waits for.

        :param judge: says which replicas are fresh enough; None: any.
        :param opening: what the block begins with; it may be done again on another connection.
        """
        pool, connection = await self._opened(shard, mode, deadline, opening, judge=judge, fresh=fresh, call=call)
        if fresh:
            connection.touched = True  # and it is discarded afterwards, whatever was done
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                yield pool.node, connection
        except TimeoutError as error:
            pool.discard(connection)
            if deadline.left() > 0:
                raise  # the caller's own
            raise self.late(shard, f"a {mode} block on {pool.node.name.member}", deadline) from error
        except BaseException as error:
            if lost(error, connection) or isinstance(error, asyncio.CancelledError):
                pool.discard(connection)
                if isinstance(error, Exception):
                    self._router.failed(pool.node.name, silent=False)
            else:
                connection.touched = True
                pool.release(connection)
            if confused(error):
                raise Unsent(f"{pool.node.name.member} closed the connection") from error
            raise
        else:
            pool.release(connection)

    def late(self, shard: str, waited_for: str, deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(f"{shard} did not answer within {deadline.allowed:g} s", seen=[f"waited for: {waited_for}"])
