"""Replicas that lag: their replay is paused and resumed at random, by the superuser. They still receive, so commits go on.

``recovery_min_apply_delay`` would do a part of this, but a fleet's file may not set it, and Patroni takes it back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg

from pgfleet.facts.addresses import AddressBook
from pgfleet.names import NodeName
from pgfleet.providers.local.access import connect_as

#: What a node that restarts, or that is the primary by now, answers with.
_NOT_NOW = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
#: Seconds until such a node is asked again.
LATER = 0.25


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds, from and to. :param paused: replay stands still for so long. :param running: and goes on for so long."""

    paused: tuple[float, float]
    running: tuple[float, float]

    def __str__(self) -> str:
        first, last = (format(seconds * 1000, "g") for seconds in self.paused)
        return f"paused for {first} to {last} ms at a time"


class Lagging:
    """The nodes of ``lags`` lag while this is entered, and replay when it is left."""

    def __init__(self, folder: Path, book: AddressBook, lags: Mapping[NodeName, Lag], seed: int) -> None:
        self._folder, self._book, self._lags, self._seed = folder, book, lags, seed
        self._tasks: list[asyncio.Task[None]] = []
        self.pauses = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._hold_back(name, lag)) for name, lag in self._lags.items()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._resume(name) for name in self._lags))

    async def _hold_back(self, name: NodeName, lag: Lag) -> None:
        chance = random.Random(f"{self._seed}/{name}")
        while True:
            try:
                connection = await self._connect(name)
            except _NOT_NOW:
                await asyncio.sleep(LATER)
                continue
            try:
                while True:
                    await connection.execute("select pg_wal_replay_pause()")
                    self.pauses += 1
                    await asyncio.sleep(chance.uniform(*lag.paused))
                    await connection.execute("select pg_wal_replay_resume()")
                    await asyncio.sleep(chance.uniform(*lag.running))
            except _NOT_NOW:
                await asyncio.sleep(LATER)
            finally:
                connection.terminate()

    async def _resume(self, name: NodeName) -> None:
        try:
            connection = await self._connect(name)
        except _NOT_NOW:
            return  # it does not run: what was paused is not any more
        try:
            if await connection.fetchval("select pg_is_in_recovery()"):
                await connection.execute("select pg_wal_replay_resume()")
        finally:
            connection.terminate()

    async def _connect(self, name: NodeName) -> asyncpg.Connection[Any]:
        node = self._book.node(name)
        assert node is not None  # noqa: S101 - of this fleet
        return await connect_as(self._folder, node, "postgres", "postgres")
