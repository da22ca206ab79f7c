"""Connections to PostgreSQL, opened with a deadline, and never a cause of what nobody asked for.

asyncpg, on a cancelled or timed-out call, asks the server to cancel the statement. If that statement is a COMMIT that
waits for the synchronous replicas, the server then *commits* without them and says so in a warning only. So a
connection that writes is cut off instead, and the warning, whoever caused it, is noticed.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from pgfleet.errors import CannotConnect
from pgfleet.runtime.clock import monotonic

#: Seconds for TCP, TLS and authentication together.
CONNECT_SECONDS = 1.0
#: Statements whose plans one connection keeps.
KEPT = 200
#: What tells the last value that the session took from a sequence.
SEQUENCE = re.compile(r"\b(lastval|currval)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Login:
    """Who connects, to which database, and how.

    :param tls: None: in the clear, where the servers offer no TLS.
    """

    role: str
    database: str
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class Connection(asyncpg.Connection):
    """asyncpg's connection, which is cut off when a call on it is cancelled, and which notes what its session was used for.

    ``unreplicated``: a COMMIT on it was answered without the synchronous replicas. ``touched``: since :meth:`lend`, something
    was sent that may have left state in the session. ``altered``: the borrower changed this object itself (a codec), which no
    statement undoes. ``opened_with``: the parameters of its session. ``taken_over``: that was opened for other work, and
    DISCARD ALL would return to what it had then. ``last_status``: the command tag of the last statement sent without
    parameters (``COMMIT`` may be answered by ``ROLLBACK``).
    """

    if TYPE_CHECKING:  # asyncpg's own, which its stubs leave out
        _protocol: Any
        _execute: Any
        _maybe_gc_stmt: Any
        _drop_local_statement_cache: Any
        _stmts_to_close: Any
        _listeners: Any
        _query_loggers: Any
        _log_listeners: Any
        _top_xact: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unreplicated = False
        self.touched = False
        self.altered = False
        self.taken_over = False
        self.opened_with: Mapping[str, str] | None = None
        self.last_status = ""
        self._touches: Callable[[str], bool] = _always
        self._kept: dict[str, Any] = {}
        self.add_log_listener(_notice)

    def lend(self, touches: Callable[[str], bool]) -> None:
        """Watch the borrower's statements. :param touches: whether a statement may leave something in its session."""
        self._touches = touches

    @property
    def waits_for_replicas(self) -> bool:
        """Whether a COMMIT now is answered as its role's is. One may have said otherwise who may have set anything
        (``synchronous_commit``)."""
        return not self.touched

    # -- the quick way -----------------------------------------------------------------------------------------------------

    async def ask(self, query: str, args: tuple[Any, ...], timeout: float | None) -> list[asyncpg.Record]:
        """Rows of one statement, its plan kept: what ``fetch`` answers, by a shorter way."""
        if not self.touched:
            self.touched = self._touches(query)
        state = self._kept.get(query)
        if state is None:
            state, timeout = await self._keep(query, timeout)
        try:
            rows: list[asyncpg.Record] = await self._wire().bind_execute(state, args, "", 0, False, timeout)
        except (asyncpg.OutdatedSchemaCacheError, asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError):
            self.forget()
            if self.is_in_transaction():
                raise
            return list(await super().fetch(query, *args, timeout=timeout))
        return rows

    async def run(self, query: str, args: tuple[Any, ...], timeout: float | None = None) -> str:
        """One statement, its plan kept; its command tag. (``execute`` without parameters takes several statements.)"""
        if not self.touched:
            self.touched = self._touches(query)
        state = self._kept.get(query)
        if state is None:
            state, timeout = await self._keep(query, timeout)
        try:
            _, status, _ = await self._wire().bind_execute(state, args, "", 0, True, timeout)
        except (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError):
            # The server refused the plan, not the statement: nothing was done. (An OutdatedSchemaCacheError is of rows that
            # cannot be read, and the statement was done.)
            self.forget()
            if self.is_in_transaction():
                raise
            _, status, _ = await self._execute(query, args, 0, timeout, return_status=True)
        return "" if status is None else str(status.decode())  # None: there was no statement in it

    def _wire(self) -> Any:
        if self._protocol is None:
            raise asyncpg.InterfaceError("connection is closed")
        return self._protocol

    async def own(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row of a statement of the client's own, which is known to leave nothing; None: there is none."""
        rows = await self.own_rows(query, *args, timeout=timeout)
        return rows[0] if rows else None

    async def own_rows(self, query: str, *args: Any, timeout: float | None = None) -> list[asyncpg.Record]:
        """All rows of such a statement."""
        touched = self.touched
        rows = await super().fetch(query, *args, timeout=timeout)
        self.touched = touched
        return list(rows)

    async def control(self, query: str, timeout: float | None = None) -> str:
        """One or several statements without parameters of the client's own (``begin``, ``commit``); the last one's tag."""
        self.last_status = await super().execute(query, timeout=timeout)
        return self.last_status

    async def _keep(self, query: str, timeout: float | None) -> tuple[Any, float | None]:
        """Its plan, and the seconds that are left of ``timeout``."""
        until = None if timeout is None else monotonic() + timeout
        if SEQUENCE.search(query):
            # What it asks for would be another borrower's. (Blocks begin with this.)
            await super().execute("discard sequences", timeout=timeout)
            return await self._get_statement(query, _left(until), named=True), _left(until)
        state = await self._get_statement(query, timeout, named=True)
        if len(self._kept) >= KEPT:
            oldest = self._kept.pop(next(iter(self._kept)))
            oldest.detach()
            self._maybe_gc_stmt(oldest)
        state.attach()  # or asyncpg's own cache closes it when it is full
        self._kept[query] = state
        return state, _left(until)

    def forget(self) -> None:
        """Forget every prepared statement: the server has."""
        kept, self._kept = self._kept, {}
        for state in kept.values():
            state.detach()
            state.mark_closed()
        self._drop_local_statement_cache()
        self._stmts_to_close.clear()

    # -- what the borrower does ---------------------------------------------------------------------------------------------

    def transaction(self, *args: Any, **kwargs: Any) -> Any:
        """As asyncpg's; inside a block, whose transaction asyncpg did not begin, a savepoint."""
        if not self.is_in_transaction():
            # That of a block that has ended; or asyncpg has named one before it sent BEGIN, which failed: all that follows would
            # be savepoints of a transaction that never was.
            self._top_xact = None
        elif self._top_xact is None:
            self._top_xact = super().transaction()  # stands for one that was begun by control()
        return super().transaction(*args, **kwargs)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not args and not self.touched:
            self.touched = self._touches(query)
        self.last_status = await super().execute(query, *args, timeout=timeout)
        return self.last_status

    async def _get_statement(self, query: str, timeout: float | None, **more: Any) -> Any:
        if not self.touched:
            self.touched = self._touches(query)
        return await super()._get_statement(query, timeout, **more)  # type: ignore[misc]

    async def _copy_out(self, copy_stmt: str, output: Any, timeout: float | None) -> Any:
        self.touched = True
        return await super()._copy_out(copy_stmt, output, timeout)  # type: ignore[misc]

    async def _copy_in(self, copy_stmt: str, source: Any, timeout: float | None) -> Any:
        self.touched = True
        return await super()._copy_in(copy_stmt, source, timeout)  # type: ignore[misc]

    async def set_type_codec(self, *args: Any, **kwargs: Any) -> None:
        self.touched = True
        self.altered = True
        await super().set_type_codec(*args, **kwargs)

    async def set_builtin_type_codec(self, *args: Any, **kwargs: Any) -> None:
        self.touched = True
        self.altered = True
        await super().set_builtin_type_codec(*args, **kwargs)

    @property
    def watched(self) -> bool:
        """Whether the borrower left listeners on this object."""
        return bool(self._listeners) or bool(self._query_loggers) or len(self._log_listeners) > 1

    def _abort(self) -> None:
        # asyncpg lets go of its protocol here, and whoever is in the middle of a statement then stumbles over None. What was cut
        # off says itself that it is closed.
        protocol = self._protocol
        super()._abort()  # type: ignore[misc]
        self._protocol = protocol

    def _cancel_current_command(self, waiter: Any, *more: Any) -> None:
        # Not from in here: asyncpg is in the middle of changing its state.
        asyncio.get_running_loop().call_soon(self.terminate)


def _left(until: float | None) -> float | None:
    """Seconds for the next step; asyncpg takes none for no limit, or refuses it, by the way that it goes."""
    return None if until is None else max(0.001, until - monotonic())


def _always(sql: str) -> bool:
    return True


def _notice(connection: Any, message: asyncpg.PostgresLogMessage) -> None:
    # Messages are translated (lc_messages) and the code is a plain 01000 or 57P01: the function's name is neither
    # (src/backend/replication/syncrep.c).
    if isinstance(connection, Connection) and message.server_source_function == "SyncRepWaitForLSN":
        connection.unreplicated = True


async def connect(
    host: str, port: int, login: Login, *, settings: Mapping[str, str], seconds: float = CONNECT_SECONDS
) -> Connection:
    """Open a connection.

    :param settings: the session's parameters, sent with the start-up packet: ``RESET`` returns to them.
    :param seconds: for everything together.
    :raises CannotConnect: with the reason; nothing was sent that could have done anything.
    """
    try:
        connection: Connection = await asyncpg.connect(
            host=host,
            port=port,
            user=login.role,
            password=login.password,
            database=login.database,
            ssl=login.tls if login.tls is not None else False,
            timeout=seconds,
            server_settings=dict(settings),
            connection_class=Connection,
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # TimeoutError is an OSError
        said = str(error) or (f"silent for {seconds:.3g} s" if isinstance(error, TimeoutError) else type(error).__name__)
        raise CannotConnect(f"{host}:{port} cannot be connected to: {said}", state=sqlstate(error)) from error
    return connection


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code, also of an error after which the server hung up (asyncpg keeps it as the cause)."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.ConnectionDoesNotExistError):
            return str(error.sqlstate) if error.sqlstate else None
        error = error.__cause__
    return None
