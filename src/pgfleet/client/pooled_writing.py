"""Writes through a pooler: each in a transaction, for whatever is said to a session would be said to the next client's.

So much is simpler than without a pooler: until COMMIT is sent nothing is written, whatever breaks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgfleet.client.carrying import Carrying
from pgfleet.client.observing import Call
from pgfleet.client.outcome import Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.pooled_borrowing import PooledBorrowing, no_session
from pgfleet.client.reading import isolation_level
from pgfleet.client.router import Router
from pgfleet.client.writing import Write, Writer
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import quote_literal
from pgfleet.routing.hashing import key_text
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection


class PooledWriter(Writer):
    """The writes of one fleet, through a pooler."""

    def __init__(
        self, router: Router, placed: Placed, carrying: Carrying, outcomes: Outcomes, borrowing: PooledBorrowing
    ) -> None:
        super().__init__(router, placed, carrying, outcomes)
        self._borrowing = self._pooled = borrowing

    async def _execute(self, write: Write, sql: str, args: tuple[Any, ...], deadline: Deadline, call: Call) -> str:
        async def one(connection: Connection) -> str:
            return await connection.run(sql, args)

        return await self._transact(write, one, deadline, call)

    @asynccontextmanager
    async def session(self, write: Write, deadline: Deadline) -> AsyncIterator[Connection]:
        raise no_session()
        yield  # a generator, as what it stands for

    async def _mark(self, shard: str, node: NodeAddress | None) -> None:
        await super()._mark(shard, self._pooled.anybody(shard))

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
