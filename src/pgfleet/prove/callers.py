"""The processes of an application under faults: started, stopped, and their ledgers read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pgfleet.errors import StepFailed
from pgfleet.prove.caller import DEADLINE, RESOLVED_WITHIN, Order, Summary
from pgfleet.prove.ledger import Entry
from pgfleet.prove.stage import Stage
from pgfleet.runtime.process import last_lines

#: Seconds for one of them to have written to every shard.
READY_WITHIN = 60.0
#: Seconds for the last call, and for asking what became of it.
ENDED_WITHIN = DEADLINE * 2 + RESOLVED_WITHIN


@dataclass(frozen=True, slots=True)
class Heard:
    """What one process put down."""

    entries: tuple[Entry, ...]
    summary: Summary


class Callers:
    """``count`` processes that run while this is entered; :meth:`stop` has what they put down.

    :param folder: where their ledgers and logs go. :param readable: what is read, by shard; the first of each is written to.
    """

    def __init__(self, stage: Stage, count: int, folder: Path, readable: dict[str, list[str]], seed: int, every: float) -> None:
        regions = list(stage.fleet.regions)
        written = {shard: subjects[0] for shard, subjects in readable.items()}
        self._orders = [
            Order(
                number, str(stage.folder), regions[number % len(regions)], written, readable, str(folder / f"{number}.ledger"),
                seed, every, every * number / count,
            )
            for number in range(count)
        ]  # fmt: skip
        self._folder = folder
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        try:
            for order in self._orders:
                # One after another: beginning is the dearest thing that a process does.
                async with asyncio.timeout(READY_WITHIN):
                    await self._start(order)
        except BaseException:
            await self._kill()
            raise
        return self

    async def _start(self, order: Order) -> None:
        with Path(order.ledger).with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pgfleet.prove.caller", order.to_json(),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        if await process.stdout.readline() != b"ready\n":
            raise self._failed(order)

    async def __aexit__(self, *_: object) -> None:
        await self._kill()

    async def stop(self) -> list[Heard]:
        """Have all of them end, and read what they put down.

        :raises StepFailed: one made a mistake.
        """
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            process.stdin.close()
        async with asyncio.timeout(ENDED_WITHIN):
            codes = await asyncio.gather(*(process.wait() for process in self._processes))
        for order, code in zip(self._orders, codes, strict=True):
            if code:
                raise self._failed(order)
        return await asyncio.to_thread(lambda: [_read(order) for order in self._orders])

    def alive(self) -> int:
        """How many still run: one that made a mistake does not."""
        return sum(process.returncode is None for process in self._processes)

    async def _kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _failed(self, order: Order) -> StepFailed:
        log = Path(order.ledger).with_suffix(".log")
        return StepFailed(f"caller {order.number} failed", seen=last_lines(log, 12))


def _read(order: Order) -> Heard:
    ledger = Path(order.ledger)
    with ledger.open(encoding="utf-8") as lines:
        entries = tuple(Entry.parse(line) for line in lines)
    return Heard(entries, Summary(**json.loads(ledger.with_suffix(".json").read_text(encoding="utf-8"))))


def everyone(heard: Sequence[Heard]) -> tuple[Entry, ...]:
    """All writes of all processes, in the order in which their calls ended."""
    return tuple(sorted((entry for one in heard for entry in one.entries), key=lambda entry: entry.at))
