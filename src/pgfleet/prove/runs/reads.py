"""A read-mostly load without any fault: who answers, and how fast."""

from __future__ import annotations

import asyncio
import time

from pgfleet.prove.evidence import quantile
from pgfleet.prove.fleets import SCHEMA, example
from pgfleet.prove.load import Application, Pace
from pgfleet.prove.loading import load_questions
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.questions import generate, subjects
from pgfleet.prove.show import Show
from pgfleet.prove.stage import staged
from pgfleet.prove.tally import READS, tally

SECONDS = 15.0
QUESTIONS = 2000
SHARE = 80.0
TEXT = (
    f"An application of {QUESTIONS} questions a subject for {SECONDS:g} s, seen from each region in turn: 8 readers"
    " with pauses (60 % pages, 2 % full-text searches, the rest single questions), 6 writers. Every answer says"
    " itself whether a replica gave it. Replicas of the caller's own region come first; where there is"
    " none, the nearest."
)


async def run(show: Show, rounds: int | None) -> Page:
    rows, kinds, shares = [], [], []
    async with staged(example("question-bank-demo")) as stage:
        with show.step("a fleet with questions"):
            await stage.apply()
            await stage.migrate(SCHEMA)
            questions = {subject: list(generate(subject, QUESTIONS)) for subject in subjects()}
            async with stage.client() as client:
                await load_questions(client, stage.placement, questions, lambda count: None)
        await stage.whole(list(stage.fleet.shards))
        placed: dict[str, list[str]] = {}
        for subject in questions:
            placed.setdefault(stage.placement.shard("questions", subject).shard, []).append(subject)
        for number in range(rounds or 1):
            for region in stage.fleet.regions:
                with show.step(f"from {region}"):
                    async with stage.client(region) as client:
                        running = Application(client, placed, pace=Pace(writers=1, every=0.05), seed=number)
                        stop = asyncio.Event()
                        began = time.monotonic()
                        task = asyncio.create_task(running.run(stop))
                        await asyncio.sleep(SECONDS)
                        stop.set()
                        await task
                        found = tally(running.calls, time.monotonic() - began)
                shares.append(found.replica_share * 100)
                rows.append((
                    region, round(found.reads_per_second), round(found.writes_per_second), f"{found.replica_share:.1%}",
                    sum(found.errors.values()),
                ))  # fmt: skip
                for kind in ("page", "point", "search", "insert", "update"):
                    took = [call.took * 1000 for call in running.calls if call.kind == kind and not call.error]
                    kinds.append((region, kind, len(took), *(round(quantile(took, part), 2) for part in (0.5, 0.95, 0.99))))
    assert {"page", "point", "search"} == READS  # noqa: S101 - the table above names them
    return Page(
        "reads", "A read-mostly load", TEXT, len(rows),
        (
            Part(("from", "reads/s", "writes/s", "answered by replicas", "errors"), tuple(rows)),
            Part(("from", "call", "calls", "p50 ms", "p95 ms", "p99 ms"), tuple(kinds)),
        ),
        (Limit("answered by replicas, the lowest", min(shares), SHARE, "%", least=True),),
    )  # fmt: skip
