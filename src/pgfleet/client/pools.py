"""A bounded pool of connections to one node, for one kind of work. Borrowers wait in order, with a deadline.

What a borrower leaves in the session does not reach the next one: a connection whose statements may have touched session
state is reset before it is lent again, behind the borrower's back; one that failed or was late is cut off, never reused.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache

import asyncpg

from pgfleet.client.trouble import BROKEN
from pgfleet.errors import CannotConnect, FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import CONNECT_SECONDS, Connection, Login, connect

#: What returns a session to the parameters of its start (asyncpg's own reset, and temporary tables and prepared names).
_RESET = "close all; unlisten *; select pg_advisory_unlock_all(); reset all; discard temp; discard sequences"
#: Seconds for it; a server that cannot do this quickly is not one to keep a connection to.
_RESET_SECONDS = 2.0

#: Words by which one statement can change its session. A function of the application that does so inside is not seen.
_TOUCHES = re.compile(
    r"\b(set|reset|set_config|listen|unlisten|notify|pg_\w*advisory\w*|declare|fetch|prepare|execute|deallocate|temp\w*|"
    r"load|discard|role|do|call|begin|start|currval|setval|nextval|lastval|setseed)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def touches_session(sql: str) -> bool:
    """Whether ``sql`` may leave something in its session; yes where in doubt."""
    return _TOUCHES.search(sql) is not None


class NodePool:
    """:param settings: the sessions' parameters; a reset returns to them. :param size: connections at most."""

    def __init__(self, node: NodeAddress, login: Login, settings: Mapping[str, str], size: int) -> None:
        self.node = node
        self._login, self._settings, self._size = login, settings, size
        self._free: list[Connection] = []
        self._lent: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resetting: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def open(self) -> int:
        """Connections there are, lent and being opened included."""
        return len(self._free) + len(self._lent) + self._opening + len(self._resetting)

    async def acquire(self, deadline: Deadline) -> Connection:
        """A connection, the one used last first.

        :raises CannotConnect: the node does not let us in.
        :raises TimeoutError: none became free before ``deadline``.
        """
        while True:
            if self._closed:
                raise FleetClosed("this fleet was closed")
            while self._free:
                connection = self._free.pop()
                if not connection.is_closed():
                    self._lent.add(connection)
                    return connection
            if self.open < self._size:
                return await self._open(deadline)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._wake()  # it was our turn and we are gone: the next one's
                raise

    async def _open(self, deadline: Deadline) -> Connection:
        self._opening += 1
        try:
            connection = await connect(
                self.node.host, self.node.port, self._login, settings=self._settings,
                seconds=max(0.001, min(CONNECT_SECONDS, deadline.left())),
            )  # fmt: skip
        except BaseException:
            self._opening -= 1
            self._wake()
            raise
        self._opening -= 1
        if self._closed:
            connection.terminate()
            raise FleetClosed("this fleet was closed")
        self._lent.add(connection)
        return connection

    def release(self, connection: Connection, *, touched: bool) -> None:
        """Give ``connection`` back. :param touched: something may have been left in its session."""
        self._lent.discard(connection)
        if self._closed or connection.is_closed() or connection.unreplicated or connection.is_in_transaction():
            connection.terminate()
            self._wake()
        elif touched:
            task = asyncio.get_running_loop().create_task(self._reset(connection))
            self._resetting.add(task)
            task.add_done_callback(self._resetting.discard)
            task.add_done_callback(lambda _: self._wake())
        else:
            self._free.append(connection)
            self._wake()

    def discard(self, connection: Connection) -> None:
        """Cut ``connection`` off: nobody knows what is on its wire."""
        self._lent.discard(connection)
        connection.terminate()
        self._wake()

    async def _reset(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_RESET_SECONDS):
                await connection.execute(_RESET)
        except (asyncpg.PostgresError, *BROKEN):
            connection.terminate()
        except BaseException:
            connection.terminate()
            raise
        else:
            if self._closed:
                connection.terminate()
            else:
                self._free.append(connection)

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def warm(self, count: int) -> None:
        """Have ``count`` connections open, where the node lets us."""
        for _ in range(count - self.open):
            try:
                connection = await self._open(Deadline.after(CONNECT_SECONDS))
            except (CannotConnect, FleetClosed):
                return
            self.release(connection, touched=False)

    def drop(self) -> None:
        """Cut off every connection, lent ones too: this node is no longer what they were opened for."""
        free, self._free = self._free, []
        for connection in [*free, *self._lent]:
            connection.terminate()

    async def aclose(self) -> None:
        self._closed = True
        self.drop()
        for task in list(self._resetting):
            task.cancel()
        await asyncio.gather(*self._resetting, return_exceptions=True)
        while self._waiting:
            self._wake()
