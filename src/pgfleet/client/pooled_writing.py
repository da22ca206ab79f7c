"""Writes through a pooler: each in a transaction, for whatever is said to a session would be said to the next client's.

So much is simpler than without a pooler: until COMMIT is sent nothing is written, whatever breaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from pgfleet.client.carrying import Carrying
from pgfleet.client.outcome import Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.pooled_borrowing import PooledBorrowing, no_session
from pgfleet.client.reading import Reader, isolation_level
from pgfleet.client.router import Router
from pgfleet.client.sending import unknown
from pgfleet.client.trouble import BROKEN, lost
from pgfleet.client.writing import Write, Writer
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import quote_literal
from pgfleet.routing.hashing import key_text
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection


class PooledWriter(Writer):
    """The writes of one fleet, through a pooler."""

    def __init__(
        self, router: Router, placed: Placed, carrying: Carrying, outcomes: Outcomes, reader: Reader, borrowing: PooledBorrowing
    ) -> None:
        super().__init__(router, placed, carrying, outcomes, reader, on=self._rows)
        self._borrowing = self._pooled = borrowing

    async def execute(self, write: Write, sql: str, args: tuple[Any, ...], seconds: float) -> str:
        async def one(connection: Connection) -> str:
            return await connection.run(sql, args)

        with self._router.observing.call("execute", write.table, self.shard(write)) as call:
            return await self._transact(write, one, Deadline.after(seconds), call)

    async def _rows(self, shard: str, sql: str, *args: Any, deadline: Deadline) -> list[asyncpg.Record]:
        """Rows of one statement of the fleet's own on the primary of ``shard``."""

        async def begin(connection: Connection) -> None:
            await connection.control("begin read write")

        async with self._pooled.block(shard, "write", deadline, opening=begin) as (_, connection):
            rows = await connection.own_rows(sql, *args)
            try:
                await connection.control("commit", max(0.001, deadline.left()))
            except (asyncpg.PostgresError, *BROKEN) as error:
                if lost(error) or connection.unreplicated:
                    raise unknown("pgfleet.lookup", shard, "", error) from error
                raise
            except asyncio.CancelledError as cancelled:  # the block's own deadline, among others
                raise unknown("pgfleet.lookup", shard, "", cancelled) from cancelled
            if connection.unreplicated:
                raise unknown("pgfleet.lookup", shard, "", None)
            return rows

    @asynccontextmanager
    async def session(self, write: Write, deadline: Deadline) -> AsyncIterator[Connection]:
        raise no_session()
        yield  # a generator, as what it stands for

    async def _mark(self, shard: str, node: NodeAddress | None, since: float | None = None) -> None:
        await super()._mark(shard, self._pooled.anybody(shard), since)

    def _begin(self, write: Write) -> str:
        level = "" if write.isolation is None else f" isolation level {isolation_level(write.isolation)}"
        placement = self._placed.now
        root = placement.follows.get(write.table, write.table)
        key = quote_literal(f"{root}:{key_text(write.key)}")
        # READ WRITE is refused in recovery: a former primary that the pooler still leads to is told at once.
        return (
            f"begin{level} read write; discard sequences; select set_config('pgfleet.epoch', '{placement.epoch}', true), "
            f"set_config('pgfleet.key', {key}, true)"
        )
