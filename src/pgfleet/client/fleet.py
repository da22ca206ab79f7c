"""``pgfleet.connect``: one object, plain SQL, the right node. Reads go to a near replica, writes to the primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from pgfleet.client.explanation import Explanation
from pgfleet.client.gather import Rows
from pgfleet.client.open import Opened, open_fleet
from pgfleet.client.order import OrderBy
from pgfleet.client.pools import NodePool, touches_session
from pgfleet.client.router import Mode, Router
from pgfleet.client.scatter import Question, ask_all
from pgfleet.client.trouble import BROKEN, lost, not_done, read_again
from pgfleet.errors import (
    BlockRolledBack,
    CannotConnect,
    DeadlineExceeded,
    FleetClosed,
    OutcomeUnknown,
    PgfleetError,
    WriteInRead,
)
from pgfleet.names import NodeName
from pgfleet.routing.choose import refused
from pgfleet.routing.hashing import Key
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection, sqlstate

#: Seconds for a call, where the caller says nothing.
DEADLINE = 5.0
#: Seconds between two attempts while the table has not changed; any change ends the pause.
PAUSE = 0.02
#: The share of what is left that one node may take of a read, while another could answer.
SHARE = 0.5


def connect(
    where: str | Path = "fleet.yaml", *, region: str | None = None, state: str | None = None,
    role: str = "pgfleet_app", deadline: float = DEADLINE, pool_size: int = 10,
) -> Fleet:  # fmt: skip
    """A fleet to use in ``async with``.

    :param where: the fleet's file, or its state folder.
    :param region: where the caller is: its replicas are read first.
    :param state: the folder that holds one folder a fleet; by default as the command line has it.
    :param role: the PostgreSQL role; its password is read from the state folder.
    :param deadline: seconds for each call that does not say otherwise.
    :param pool_size: connections to one node at most, for reads and for writes each.
    """
    return Fleet(Path(where), region=region, state=state, role=role, deadline=deadline, pool_size=pool_size)


class Fleet:
    """Made by :func:`connect`. Every call takes ``deadline`` (seconds) and raises

    :raises DeadlineExceeded: no answer in time; nothing was written.
    :raises OutcomeUnknown: a write was sent and never answered.
    :raises PlacementError: the table, or the key, has no place.
    :raises asyncpg.PostgresError: the server refused the statement itself.
    """

    def __init__(self, where: Path, *, region: str | None, state: str | None, role: str, deadline: float, pool_size: int) -> None:
        self._where, self._region, self._state, self._role = where, region, state, role
        self._seconds, self._pool_size = deadline, pool_size
        self._opened: Opened | None = None
        self._router: Router | None = None

    async def __aenter__(self) -> Self:
        self._opened = await asyncio.to_thread(open_fleet, self._where, state=self._state, role=self._role)
        self._router = Router(self._opened, region=self._region, size=self._pool_size)
        try:
            await self._router.start()
        except BaseException:
            await self._router.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        router, self._router = self._router, None
        if router is not None:
            await router.aclose()

    # -- blocks ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def read(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None
    ) -> AsyncIterator[Connection]:
        """A READ ONLY session on a near replica of the key's shard; ``conn`` is asyncpg's. Within ``deadline`` in all."""
        shard = self._placed(table, key, second)
        async with self._block(shard, "read", deadline) as connection:
            try:
                yield connection
            except asyncpg.ReadOnlySQLTransactionError as error:
                raise _write_in_read(table, shard, error) from error

    @asynccontextmanager
    async def write(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None
    ) -> AsyncIterator[Connection]:
        """A transaction on the primary of the key's shard, committed when the block ends, rolled back when it raises.

        :raises BlockRolledBack: an error was caught inside the block, so PostgreSQL did not commit.
        """
        shard = self._placed(table, key, second)
        async with self._block(shard, "write", deadline) as connection:
            await connection.execute("begin")
            try:
                yield connection
            except BaseException:
                if not connection.is_closed():
                    await connection.execute("rollback")
                raise
            await _commit(connection, table, shard)

    @asynccontextmanager
    async def _block(self, shard: str, mode: Mode, seconds: float | None) -> AsyncIterator[Connection]:
        deadline = self._deadline(seconds)
        pool, connection = await self._borrow(shard, mode, deadline)
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                yield connection
        except TimeoutError as error:
            pool.discard(connection)
            if deadline.left() > 0:
                raise  # the caller's own
            raise self._late(shard, f"a {mode} block on {pool.node.name.member}", deadline) from error
        except BaseException as error:
            if lost(error) or isinstance(error, asyncio.CancelledError):
                pool.discard(connection)
                if isinstance(error, Exception):
                    self._live.failed(pool.node.name, silent=False)
            else:
                pool.release(connection, touched=True)
            raise
        else:
            pool.release(connection, touched=True)

    async def _borrow(self, shard: str, mode: Mode, deadline: Deadline) -> tuple[NodePool, Connection]:
        """A connection to the node that fits; waits through a failover."""
        router, waits_for = self._live, "a connection"
        avoid: set[NodeName] = set()
        while deadline.left() > 0:
            choice = router.choose(shard, mode, avoid)
            if choice is None:
                waits_for = router.route(shard).because if mode == "write" else "a node that can be read"
                avoid.clear()
                await router.change(deadline, None if mode == "write" else PAUSE)
                continue
            node = choice.node.name
            pool = router.pool(node, mode)
            try:
                return pool, await pool.acquire(deadline)
            except CannotConnect as error:
                waits_for = error.message
                router.failed(node, silent=mode == "read")
                avoid.add(node)
                if mode == "write":
                    await router.change(deadline, PAUSE)
            except TimeoutError:
                waits_for = f"a free connection to {node.member}, of {pool.open}"
        raise self._late(shard, waits_for, deadline)

    # -- single statements -----------------------------------------------------------------------------------------------

    async def fetch(
        self, table: str, sql: str, *args: Any, key: Key, second: Key | None = None, deadline: float | None = None
    ) -> list[asyncpg.Record]:
        """Rows of one reading statement, from a near replica; sent again elsewhere when a node fails, within the deadline."""
        return await self._fetch(table, self._placed(table, key, second), sql, args, self._deadline(deadline))

    async def fetchrow(self, table: str, sql: str, *args: Any, key: Key, **more: Any) -> asyncpg.Record | None:
        """The first row of :meth:`fetch`, or None."""
        rows = await self.fetch(table, sql, *args, key=key, **more)
        return rows[0] if rows else None

    async def fetchval(self, table: str, sql: str, *args: Any, key: Key, **more: Any) -> Any:
        """The first value of the first row of :meth:`fetch`, or None."""
        row = await self.fetchrow(table, sql, *args, key=key, **more)
        return row[0] if row is not None else None

    async def _fetch(self, table: str, shard: str, sql: str, args: tuple[Any, ...], deadline: Deadline) -> list[asyncpg.Record]:
        waits_for = "a node that can be read"
        touched = touches_session(sql)
        while deadline.left() > 0:
            pool, connection = await self._borrow(shard, "read", deadline)
            node = pool.node.name
            others = len(self._live.route(shard).replicas) > 1
            patience = deadline.left() * (SHARE if others and deadline.left() > 0.2 else 1.0)
            try:
                async with asyncio.timeout(patience):
                    rows = await connection.fetch(sql, *args)
            except asyncpg.ReadOnlySQLTransactionError as error:
                pool.release(connection, touched=True)
                raise _write_in_read(table, shard, error) from error
            except (asyncpg.PostgresError, *BROKEN) as error:
                if lost(error):
                    pool.discard(connection)
                else:
                    pool.release(connection, touched=True)
                if not isinstance(error, TimeoutError) and not read_again(error):
                    raise
                waits_for = f"{node.member}: {str(error) or 'no answer'}"
                self._live.failed(node, silent=lost(error))
                continue
            except BaseException:
                pool.discard(connection)
                raise
            pool.release(connection, touched=touched)
            return rows
        raise self._late(shard, waits_for, deadline)

    async def execute(
        self, table: str, sql: str, *args: Any, key: Key, second: Key | None = None, deadline: float | None = None
    ) -> str:
        """One writing statement on the primary, committed when this returns; its command tag (``INSERT 0 1``).

        It waits for a new primary during a failover, and is sent again only where it certainly did not happen.
        """
        shard, limit = self._placed(table, key, second), self._deadline(deadline)
        touched, waits_for = touches_session(sql), "a primary"
        while limit.left() > 0:
            pool, connection = await self._borrow(shard, "write", limit)
            node = pool.node.name
            try:
                async with asyncio.timeout(max(0.0, limit.left())):
                    status = await connection.run(sql, args)
            except (asyncpg.PostgresError, *BROKEN) as error:
                if lost(error):
                    pool.discard(connection)
                    self._live.failed(node, silent=False)
                else:
                    pool.release(connection, touched=True)
                if connection.unreplicated or (lost(error) and not not_done(error)):
                    raise _unknown(table, shard, node.member, error) from error
                if not not_done(error):
                    raise
                waits_for = f"{node.member}: {error}"
                self._live.failed(node, silent=False)
                await self._live.change(limit, PAUSE)
                continue
            except BaseException:
                pool.discard(connection)
                raise
            unreplicated = connection.unreplicated
            pool.release(connection, touched=touched)
            if unreplicated:
                raise _unknown(table, shard, node.member, None)
            return status
        raise self._late(shard, waits_for, limit)

    # -- all shards ------------------------------------------------------------------------------------------------------

    async def everywhere(
        self, table: str, sql: str, *args: Any, order_by: OrderBy | None = None, descending: bool = False,
        limit: int | None = None, offset: int = 0, combine: Mapping[str, str] | None = None,
        group_by: str | Sequence[str] | None = None, partial: bool = False, deadline: float | None = None,
    ) -> Rows[Any]:  # fmt: skip
        """One reading statement on every shard that holds ``table``, at once; all rows in one list.

        Rows of equal groups on two shards stay two rows, unless they are combined.

        :param order_by: columns of the answer, each with ``asc``, ``desc``, ``nulls first``, ``nulls last`` as in SQL.
        :param limit: rows in all. :param offset: rows in all that are passed over before.
        :param combine: column -> ``count``, ``sum``, ``min``, ``max`` or ``avg:COUNT`` (docs/reference/everywhere-lookups.md).
        :param group_by: columns whose equal values make one row; by default those that are not combined.
        :param partial: shards that do not answer are named in ``missing`` instead of raising.
        :raises ShardsSilent: some shards did not answer, and ``partial`` is false.
        :raises CannotMerge, CannotCombine: the answers cannot be put together as was asked.
        """
        limit_at = self._deadline(deadline)
        question = Question.of(
            sql, args, order_by=order_by, descending=descending, limit=limit, offset=offset, combine=combine, group_by=group_by
        )
        answers, missing = await ask_all(
            self._known.placement.shards(table),
            lambda shard: self._fetch(table, shard, question.sql, question.args, limit_at),
            what=table, partial=partial,
        )  # fmt: skip
        return question.answer(answers, missing)

    def explain(self, table: str, *, key: Key, second: Key | None = None) -> Explanation:
        """Where a read and a write of ``key`` would go now, and because of what; nothing is sent."""
        placed = self._known.placement.shard(table, key, second)
        router = self._live
        route = router.route(placed.shard)
        read, write = router.choose(placed.shard, "read"), router.choose(placed.shard, "write")
        why_not = {str(node.name.member): why for node in route.replicas if (why := refused(route, node))}
        return Explanation(
            table, str(key), placed.shard, placed.because,
            read.node.name.member if read else None, read.because if read else "no node can be read now",
            write.node.name.member if write else None, write.because if write else route.because,
            why_not, router.table.version,
        )  # fmt: skip

    # -- what every call needs -------------------------------------------------------------------------------------------

    @property
    def shards(self) -> Sequence[str]:
        """Every shard of the fleet."""
        return tuple(dict.fromkeys(node.name.shard for node in self._known.book.nodes))

    @property
    def _live(self) -> Router:
        if self._router is None:
            raise FleetClosed("this fleet is not open", hint="async with pgfleet.connect(...) as fleet:")
        return self._router

    @property
    def _known(self) -> Opened:
        if self._opened is None:
            raise FleetClosed("this fleet is not open", hint="async with pgfleet.connect(...) as fleet:")
        return self._opened

    def _placed(self, table: str, key: Key, second: Key | None) -> str:
        return self._known.placement.shard(table, key, second).shard

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline.after(self._seconds if seconds is None else seconds)

    def _late(self, shard: str, waited_for: str, deadline: Deadline) -> PgfleetError:
        return DeadlineExceeded(f"{shard} did not answer within {deadline.allowed:g} s", seen=[f"waited for: {waited_for}"])


async def _commit(connection: Connection, table: str, shard: str) -> None:
    try:
        status = await connection.execute("commit")
    except (asyncpg.PostgresError, *BROKEN) as error:
        if lost(error) or connection.unreplicated:
            raise _unknown(table, shard, "", error) from error
        raise
    except asyncio.CancelledError as cancelled:
        raise _unknown(table, shard, "", cancelled) from cancelled
    if connection.unreplicated:
        raise _unknown(table, shard, "", None)
    if status != "COMMIT":
        raise BlockRolledBack(f"a statement of the block on {shard} had failed, so PostgreSQL rolled it back")


def _unknown(table: str, shard: str, member: str, error: BaseException | None) -> OutcomeUnknown:
    said = "the replicas did not confirm it" if error is None else (str(error) or type(error).__name__)
    state = f" ({sqlstate(error)})" if sqlstate(error) else ""
    where = f"{shard}/{member}" if member else shard
    return OutcomeUnknown(f"a write to {table} on {where} was sent and its outcome is not known", seen=[said + state])


def _write_in_read(table: str, shard: str, error: asyncpg.PostgresError) -> WriteInRead:
    return WriteInRead(f"a statement that writes to {table} was sent to read on {shard}", seen=[str(error)], hint="fleet.execute")
