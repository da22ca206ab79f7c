"""SQLAlchemy sessions whose binds follow the route: a near replica to read, the primary to write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from pgfleet.adapters.sqlalchemy.dialect import Dialect, Lent
from pgfleet.adapters.sqlalchemy.engines import Engines, NodeEngine, Turn
from pgfleet.client.borrowing import PAUSE
from pgfleet.client.fleet import Fleet
from pgfleet.client.guide import Aim, Guide, to_nodes
from pgfleet.client.observing import Call
from pgfleet.errors import CannotConnect, CrossShardWrite, FleetClosed, PlacementError
from pgfleet.names import NodeName
from pgfleet.routing.hashing import Key
from pgfleet.routing.route import Role
from pgfleet.runtime.clock import Deadline, monotonic


@dataclass(frozen=True, slots=True)
class _Use:
    """What ``using`` was told. Where that is, is worked out anew for each transaction: keys move, and writes add up.

    :param seconds: of a transaction; None: the fleet's.
    """

    table: str
    how: dict[str, Any]
    seconds: float | None

    def aim(self, guide: Guide) -> Aim:
        return guide.aim(self.table, **self.how)


@dataclass(slots=True)
class _Part:
    """A shard that the transaction under way takes part in, in one role."""

    engine: NodeEngine
    deadline: Deadline
    aim: Aim
    epoch: int
    call: Call
    turn: Turn
    connections: list[Lent] = field(default_factory=list)


class RoutedSession(Session):
    """What :class:`FleetSession` has inside. Its binds are worked out when a transaction first needs one, and stay for the
    rest of it: a transaction does not wander."""

    guide: Guide
    engines: Engines
    use: _Use | None = None

    def __init__(self, *args: Any, guide: Guide, engines: Engines, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guide, self.engines = guide, engines
        self.parts: dict[tuple[str, Role], _Part] = {}
        self.raised: BaseException | None = None

    @contextmanager
    def raising(self, error: BaseException | None) -> Iterator[None]:
        """A transaction that ends meanwhile ends because of ``error``, for those who observe; None: of nothing."""
        self.raised = error
        try:
            yield
        finally:
            self.raised = None

    def get_bind(
        self, mapper: Any = None, *, clause: Any = None, bind: Engine | Connection | None = None, **more: Any
    ) -> Engine | Connection:
        """:raises PlacementError: ``using`` was not called.
        :raises CrossShardWrite: the transaction writes to another shard already.
        :raises DeadlineExceeded: nobody could be asked.
        """
        if bind is not None:
            return bind
        if self.use is None:
            raise PlacementError("this session was not told which rows it is for", hint='session.using("questions", key="PMP")')
        aim, seconds = self.use.aim(self.guide), self.use.seconds
        part = self.parts.get((aim.shard, aim.role))
        if part is None:
            for shard, role in self.parts:
                if aim.role == role == "write":
                    message = f"this transaction writes to {shard}, and cannot write to {aim.shard} too"
                    raise CrossShardWrite(message, hint="await session.commit() first")
            part = await_only(self._part(aim, seconds))
            self.parts[aim.shard, aim.role] = part
        return part.engine.engine.sync_engine

    async def _part(self, aim: Aim, seconds: float | None) -> _Part:
        guide, deadline = self.guide, self.guide.deadline(seconds)
        call = guide.observing.call("transaction", aim.table, aim.shard)
        call.__enter__()
        avoid: set[NodeName] = set()
        try:
            while True:
                route = await guide.find(aim, deadline, call, avoid)
                one, asked = self.engines.of(route), monotonic()
                try:
                    turn = await one.turn(deadline)
                except CannotConnect as error:
                    guide.failed(route.name, silent=aim.role == "read")
                    if deadline.left() <= 0:
                        raise guide.late(aim, error.message, deadline) from error
                    avoid.add(route.name)
                    call.retried()
                    if aim.role == "write":
                        await asyncio.sleep(min(PAUSE, max(0.0, deadline.left())))
                except TimeoutError as error:
                    raise guide.late(aim, str(error), deadline) from error
                else:
                    call.waited("connection", monotonic() - asked)
                    call.at(route.name, route)
                    return _Part(one, deadline, aim, route.epoch, call, turn)
        except BaseException as error:
            call.__exit__(type(error), error, error.__traceback__)
            raise


@event.listens_for(RoutedSession, "after_begin")
def _began(session: RoutedSession, transaction: SessionTransaction, connection: Connection) -> None:
    dialect = connection.dialect
    if transaction.nested or not isinstance(dialect, Dialect):
        return
    part = session.parts.get((dialect.node.shard, dialect.role))
    driver: Any = connection.connection.driver_connection
    if part is None or not isinstance(driver, Lent):
        return
    driver.deadline, driver.aim = part.deadline, part.aim
    part.connections.append(driver)
    if dialect.role == "write":
        # Which key it is for and under which map, for the shard's guards, gone with the transaction; and the row that it
        # leaves, if it leaves one: all in one statement.
        claims = [("pgfleet.key", part.aim.claim)] + ([("pgfleet.epoch", str(part.epoch))] if part.epoch else [])
        said = ", ".join(f"set_config('{name}', ${at}, true)" for at, (name, _) in enumerate(claims, 1))
        values: list[object] = [value for _, value in claims]
        if part.aim.mark is not None:
            values.append(part.aim.mark)
            said = f"{said} from mark"
            marks = f"with mark as (insert into pgfleet.outcome (id) values (${len(values)}) returning id) "
        else:
            marks = ""
        connection.exec_driver_sql(f"{marks}select {said}", tuple(values))
        driver.touched = False  # what is set for a transaction goes with it


@event.listens_for(RoutedSession, "after_commit")
def _committed(session: RoutedSession) -> None:
    for (shard, role), part in session.parts.items():
        for driver in part.connections:
            driver.trouble = None  # what had failed was caught, and made good
        if role == "write" and part.connections and part.aim.mark is not None:
            session.guide.marked(part.aim)
        if role == "write" and part.connections:
            # This caller's reads must see as far, whichever adapter they go through.
            since = part.deadline.began if all(driver.waited for driver in part.connections) else None
            session.guide.wrote(shard, await_only(session.guide.position(part.engine.node, since)))


@event.listens_for(RoutedSession, "after_transaction_end")
def _ended(session: RoutedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    parts, session.parts = session.parts, {}
    for part in parts.values():
        part.turn.over()
        trouble = next((driver.trouble for driver in part.connections if driver.trouble is not None), None)
        error = session.raised or trouble
        if isinstance(error, DBAPIError) and error.orig is not None:
            error = error.orig  # which has the server's code
        part.call.__exit__(type(error) if error is not None else None, error, None)


class _Transaction(AsyncSessionTransaction):
    """What ``begin`` returns: used in ``async with``, it notes what the caller's code raised."""

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        sync: Any = self.session.sync_session
        with sync.raising(error):
            await super().__aexit__(kind, error, trace)


class FleetSession(AsyncSession):
    """An ``AsyncSession`` that is told which rows a transaction is for, and finds the node by itself.

    Reads are READ ONLY everywhere. One transaction may read from several shards and write to one.
    """

    sync_session_class = RoutedSession
    sync_session: RoutedSession

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        with self.sync_session.raising(error):
            await super().__aexit__(kind, error, trace)

    def begin(self) -> AsyncSessionTransaction:
        return _Transaction(self)

    def using(
        self, table: str, *, key: Key, second: Key | None = None, write: bool = False, deadline: float | None = None,
        max_staleness: float | str | None = None, resolvable: bool = False,
    ) -> Self:  # fmt: skip
        """What follows is for rows of ``key``: until it is called again, also in later transactions.

        :param write: on the primary. :param deadline: seconds for a transaction, from its first statement on.
        :param max_staleness: seconds (or ``2 s``) that a replica may be behind; None: any, if it has this caller's writes.
        :param resolvable: a transaction leaves a row, by which ``await error.resolve()`` can tell what became of it.
        :raises PlacementError: the table, or the key, has no place.
        """
        session = self.sync_session
        role: Role = "write" if write else "read"
        more: dict[str, Any] = {"max_staleness": max_staleness, "resolvable": resolvable}
        session.use = _Use(table, {"key": key, "second": second, "role": role, **more}, deadline)
        session.use.aim(session.guide)  # a key without a place is said here
        return self


class FleetSessions:
    """Makes sessions of a fleet that is open; used in ``async with``.

    :param fleet: made by :func:`pgfleet.connect`; it outlives this.
    :param size: connections to one node at most, for reads and for writes each; None: half of the file's ``per_process``, so that
        both together are what ``pgfleet check`` counts.
    :param engine: as ``create_async_engine`` takes them.
    :param more: as ``AsyncSession`` takes them. Objects stay readable after a commit (``expire_on_commit=False``) unless it
        says otherwise: reading them anew would need a route.
    """

    def __init__(self, fleet: Fleet, *, size: int | None = None, engine: dict[str, Any] | None = None, **more: Any) -> None:
        self._fleet, self._size, self._engine = fleet, size, engine or {}
        self._more = {"expire_on_commit": False} | more
        self._guide: Guide | None = None
        self.engines: Engines | None = None

    async def __aenter__(self) -> Self:
        self._guide = Guide(to_nodes(self._fleet))
        self.engines = Engines(self._guide, size=self._guide.size(self._size), more=self._engine)
        await self.engines.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        engines, self.engines = self.engines, None
        if engines is not None:
            await engines.__aexit__()

    def __call__(self) -> FleetSession:
        """A session; used in ``async with``."""
        if self.engines is None or self._guide is None:
            raise FleetClosed("this fleet is not open", hint="async with FleetSessions(fleet) as sessions:")
        return FleetSession(guide=self._guide, engines=self.engines, **self._more)

    def using(
        self, table: str, *, key: Key, second: Key | None = None, write: bool = False, deadline: float | None = None,
        max_staleness: float | str | None = None, resolvable: bool = False,
    ) -> FleetSession:  # fmt: skip
        """A session for rows of ``key``; as :meth:`FleetSession.using`."""
        made = self()
        return made.using(
            table, key=key, second=second, write=write, deadline=deadline, max_staleness=max_staleness, resolvable=resolvable
        )
