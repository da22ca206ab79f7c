"""A connection to the node that fits, for a statement or for a block; waits through a failover, within the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from pgfleet.client.pools import NodePool
from pgfleet.client.router import Mode, Router
from pgfleet.client.trouble import lost
from pgfleet.errors import CannotConnect, DeadlineExceeded
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection

#: Seconds between two attempts while the table has not changed; any change ends the pause.
PAUSE = 0.02


class Borrowing:
    """Borrows from the pools of ``router``."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def borrow(
        self, shard: str, mode: Mode, deadline: Deadline, *,
        avoid: Collection[NodeName] = (), among: Collection[NodeName] | None = None, fresh: bool = False,
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
                waits_for = router.route(shard).because if mode == "write" else "a node that can be read"
                # Where there is nobody at all, the table says when there is: thousands that looked again and again would keep
                # the loop from hearing it.
                await router.change(deadline, PAUSE if shunned and mode == "read" else None)
                shunned.clear()
                continue
            node = choice.node.name
            pool = router.pool(node, mode)
            try:
                return pool, await pool.acquire(deadline, fresh=fresh)
            except CannotConnect as error:
                waits_for = error.message
                router.failed(node, silent=mode == "read" and error.state is None)
                shunned.add(node)
                if mode == "write":
                    await router.change(deadline, PAUSE)
            except TimeoutError:
                waits_for = f"a free connection to {node.member}, of {pool.open}"
        raise self.late(shard, waits_for, deadline)

    @asynccontextmanager
    async def block(
        self, shard: str, mode: Mode, deadline: Deadline, *, among: Collection[NodeName] | None = None, fresh: bool = False
    ) -> AsyncIterator[tuple[NodeAddress, Connection]]:
        """A connection for the length of a block, and whose it is; it ends by the deadline, whatever the borrower waits for."""
        pool, connection = await self.borrow(shard, mode, deadline, among=among, fresh=fresh)
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
            raise
        else:
            pool.release(connection)

    def late(self, shard: str, waited_for: str, deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(f"{shard} did not answer within {deadline.allowed:g} s", seen=[f"waited for: {waited_for}"])
