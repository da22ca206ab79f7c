"""Twelve nodes from nothing; a second apply; and a third after every process was killed."""

from __future__ import annotations

import asyncio
import sys
import time

from pgfleet.errors import StepFailed
from pgfleet.prove.evidence import quantile
from pgfleet.prove.faults import everything
from pgfleet.prove.fleets import example
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage, staged

WITHIN, NOTHING_WITHIN = 25.0, 3.0
TEXT = (
    "The example question-bank-demo (4 shards, 12 PostgreSQL nodes, 3 etcd members, 3 poolers), each time in a fresh"
    " folder. A time is that of a `pgfleet apply` process, which ends when every node streams and every endpoint of"
    " every pooler answers, and of the look after it that finds every commit on as many replicas as the file says."
)


async def pgfleet(stage: Stage, *words: str) -> float:
    """Run a command of its own process; its seconds.

    :raises StepFailed: it failed; with its last lines.
    """
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pgfleet", "-f", str(stage.file), "--state", str(stage.root), *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise StepFailed(f"pgfleet {' '.join(words)} failed", seen=output.decode().splitlines()[-8:])
    return time.monotonic() - began


async def _applied(stage: Stage) -> float:
    began = time.monotonic()
    await pgfleet(stage, "apply")
    await stage.whole(list(stage.fleet.shards))
    return time.monotonic() - began


async def run(show: Show, rounds: int | None) -> Page:
    rows = []
    for number in range(1, (rounds or 3) + 1):
        async with staged(example("question-bank-demo")) as stage:
            with show.step(f"round {number}: from nothing"):
                new = await _applied(stage)
            with show.step(f"round {number}: nothing to do"):
                nothing = await pgfleet(stage, "apply")
            with show.step(f"round {number}: everything killed, and back") as told:
                struck = await everything(stage.folder)
                told.append(struck.told)
                back = await _applied(stage)
        rows.append((number, round(new, 1), round(nothing, 2), round(back, 1)))
    middle = [quantile([float(row[at]) for row in rows], 0.5) for at in (1, 2)]
    return Page(
        "bring-up", "A fleet from nothing", TEXT, len(rows),
        (Part(("round", "from nothing s", "nothing to do s", "back after everything was killed s"), tuple(rows)),),
        (Limit("from nothing, median", middle[0], WITHIN), Limit("nothing to do, median", middle[1], NOTHING_WITHIN)),
    )  # fmt: skip
