"""A client that knows nothing of pgfleet: psycopg behind a region's PgBouncer and HAProxy, with a deadline per call.

It is what an application in any other language is, and its gap is printed beside that of the fleet's own client.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

from pgfleet.facts.addresses import AddressBook, read_write_database
from pgfleet.prove.evidence import Ack
from pgfleet.prove.writing import INSERT, arguments
from pgfleet.runtime.state import read_secret

#: Seconds for connecting, and for one call: a stopped server keeps its connections open and says nothing.
DEADLINE = 2.0
#: Seconds between two writes, and between two attempts.
EVERY = 0.01


class Outsider:
    """Writes to ``shard`` until it is told to stop.

    :param subject: the subject of its rows; it lives on ``shard``.
    """

    def __init__(self, book: AddressBook, region: str, shard: str, subject: str) -> None:
        pooler = next((p for p in book.poolers if p.region == region), book.poolers[0])
        self.shard = shard
        self.subject = subject
        self.acks: list[Ack] = []
        self.errors: list[tuple[float, str]] = []
        self.tried = 0.0
        folder = Path(book.folder)
        self._to = make_conninfo(
            host=pooler.host, port=pooler.port, dbname=read_write_database(shard), user="pgfleet_app",
            password=read_secret(folder, "pgfleet_app"), connect_timeout=int(DEADLINE),
            sslmode="verify-full", sslrootcert=str(folder / "certificates" / "ca.crt"),
        )  # fmt: skip
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    async with asyncio.timeout(DEADLINE):
                        await self._write()
                except (psycopg.Error, OSError, TimeoutError) as error:
                    self.errors.append((time.monotonic(), _kind(error)))
                    await self._hang_up()
                self.tried = time.monotonic()
                await asyncio.sleep(max(0.0, EVERY - (self.tried - began)))
        finally:
            await self._hang_up()

    async def _write(self) -> None:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._to, autocommit=True, prepare_threshold=None)
        row = uuid4()
        await self._connection.execute(INSERT.format(*("%s",) * 6), arguments(self.subject, row, len(self.acks)))
        self.acks.append(Ack(time.monotonic(), self.shard, row))

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.close()


def _kind(error: BaseException) -> str:
    return "deadline" if isinstance(error, TimeoutError) else type(error).__name__
