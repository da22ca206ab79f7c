"""Everything that an application can do badly to the client, and what the world can do to it, over and over: blocks that are
cancelled, deadlines that pass, statements that fail, connections that are cut by the server, tokens made and carried on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from pgfleet.facts.addresses import AddressBook
from pgfleet.prove.load import PAGE
from pgfleet.prove.pairs import FAILURES
from pgfleet.prove.writing import COUNTED, arguments
from pgfleet.providers.local.access import connect_as

STATEMENT = COUNTED.format(*(f"${n}" for n in range(1, 7)))
CUT = """select count(pg_terminate_backend(pid)) from (
    select pid from pg_stat_activity where usename = 'pgfleet_app' and datname = $1 order by random() limit 2
) unlucky"""
#: Seconds between two of the server's cuts, each of up to two connections of one node.
CUT_EVERY = 1.0
#: Seconds that a worker rests between two deeds.
REST = 0.02
ZERO = uuid4()


class Churn:
    """:param subjects: that are read and written."""

    def __init__(self, client: Any, subjects: Sequence[str], seed: int) -> None:
        self._client, self._subjects = client, list(subjects)
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        deeds = (
            self.reads, self.writes, self.transacts, self.cancels_a_block, self.cancels_a_read, self.is_late,
            self.carries_a_token, self.makes_mistakes, self.asks_everywhere, self.hedges, self.wants_it_fresh,
            self.leaves_a_session,
        )  # fmt: skip
        self._deeds: tuple[Callable[[str], Awaitable[Any]], ...] = deeds

    async def run(self, workers: int, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(stop))

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            deed, subject = self._chance.choice(self._deeds), self._chance.choice(self._subjects)
            try:
                await asyncio.create_task(_run(deed, subject))  # a context of its own, as a request has
            except FAILURES as error:
                self.errors[f"{deed.__name__.replace('_', ' ')}: {type(error).__name__}"] += 1
            self.done[deed.__name__.replace("_", " ")] += 1
            await asyncio.sleep(REST * self._chance.random() * 2)

    # -- what is done ------------------------------------------------------------------------------------------------------

    async def reads(self, subject: str) -> None:
        await self._client.fetch("questions", PAGE, subject, ZERO, key=subject)

    async def writes(self, subject: str) -> None:
        await self._client.execute("questions", STATEMENT, *arguments(subject, uuid4(), 1), key=subject)

    async def transacts(self, subject: str) -> None:
        async def write(connection: Any) -> None:
            await connection.execute(STATEMENT, *arguments(subject, uuid4(), 1))

        await self._client.transact("questions", write, key=subject)

    async def cancels_a_block(self, subject: str) -> None:
        async def block() -> None:
            async with self._client.write("questions", key=subject, resolvable=True) as connection:
                await connection.execute(STATEMENT, *arguments(subject, uuid4(), 1))
                await connection.fetch("select pg_sleep(0.05)")

        await self._cancelled(block())

    async def cancels_a_read(self, subject: str) -> None:
        await self._cancelled(self._client.fetch("questions", "select pg_sleep(0.05)", key=subject))

    async def is_late(self, subject: str) -> None:
        await self._client.fetch("questions", "select pg_sleep(1)", key=subject, deadline=0.05)

    async def carries_a_token(self, subject: str) -> None:
        await self.writes(subject)
        text = str(self._client.token())
        with self._client.after(text):
            await asyncio.gather(self.reads(subject), self.reads(self._chance.choice(self._subjects)))

    async def makes_mistakes(self, subject: str) -> None:
        for sql in ("select 1/0", "select", "delete from questions"):
            with suppress(*FAILURES):
                await self._client.fetch("questions", sql, key=subject)
        async with self._client.write("questions", key=subject) as connection:
            await connection.execute("select 1/0")

    async def asks_everywhere(self, subject: str) -> None:
        await self._client.everywhere("questions", "select subject, count(*) from questions group by 1", partial=True)

    async def hedges(self, subject: str) -> None:
        await self._client.fetch("questions", PAGE, subject, ZERO, key=subject, hedge=0.002)

    async def wants_it_fresh(self, subject: str) -> None:
        await self._client.fetch("questions", PAGE, subject, ZERO, key=subject, max_staleness=0.1)

    async def leaves_a_session(self, subject: str) -> None:
        async with self._client.read("questions", key=subject, session=True) as connection:
            await connection.execute("set my.own = 'left'; set work_mem = '7MB'")

    async def _cancelled(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.wait([task], timeout=self._chance.uniform(0.0, 0.04))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _run(deed: Callable[[str], Awaitable[Any]], subject: str) -> None:
    await deed(subject)


async def cut_connections(folder: Path, book: AddressBook, seed: int, stop: asyncio.Event) -> int:
    """Have servers end connections of the application, one node after another; how many were ended."""
    chance, ended = random.Random(seed), 0
    while not stop.is_set():
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection = await connect_as(folder, chance.choice(book.nodes), "postgres", "postgres")
            try:
                ended += int(await connection.fetchval(CUT, book.database))
            finally:
                connection.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(CUT_EVERY):
                await stop.wait()
    return ended
