"""One fault under load: an application and an outsider write, something is struck, and what was acknowledged is read
back from whoever is primary then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgfleet.errors import NoSuchNode, Unproven
from pgfleet.prove.chronicle import Chronicle, Moment
from pgfleet.prove.evidence import Ack, Verdict, judge
from pgfleet.prove.faults import Struck
from pgfleet.prove.load import Application
from pgfleet.prove.outsider import Outsider
from pgfleet.prove.stage import Stage
from pgfleet.prove.tally import Tally, tally
from pgfleet.prove.writing import read_back

#: Seconds at the start of a load in which connections are made; gaps in it do not count.
WARM_UP = 1.0
#: Seconds to find a primary to read back from.
READ_BACK_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. :param before: of load until the fault. :param after: of load after it.
    :param resume: after the fault, until what was stopped goes on; None: nothing is stopped."""

    before: float = 2.0
    after: float = 5.0
    resume: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What a fault did.

    :param began: of the load, on the clock of ``struck.at``. :param acks: everybody's.
    :param uncertain: rows that may be there although nobody was told so: COMMIT was not answered.
    """

    verdict: Verdict
    tally: Tally
    struck: Struck
    began: float
    moments: tuple[Moment, ...]
    failures: tuple[tuple[float, str], ...]
    acks: tuple[Ack, ...]
    uncertain: int

    def after(self, what: str) -> float | None:
        """Seconds from the fault to the first ``what`` of the chronicle after it."""
        at = self.struck.at
        return next((moment.at - at for moment in self.moments if moment.what == what and moment.at >= at), None)

    def later_acks(self) -> list[Ack]:
        """Of the shard that was struck, after it was, in order."""
        shard, at = self.verdict.shard, self.struck.at
        return sorted((ack for ack in self.acks if ack.shard == shard and ack.at >= at), key=lambda ack: ack.at)


Strike = Callable[[], Awaitable[Struck]]
Live = Callable[[Application, float], Coroutine[Any, Any, None]]


async def observe(
    stage: Stage,
    application: Application,
    shard: str,
    drill: str,
    strike: Strike,
    *,
    promise: float | None,
    timing: Timing = Timing(),
    live: Live | None = None,
) -> Observed:
    """Run ``application``, strike, go on, and judge.

    :param live: run beside it, told when the load began; it is cancelled at the end.
    :raises NoSuchNode: there is no primary to read back from, a minute after the load.
    """
    outsider = Outsider(stage.book, stage.fleet.shape(shard).home, shard, application.written(shard))
    stop = asyncio.Event()
    began = time.monotonic()
    async with Chronicle(stage.folder, stage.book, shard) as chronicle:
        async with asyncio.TaskGroup() as group:
            group.create_task(application.run(stop))
            group.create_task(outsider.run(stop))
            watching = group.create_task(live(application, began)) if live is not None else None
            try:
                await asyncio.sleep(timing.before)
                if not any(ack.shard == shard for ack in application.acks):
                    why = [text for _, text in application.failures[:4]]
                    raise Unproven(f"nothing was written to {shard} before the fault, so nothing can be proved", seen=why)
                struck = await strike()
                if timing.resume is not None:
                    await asyncio.sleep(timing.resume)
                    struck.resume()
                await asyncio.sleep(timing.after)
            finally:
                stop.set()
                if watching is not None:
                    watching.cancel()
        ended = time.monotonic()
    acks = [*application.acks, *outsider.acks]
    timelines = await _read_back(stage, application, acks)
    verdict = judge(
        drill, shard, promise,
        acks=application.acks, pooler_acks=outsider.acks, timelines=timelines, ended=ended,
        began=began + WARM_UP, unknown=len(application.unknown),
    )  # fmt: skip
    return Observed(
        verdict, tally(application.calls, ended - began), struck, began, tuple(chronicle.moments),
        tuple(application.failures), tuple(acks), len(application.unknown) + len(outsider.errors),
    )  # fmt: skip


async def _read_back(stage: Stage, application: Application, acks: Sequence[Ack]) -> dict[UUID, int]:
    subjects = {shard: application.written(shard) for shard in application.subjects}
    async with asyncio.timeout(READ_BACK_WITHIN):
        while True:
            with suppress(NoSuchNode):
                return await read_back(stage.book, acks, subjects)
            await asyncio.sleep(0.5)
