"""What five thousand idle and five hundred busy tasks of one process cost, and what ten minutes of churn leave behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pgfleet.prove.churn import Churn, cut_connections
from pgfleet.prove.evidence import quantile
from pgfleet.prove.fleets import example
from pgfleet.prove.load import INSERTION, PAGE
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.questions import subjects
from pgfleet.prove.residue import Residue, left_over, look, settled
from pgfleet.prove.runs.ground import REGION, filled
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage
from pgfleet.prove.writing import arguments
from pgfleet.units import format_size

IDLE, BUSY, WORKERS, MINUTES = 5000, 500, 24, 10
#: Seconds for which a state is watched.
WATCH = 10.0
#: What churn may leave after its first minute: bytes of memory, and objects. What is remembered within bounds (positions, plans,
#: latencies) is a part of it.
MORE_MEMORY, MORE_OBJECTS = 16 * 2**20, 20_000
#: Bytes that an idle task may cost: the task, its context, its token, its frame.
IDLE_MEMORY = 16 * 1024
#: Connections that a client opens to one node at most: the pools', and the probes'.
POOL, PROBES = 10, 3
#: Of a busy task's calls, so many in a hundred write.
WRITES = 5
FIRST = UUID(int=0)
TEXT = (
    f"One process, one client ({POOL} connections to a node at most) of the fleet of question-bank-demo. *Idle*: {IDLE} tasks,"
    " each with a token of its own, that have read once and wait. *Busy*: beside them"
    f" {BUSY} tasks that read pages without a pause, {WRITES} % of their calls write. *Churn*: {WORKERS} workers do reads,"
    " writes, transactions, blocks and reads that are cancelled, deadlines that pass, statements that fail, tokens carried on,"
    " hedged reads, sessions that are discarded; and a server ends connections every second. After the first minute, and at the"
    " end, all of it stops, and what is left, once the allocator has given back what it can, is compared: at most"
    f" {format_size(MORE_MEMORY)} and {MORE_OBJECTS:,} objects more, and no task. Once the client is closed there are as many"
    " tasks, timers and sockets as before it was opened. The whole run takes about 12 minutes."
)
COLUMNS = ("state", "memory", "CPU, of a core", "tasks", "timers", "sockets", "objects", "calls/s", "p50 ms", "p99 ms")


@dataclass(slots=True)
class Looked:
    """What was seen, state by state.

    :param churned: after the first minute of churn, and at its end, its client still open.
    :param left: sentences about what did not go away.
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    idle_bytes: float = 0.0
    most_sockets: int = 0
    churned: list[Residue] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def at(self, state: str, now: Residue, since: Residue | None = None, took: Sequence[float] = ()) -> None:
        """One more row. :param since: for the CPU used from then on. :param took: seconds of each call from then on."""
        calls: tuple[Any, ...] = (None, None, None)
        if took and since is not None:
            calls = (round(len(took) / (now.at - since.at)), *(round(quantile(took, part) * 1000, 1) for part in (0.5, 0.99)))
        cpu = f"{now.share(since):.1%}" if since is not None else None
        self.most_sockets = max(self.most_sockets, now.sockets)
        self.rows.append((state, format_size(now.rss), cpu, now.tasks, now.timers, now.sockets, now.objects, *calls))

    async def closed(self, before: Residue, what: str) -> None:
        """Everything is closed: as many tasks, timers and sockets as ``before``?"""
        now = await settled(before)
        self.at(f"{what}: its client is closed", now)
        self.left += [f"{what}: {count} {name} more than before it" for name, count in left_over(before, now).items()]


async def run(show: Show, rounds: int | None) -> Page:
    minutes = rounds or MINUTES
    looked = Looked()
    async with filled(example("question-bank-demo"), show) as stage:
        with complaints() as complained:
            # Churn first: in what five thousand tasks leave of free memory, no leak would show.
            before = await settled(None)
            async with stage.client(REGION) as client:
                churn, cut = await _churned(stage, client, minutes, looked, show)
            await looked.closed(before, "churn")
            before = await settled(None)
            async with stage.client(REGION) as client:
                await _tasks(client, looked, show)
            await looked.closed(before, "idle and busy tasks")
        nodes = len(stage.book.nodes)
    first, last = looked.churned
    memory, objects = (last.rss - first.rss) / 2**20, last.objects - first.objects
    return Page(
        "tasks", "Tasks, and what they leave behind", TEXT, minutes,
        (
            Part(COLUMNS, tuple(looked.rows)),
            Part(("done", "how often"), (*sorted(churn.done.items()), ("connections ended by a server", cut)), "The churn:"),
            Part(("what calls ended with", "how often"), tuple(sorted(churn.errors.items()))),
            Part(("of what nobody waited for, the loop was told", "how often"), tuple(sorted(complained.items()))),
        ),
        (
            Limit("an idle task's memory", looked.idle_bytes / 1024, IDLE_MEMORY / 1024, "KiB"),
            Limit("memory after churn, beyond that of its first minute", memory, MORE_MEMORY / 2**20, "MiB"),
            Limit("objects after churn, beyond those of its first minute", objects, MORE_OBJECTS, ""),
            Limit("tasks after churn, beyond those of its first minute", last.tasks - first.tasks, 0, ""),
            Limit("sockets, at most", looked.most_sockets, nodes * (POOL + PROBES) + before.sockets, ""),
        ),
        tuple(looked.left),
    )  # fmt: skip


async def _tasks(client: Any, looked: Looked, show: Show) -> None:
    """Nothing, then the idle tasks, then the busy ones beside them, then nothing again."""
    stop, halt = asyncio.Event(), asyncio.Event()
    arrived: list[int] = []
    took: list[float] = []
    with show.step("before"):
        began = await settled(None)
        await asyncio.sleep(WATCH)
        looked.at("before", before := look(), began)
    async with asyncio.TaskGroup() as group:
        with show.step(f"{IDLE} idle tasks"):
            for number in range(IDLE):
                group.create_task(_idle(client, number, arrived, stop))
            while len(arrived) < IDLE:
                await asyncio.sleep(0.2)
            began = await settled(None)
            await asyncio.sleep(WATCH)
            looked.at(f"{IDLE} idle", idle := look(), began)
            looked.idle_bytes = (idle.rss - before.rss) / IDLE
        with show.step(f"{BUSY} busy tasks beside them"):
            busy = [group.create_task(_busy(client, random.Random(number), took, halt)) for number in range(BUSY)]
            await asyncio.sleep(WATCH / 2)
            took.clear()
            began = look()
            await asyncio.sleep(WATCH)
            looked.at(f"{IDLE} idle, {BUSY} busy", look(), began, took[:])
            halt.set()
            await asyncio.gather(*busy)
        stop.set()


async def _churned(stage: Stage, client: Any, minutes: int, looked: Looked, show: Show) -> tuple[Churn, int]:
    """A minute of churn, and the rest of it. Of a single minute: a third, and the rest."""
    churn, cut = Churn(client, subjects(), minutes), 0
    spans = [60.0] * minutes if minutes > 1 else [20.0, 40.0]
    for number, seconds in enumerate(spans, 1):
        with show.step(f"churn, {number} of {len(spans)}"):
            stop = asyncio.Event()
            began = look()
            async with asyncio.TaskGroup() as group:
                group.create_task(churn.run(WORKERS, stop))
                cutting = group.create_task(cut_connections(stage.folder, stage.book, number, stop))
                await asyncio.sleep(seconds)
                looked.at(f"churn, {sum(spans[:number]):g} s", look(), began)
                stop.set()
            cut += cutting.result()
        if number in (1, len(spans)):
            looked.churned.append(await settled(looked.churned[0] if looked.churned else None))
            looked.at("all of it has ended", looked.churned[-1])
    return churn, cut


@contextmanager
def complaints() -> Iterator[Counter[str]]:
    """What the loop is told of mistakes that nobody waits for, meanwhile."""
    loop, told = asyncio.get_running_loop(), Counter[str]()
    before = loop.get_exception_handler()

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told[f"{context.get('message')}: {context.get('exception')!r}"[:200]] += 1

    loop.set_exception_handler(complain)
    try:
        yield told
    finally:
        loop.set_exception_handler(before)


async def _idle(client: Any, number: int, arrived: list[int], stop: asyncio.Event) -> None:
    subject = subjects()[number % len(subjects())]
    client.after(None)
    await client.fetch("questions", PAGE, subject, FIRST, key=subject, deadline=60)
    arrived.append(number)
    await stop.wait()


async def _busy(client: Any, chance: random.Random, took: list[float], halt: asyncio.Event) -> None:
    while not halt.is_set():
        subject = chance.choice(subjects())
        began = time.monotonic()
        if chance.randrange(100) < WRITES:
            row = UUID(int=chance.getrandbits(128), version=4)
            await client.execute("questions", INSERTION, *arguments(subject, row, 1), key=subject, deadline=60)
        else:
            await client.fetch("questions", PAGE, subject, FIRST, key=subject, deadline=60)
        took.append(time.monotonic() - began)
