"""One process of an application under faults: ``python -m pgfleet.prove.caller``, started by :mod:`pgfleet.prove.callers`.

It writes to every shard, by every kind of write, reads back what it wrote, reads besides, and puts down in a ledger what was
said of each write. It says ``ready`` on stdout once every shard took a write, and ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID, uuid4

import asyncpg
import uvloop

import pgfleet
from pgfleet.errors import OutcomeUnknown, PgfleetError, Unreachable, WriteLost
from pgfleet.prove.ledger import Entry, Said
from pgfleet.prove.load import Application, Pace
from pgfleet.prove.tally import tally
from pgfleet.prove.timetable import Timetable
from pgfleet.prove.writing import COUNTED, arguments

#: Seconds for a call: longer than any fault that a storm makes.
DEADLINE = 15.0
#: Seconds in which an unknown outcome must be told, at last.
RESOLVED_WITHIN = 60.0
#: One acknowledged write of so many is read back at once.
READ_BACK_EVERY = 3
#: Connections to one node: eight processes, and their probes, fit into what PostgreSQL takes by default.
POOL = 4

#: Niceness: an application stands on machines of its own, and here shares two cores with the engines.
BEHIND = 5

STATEMENT = COUNTED.format(*(f"${n}" for n in range(1, 7)))
FIND = """
select pg_is_in_recovery() as replica, exists (select from questions where subject = $1 and id = $2) as found,
       inet_server_port() as port, pg_last_wal_replay_lsn()::text as replayed
"""
#: What a call may end with that is no mistake of ours.
FAILURES = (PgfleetError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller is told to do; one JSON document, its only argument.

    :param number: of the process; its chance is drawn from it and ``seed``.
    :param folder: the fleet's state folder. :param subjects: what is written to, by shard.
    :param readable: what is read, by shard. :param ledger: the file to write.
    :param every: seconds between two writes on a shard. :param shift: seconds by which they come after the first process'.
    :param think: seconds between two reads of a reader.
    """

    number: int
    folder: str
    region: str
    subjects: dict[str, str]
    readable: dict[str, list[str]]
    ledger: str
    seed: int
    every: float
    shift: float = 0.0
    readers: int = 1
    think: float = 0.4

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Summary:
    """What is only counted.

    :param behind: reads of an acknowledged write that did not see it, by this caller itself.
    :param told_lost: reads that were told that an acknowledged write of this caller is lost.
    """

    reads: int = 0
    read_back: int = 0
    on_replicas: int = 0
    behind: list[str] = field(default_factory=list)
    told_lost: list[str] = field(default_factory=list)
    read_errors: dict[str, int] = field(default_factory=dict)


class Caller:
    """:param out: the ledger."""

    def __init__(self, client: Any, order: Order, out: TextIO) -> None:
        self._client, self._order, self._out = client, order, out
        self._chance = random.Random(f"{order.seed}/{order.number}")
        self._errors: Counter[str] = Counter()
        self.summary = Summary()
        self.wrote = {shard: asyncio.Event() for shard in order.subjects}

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; what is under way then is finished."""
        order = self._order
        pace = Pace(readers=order.readers, think=order.think, writers=0)
        reading = Application(self._client, order.readable, pace=pace, seed=order.seed * 1000 + order.number)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(reading.run(stop))
            for shard in order.subjects:
                group.create_task(self._write(shard, stop))
        found = tally(reading.calls, time.monotonic() - began)
        self.summary.reads += found.reads
        self.summary.on_replicas += found.on_replicas
        self.summary.read_errors = dict(sorted((self._errors + Counter(found.errors)).items()))

    async def _write(self, shard: str, stop: asyncio.Event) -> None:
        subject, number = self._order.subjects[shard], 0
        table = Timetable(self._order.every, self._order.shift)
        while not stop.is_set():
            await asyncio.sleep(table.after(time.monotonic()) - time.monotonic())
            number += 1
            entry = await self._once(shard, subject, number)
            self._out.write(entry.to_line() + "\n")
            self._out.flush()
            if entry.said == "acknowledged":
                self.wrote[shard].set()
                if number % READ_BACK_EVERY == 0:
                    await self._read_back(shard, subject, entry.id)

    async def _once(self, shard: str, subject: str, number: int) -> Entry:
        """One logical write, and what is said of it."""
        row, how = uuid4(), self._chance.choice(("execute", "block", "transact"))
        said: Said = "acknowledged"
        error = ""
        began = time.monotonic()
        try:
            await self._call(how, subject, row, number)
            at = time.monotonic()
        except OutcomeUnknown as unknown:
            at, error = time.monotonic(), kind(unknown)
            said = await resolved(unknown) if unknown.resolvable else "unknown"
        except FAILURES as failure:
            at, error, said = time.monotonic(), kind(failure), "failed"
        return Entry(row, shard, how, said, began, at, error)

    async def _call(self, how: str, subject: str, row: UUID, number: int) -> None:
        asked = arguments(subject, row, number)

        async def write(connection: Any) -> None:
            await connection.execute(STATEMENT, *asked)

        match how:
            case "execute":
                await self._client.execute("questions", STATEMENT, *asked, key=subject, deadline=DEADLINE)
            case "transact":
                await self._client.transact("questions", write, key=subject, deadline=DEADLINE)
            case _:
                async with self._client.write("questions", key=subject, resolvable=True, deadline=DEADLINE) as connection:
                    await write(connection)

    async def _read_back(self, shard: str, subject: str, row: UUID) -> None:
        """A read by the writer itself: its own acknowledged write must be there."""
        try:
            (seen,) = await self._client.fetch("questions", FIND, subject, row, key=subject, deadline=DEADLINE)
        except FAILURES as failure:
            self._errors[f"read back: {kind(failure)}"] += 1
            if isinstance(failure, WriteLost):
                self.summary.told_lost.append(f"{row} on {shard}, at {time.monotonic():.3f}: {', '.join(failure.seen)}")
            return
        self.summary.read_back += 1
        self.summary.reads += 1
        self.summary.on_replicas += bool(seen["replica"])
        if not seen["found"]:
            again = None
            with suppress(*FAILURES):
                (again,) = await self._client.fetch("questions", FIND, subject, row, key=subject, deadline=DEADLINE)
            told = f"{row} on {shard}, at {time.monotonic():.3f}, {dict(seen)}, then {again and dict(again)}"
            self.summary.behind.append(f"{told}, {self._client.token().of(shard)}, {explained(self._client, shard)}")


def explained(client: pgfleet.Fleet, shard: str) -> str:
    """What the client knew of ``shard``, for whoever has to find out why a read was behind."""
    router = client._open.router
    reached = {
        node.member: (router.positions.timeline(node), router.positions.replayed(node))
        for node in router.addresses
        if node.shard == shard
    }
    return f"{router.lineage(shard)}, {router.route(shard)}, positions {reached}"


async def resolved(unknown: OutcomeUnknown) -> Said:
    """What became of it; asked again where nobody could be."""
    until = time.monotonic() + RESOLVED_WITHIN
    while time.monotonic() < until:
        try:
            return await unknown.resolve(until - time.monotonic())
        except Unreachable:
            await asyncio.sleep(0.1)
    return "unknown"


def kind(error: BaseException) -> str:
    return f"{type(error).__name__} {error.code}" if isinstance(error, PgfleetError) else type(error).__name__


async def main(order: Order) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stop.set)  # closed: whoever started us is done, or gone
    ledger = Path(order.ledger)
    with ledger.open("w", encoding="utf-8") as out:  # noqa: ASYNC230 - a local file
        async with pgfleet.connect(order.folder, region=order.region, pool_size=POOL) as client:
            caller = Caller(client, order, out)
            running = asyncio.create_task(caller.run(stop))
            for wrote in caller.wrote.values():
                await asyncio.wait((asyncio.ensure_future(wrote.wait()), running), return_when=asyncio.FIRST_COMPLETED)
            print("ready", flush=True)
            await running
    ledger.with_suffix(".json").write_text(json.dumps(asdict(caller.summary)), encoding="utf-8")


if __name__ == "__main__":
    os.nice(BEHIND)
    uvloop.run(main(Order(**json.loads(sys.argv[1]))))
