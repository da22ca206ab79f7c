"""SQLAlchemy's asyncpg dialect, which tells a COMMIT that is not known, a write in a read, and an answer that came too late.

One of it belongs to one engine, and an engine to one node and role.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.util import await_only

from pgfleet.client.guide import REFUSED, Aim, Guide
from pgfleet.errors import BlockRolledBack, DeadlineExceeded, OutcomeUnknown, WriteInRead
from pgfleet.names import NodeName
from pgfleet.routing.route import Role
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection


class Lent(Connection):
    """A connection that a session has. ``deadline``: of every call; None: none. ``aim``: what its transaction is for.
    ``trouble``: the last error on it. ``waited``: its last COMMIT was answered by the replicas, as far as is known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline: Deadline | None = None
        self.aim: Aim | None = None
        self.trouble: BaseException | None = None
        self.waited = False

    def use(self, statement: str) -> None:
        """Note what ``statement`` may leave in the session; SQLAlchemy sends prepared ones past everybody who looks."""
        if not self.touched:
            self.touched = self._touches(statement)

    @property
    def _config(self) -> Any:
        # asyncpg reads its command_timeout here for every call, and refuses at once when it is not above zero.
        given = self._given
        return given if self.deadline is None else given._replace(command_timeout=self.deadline.left())

    @_config.setter
    def _config(self, given: Any) -> None:
        self._given = given


class Dialect(PGDialect_asyncpg):
    """``node`` and ``role``: whose and what for; set once, with the fleet's guide, by the engine's maker."""

    supports_statement_cache = True
    node: NodeName
    role: Role
    guide: Guide

    #: SQLSTATEs by which a server says that it is no primary (any more).
    NOT_WRITABLE: ClassVar = frozenset({"25006"})

    #: Seconds for a rollback, whatever is left of the deadline; a server that cannot do this quickly is hung up on.
    ROLLBACK_SECONDS: ClassVar = 2.0

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        cursor._connection.use(statement)
        with self._telling(cursor._connection):
            super().do_execute(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]

    def do_executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        cursor._connection.use(statement)
        with self._telling(cursor._connection):
            super().do_executemany(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]

    def do_commit(self, dbapi_connection: Any) -> None:
        driver: Lent = dbapi_connection.driver_connection
        try:
            self._commit(dbapi_connection, driver)
        except BaseException as error:
            driver.trouble = error
            raise

    def do_rollback(self, dbapi_connection: Any) -> None:
        with self._undoing(dbapi_connection.driver_connection) as possible:
            if possible:
                super().do_rollback(dbapi_connection)  # type: ignore[no-untyped-call]

    def do_rollback_to_savepoint(self, connection: Any, name: str) -> None:
        driver: Lent = connection.connection.driver_connection
        with self._undoing(driver) as possible:
            if possible:
                super().do_rollback_to_savepoint(connection, name)  # type: ignore[no-untyped-call]
                driver.trouble = None  # what had failed since is undone

    def fetching(self, driver: Lent, error: BaseException) -> Exception | None:
        """What an error means that came while rows were fetched, which no method of a dialect sees; None: what it says."""
        if driver.trouble is error or not isinstance(error, Exception):
            return None  # it came another way, and was told
        driver.trouble = told = self._told(driver, error)
        return told if told is not error else None

    def _commit(self, dbapi_connection: Any, driver: Lent) -> None:
        if driver.deadline is not None and driver.deadline.left() <= 0:
            driver.terminate()
            raise self._too_late(driver, "its COMMIT, which was not sent")
        if self.role == "write" and driver.is_closed():
            raise BlockRolledBack(f"the connection to {self.node} ended before COMMIT was sent, so PostgreSQL rolled back")
        driver.last_status, driver.waited = "", driver.waits_for_replicas
        touched = driver.touched
        try:
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]
        except (Exception, asyncio.CancelledError) as error:
            if self.role == "write" and (driver.is_closed() or driver.unreplicated or _late(error)):
                driver.terminate()
                self._doubt(error)
                raise self._unknown(driver, str(error).strip() or type(error).__name__) from error
            if isinstance(error, TimeoutError):
                raise self._too_late(driver, f"the end of a transaction on {self.node.member}") from error
            raise
        driver.touched = touched  # not by our own COMMIT
        if self.role == "read":
            return
        if driver.unreplicated:
            driver.terminate()  # its session is not to be lent again
            raise self._unknown(driver, "the replicas did not confirm it", answered=True)
        if driver.last_status == "ROLLBACK":
            raise BlockRolledBack(f"a statement of the transaction on {self.node.shard} had failed, so PostgreSQL rolled it back")

    @contextmanager
    def _undoing(self, driver: Lent) -> Iterator[bool]:
        """Time of its own to roll back; false: there is nothing to do. It raises nothing, for it is done when something else went
        wrong that the caller has to hear of, and what does not get through PostgreSQL does itself when the connection ends."""
        if driver.is_closed():
            yield False
            return
        given, touched = driver.deadline, driver.touched
        driver.deadline = Deadline.after(self.ROLLBACK_SECONDS)
        try:
            yield True
        except Exception as error:  # noqa: BLE001 - whatever it was, what state the connection is in is not known
            driver.terminate()
            self._doubt(error)
        finally:
            driver.deadline, driver.touched = given, touched

    @contextmanager
    def _telling(self, driver: Lent) -> Iterator[None]:
        """Raises what a statement's error means, and keeps it. One that comes when the time is up is not sent, and says nothing
        about the node."""
        try:
            if driver.deadline is not None and driver.deadline.left() <= 0:
                raise self._too_late(driver, f"a statement on {self.node.member}")
            yield
        except Exception as error:
            driver.trouble = told = error if isinstance(error, DeadlineExceeded) else self._told(driver, error)
            if told is error:
                raise
            raise told from error

    def _told(self, driver: Lent, error: Exception) -> Exception:
        state = getattr(error, "sqlstate", None)
        if self.role == "read" and state == "25006":
            message = f"a statement that writes was sent to read on {self.node.shard}"
            return WriteInRead(message, seen=[str(error)], hint="session.using(..., write=True)")
        if self.role == "write" and state in REFUSED and driver.aim is not None:
            return await_only(self._refused(driver.aim, error))
        if driver.is_closed() or _late(error) or state in self.NOT_WRITABLE:
            self._doubt(error)
        return self._too_late(driver, f"a statement on {self.node.member}") if _late(error) else error

    def _too_late(self, driver: Lent, waited_for: str) -> DeadlineExceeded:
        allowed = driver.deadline.allowed if driver.deadline is not None else 0.0
        return DeadlineExceeded(f"{self.node.shard} did not answer within {allowed:g} s", seen=[f"waited for: {waited_for}"])

    async def _refused(self, aim: Aim, error: Exception) -> Exception:
        told = await self.guide.refused(aim, error, self.guide.deadline(None))
        assert isinstance(told, Exception)  # noqa: S101 - one of ours
        return told

    def _doubt(self, error: BaseException) -> None:
        """Have the router look again: the connection ended, or the node is not what it was."""
        self.guide.failed(self.node, silent=isinstance(error, TimeoutError) and self.role == "read")

    def _unknown(self, driver: Lent, said: str, *, answered: bool = False) -> OutcomeUnknown:
        if driver.aim is None:  # a connection that was taken past the session
            return OutcomeUnknown(f"a write to {self.node} was sent and its outcome is not known", seen=[said])
        return self.guide.unknown(driver.aim, self.node, said, answered=answered)


def _late(error: BaseException) -> bool:
    return isinstance(error, (TimeoutError, asyncio.CancelledError)) and not isinstance(error, asyncpg.PostgresError)
