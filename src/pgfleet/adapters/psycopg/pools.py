"""Bounded pools of psycopg connections to one node, for one role. Borrowers wait in order, with a deadline.

Not psycopg_pool: its workers keep a minimum of connections by reconnecting in the background to a node that the router
knows to be gone, and it cannot cut off those that are lent when a primary steps down. What is left is a list and a
semaphore.
"""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pgfleet.adapters.psycopg.connection import AsyncConnection, Connection, connect, connect_async
from pgfleet.client.observing import Observing
from pgfleet.errors import FleetClosed
from pgfleet.names import NodeName
from pgfleet.routing.route import ConnectWords, Role
from pgfleet.runtime.clock import Deadline

#: What a new connection is opened with; worked out only when one is.
Words = Callable[[], ConnectWords]
C = TypeVar("C", Connection, AsyncConnection)


class _Kept(Generic[C]):
    """Connections to one node: those that are free, the one used last at the end, and those that are lent."""

    def __init__(self, node: NodeName, role: Role, observing: Observing) -> None:
        self.node, self._role, self._observing = node, role, observing
        self._free: list[C] = []
        self._lent: set[C] = set()
        self._lock = threading.Lock()
        self.closed = False

    def lend_free(self) -> C | None:
        """One that is open as far as can be seen without asking; None: there is none."""
        while True:
            with self._lock:
                if self.closed:
                    raise FleetClosed("this fleet was closed")
                if not self._free:
                    return None
                connection = self._free.pop()
                self._lent.add(connection)
            if not _spoken_to(connection):
                return connection
            self.forget(connection)

    def lend_new(self, connection: C) -> C:
        with self._lock:
            closed = self.closed
            if not closed:
                self._lent.add(connection)
            count = len(self._free) + len(self._lent)
        if closed:
            connection.end()
            raise FleetClosed("this fleet was closed")
        self._observing.connections("psycopg", self.node, self._role, count)
        return connection

    def renew(self, connection: C) -> C:
        """What was lent, as another object: whoever kept the one that was lent has nothing any more."""
        fresh = connection.renewed()
        with self._lock:
            self._lent.discard(connection)
            self._lent.add(fresh)
        return fresh

    def take_back(self, connection: C) -> None:
        connection.deadline = None
        with self._lock:
            self._lent.discard(connection)
            closed = self.closed
            if not closed:
                self._free.append(connection)
        if closed:
            connection.end()

    def forget(self, connection: C) -> None:
        connection.end()
        with self._lock:
            self._lent.discard(connection)
            count = len(self._free) + len(self._lent)
        self._observing.connections("psycopg", self.node, self._role, count)

    def cut(self) -> None:
        """Hang up on every connection: the node is no longer what they were opened for. From any thread."""
        with self._lock:
            free, self._free = self._free, []
            lent = list(self._lent)
        for connection in free:
            connection.end()
        self._observing.connections("psycopg", self.node, self._role, len(lent))
        for connection in lent:
            connection.cut()

    def close(self) -> None:
        with self._lock:
            self.closed = True
        self.cut()


def _spoken_to(connection: Connection | AsyncConnection) -> bool:
    """Whether something was sent to it while nobody used it: the server's farewell, most likely."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class AsyncPool(_Kept[AsyncConnection]):
    """:param size: connections at most."""

    def __init__(self, node: NodeName, role: Role, observing: Observing, size: int) -> None:
        super().__init__(node, role, observing)
        self._turns = asyncio.Semaphore(size)

    async def take(self, words: Words, deadline: Deadline) -> AsyncConnection:
        """
        :raises CannotConnect: the node does not let us in.
        :raises TimeoutError: none became free before ``deadline``.
        """
        async with asyncio.timeout(max(0.0, deadline.left())):
            await self._turns.acquire()
        try:
            return self.lend_free() or self.lend_new(await connect_async(words(), deadline))
        except BaseException:
            self._turns.release()
            raise

    def end(self) -> None:
        """End what is lent, too: nobody who has it will give it back."""
        for connection in list(self._lent):
            self.forget(connection)

    def give(self, connection: AsyncConnection) -> None:
        """Back, clean."""
        self.take_back(connection)
        self._turns.release()

    def drop(self, connection: AsyncConnection) -> None:
        """Back, and never lent again."""
        self.forget(connection)
        self._turns.release()


class Pool(_Kept[Connection]):
    """:param size: connections at most."""

    def __init__(self, node: NodeName, role: Role, observing: Observing, size: int) -> None:
        super().__init__(node, role, observing)
        self._turns = threading.Semaphore(size)

    def take(self, words: Words, deadline: Deadline) -> Connection:
        """
        :raises CannotConnect: the node does not let us in.
        :raises TimeoutError: none became free before ``deadline``.
        """
        if not self._turns.acquire(timeout=max(0.0, deadline.left())):
            raise TimeoutError
        try:
            return self.lend_free() or self.lend_new(connect(words(), deadline))
        except BaseException:
            self._turns.release()
            raise

    def give(self, connection: Connection) -> None:
        """Back, clean."""
        self.take_back(connection)
        self._turns.release()

    def drop(self, connection: Connection) -> None:
        """Back, and never lent again."""
        self.forget(connection)
        self._turns.release()
