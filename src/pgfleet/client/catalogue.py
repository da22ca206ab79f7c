"""A shard's catalogue, asked what leaves something in a session: once at first use, and again while it is in use."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import asyncpg

from pgfleet.client.lasting import Left, left
from pgfleet.client.statement import Harmless, touches
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.sql import Connection

#: Seconds after which it is asked again: how long a function that a migration made may go unnoticed.
LASTS = 30.0
#: Statements whose answer is remembered.
REMEMBERED = 4096


@cache
def _query() -> str:
    return files("pgfleet.client").joinpath("catalogue.sql").read_text(encoding="utf-8")


class Catalogue:
    """What one shard's database knows, and what that means for each statement. Before it was asked everything touches."""

    def __init__(self) -> None:
        self._harmless = Harmless()
        self._asked_at = float("-inf")
        self._judged: dict[str, bool] = {}
        self._left: dict[str, Left] = {}

    @property
    def due(self) -> bool:
        return monotonic() - self._asked_at > LASTS

    def touches(self, sql: str) -> bool:
        """Whether ``sql`` may leave something in its session."""
        judged = self._judged.get(sql)
        if judged is None:
            if len(self._judged) >= REMEMBERED:
                self._judged.clear()
            judged = self._judged[sql] = touches(sql, self._harmless)
        return judged

    def asked_within(self, seconds: float) -> bool:
        """Whether what it knows is so young."""
        return monotonic() - self._asked_at <= seconds

    def left(self, sql: str) -> Left:
        """What ``sql`` leaves in its session after its transaction."""
        known = self._left.get(sql)
        if known is None:
            if len(self._left) >= REMEMBERED:
                self._left.clear()
            known = self._left[sql] = left(sql, self._harmless)
        return known

    async def ask(self, connection: Connection) -> None:
        """Ask ``connection``'s server; one that cannot say is one where everything touches.

        :raises OSError, asyncpg.InterfaceError: the connection broke.
        """
        self._asked_at = monotonic()  # before the answer: many connections, one question
        try:
            row = await connection.own(_query())
        except asyncpg.PostgresError:
            found = Harmless()
        else:
            found = Harmless(frozenset(row["functions"]), bool(row["everything_else"]))
        if found != self._harmless:
            self._harmless = found
            self._judged, self._left = {}, {}
