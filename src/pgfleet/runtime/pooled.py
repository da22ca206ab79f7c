"""Connections through PgBouncer with transaction pooling: each transaction may run in another session, which is then the next
client's.

So nothing may be left in a session: what would leave something is refused before it is sent, and what leaves something that
nobody could see (a trigger that sets a parameter) is undone in the transaction itself, before its COMMIT. PgBouncer before 1.21
knows no prepared statements of its clients: there every statement is described anew, which is a round trip more.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from pgfleet.errors import CannotConnect, SessionState
from pgfleet.runtime.sql import CONNECT_SECONDS, Connection, Login, sqlstate

#: Undoes all that a session can hold, inside of a transaction or outside. DISCARD ALL can do so only outside, and its DEALLOCATE
#: ALL would take PgBouncer's own prepared statements: those of clients are the ones that came by SQL.
_UNDO = """
set session authorization default; reset all; close all; unlisten *; select pg_advisory_unlock_all(); discard temp;
discard sequences; do $undo$ declare statement text; begin
for statement in select name from pg_prepared_statements where from_sql loop execute format('deallocate %I', statement); end loop;
end $undo$
"""
#: What says, for a transaction, for whom its COMMIT waits.
_HURRIES = re.compile("set_config|synchronous_commit", re.IGNORECASE)
#: What asyncpg's own questions about types would set and reset (jit) stays in a session; the pooler's is somebody else's by then.
_WITHOUT_JIT = {"jit": False}
#: PostgreSQL docs, 55.7: length, code.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class PooledConnection(Connection):
    """A client's connection to PgBouncer.

    ``prepared``: whether PgBouncer knows prepared statements. ``returns_to``: the parameters that its database's sessions begin
    with. ``plain``: statements that are not to be prepared (any more); shared by whoever goes there. ``touched``: something was
    done that has to be undone before the transaction ends. ``committing``: COMMIT was sent, and not answered yet.
    """

    if TYPE_CHECKING:  # asyncpg's own, which its stubs leave out
        _server_caps: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared = False
        self.returns_to = ""
        self.plain: set[str] = set()
        self.committing = False
        self._last = ""
        self._ours = 0
        self._hurried = False
        self._check: Callable[[str], Awaitable[bool]] | None = None
        self._server_caps = self._server_caps._replace(**_WITHOUT_JIT)
        self._touches = _never

    def watched_by(self, check: Callable[[str], Awaitable[bool]]) -> None:
        """Have every statement of the borrower's looked at before it is sent.

        :param check: whether it leaves something that has to be undone; raises SessionState for one that is not to be sent.
        """
        self._check = check

    async def _look(self, query: str) -> None:
        if not self._ours and self._check is not None:
            if _HURRIES.search(query):
                self._hurried = True
            if await self._check(query):
                self.touched = True

    def lend(self, touches: Callable[[str], bool]) -> None:
        super().lend(touches)
        self._hurried = False

    @property
    def waits_for_replicas(self) -> bool:
        return not self._hurried  # what else may be set is undone before COMMIT

    @contextmanager
    def _our_own(self) -> Iterator[None]:
        """What is sent meanwhile is the client's own, and known to leave nothing."""
        self._ours += 1
        try:
            yield
        finally:
            self._ours -= 1

    # -- the quick way -----------------------------------------------------------------------------------------------------

    async def ask(self, query: str, args: tuple[Any, ...], timeout: float | None) -> list[asyncpg.Record]:
        await self._look(query)
        with self._our_own():
            if self._keeps(query):
                return await super().ask(query, args, timeout)
            return list(await self.fetch(query, *args, timeout=timeout))

    async def run(self, query: str, args: tuple[Any, ...], timeout: float | None = None) -> str:
        await self._look(query)
        with self._our_own():
            if self._keeps(query):
                return await super().run(query, args, timeout)
            _, status, _ = await self._execute(query, args, 0, timeout, return_status=True)
        return str(status.decode())

    def _keeps(self, query: str) -> bool:
        self._last = query
        return self.prepared and query not in self.plain

    def forget(self) -> None:
        # What the last statement's rows are has changed, and PgBouncer goes on giving its old plan to whoever prepares the same
        # text, for as long as it keeps that server connection (PgBouncer docs, max_prepared_statements).
        self.plain.add(self._last)
        super().forget()

    async def own_rows(self, query: str, *args: Any, timeout: float | None = None) -> list[asyncpg.Record]:
        with self._our_own():
            return await super().own_rows(query, *args, timeout=timeout)

    async def control(self, query: str, timeout: float | None = None) -> str:
        self.committing = query == "commit"
        try:
            return await self._controlled(query, timeout)
        finally:
            self.committing = False

    async def _controlled(self, query: str, timeout: float | None) -> str:
        if not self.touched or query not in ("commit", "rollback"):
            return await super().control(query, timeout)
        if query == "rollback":
            await super().control(f"rollback; {_UNDO}; {self.returns_to}", timeout)
            self.touched = False
            self.last_status = "ROLLBACK"
        else:
            try:
                # Deferred triggers first: they are the application's, too.
                await super().control(f"set constraints all immediate; {_UNDO}; {self.returns_to}; commit", timeout)
                self.touched = False
            except asyncpg.InFailedSQLTransactionError:
                return await self._controlled("rollback", timeout)
        return self.last_status

    # -- what the borrower does ---------------------------------------------------------------------------------------------

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not args:
            await self._look(query)
        return await super().execute(query, *args, timeout=timeout)

    async def _get_statement(self, query: str, timeout: float | None, *, named: Any = False, **more: Any) -> Any:
        await self._look(query)
        return await super()._get_statement(query, timeout, named=named if self.prepared else False, **more)

    async def prepare(self, query: str, *args: Any, **kwargs: Any) -> Any:
        if not self.prepared and not self._ours:
            raise SessionState(
                "a prepared statement stays in its session, and this PgBouncer (before 1.21) gives the session to others",
                hint="conn.fetch, or through=\"direct\"",
            )  # fmt: skip
        return await super().prepare(query, *args, **kwargs)

    async def copy_from_query(self, query: str, *args: Any, **kwargs: Any) -> Any:
        await self._look(f"copy ({query}) to stdout")
        with self._our_own():
            return await super().copy_from_query(query, *args, **kwargs)

    async def _copy_out(self, copy_stmt: str, output: Any, timeout: float | None) -> Any:
        await self._look(copy_stmt)
        touched = self.touched
        try:
            return await super()._copy_out(copy_stmt, output, timeout)
        finally:
            self.touched = touched

    async def _copy_in(self, copy_stmt: str, source: Any, timeout: float | None) -> Any:
        await self._look(copy_stmt)
        touched = self.touched
        try:
            return await super()._copy_in(copy_stmt, source, timeout)
        finally:
            self.touched = touched

    async def set_type_codec(self, *args: Any, **kwargs: Any) -> None:
        touched = self.touched
        with self._our_own():
            await super().set_type_codec(*args, **kwargs)
        self.touched = touched  # the codec is this object's, and ends with it: it is altered

    async def set_builtin_type_codec(self, *args: Any, **kwargs: Any) -> None:
        touched = self.touched
        with self._our_own():
            await super().set_builtin_type_codec(*args, **kwargs)
        self.touched = touched

    async def _introspect_types(self, *args: Any, **kwargs: Any) -> Any:
        with self._our_own():
            return await super()._introspect_types(*args, **kwargs)  # type: ignore[misc]


def _never(sql: str) -> bool:
    return False


async def connect_pooled(
    host: str, port: int, login: Login, *, prepared: bool, returns_to: str, plain: set[str], seconds: float = CONNECT_SECONDS
) -> PooledConnection:
    """Open a connection to a PgBouncer. The session's parameters are not told: PgBouncer passes on none that matter here.

    :param login: its database is the pooler's name for it. :param seconds: for everything together.
    :raises CannotConnect: with the reason, and PgBouncer's SQLSTATE where it was PgBouncer that said no.
    """
    try:
        connection: PooledConnection = await asyncpg.connect(
            host=host,
            port=port,
            user=login.role,
            password=login.password,
            database=login.database,
            ssl=login.tls if login.tls is not None else False,
            timeout=seconds,
            server_settings={"application_name": "pgfleet"},
            statement_cache_size=0,
            connection_class=PooledConnection,
        )
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = str(error) or (f"silent for {seconds:.3g} s" if isinstance(error, TimeoutError) else type(error).__name__)
        raise CannotConnect(f"the pooler on {host}:{port} cannot be connected to: {said}", state=sqlstate(error)) from error
    connection.prepared, connection.returns_to, connection.plain = prepared, returns_to, plain
    return connection


async def speaks(host: str, port: int, *, seconds: float) -> bool:
    """Whether a PgBouncer says anything: its answer to SSLRequest, a byte that comes before any login and any server.

    That somebody accepts a connection says less: the kernel of a stopped process does.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_SSL_REQUEST)
                return bool(await reader.read(1))
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
