"""``pgfleet.connect``: one object, plain SQL, the right node. Reads go to a near replica, writes to the primary, and a caller's
reads see its own writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar, TypeVarTuple, Unpack

import asyncpg

from pgfleet.client.budget import one_at_least
from pgfleet.client.carrying import After, Carrying
from pgfleet.client.explanation import Explanation, explained
from pgfleet.client.freshness import Wanted, staleness
from pgfleet.client.gather import Rows
from pgfleet.client.guide import Guide
from pgfleet.client.lookups import Located, Swept
from pgfleet.client.observing import Observer, observing
from pgfleet.client.open import open_fleet
from pgfleet.client.order import OrderBy
from pgfleet.client.parts import Parts
from pgfleet.client.reading import Read, isolation_level
from pgfleet.client.scatter import Question, ask_all
from pgfleet.client.stream import PREFETCH, Stream, stream
from pgfleet.client.writing import Write
from pgfleet.errors import FleetClosed
from pgfleet.facts.addresses import Through
from pgfleet.routing.hashing import Key
from pgfleet.routing.route import Route
from pgfleet.routing.token import Token
from pgfleet.runtime.clock import Deadline, checked
from pgfleet.runtime.sql import Connection

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Seconds for a call, where the caller says nothing.
DEADLINE = 5.0
#: Seconds that a stream may take as a whole; each of its rows has the caller's deadline.
STREAMED = 86_400.0


class Asked(TypedDict, total=False):
    """What :meth:`Fleet.fetch` may be told besides."""

    second: Key | None
    deadline: float | None
    max_staleness: float | str | None
    hedge: str | float | None


def connect(
    where: str | Path = "fleet.yaml", *, region: str | None = None, state: str | None = None,
    role: str = "pgfleet_app", deadline: float = DEADLINE, through: Through | None = None, pool_size: int | None = None,
    observers: Sequence[Observer] = (),
) -> Fleet:  # fmt: skip
    """A fleet to use in ``async with``.

    :param where: the fleet's file, or its state folder.
    :param region: where the caller is: its replicas are read first.
    :param state: the folder that holds one folder a fleet; by default as the command line has it.
    :param role: the PostgreSQL role; its password is read from the state folder.
    :param deadline: seconds for each call that does not say otherwise.
    :param through: ``direct`` or ``pooler``; None: what the file said when it was applied.
    :param pool_size: connections for statements at most, for reads and writes together: to one node, or through the pooler for
        one shard; None: the file's ``per_process``.
    :param observers: who is told of every call; OpenTelemetry's spans need none where the application has loaded it.
    :raises ValueError: one of them means nothing.
    :raises NoPooler: on entering: ``through="pooler"`` of a fleet that has none.
    """
    if through not in (None, "direct", "pooler"):
        raise ValueError(f"through is {through!r}; it is 'direct' or 'pooler'")
    checked(deadline)
    if pool_size is not None:
        one_at_least("pool_size", pool_size)
    return Fleet(
        Path(where), region=region, state=state, role=role, deadline=deadline, through=through, pool_size=pool_size,
        observers=observers,
    )  # fmt: skip


class Fleet:
    """Made by :func:`connect`. Every call takes ``deadline`` (seconds) and raises

    :raises DeadlineExceeded: no answer in time; nothing was written.
    :raises OutcomeUnknown: a write was sent and never answered.
    :raises WriteLost: a write that this caller has made (or was given the token of) is in no history of its shard.
    :raises PlacementError: the table, or the key, has no place.
    :raises asyncpg.PostgresError: the server refused the statement itself.
    """

    def __init__(
        self, where: Path, *, region: str | None, state: str | None, role: str, deadline: float,
        through: Through | None = None, pool_size: int | None = None, observers: Sequence[Observer] = (),
    ) -> None:  # fmt: skip
        self._observers = observers
        self._where, self._region, self._state, self._role = where, region, state, role
        self._seconds, self._through, self._pool_size = deadline, through, pool_size
        self._carrying = Carrying()
        self._parts: Parts | None = None

    async def __aenter__(self) -> Self:
        """:raises RuntimeError: it is open already."""
        if self._parts is not None:
            raise RuntimeError("this fleet is open already; pgfleet.connect(...) makes another")
        opened = await asyncio.to_thread(open_fleet, self._where, state=self._state, role=self._role)
        seen = observing(self._observers)
        parts = Parts(opened, self._region, self._carrying, seen, through=self._through, size=self._pool_size)
        try:
            await parts.start()
        except BaseException:
            await parts.aclose()
            raise
        self._parts = parts
        return self

    async def __aexit__(self, *_: object) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()

    async def warm(self, connections: int = 1) -> int:
        """Open connections before they are needed: to every node that this caller's reads go to now, and to every primary.

        :param connections: to each, for reads and for writes; never more than ``pool_size``.
        :returns: how many were opened. A node that lets nobody in is passed over: it is waited for by who needs it.
        """
        return await self._open.warm(connections)

    # -- reads -----------------------------------------------------------------------------------------------------------

    def read(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None,
        max_staleness: float | str | None = None, isolation: str | None = None, session: bool = False,
    ) -> AbstractAsyncContextManager[Connection]:  # fmt: skip
        """A READ ONLY transaction on a near replica of the key's shard; ``conn`` is asyncpg's. Within ``deadline`` in all.

        :param max_staleness: seconds (or ``2 s``) that the replica may be behind; None: any, if it has this caller's writes.
        :param isolation: ``repeatable read`` where several statements shall see the same.
        :param session: a session of one's own instead of a transaction; it is discarded afterwards.
        """
        if isolation is not None:
            if session:
                raise ValueError("isolation is of a transaction, and session=True begins none")
            isolation = isolation_level(isolation)
        parts = self._open
        read = self._read(parts, table, key, second, max_staleness)
        return parts.reader.block(read, self._limit(deadline), isolation=isolation, session=session)

    async def fetch(
        self, table: str, sql: str, *args: Any, key: Key, second: Key | None = None, deadline: float | None = None,
        max_staleness: float | str | None = None, hedge: str | float | None = None,
    ) -> list[asyncpg.Record]:  # fmt: skip
        """Rows of one reading statement, from a near replica; sent again elsewhere when a node fails, within the deadline.

        :param max_staleness: as :meth:`read`.
        :param hedge: a quantile of this shard's answers (``p95``) or seconds, after which a second node is asked as well.
        """
        parts = self._open
        read = self._read(parts, table, key, second, max_staleness, hedge)
        return await parts.reader.fetch(read, sql, args, self._limit(deadline))

    async def fetchrow(self, table: str, sql: str, *args: Any, key: Key, **how: Unpack[Asked]) -> asyncpg.Record | None:
        """The first row of :meth:`fetch`, or None."""
        rows = await self.fetch(table, sql, *args, key=key, **how)
        return rows[0] if rows else None

    async def fetchval(self, table: str, sql: str, *args: Any, key: Key, **how: Unpack[Asked]) -> Any:
        """The first value of the first row of :meth:`fetch`, or None."""
        row = await self.fetchrow(table, sql, *args, key=key, **how)
        return row[0] if row is not None else None

    # -- writes ----------------------------------------------------------------------------------------------------------

    def write(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None,
        resolvable: bool = False, isolation: str | None = None, session: bool = False,
        claims: Mapping[str, Any] | None = None, releases: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Connection]:  # fmt: skip
        """A transaction on the primary of the key's shard, committed when the block ends, rolled back when it raises.

        :param resolvable: it leaves a row, by which ``OutcomeUnknown.resolve()`` can tell what became of it.
        :param claims: values of the table's lookups that the written row has from now on, unique across the fleet, such as
            ``{"email": "a@b"}``. :param releases: values that it gives up.
        :param session: a session of one's own instead of a transaction; it is discarded afterwards.
        :raises BlockRolledBack: an error was caught inside the block, so PostgreSQL did not commit.
        :raises PlacementMoved: the key moved to another shard meanwhile: run the block again.
        :raises AlreadyClaimed: a claimed value belongs to another row; nothing was written.
        """
        if session and (resolvable or isolation is not None or claims or releases):
            raise ValueError("resolvable, isolation, claims and releases are of a transaction, and session=True begins none")
        parts, limit = self._open, Deadline.after(self._limit(deadline))
        write = self._write(table, key, second, resolvable, isolation, claims, releases)
        return parts.writer.session(write, limit) if session else parts.writer.block(write, limit)

    async def execute(
        self, table: str, sql: str, *args: Any, key: Key, second: Key | None = None, deadline: float | None = None,
        resolvable: bool = False, claims: Mapping[str, Any] | None = None, releases: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """One writing statement on the primary, committed when this returns; its command tag (``INSERT 0 1``).

        It waits for a new primary during a failover, and is sent again only where it certainly did not happen.
        """
        write = self._write(table, key, second, resolvable, None, claims, releases)
        return await self._open.writer.execute(write, sql, args, self._limit(deadline))

    async def transact(
        self, table: str, function: Callable[[Connection, *Ts], Awaitable[T]], *args: *Ts,
        key: Key, second: Key | None = None, deadline: float | None = None, resolvable: bool = True,
        isolation: str | None = None, claims: Mapping[str, Any] | None = None, releases: Mapping[str, Any] | None = None,
    ) -> T:  # fmt: skip
        """Run ``function(conn, *args)`` in a transaction, again where it was not committed, until it is; what it returned then.

        It has to be one that may be run again: what it does besides SQL happens as often as it runs.
        """
        write = self._write(table, key, second, resolvable, isolation, claims, releases)

        async def run(connection: Connection) -> T:
            return await function(connection, *args)

        return await self._open.writer.transact(write, run, Deadline.after(self._limit(deadline)))

    # -- what this caller has written --------------------------------------------------------------------------------------

    def token(self) -> Token:
        """Where this caller's writes are. ``str()`` of it fits a header, a cookie, or a job's argument."""
        return self._carrying.token()

    def after(self, token: Token | str | None, *, alone: bool = False) -> After:
        """From now on (to the end of a ``with``) this caller's reads see the writes that ``token`` speaks of.

        :param token: None or empty: of none; but child tasks share what they write from here on.
        :param alone: what this caller wrote before, its reads need not see; nor need, after the ``with``, what was written in it.
            So a caller goes on that was told :class:`~pgfleet.errors.WriteLost`, and a worker that takes one job after the other.
        :raises TokenUnreadable: it is no token.
        """
        return self._carrying.after(Token.read(token), alone=alone)

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
        parts, seconds = self._open, self._limit(deadline)
        question = Question.of(
            sql, args, order_by=order_by, descending=descending, limit=limit, offset=offset, combine=combine, group_by=group_by
        )
        with parts.router.observing.call("everywhere", table, ""):
            answers, missing = await ask_all(
                parts.placed.now.shards(table),
                lambda shard: parts.reader.fetch(self._shards_read(table, shard), question.sql, question.args, seconds),
                what=table, partial=partial,
            )  # fmt: skip
        return question.answer(answers, missing)

    def stream(
        self, table: str, sql: str, *args: Any, order_by: OrderBy | None = None, descending: bool = False,
        limit: int | None = None, offset: int = 0, partial: bool = False, prefetch: int = PREFETCH, deadline: float | None = None,
    ) -> AbstractAsyncContextManager[Stream]:  # fmt: skip
        """:meth:`everywhere` for results that are too large to hold: a block whose rows come one by one (``async for``).

        :param prefetch: rows of one shard in memory at most. :param deadline: seconds until the next row.
        """
        parts, seconds = self._open, self._limit(deadline)
        question = Question.of(sql, args, order_by=order_by, descending=descending, limit=limit, offset=offset)
        return stream(
            parts.placed.now.shards(table), lambda shard: parts.reader.block(self._shards_read(table, shard), STREAMED), question,
            what=table, patience=seconds, prefetch=prefetch, partial=partial,
        )  # fmt: skip

    def _shards_read(self, table: str, shard: str) -> Read:
        return Read(table, shard, Wanted(self._carrying.positions(shard)))

    async def locate(self, table: str, *, deadline: float | None = None, **values: Any) -> Located | None:
        """Where the row is that has these values of a lookup that the file declares: ``await fleet.locate("users", email=...)``.

        :returns: its key and shard; None: nobody has them.
        :raises PlacementError: the table has no such lookup.
        """
        parts = self._open
        with parts.router.observing.call("locate", table, ""):
            return await parts.lookups.locate(table, values, Deadline.after(self._limit(deadline)))

    async def sweep_lookups(self, *, older: float = 60.0, deadline: float = 60.0) -> dict[str, Swept]:
        """Decide the entries of lookups that writes which ended halfway have left undecided for ``older`` seconds; whoever meets
        one does that, too, so this is for those that nobody asks for. By shard.
        """
        return await self._open.lookups.sweep_all(Deadline.after(deadline), older=older)

    def explain(self, table: str, *, key: Key, second: Key | None = None) -> Explanation:
        """Where a read and a write of ``key`` would go now, and because of what; nothing is sent."""
        parts = self._open
        found = explained(parts.router, parts.placed.now, table, key, second, self._carrying.positions)
        return found if parts.pooled is None else parts.pooled.explained(found)

    def route(self, table: str, *, key: Key, second: Key | None = None, write: bool = False) -> Route:
        """Where a read, or a write, of ``key`` goes now, for a driver of the caller's own; nothing is sent.

        A read's is a replica that is known to have what this caller has written, else the primary.

        :raises NoSuchNode: nowhere, right now.
        """
        guide = Guide(self)
        return guide.route_now(guide.aim(table, key=key, second=second, role="write" if write else "read"))

    @property
    def shards(self) -> tuple[str, ...]:
        """Every shard of the fleet."""
        return tuple(dict.fromkeys(name.shard for name in self._open.router.addresses))

    # -- inside ----------------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> Parts:
        """What it consists of while it is open, for the rest of this room."""
        if self._parts is None:
            raise FleetClosed("this fleet is not open", hint="async with pgfleet.connect(...) as fleet:")
        return self._parts

    def _read(
        self, parts: Parts, table: str, key: Key, second: Key | None, max_staleness: float | str | None,
        hedge: str | float | None = None,
    ) -> Read:  # fmt: skip
        shard = parts.placed.now.shard(table, key, second).shard
        after = self._carrying.positions(shard)
        if not after and max_staleness is None and hedge is None:
            kept = parts.plain_reads.get((table, shard))
            if kept is None:
                kept = parts.plain_reads[table, shard] = Read(table, shard)
            return kept
        return Read(table, shard, Wanted(after, staleness(max_staleness)), hedge)

    def _write(
        self, table: str, key: Key, second: Key | None, resolvable: bool, isolation: str | None,
        claims: Mapping[str, Any] | None, releases: Mapping[str, Any] | None,
    ) -> Write:  # fmt: skip
        for name, given in (("claims", claims), ("releases", releases)):
            if given is not None and not isinstance(given, Mapping):
                raise ValueError(f'{name} is {given!r}; it is a mapping: {{"email": "a@b"}}')
        level = None if isolation is None else isolation_level(isolation)
        return Write(table, key, second, resolvable, level, claims or {}, releases or {})

    def _limit(self, seconds: float | None) -> float:
        """Seconds for a call that said ``seconds``."""
        return self._seconds if seconds is None else checked(seconds)
