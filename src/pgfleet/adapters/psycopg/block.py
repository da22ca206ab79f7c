"""The life of one block, without the waiting: each step is yielded, done by whoever drives it, and its result sent back.

So the synchronous and the asynchronous fleet have one set of rules for what may be tried again and what is not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from pgfleet.adapters.psycopg.connection import AsyncConnection, Connection
from pgfleet.adapters.psycopg.words import (
    COMMIT,
    COMMIT_AFTER_ERROR,
    NOT_WRITABLE,
    RESET,
    RESET_SECONDS,
    ROLLBACK,
    SHARE,
    begin,
    read_answer,
    refused,
    rolled_back,
    waited_for,
    write_in_read,
)  # fmt: skip
from pgfleet.client.borrowing import PAUSE
from pgfleet.client.guide import REFUSED, Aim, Guide
from pgfleet.client.observing import Call
from pgfleet.errors import CannotConnect, DeadlineExceeded
from pgfleet.names import NodeName
from pgfleet.routing.route import ConnectWords, Route
from pgfleet.runtime.clock import Deadline, monotonic

C = TypeVar("C", Connection, AsyncConnection)


@dataclass(frozen=True, slots=True)
class Find:
    """A route, waiting for one if need be. Answered by a :class:`Route`."""

    avoid: set[NodeName]


@dataclass(frozen=True, slots=True)
class Take:
    """A connection to ``route``'s node out of its pool. Answered by the connection."""

    route: Route


@dataclass(frozen=True, slots=True)
class Say:
    """One message on the block's connection. Answered by its results."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """Ask where the primary is now. Answered by a position.

    :param since: COMMIT waited for the replicas, and was not sent before that; None: who knows.
    """

    since: float | None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a guard's refusal means. Answered by the error to raise."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Pause:
    """:param seconds: to wait before the next attempt."""

    seconds: float


Step = Find | Take | Say | Mark | Ask | Pause
Steps = Generator[Step, Any, None]


#: What is sent to end a block, by where its transaction is.
_ENDS: dict[int, bytes] = {
    TransactionStatus.INTRANS: COMMIT,
    TransactionStatus.INERROR: COMMIT_AFTER_ERROR,
    TransactionStatus.IDLE: RESET,
}


class Returns(Protocol[C]):
    """Where the connection goes back to: a pool."""

    def renew(self, connection: C) -> C: ...

    def give(self, connection: C) -> None: ...

    def drop(self, connection: C) -> None: ...


class Block(Generic[C]):
    """:param size: of the node's pools, for messages.

    ``pool`` and ``connection`` are set by the driver's answer to :class:`Take`.
    """

    connection: C
    pool: Returns[C]
    route: Route

    def __init__(self, guide: Guide, aim: Aim, deadline: Deadline, call: Call, size: int) -> None:
        self.guide, self.aim, self.deadline, self.call = guide, aim, deadline, call
        self._size = size

    def words(self) -> ConnectWords:
        """What a new connection for ``route`` is opened with."""
        login = self.guide.login(self.route.name)
        words = self.route.connect_kwargs(user=login.role, password=login.password)
        words["dbname"], words["application_name"], words["client_encoding"] = login.database, "pgfleet", "utf8"
        return words

    # -- beginning -------------------------------------------------------------------------------------------------------

    def begin(self) -> Steps:
        """Until the transaction has begun nothing was done, so that any failure is tried again, elsewhere or later.

        :raises DeadlineExceeded: nobody could begin it in time.
        """
        avoid: set[NodeName] = set()
        writes = self.aim.role == "write"
        while True:
            self.route = yield Find(avoid)
            why = yield from self._begin_here()
            if not why:
                self.call.at(self.route.name, self.route)
                return
            if self.deadline.left() <= 0:
                raise self.guide.late(self.aim, why, self.deadline)
            avoid.add(self.route.name)
            self.call.retried()
            if writes:
                yield Pause(min(PAUSE, max(0.0, self.deadline.left())))

    def _begin_here(self) -> Generator[Step, Any, str]:
        """:returns: why not; empty: it began."""
        node, writes = self.route.name, self.aim.role == "write"
        asked = monotonic()
        try:
            self.connection = yield Take(self.route)
        except CannotConnect as error:
            self.guide.failed(node, silent=not writes)
            return error.message
        except TimeoutError:
            raise self.guide.late(self.aim, f"a free connection to {node.member}, of {self._size}", self.deadline) from None
        self.call.waited("connection", monotonic() - asked)
        left = self.deadline.left()
        self.connection.deadline = self.deadline if writes or left < 0.2 else Deadline.after(left * SHARE)
        try:
            results: list[PGresult] = yield Say(begin(self.route, self.aim.mark))
        except (psycopg.Error, DeadlineExceeded) as error:
            said = str(error).strip()
        except BaseException:
            self.pool.drop(self.connection)
            raise
        else:
            error_here = refused(results)
            if error_here is None:
                self.connection.deadline = self.deadline
                return ""
            said = str(error_here)
        self.guide.failed(node, silent=self.connection.late)
        self.pool.drop(self.connection)
        return f"{node.member}: {said or 'no answer'}"

    # -- ending ----------------------------------------------------------------------------------------------------------

    def commit(self) -> Steps:
        """
        :raises OutcomeUnknown: COMMIT was sent, and never answered, or answered without the replicas.
        :raises BlockRolledBack: PostgreSQL rolled back instead.
        :raises DeadlineExceeded: there was no time left to send it.
        """
        connection, status = self._taken_back()
        if self.deadline.left() <= 0:
            self.pool.drop(connection)
            raise self.guide.late(self.aim, "the end of its write block", self.deadline)
        if status not in _ENDS:
            self.pool.drop(connection)  # it broke, or is still sending, and the error was caught
            raise rolled_back(self.aim)
        try:
            results: list[PGresult] = yield Say(_ENDS[status])
        except (Exception, asyncio.CancelledError) as error:
            self.guide.failed(self.route.name, silent=False)
            self.pool.drop(connection)
            raise self.guide.unknown(self.aim, self.route.name, str(error).strip() or type(error).__name__) from error
        except BaseException:
            self.pool.drop(connection)
            raise
        waited = waited_for(results) if status == TransactionStatus.INTRANS else "nobody"
        answer = read_answer(results)
        if connection.unreplicated or not answer.clean:
            self.pool.drop(connection)
        else:
            self.pool.give(connection)
        if connection.unreplicated:
            raise self.guide.unknown(self.aim, self.route.name, "the replicas did not confirm it", answered=True)
        if answer.error is not None:
            raise answer.error
        if status != TransactionStatus.IDLE and answer.tag != "COMMIT":
            raise rolled_back(self.aim)
        if self.aim.mark is not None:
            self.guide.marked(self.aim)
        if waited == "nobody":
            self.guide.unsure(self.aim.shard)
        else:
            self.guide.wrote(self.aim.shard, (yield Mark(self.deadline.began if waited == "replicas" else None)))

    def fail(self, error: BaseException) -> Steps:
        """Roll back; then raise what the caller's ``error`` means, where that is another one."""
        connection, status = self._taken_back()
        self._look_at(error)
        yield from self._undo(connection, status, error)
        told = self._translated(error)
        if told is error and self.aim.role == "write" and getattr(error, "sqlstate", None) in REFUSED:
            told = yield Ask(error)
        if told is not error:
            raise told from error

    def undo(self) -> Steps:
        """A read has ended: roll back and give the connection back. It is the caller's no more from now on, whenever the steps
        are done."""
        return self._undo(*self._taken_back(), None)

    def _undo(self, connection: C, status: int, error: BaseException | None) -> Steps:
        if status not in _ENDS or (error is not None and not isinstance(error, Exception)):
            self.pool.drop(connection)
            return
        connection.deadline = Deadline.after(RESET_SECONDS)
        try:
            results: list[PGresult] = yield Say(RESET if status == TransactionStatus.IDLE else ROLLBACK)
        except (psycopg.Error, DeadlineExceeded):
            self.pool.drop(connection)
            return
        except BaseException:
            self.pool.drop(connection)
            raise
        if read_answer(results).clean and not connection.unreplicated:
            self.pool.give(connection)
        else:
            self.pool.drop(connection)

    def _taken_back(self) -> tuple[C, int]:
        """The connection, no more the caller's, and where its transaction is; UNKNOWN: nothing can be said on it, for it broke,
        is still sending, or was left in a pipeline."""
        self.connection = connection = self.pool.renew(self.connection)
        pgconn = connection.pgconn
        return connection, TransactionStatus.UNKNOWN if pgconn.pipeline_status else pgconn.transaction_status

    def _look_at(self, error: BaseException) -> None:
        """Have the router look again where ``error`` says that the node is not what it was."""
        if not isinstance(error, (psycopg.Error, DeadlineExceeded)):
            return
        wrong_role = self.aim.role == "write" and getattr(error, "sqlstate", None) in NOT_WRITABLE
        if self.connection.closed or wrong_role:
            self.guide.failed(self.route.name, silent=self.connection.late and self.aim.role == "read")

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) and self.aim.role == "read":
            return write_in_read(self.aim, error)
        if isinstance(error, DeadlineExceeded) and self.connection.late:
            return self.guide.late(self.aim, f"a statement of a {self.aim.role} block on {self.route.node}", self.deadline)
        return error
