"""A bounded pool of connections to one node, for one kind of work. Borrowers wait in order, with a deadline.

Ordinary borrowers have transaction semantics: what a borrower leaves in a session does not reach the next one. A statement
that is known to leave nothing (:mod:`pgfleet.client.statement`) costs nothing more; after any other the session is discarded
behind the borrower's back, before the connection is lent again. One that failed or was late is cut off, never reused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from pgfleet.client.budget import Budget
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.cleaning import RESET_SECONDS, clean
from pgfleet.client.line import Line
from pgfleet.client.silence import Silence
from pgfleet.client.taking_over import take_over
from pgfleet.client.trouble import BROKEN
from pgfleet.errors import CannotConnect, FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import CONNECT_SECONDS, Connection, Login, connect

T = TypeVar("T")


class NodePool:
    """:param settings: the sessions' parameters; a reset returns to them.
    :param stuck: told when statements wait and nothing is answered (:class:`Silence`).
    :param counted: told how many connections there are, when one was opened or has ended.
    """

    #: Whether a session is this pool's, and may be discarded.
    OURS: ClassVar[bool] = True

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
        self._line = Line(self._passed_by)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cleaning: set[Connection] = set()
        self._closed = False
        self._silence = None if stuck is None else Silence(lambda: bool(self._lent), lambda: stuck(self))
        #: The pool of the same node whose free connections are taken over before any is opened; None: none are.
        self.kin: NodePool | None = None
        budget.pools.append(self)

    # -- counting ----------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Connections there are, lent and being opened included."""
        return len(self._free) + len(self._lent) + self._opening + len(self._cleaning)

    @property
    def lent(self) -> int:
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """Borrowers that wait for a connection."""
        return len(self._line)

    @property
    def waits_since(self) -> float:
        return self._line.since

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
                if not self._line.stands():
                    if not fresh and (connection := await self._taken_over(self.kin, deadline)) is not None:
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
            self._cleaning.add(connection)
            connection.touched = True
            good = False
            try:
                good = await clean(connection, ours=self.OURS) and self._may_stay(connection)
            finally:
                self._cleaning.discard(connection)
                if not good:
                    connection.terminate()
                    self._budget.freed()
            if good:
                self._lend(connection)
                return connection

    async def _turn(self, deadline: Deadline) -> Connection | None:
        """Wait in line; what was handed over, or None: there is room for another."""
        self._budget.waiters += 1
        try:
            return await self._line.turn(deadline)
        finally:
            self._budget.waiters -= 1

    def _passed_by(self, given: Connection | None) -> None:
        """It was the turn of somebody who is gone: the next one's."""
        if given is not None:
            self.release(given)
        else:
            self._budget.freed()

    def give_away(self) -> Connection | None:
        """A free connection, which is this pool's no longer; None: there is none now."""
        if (connection := self.take()) is not None:
            self._lent.discard(connection)
        return connection

    async def make_ready(self, kin: NodePool, deadline: Deadline) -> None:
        """Have one of ``kin``'s free connections here, where there is one."""
        if (connection := await self._taken_over(kin, deadline)) is not None:
            self.release(connection)

    async def _taken_over(self, kin: NodePool | None, deadline: Deadline) -> Connection | None:
        """A free connection of ``kin``, as if it had been opened here; None: there is none."""
        settings, good = self.settings, False
        if kin is None or (connection := kin.give_away()) is None:
            return None
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
        connection.opened_with = settings  # where it is reopened meanwhile, this one ends when it comes back
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
        if not self._may_stay(connection):
            connection.terminate()
            self._budget.freed()
        elif connection.touched or connection.is_in_transaction() or connection.watched:
            self._cleaning.add(connection)
            self._spawn(self._clean_behind(connection))
        elif self._catalogue.due:
            self._cleaning.add(connection)
            self._spawn(self._ask_again(connection))
        else:
            self._hand_on(connection)

    def _may_stay(self, connection: Connection) -> bool:
        """Whether it may be lent again: also one that was reopened since with other settings may not."""
        gone = self._closed or connection.is_closed() or connection.unreplicated or connection.altered
        return not gone and connection.opened_with is self.settings

    def discard(self, connection: Connection) -> None:
        """Cut ``connection`` off: nobody knows what is on its wire."""
        self._lent.discard(connection)
        connection.terminate()
        self._budget.freed()

    def _hand_on(self, connection: Connection) -> None:
        if self._budget.waiters and self._budget.waits_too_long(self):
            connection.terminate()  # others' sessions are of another kind
            self._budget.freed()
            return
        if (turn := self._line.next()) is not None:
            self._lend(connection)
            turn.set_result(connection)
            return
        self._free.append(connection)
        if self._budget.waiters:
            self._budget.freed()  # another pool of this node waits for this one to make way

    def wake(self) -> None:
        """There may be room: whoever is first in line may open a connection."""
        if (turn := self._line.next()) is not None:
            turn.set_result(None)

    async def _clean_behind(self, connection: Connection) -> None:
        try:
            good = await clean(connection, ours=self.OURS)
        finally:
            self._cleaning.discard(connection)
        self._return(connection, good)

    async def _ask_again(self, connection: Connection) -> None:
        good = False
        try:
            async with asyncio.timeout(RESET_SECONDS):
                await self._catalogue.ask(connection)
            good = True
        except BROKEN:
            good = False
        finally:
            self._cleaning.discard(connection)
        self._return(connection, good)

    def _return(self, connection: Connection, good: bool) -> None:
        if not good or not self._may_stay(connection):
            connection.terminate()
            self._budget.freed()
        else:
            self._hand_on(connection)

    # -- living ------------------------------------------------------------------------------------------------------------

    async def warm(self, count: int) -> int:
        """Have ``count`` connections open, where the node lets us; how many were opened."""
        opened: list[Connection] = []
        try:
            for _ in range(count - self.open):
                if not self._budget.used < self._budget.size:
                    break
                opened.append(await self._open(Deadline.after(CONNECT_SECONDS)))
        except (CannotConnect, FleetClosed, TimeoutError, *BROKEN):
            return len(opened)  # who needs it waits for it
        finally:
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
        for connection in [*self._lent, *self._cleaning]:
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
        self._cut_off_free()

    async def aclose(self) -> None:
        self._closed = True
        if self._silence is not None:
            self._silence.close()
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._line.stands():
            self.wake()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
