"""psycopg's connections with a deadline on every call, that are cut off rather than cancelled, and notice what COMMIT said.

psycopg, on an interrupted call, asks the server to cancel the statement. If that statement is a COMMIT that waits for the
synchronous replicas, the server then *commits* without them and says so in a notice only (see runtime/sql.py). So here
the connection is cut off instead, and the notice, whoever caused it, is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import psycopg
from psycopg import generators, waiting
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from pgfleet.errors import CannotConnect, DeadlineExceeded
from pgfleet.routing.route import ConnectWords
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import CONNECT_SECONDS

T = TypeVar("T")

#: psycopg's two bits of readiness (its ``Wait`` and ``Ready`` agree on them).
_READ, _WRITE = 1, 2
_HUNG_UP = select.POLLERR | select.POLLHUP | select.POLLNVAL


#: Stands where a connection was: libpq's object for one that was never opened (its parameters are none).
_NOTHING = psycopg.pq.PGconn.connect_start(b"=")


class _Line:
    """A descriptor of our own for a connection's socket: libpq closes its own whenever it likes, and another thread would find
    somebody else's file under the number."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=socket.dup(number))
        self._lock = threading.Lock()

    def cut(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._socket.close()


class _Guarded:
    """What the synchronous and the asynchronous connection have in common.

    ``deadline``: of every call until it is set to another; None: none. ``unreplicated``: a COMMIT on it was answered
    without the synchronous replicas. ``late``: it was cut off because its deadline had passed. ``over``: its block has ended, and
    its session is another object's.
    """

    if TYPE_CHECKING:  # psycopg's own
        pgconn: psycopg.pq.abc.PGconn
        prepare_threshold: int | None
        prepared_max: int | None
        _autocommit: bool
        _prepared: Any

        def add_notice_handler(self, callback: Callable[[psycopg.errors.Diagnostic], None]) -> None: ...

    deadline: Deadline | None = None
    unreplicated = False
    late = False
    over = False

    def __init__(self, pgconn: psycopg.pq.abc.PGconn, *, line: _Line | None = None) -> None:
        """:param line: to the server; None: it is made."""
        super().__init__(pgconn)  # type: ignore[call-arg] # psycopg's comes next
        self._line = line or _Line(pgconn.socket)
        self.add_notice_handler(self._notice)

    def renewed(self) -> Self:
        """The same session as another object, which has nothing of what the borrower did to this one (factories, adapters,
        handlers). This one is closed for whoever kept it. What psycopg has prepared goes along."""
        fresh = type(self)(self.pgconn, line=self._line)
        fresh.deadline, fresh.unreplicated, fresh.late = self.deadline, self.unreplicated, self.late
        threshold, most = fresh.prepare_threshold, fresh.prepared_max
        fresh._prepared = self._prepared
        fresh.prepare_threshold, fresh.prepared_max = threshold, most
        fresh._autocommit = True  # its setter asks for a session without a transaction
        self.pgconn, self.over = _NOTHING, True
        return fresh

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # Its text is translated and its code a plain 01000 or 57P01; the function's name is neither.
        if notice.source_function == "SyncRepWaitForLSN":
            self.unreplicated = True

    @property
    def idle(self) -> bool:
        """Whether it is open and in no transaction."""
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def cut(self) -> None:
        """Hang up, from any thread, also while a call waits on it: that call fails at once."""
        self._line.cut()

    def end(self) -> None:
        """Close it, whatever is on its wire. Nothing is waited for."""
        if not self.over:
            self.pgconn.finish()
            self._line.close()

    def _refuse_if_over(self) -> None:
        if self.over:
            raise psycopg.OperationalError("the connection is closed: it was given back when its block ended")

    def _give_up(self) -> NoReturn:
        self.late = True
        self.end()
        allowed = self.deadline.allowed if self.deadline is not None else 0.0
        raise DeadlineExceeded(f"a statement was not answered within the {allowed:g} s of its block")

    def _refuse(self, word: str) -> NoReturn:
        raise psycopg.ProgrammingError(f"{word}() belongs to the block that lent this connection; a savepoint: transaction()")


class Connection(_Guarded, psycopg.Connection[Any]):
    """A psycopg connection that a fleet lends. COMMIT and ROLLBACK are the block's."""

    def wait(self, gen: Generator[Any, Any, T], *_: Any, **__: Any) -> T:
        self._refuse_if_over()
        try:
            return _drive(gen, self.deadline, self.pgconn.socket)
        except TimeoutError:
            self._give_up()
        except (KeyboardInterrupt, SystemExit):
            self.end()
            raise

    def close(self) -> None:
        self.end()

    def commit(self) -> None:
        self._refuse("commit")

    def rollback(self) -> None:
        self._refuse("rollback")


class AsyncConnection(_Guarded, psycopg.AsyncConnection[Any]):
    """A psycopg connection that a fleet lends. COMMIT and ROLLBACK are the block's."""

    async def wait(self, gen: Generator[Any, Any, T], *_: Any, **__: Any) -> T:
        self._refuse_if_over()
        left = None if self.deadline is None else max(0.0, self.deadline.left())
        try:
            async with asyncio.timeout(left):
                return await waiting.wait_async(gen, self.pgconn.socket, interval=1.0 if left is None else max(0.1, left))
        except TimeoutError:
            self._give_up()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            self.end()
            raise

    async def close(self) -> None:
        self.end()

    async def commit(self) -> None:
        self._refuse("commit")

    async def rollback(self) -> None:
        self._refuse("rollback")


def connect(words: ConnectWords, deadline: Deadline) -> Connection:
    """Open one.

    :raises CannotConnect: with the reason; nothing was sent that could have done anything.
    """
    # Not Connection.connect: it grants every attempt two seconds at least.
    limit = Deadline.after(max(0.001, min(CONNECT_SECONDS, deadline.left())))
    try:
        connection = Connection(_drive(generators.connect(make_conninfo("", **words)), limit))
    except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
        raise _cannot(words, error, limit) from error
    connection.autocommit = True
    return connection


async def connect_async(words: ConnectWords, deadline: Deadline) -> AsyncConnection:
    """Open one.

    :raises CannotConnect: with the reason; nothing was sent that could have done anything.
    """
    limit = Deadline.after(max(0.001, min(CONNECT_SECONDS, deadline.left())))
    try:
        async with asyncio.timeout(limit.allowed):
            return await AsyncConnection.connect(make_conninfo("", **words), autocommit=True)
    except (psycopg.Error, OSError) as error:
        raise _cannot(words, error, limit) from error


def _cannot(words: ConnectWords, error: Exception, limit: Deadline) -> CannotConnect:
    silence = f"silent for {limit.allowed:.3g} s"
    said = str(error).strip() or (silence if isinstance(error, TimeoutError) else type(error).__name__)
    state = getattr(error, "sqlstate", None)
    return CannotConnect(f"{words['host']}:{words['port']} cannot be connected to: {said}", state=state)


def _drive(gen: Generator[Any, Any, T], deadline: Deadline | None, socket_number: int = -1) -> T:
    """Answer what psycopg's generator waits for.

    :param socket_number: -1: the generator names it each time, as one that connects does.
    :raises TimeoutError: ``deadline`` has passed.
    """
    try:
        asks = next(gen)
        while True:
            number, wants = asks if socket_number < 0 else (socket_number, asks)
            left = None if deadline is None else deadline.left()
            if left is not None and left <= 0:
                raise TimeoutError
            poll = select.poll()
            poll.register(number, (select.POLLIN if wants & _READ else 0) | (select.POLLOUT if wants & _WRITE else 0))
            seen = poll.poll(None if left is None else left * 1000)
            if not seen:
                continue
            event = seen[0][1]
            # Hung up: let libpq read, it finds out why.
            ready = (_READ if event & (select.POLLIN | _HUNG_UP) else 0) | (_WRITE if event & select.POLLOUT else 0)
            asks = gen.send(ready)
    except StopIteration as done:
        answer: T = done.value
        return answer
