"""Where a shard's timelines ended, without etcd: kept on the shard itself, by whoever watched a promotion.

A primary remembers where it was promoted until it is restarted, so somebody has to write it down while it does. It is a note
for later readers of old positions; whoever watched knows already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import asyncpg

from pgfleet.errors import CannotConnect
from pgfleet.facts.addresses import NodeAddress
from pgfleet.runtime.clock import monotonic
from pgfleet.runtime.sql import Login, connect

#: Seconds for connecting, noting and reading.
NOTE_SECONDS = 5.0
#: Seconds between two attempts.
AGAIN = 5.0
_SETTINGS = {"application_name": "pgfleet history", "default_transaction_read_only": "off"}
_NOTE = "insert into pgfleet.timeline (system, timeline, ended) values ($1, $2, $3) on conflict do nothing"
_READ = "select timeline, ended from pgfleet.timeline where system = $1"


class History:
    """Of every shard of a fleet. :param login: how each node is logged in to."""

    def __init__(self, login: Callable[[NodeAddress], Login]) -> None:
        self._login = login
        self._noted: dict[str, Mapping[int, int]] = {}
        self._tried: dict[str, tuple[float, frozenset[int]]] = {}

    def ends(self, shard: str) -> Mapping[int, int]:
        """Timeline -> the LSN at which it ended, as far as the shard told."""
        return self._noted.get(shard, {})

    def due(self, shard: str, ends: Mapping[int, int]) -> bool:
        """Whether the shard was not read yet, or lacks some of ``ends``; not again and again where that cannot be done."""
        if shard in self._noted and ends.keys() <= self._noted[shard].keys():
            return False
        at, tried = self._tried.get(shard, (float("-inf"), frozenset()))
        return monotonic() - at > AGAIN or not ends.keys() <= tried

    async def keep(self, primary: NodeAddress, system: int, ends: Mapping[int, int]) -> None:
        """Note ``ends`` on ``primary``, and read what others have noted. Where that cannot be done, the next one does it."""
        connection = None
        self._tried[primary.name.shard] = monotonic(), frozenset(ends)
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                connection = await connect(
                    primary.host, primary.port, self._login(primary), settings=_SETTINGS, seconds=NOTE_SECONDS
                )
                for timeline, ended in ends.items():
                    await connection.execute(_NOTE, system, timeline, ended)
                rows = await connection.fetch(_READ, system)
        except (CannotConnect, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return  # it is a primary no longer, or was prepared by an earlier pgfleet
        finally:
            if connection is not None:
                connection.terminate()
        self._noted[primary.name.shard] = {row["timeline"]: row["ended"] for row in rows}
