"""One engine for a node and what is done there; made when it is first needed, disposed of when the node goes away."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from weakref import WeakSet, finalize

import asyncpg
from sqlalchemy import URL, event
from sqlalchemy.dialects import registry
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from pgfleet.adapters.sqlalchemy.dialect import Dialect, Lent
from pgfleet.client.catalogue import Catalogue
from pgfleet.client.guide import Guide
from pgfleet.errors import CannotConnect, PgfleetError
from pgfleet.names import NodeName
from pgfleet.routing.route import Role, Route
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import CONNECT_SECONDS, sqlstate

registry.register("postgresql.pgfleet", "pgfleet.adapters.sqlalchemy.dialect", "Dialect")

#: After a transaction that may have left something, outside of any. What asyncpg and SQLAlchemy have prepared stays; so would
#: SQL's own PREPARE: it is only looked for, and a session with such names ends.
_RESET = (
    "set session authorization default; close all; unlisten *; select pg_advisory_unlock_all(); reset all; discard temp; "
    "discard sequences; select name from pg_catalog.pg_prepared_statement() where from_sql"
)


class Turn:
    """Leave to have one connection of an engine. A session that is forgotten gives it back when it is collected."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self.over = finalize(self, turns.release)


class NodeEngine:
    """One engine, and the connections it has open."""

    def __init__(self, guide: Guide, route: Route, size: int, more: dict[str, Any], catalogue: Catalogue) -> None:
        self.node, self.role, self._catalogue = route.name, route.role, catalogue
        self._guide, self._route = guide, route
        self._open: WeakSet[Lent] = WeakSet()
        # SQLAlchemy's pool has one time for every caller to wait; a transaction waits by its own deadline, here.
        self._turns, self._size = asyncio.Semaphore(size), size
        self._opening: set[asyncio.Task[None]] = set()
        wait = guide.deadline(None).allowed
        self.engine: AsyncEngine = create_async_engine(
            # Shown in messages and logs; what a connection is really opened with is _connect's business.
            URL.create("postgresql+pgfleet", host=route.host, port=route.port, database=route.database),
            async_creator=self._connect, pool_size=size, max_overflow=0, pool_timeout=wait, pool_use_lifo=True,
            pool_reset_on_return=None, **more,
        )  # fmt: skip
        dialect = self.engine.sync_engine.dialect
        assert isinstance(dialect, Dialect)  # noqa: S101 - by its URL
        dialect.node, dialect.role, dialect.guide = self.node, self.role, guide
        event.listen(self.engine.sync_engine, "checkout", self._checkout)
        event.listen(self.engine.sync_engine, "reset", self._reset)
        event.listen(self.engine.sync_engine, "handle_error", self._failed, retval=True)

    def renew(self, route: Route) -> None:
        """What new connections are opened with, from now on."""
        self._route = route

    async def turn(self, deadline: Deadline) -> Turn:
        """A connection of the pool for one transaction, open as far as can be seen.

        :raises CannotConnect: the node does not let us in.
        :raises TimeoutError: not before ``deadline``; it says what was waited for.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                await self._turns.acquire()
        except TimeoutError:
            raise TimeoutError(f"a free connection to {self.node.member}, of {self._size}") from None
        turn = Turn(self._turns)
        if self._ready:
            return turn
        # Not interrupted when the time is up: what is half open then would be nobody's. It is the next one's.
        opening = asyncio.get_running_loop().create_task(self._open_one())
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        try:
            await asyncio.wait({opening}, timeout=max(0.0, deadline.left()))
            if not opening.done():
                raise TimeoutError(f"a connection to {self.node.member}")
            opening.result()
        except BaseException:
            opening.add_done_callback(lambda _: turn.over())
            raise
        return turn

    async def _open_one(self) -> None:
        async with self.engine.connect():
            pass

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # who waited was told, or has gone

    @property
    def _ready(self) -> bool:
        """Whether a connection is idle and alive: the next session need not wait for one to be opened."""
        pool: Any = self.engine.sync_engine.pool
        return self._alive > int(pool.checkedout())

    @property
    def _alive(self) -> int:
        return sum(not connection.is_closed() for connection in self._open)

    def cut(self) -> None:
        """Hang up on every connection: the node is no longer what they were opened for."""
        for connection in list(self._open):
            connection.terminate()

    async def close(self) -> None:
        """For good."""
        for opening in self._opening:
            opening.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self.cut()
        await self.engine.dispose()

    async def _connect(self) -> Lent:
        route, login = self._route, self._guide.login(self.node)
        try:
            connection: Lent = await asyncpg.connect(
                host=route.host, port=route.port, user=login.role, password=login.password, database=login.database,
                ssl=login.tls if login.tls is not None else False, timeout=CONNECT_SECONDS, connection_class=Lent,
                server_settings={"application_name": "pgfleet", **route.settings},
            )  # fmt: skip
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # TimeoutError is an OSError
            said = str(error) or type(error).__name__
            raise CannotConnect(f"{route.address} cannot be connected to: {said}", state=sqlstate(error)) from error
        connection.deadline = Deadline.after(CONNECT_SECONDS)  # for this, and for what SQLAlchemy asks next
        if self._catalogue.due:
            try:
                await self._catalogue.ask(connection)
            except (OSError, asyncpg.InterfaceError) as error:
                connection.terminate()
                raise CannotConnect(f"{route.address} hung up: {error}") from error
        connection.lend(self._catalogue.touches)
        self._open.add(connection)
        self._tell()
        connection.add_termination_listener(lambda _: self._tell())
        return connection

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        driver: Lent = dbapi_connection.driver_connection
        if driver.is_closed():
            raise DisconnectionError("the node hung up")  # the pool opens another one
        driver.trouble = driver.deadline = driver.aim = None
        driver.touched = driver.altered = False  # SQLAlchemy itself has set codecs, for whoever comes

    def _reset(self, dbapi_connection: Any, record: Any, state: Any) -> None:
        driver: Lent = dbapi_connection.driver_connection
        if state.terminate_only or not state.asyncio_safe or driver.is_closed():
            return
        driver.deadline = Deadline.after(2.0)
        try:
            dbapi_connection.rollback()
            if driver.is_in_transaction():  # which the caller's own SQL began
                await_only(driver.control("rollback"))
            if driver.altered or driver.watched:
                driver.terminate()  # no statement undoes what was done to the object
                return
            if driver.touched and await_only(driver.control(_RESET)) != "SELECT 0":
                driver.terminate()
                return
            if self._catalogue.due:
                await_only(self._catalogue.ask(driver))
        except Exception:  # noqa: BLE001 - whatever it was: what is left in this session is not known
            driver.terminate()

    def _failed(self, context: Any) -> Exception | None:
        if context.connection is None or context.connection.invalidated or isinstance(context.original_exception, PgfleetError):
            return None
        driver: Lent | None = context.connection.connection.driver_connection
        dialect: Any = context.dialect
        told: Exception | None = dialect.fetching(driver, context.original_exception) if driver is not None else None
        return told

    def _tell(self) -> None:
        self._guide.observing.connections("sqlalchemy", self.node, self.role, self._alive)


class Engines:
    """Of one fleet, while it is open.

    :param size: connections to one node at most, for reads and for writes each.
    :param more: as ``create_async_engine`` takes them: echo, json_serializer, …
    """

    def __init__(self, guide: Guide, *, size: int, more: dict[str, Any]) -> None:
        self._guide, self._size, self._more = guide, size, more
        self._engines: dict[tuple[NodeName, Role], NodeEngine] = {}
        self._catalogues: dict[str, Catalogue] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.get_running_loop().create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        engines, self._engines = list(self._engines.values()), {}
        for one in engines:
            await one.close()

    def of(self, route: Route) -> NodeEngine:
        """The engine for ``route``."""
        one = self._engines.get((route.name, route.role))
        if one is None:
            catalogue = self._catalogues.setdefault(route.shard, Catalogue())
            one = NodeEngine(self._guide, route, self._size, self._more, catalogue)
            self._engines[route.name, route.role] = one
        else:
            one.renew(route)
        return one

    @property
    def nodes(self) -> frozenset[tuple[NodeName, Role]]:
        """Those that have an engine."""
        return frozenset(self._engines)

    async def _follow(self) -> None:
        while True:
            await self._guide.changed()
            there = self._guide.nodes()
            for (node, role), one in list(self._engines.items()):
                gone = node not in there
                if gone or (role == "write" and self._guide.primary(node.shard) != node):
                    # It may be writable still, in its own opinion; nothing of ours shall reach it.
                    one.cut()
                if gone:
                    del self._engines[node, role]
                    await one.close()
