"""Connections to one node, for one purpose: bounded, the last used first, waited for in order, each wait with a deadline.

A borrower gets *transaction semantics*: no session state survives it. What may have changed the session is undone before
the next borrower, in the background; what went wrong in any way (an error of the connection, a deadline, a cancelled call)
is cut off and never reused. Deadlines cut the connection too, so that a stopped server cannot hold a caller.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import asyncpg

from pgfleet.names import NodeName
from pgfleet.routing.table import NodeRoute
from pgfleet.runtime.clock import Deadline, monotonic
from pgfleet.runtime.sql import CONNECT_SECONDS, Connection, Login, connect

Mode = Literal["read", "write"]

#: Seconds after which a read that is not answered makes us ask whether its node lives. (The node, not the query: a query
#: may take long, a node that lives answers a question.)
SUSPICION = 0.5
# How a statement begins that may leave something behind in its session (a comment: who knows), and what may stand anywhere
# in one. What a function of the application's does out of sight is not seen here: docs/reference/client.md says so.
_BEGINS = re.compile(
    r"\s*(?:--|/\*|set\b|reset\b|listen\b|unlisten\b|prepare\b|deallocate\b|declare\b|load\b|discard\b|do\b|call\b)",
    re.IGNORECASE,
)
_HOLDS = re.compile(r"\b(?:set_config|temp|temporary|pg_temp|pg_(?:try_)?advisory_\w+)\b", re.IGNORECASE)


@lru_cache(maxsize=2048)
def leaves_state(sql: str) -> bool:
    """Whether one statement may leave something behind in its session; true in doubt."""
    return _BEGINS.match(sql) is not None or _HOLDS.search(sql) is not None


class NodeGone(Exception):
    """The pool's node is no longer used; nothing was sent."""


@dataclass(slots=True, eq=False)
class Lease:
    """One connection, borrowed until a deadline.

    :param expired: the deadline came, and cut the connection.
    :param dirty: session state may be left behind.
    """

    connection: Connection
    deadline: Deadline
    expired: bool = False
    dirty: bool = False
    suspected: bool = False
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """:param size: connections per node and mode, at most. :param statement_seconds: the server's own limit, behind ours."""

    login: Login
    size: int = 10
    statement_seconds: float = 6.0
    application: str = "pgfleet"

    def session(self, mode: Mode) -> dict[str, str]:
        return {
            "application_name": self.application,
            "default_transaction_read_only": "on" if mode == "read" else "off",
            "statement_timeout": str(int(self.statement_seconds * 1000)),
            # A connection that we cut is noticed by a server that is busy for its sake.
            "client_connection_check_interval": "500",
        }


class Pool:
    """The connections to ``node`` for ``mode``.

    :param suspect: called when a read is late: ask whether the node lives.
    """

    def __init__(self, node: NodeRoute, mode: Mode, settings: PoolSettings, suspect: Callable[[NodeName], None]) -> None:
        self.node, self.mode = node, mode
        self.opened = 0  # with those that are being opened now
        self._settings, self._session, self._suspect = settings, settings.session(mode), suspect
        self._idle: list[Connection] = []
        self._leases: set[Lease] = set()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._resets: set[asyncio.Task[None]] = set()
        self._gone: str | None = None

    @property
    def busy(self) -> int:
        return len(self._leases)

    @property
    def size(self) -> int:
        return self._settings.size

    async def borrow(self, deadline: Deadline) -> Lease:
        """A connection that nobody else uses.

        :raises CannotConnect: the node cannot be connected to; nothing was sent.
        :raises NodeGone: the pool was dropped.
        :raises TimeoutError: none was free in time.
        """
        if self._gone is not None:
            raise NodeGone(self._gone)
        connection: Connection | None = None
        if self._waiting:
            connection = await self._turn(deadline)
        elif (connection := self._take()) is None:
            if self.opened < self._settings.size:
                self.opened += 1
            else:
                connection = await self._turn(deadline)
        if connection is None:
            connection = await self._open(deadline)
        return self._lend(connection, deadline)

    def give_back(self, lease: Lease, *, broken: bool = False) -> None:
        """:param broken: something went wrong with it: it is cut off."""
        self._leases.discard(lease)
        if lease.timer is not None:
            lease.timer.cancel()
        connection = lease.connection
        if broken or lease.expired or self._gone is not None or connection.is_closed() or connection.is_in_transaction():
            self._cut(connection)
        elif lease.dirty:
            task = asyncio.get_running_loop().create_task(self._reset(connection))
            self._resets.add(task)
            task.add_done_callback(self._resets.discard)
        else:
            self._put(connection)

    def drop(self, because: str) -> None:
        """Cut everything, also what is borrowed, and lend nothing more."""
        self._gone = because
        for lease in list(self._leases):
            lease.connection.terminate()
        idle, self._idle = self._idle, []
        for connection in idle:
            self._cut(connection)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(NodeGone(because))

    async def warm(self, count: int) -> None:
        """Have ``count`` connections; what cannot be opened now is opened when it is needed."""
        missing = min(count, self._settings.size) - self.opened
        self.opened += max(0, missing)
        opening = (self._open(Deadline.after(CONNECT_SECONDS)) for _ in range(missing))
        for connection in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(connection, Connection):
                self._put(connection)

    async def aclose(self) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close(timeout=0.5) for connection in idle), return_exceptions=True)
        self.opened -= len(idle)
        self.drop("the fleet was closed")
        resets = list(self._resets)
        for task in resets:
            task.cancel()
        await asyncio.gather(*resets, return_exceptions=True)

    async def _open(self, deadline: Deadline) -> Connection:
        """In a place that was counted already."""
        try:
            return await connect(
                self.node.host,
                self.node.port,
                self._settings.login,
                settings=self._session,
                seconds=max(0.001, min(CONNECT_SECONDS, deadline.left())),
            )
        except BaseException:
            self.opened -= 1
            self._hand_on()
            raise

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self.opened -= 1
        return None

    def _put(self, connection: Connection) -> None:
        if self._gone is not None or connection.is_closed():
            self._cut(connection)
        else:
            self._idle.append(connection)
            self._hand_on()

    async def _turn(self, deadline: Deadline) -> Connection | None:
        """Wait in order. :returns: a connection, or None: a place to open one, counted already."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                return await waiter
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return(waiter.result())  # handed to us in the moment we gave up
            raise

    def _return(self, connection: Connection | None) -> None:
        if connection is not None:
            self._put(connection)
        else:
            self.opened -= 1
            self._hand_on()

    def _hand_on(self) -> None:
        """Give what is free to those who wait, the first first."""
        while self._waiting:
            connection = self._take()
            if connection is None and self.opened >= self._settings.size:
                return
            waiter = self._waiting.popleft()
            if waiter.done():
                if connection is not None:
                    self._idle.append(connection)
                continue
            if connection is None:
                self.opened += 1
            waiter.set_result(connection)

    def _lend(self, connection: Connection, deadline: Deadline) -> Lease:
        connection.unreplicated = False
        lease = Lease(connection, deadline)
        if self._gone is not None:  # while it was opened
            self._cut(connection)
            raise NodeGone(self._gone)
        self._leases.add(lease)
        self._watch(lease)
        return lease

    def _watch(self, lease: Lease) -> None:
        left = lease.deadline.left()
        first = left if lease.suspected or self.mode == "write" else min(SUSPICION, left)
        lease.timer = asyncio.get_running_loop().call_later(max(0.0, first), self._late, lease)

    def _late(self, lease: Lease) -> None:
        if monotonic() >= lease.deadline.at - 0.001:  # timers are a little early
            lease.expired = True
            lease.connection.terminate()
            return
        if not lease.suspected:
            lease.suspected = True
            self._suspect(self.node.name)
        self._watch(lease)

    async def _reset(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.reset()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._cut(connection)
        except BaseException:
            self._cut(connection)
            raise
        else:
            self._put(connection)

    def _cut(self, connection: Connection) -> None:
        connection.terminate()
        self.opened -= 1
        self._hand_on()


class Pools:
    """Every pool of a fleet, made when first asked for."""

    def __init__(self, settings: PoolSettings, suspect: Callable[[NodeName], None]) -> None:
        self._settings, self._suspect = settings, suspect
        self._pools: dict[tuple[NodeName, Mode], Pool] = {}

    def of(self, node: NodeRoute, mode: Mode) -> Pool:
        pool = self._pools.get((node.name, mode))
        if pool is None or pool.node.address != node.address:
            if pool is not None:
                pool.drop(f"{node.name} has another address now")
            pool = self._pools[node.name, mode] = Pool(node, mode, self._settings, self._suspect)
        return pool

    def drop(self, node: NodeName, because: str, *, modes: tuple[Mode, ...] = ("read", "write")) -> None:
        """Cut every connection to a node; whoever asks for it again gets new ones."""
        for mode in modes:
            if (pool := self._pools.pop((node, mode), None)) is not None:
                pool.drop(because)

    async def aclose(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.aclose() for pool in pools))

    def counts(self) -> dict[str, dict[str, int]]:
        """Per node and mode: connections that are open, and in use."""
        return {f"{node} {mode}": {"open": p.opened, "busy": p.busy} for (node, mode), p in self._pools.items()}
