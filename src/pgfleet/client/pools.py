"""A bounded pool of connections to one node, for one kind of work. Borrowers wait in order, with a deadline.

Ordinary borrowers have transaction semantics: what a borrower leaves in a session does not reach the next one. A statement
that is known to leave nothing (:mod:`pgfleet.client.statement`) costs nothing more; after any other the session is discarded
behind the borrower's back, before the connection is lent again. One that failed or was late is cut off, never reused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from pgfleet.client.budget import Budget
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.silence import Silence
from pgfleet.client.taking_over import take_over
from pgfleet.client.trouble import BROKEN
from pgfleet.errors import CannotConnect, FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import CONNECT_SECONDS, Connection, Login, connect

T = TypeVar("T")

#: Seconds for discarding a session; a server that cannot do this quickly is not one to keep a connection to.
RESET_SECONDS = 2.0


class NodePool:
    """:param settings: the sessions' parameters; a reset returns to them.
    :param stuck: told when statements wait and nothing is answered (:class:`Silence`).
    :param counted: told how many connections there are, when one was opened or has ended.
    """

    def __init__(
        self, node: NodeAddress, login: Login, settings: Mapping[str, str], budget: Budget, catalogue: Catalogue,
        *, stuck: Callable[[NodePool], None] | None = None, counted: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.node, self.settings = node, dict(settings)
        self._login, self._budget, self._catalogue, self._stuck, self._counted = login, budget, catalogue, stuck, counted
        self._touches = catalogue.touches  # looked up once: it is called for every statement
        self._free: list[Connection] = []
        self._lent: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[tuple[float, asyncio.Future[Connection | None]]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cleaning = 0
        self._closed = False
        self._silence = None if stuck is None else Silence(lambda: bool(self._lent), lambda: stuck(self))
        #: The pool of the same node whose free connections are taken over before any is opened; None: none are.
        self.kin: NodePool | None = None
        budget.pools.append(self)

    # -- counting ----------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Connections there are, lent and being opened included."""
        return len(self._free) + len(self._lent) + self._opening + self._cleaning

    @property
    def lent(self) -> int:
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """Borrowers that wait for a connection."""
        return len(self._waiting)

    @property
    def waits_since(self) -> float:
        return self._waiting[0][0] if self._in_line() else float("inf")

    def _in_line(self) -> bool:
        """Whether anybody waits still: who has left stands in the line, and what is freed is not for them."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        return bool(self._waiting)

    # -- borrowing ---------------------------------------------------------------------------------------------------------

    def take(self) -> Connection | None:
        """A free connection, the one used last first; None: there is none now, or others were here before."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                self._lend(connection)
                return connection
            self._budget.freed()
        return None

    async def acquire(self, deadline: Deadline, *, fresh: bool = False) -> Connection:
        """A connection.

        :param fresh: with a session that nothing was ever done in.
        :raises CannotConnect: the node does not let us in.
        :raises TimeoutError: none became free before ``deadline``.
        """
        while True:
            if self._closed:
                raise FleetClosed("this fleet was closed")
            connection = self.take()
            if connection is None:
                if not self._in_line():
                    if not fresh and (connection := await self._taken_over(deadline)) is not None:
                        return connection
                    if self._budget.room(self):
                        return await self._open(deadline)
                connection = await self._turn(deadline)
                if connection is None:
                    if self._budget.room(self):
                        return await self._open(deadline)
                    continue
            if not fresh:
                return connection
            self._lent.discard(connection)
            self._cleaning += 1
            connection.touched = True
            clean = False
            try:
                clean = await self._clean(connection)
            finally:
                self._cleaning -= 1
                if not clean:
                    connection.terminate()
                    self._budget.freed()
            if clean:
                self._lend(connection)
                return connection

    async def _turn(self, deadline: Deadline) -> Connection | None:
        """Wait in line; what was handed over, or None: there is room for another."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Connection | None] = loop.create_future()
        self._waiting.append((loop.time(), turn))
        self._budget.waiters += 1
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it was our turn, and we are gone: the next one's
                given = turn.result()
                if given is not None:
                    self.release(given)
                else:
                    self._budget.freed()
            raise
        finally:
            self._budget.waiters -= 1

    async def _taken_over(self, deadline: Deadline) -> Connection | None:
        """A free connection of :attr:`kin`, as if it had been opened here; None: there is none."""
        kin, settings, good = self.kin, self.settings, False
        if kin is None or (connection := kin.take()) is None:
            return None
        kin._lent.discard(connection)
        self._opening += 1
        try:
            good = await take_over(connection, settings, max(0.0, min(deadline.left(), RESET_SECONDS)))
        finally:
            self._opening -= 1
            if not good:
                connection.terminate()
                self._budget.freed()
        if good:
            self._opened(connection, settings)
        return connection if good else None

    async def _open(self, deadline: Deadline) -> Connection:
        """One more connection. Whoever leaves before it is made leaves it to the next one: a making that is cut off costs the
        node as much, and brings nobody anything."""
        self._opening += 1
        making = self._spawn(self._make())
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                connection, settings = await asyncio.shield(making)
        except BaseException as error:
            if making.done():
                self._made_for_nobody(making)
            else:
                making.add_done_callback(self._made_for_nobody)
            if isinstance(error, TimeoutError):
                self._not_made()
            if making.cancelled() and self._closed:
                raise FleetClosed("this fleet was closed") from error
            raise
        self._opening -= 1
        self._opened(connection, settings)
        if self._catalogue.due:
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    await self._catalogue.ask(connection)
            except BaseException:
                self.discard(connection)
                raise
        return connection

    def _opened(self, connection: Connection, settings: Mapping[str, str]) -> None:
        if self._closed:
            connection.terminate()
            raise FleetClosed("this fleet was closed")
        connection.altered = settings is not self.settings  # reopened since: it ends when it comes back
        self._lend(connection)
        if self._counted is not None:
            self._counted(self.open)
            connection.add_termination_listener(self._ended)

    def _made_for_nobody(self, making: asyncio.Task[tuple[Connection, Mapping[str, str]]]) -> None:
        self._opening -= 1
        if making.cancelled() or making.exception() is not None:
            self._budget.freed()
            return
        connection, settings = making.result()
        with suppress(FleetClosed):
            self._opened(connection, settings)
            self.release(connection)

    def _not_made(self) -> None:
        """Somebody's deadline was not enough for a connection: is it the node's fault?"""
        if self._stuck is not None:
            self._stuck(self)

    def _ended(self, _: object) -> None:
        if self._counted is not None:  # in a moment: whoever ends a connection still counts it while it does
            asyncio.get_running_loop().call_soon(lambda tell: tell(self.open), self._counted)

    async def _make(self) -> tuple[Connection, Mapping[str, str]]:
        """A connection, and the settings that it was opened with."""
        while True:
            settings = self.settings
            connection = await self._connect()
            if settings is self.settings:
                return connection, settings
            connection.terminate()  # it was reopened meanwhile: this one would claim what is not so any more

    async def _connect(self) -> Connection:
        return await connect(self.node.host, self.node.port, self._login, settings=self.settings)

    def _lend(self, connection: Connection) -> None:
        connection.touched = False
        connection.lend(self._touches)
        self._lent.add(connection)
        if self._silence is not None:
            self._silence.lent()

    # -- giving back -------------------------------------------------------------------------------------------------------

    def release(self, connection: Connection) -> None:
        """Give ``connection`` back."""
        if self._silence is not None:
            self._silence.answers += 1
        self._lent.discard(connection)
        if self._closed or connection.is_closed() or connection.unreplicated or connection.altered:
            connection.terminate()
            self._budget.freed()
        elif connection.touched or connection.is_in_transaction() or connection.watched:
            self._cleaning += 1
            self._spawn(self._clean_behind(connection))
        elif self._catalogue.due:
            self._cleaning += 1
            self._spawn(self._ask_again(connection))
        else:
            self._hand_on(connection)

    def discard(self, connection: Connection) -> None:
        """Cut ``connection`` off: nobody knows what is on its wire."""
        self._lent.discard(connection)
        connection.terminate()
        self._budget.freed()

    def _hand_on(self, connection: Connection) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                self._lend(connection)
                turn.set_result(connection)
                return
        self._free.append(connection)
        if self._budget.waiters:
            self._budget.freed()  # another pool of this node waits for this one to make way

    def wake(self) -> None:
        """There may be room: whoever is first in line may open a connection."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _clean_behind(self, connection: Connection) -> None:
        try:
            clean = await self._clean(connection)
        finally:
            self._cleaning -= 1
        self._return(connection, clean)

    async def _clean(self, connection: Connection) -> bool:
        """Undo what is left: a transaction, and everything else in the session where there may be anything else (what a
        transaction sets, its rollback takes back). Whether that could be done."""
        try:
            async with asyncio.timeout(RESET_SECONDS):
                if connection.is_in_transaction():
                    await connection.control("rollback")
                if connection.touched and connection.taken_over:
                    return False  # it would have its old settings again
                if connection.touched:
                    await connection.control("discard all")
                    connection.forget()
            return not connection.watched
        except (asyncpg.PostgresError, *BROKEN):
            return False
        except BaseException:
            connection.terminate()
            raise

    async def _ask_again(self, connection: Connection) -> None:
        good = False
        try:
            async with asyncio.timeout(RESET_SECONDS):
                await self._catalogue.ask(connection)
            good = True
        except BROKEN:
            good = False
        finally:
            self._cleaning -= 1
        self._return(connection, good)

    def _return(self, connection: Connection, good: bool) -> None:
        if not good or self._closed or connection.is_closed():
            connection.terminate()
            self._budget.freed()
        else:
            self._hand_on(connection)

    # -- living ------------------------------------------------------------------------------------------------------------

    async def warm(self, count: int) -> int:
        """Have ``count`` connections open, where the node lets us; how many were opened."""
        opened = []
        for _ in range(count - self.open):
            if not self._budget.used < self._budget.size:
                break
            try:
                opened.append(await self._open(Deadline.after(CONNECT_SECONDS)))
            except (CannotConnect, FleetClosed, TimeoutError, *BROKEN):
                break
        for connection in opened:
            self.release(connection)
        return len(opened)

    def spare(self) -> bool:
        """Close an idle connection, for another pool; whether there was one."""
        if not self._free:
            return False
        self._free.pop(0).terminate()
        return True

    def drop(self, spare: Callable[[Connection], bool] | None = None) -> None:
        """Cut off every connection, lent ones too (but for ``spare``): this node is no longer what they were opened for."""
        self._cut_off_free()
        for connection in list(self._lent):
            if spare is None or not spare(connection):
                connection.terminate()

    def _cut_off_free(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            connection.terminate()
        if free:
            self._budget.freed()

    def reopen(self, settings: Mapping[str, str]) -> None:
        """Sessions are to be opened with other ``settings`` from now on: those that are lent end when they come back."""
        self.settings = dict(settings)
        for connection in self._lent:
            connection.altered = True
        self._cut_off_free()

    async def aclose(self) -> None:
        self._closed = True
        if self._silence is not None:
            self._silence.close()
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._waiting:
            self.wake()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
