"""What the runs that strike have in common: a fleet with questions in it, and its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pgfleet.prove.experiment import Observed
from pgfleet.prove.fleets import SCHEMA
from pgfleet.prove.load import Application, Pace
from pgfleet.prove.loading import load_questions
from pgfleet.prove.questions import generate, subjects
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage, staged

REGION = "us-east"
QUESTIONS = 300
#: Enough readers to be an application, few enough that a core is free for whoever is being elected.
PACE = Pace(readers=4, think=0.02, writers=3, every=0.025, elsewhere_every=0.2)


@asynccontextmanager
async def filled(text: str, show: Show) -> AsyncIterator[Stage]:
    """The fleet that ``text`` declares, with :data:`QUESTIONS` questions a subject; nobody is its client."""
    async with staged(text) as stage:
        with show.step("a fleet to strike"):
            await stage.apply()
            await stage.whole(list(stage.fleet.shards))
            await stage.migrate(SCHEMA)
        async with stage.client(REGION) as client:
            questions = {subject: list(generate(subject, QUESTIONS)) for subject in subjects()}
            await load_questions(client, stage.placement, questions, lambda rows: None)
        yield stage


@asynccontextmanager
async def ground(text: str, show: Show) -> AsyncIterator[tuple[Stage, Any]]:
    """The same, and its client."""
    async with filled(text, show) as stage, stage.client(REGION) as client:
        yield stage, client


def application(client: Any, stage: Stage, shard: str, number: int) -> Application:
    """It reads from every shard, and writes to ``shard`` most."""
    placed: dict[str, list[str]] = {}
    for subject in subjects():
        placed.setdefault(stage.placement.shard("questions", subject).shard, []).append(subject)
    return Application(client, placed, focus=shard, pace=PACE, seed=number)


def broken(observed: Sequence[Observed], what: str) -> list[str]:
    """What none of a run's faults may do, as sentences."""
    found = []
    for number, one in enumerate(observed, 1):
        verdict = one.verdict
        if verdict.acknowledged_writes_lost:
            found.append(f"{what}, round {number}: {verdict.acknowledged_writes_lost} acknowledged writes are lost")
        if verdict.late or verdict.writers_at_once > 1:
            late = f"{verdict.late} acknowledgements on an older timeline after a newer one's first"
            found.append(f"{what}, round {number}: {late}")
        if verdict.promise is not None and verdict.rto_seconds > verdict.promise:
            found.append(f"{what}, round {number}: {verdict.rto_seconds:.2f} s, {verdict.promise:g} s were promised")
    return found
