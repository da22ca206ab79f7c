"""Asking a node by a connection that readers have to it: a question to whoever is being promoted does not begin with a handshake.

That is when every process of an application asks, and when the node has least time for handshakes.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from pgfleet.client.pools import NodePool
from pgfleet.client.trouble import BROKEN
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.sql import Login
from pgfleet.topology.probe import Answer, Prober


class LentProber(Prober):
    """:param pool: the readers' of a node; None: there is none. Without a free connection there it opens its own."""

    def __init__(self, login: Callable[[NodeAddress], Login], pool: Callable[[NodeName], NodePool | None]) -> None:
        super().__init__(login)
        self._pool = pool

    async def answer(self, node: NodeAddress, question: str, seconds: float | None = None) -> Answer | None:
        pool = self._pool(node.name)
        connection = pool.take() if pool is not None else None
        if pool is None or connection is None:
            return await super().answer(node, question, seconds)
        began = monotonic()
        try:
            rows = await connection.own_rows(question, timeout=seconds or self.seconds)
        except (asyncpg.PostgresError, *BROKEN):
            pool.discard(connection)
            left = (seconds or self.seconds) - (monotonic() - began)
            return await super().answer(node, question, left) if left > 0 else None  # it may have been cut off long ago
        except BaseException:
            pool.discard(connection)
            raise
        pool.release(connection)
        self.refused.pop(node.name, None)
        return Answer(rows, monotonic() - began)
