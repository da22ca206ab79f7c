"""A planned change of the primary under load, and where each second of it goes."""

from __future__ import annotations

import time

from pgfleet.control.switchover import switch_over
from pgfleet.prove.evidence import quantile
from pgfleet.prove.experiment import Observed, Timing, observe
from pgfleet.prove.faults import Struck
from pgfleet.prove.fleets import example
from pgfleet.prove.load import Application
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.runs.ground import application, broken, ground
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage

SHARD = "certification"
WITHIN = 6.0
TEXT = (
    "`pgfleet switchover` while an application reads and writes through the client's retrying calls (`fetch`,"
    " `execute`). Times count from the request; the gap is from the last write that the old primary acknowledged to"
    " the first of the new one. Before it asks Patroni, pgfleet has the old primary write a checkpoint, so that its"
    " shutdown has little left to write. Patroni looks once a second whether the old primary has stopped, and the"
    " first commit on the new one waits for a replica that confirms it."
)
COLUMNS = (
    "round", "gap s", "gap psycopg s", "Patroni asked s", "last write on the old s", "lock released s", "lock taken s",
    "first write on the new s", "replicas confirm s", "command took s", "failed calls", "lost", "kept",
)  # fmt: skip


async def run(show: Show, rounds: int | None) -> Page:
    found: list[tuple[Observed, float]] = []
    async with ground(example("question-bank-demo"), show) as (stage, client):
        for number in range(1, (rounds or 5) + 1):
            with show.step(f"round {number}") as told:
                await stage.whole([SHARD])
                one, took = await _switched(stage, application(client, stage, SHARD, number))
                told.append(f"{one.struck.told}; gap {one.verdict.rto_seconds:.2f} s;")
                await stage.whole([SHARD])
            found.append((one, took))
    observed = [one for one, _ in found]
    middle = sorted(found, key=lambda pair: pair[0].verdict.rto_seconds)[(len(found) - 1) // 2][0]
    failed = sum(sum(one.tally.errors.values()) for one in observed)
    return Page(
        "switchover", "A switchover under load", TEXT, len(found),
        (
            Part(COLUMNS, tuple(_row(number, one, took) for number, (one, took) in enumerate(found, 1))),
            Part(("after s", "what"), _story(middle), "The round with the median gap, moment by moment:"),
        ),
        (
            Limit("gap through the client, median", quantile([one.verdict.rto_seconds for one in observed], 0.5), WITHIN),
            Limit("failed calls through the client, all rounds", failed, 0, ""),
        ),
        tuple(broken(observed, "switchover")),
    )  # fmt: skip


async def _switched(stage: Stage, running: Application) -> tuple[Observed, float]:
    took = 0.0

    async def now() -> Struck:
        nonlocal took
        at = time.monotonic()
        new = await switch_over(stage.driver, stage.folder, SHARD, None)
        took = time.monotonic() - at
        return Struck(at, f"{new.member} is primary")

    one = await observe(stage, running, SHARD, "switchover", now, promise=None, timing=Timing(before=2.5, after=4.0))
    return one, took


def _edges(one: Observed) -> tuple[float | None, float | None]:
    """The last acknowledgement before the new lock, and the first one after it: seconds from the request."""
    at, taken = one.struck.at, one.after("taken")
    if taken is None:
        return None, None
    acks = [ack.at - at for ack in one.acks if ack.shard == SHARD]
    return max((ack for ack in acks if ack < taken), default=None), min((ack for ack in acks if ack >= taken), default=None)


def _row(number: int, one: Observed, took: float) -> tuple[object, ...]:
    last, first = _edges(one)
    return (
        number, one.verdict.rto_seconds, one.verdict.pooler_seconds, one.after("asked"), last, one.after("released"),
        one.after("taken"), first, one.after("quorum"), took, sum(one.tally.errors.values()),
        one.verdict.acknowledged_writes_lost, one.verdict.kept,
    )  # fmt: skip


WORDS = {
    "asked": "Patroni is asked", "released": "lock released by", "taken": "lock taken by",
    "announced": "takes writes, as it says itself:", "quorum": "commits are confirmed by", "state": "",
}  # fmt: skip


def _story(one: Observed) -> tuple[tuple[float, str], ...]:
    at = one.struck.at
    told = [(m.at - at, f"{WORDS[m.what]} {m.who}".strip()) for m in one.moments if m.at >= at]
    last, first = _edges(one)
    told += [(last, "the last write that the old primary acknowledges")] if last is not None else []
    told += [(first, "the first write that the new primary acknowledges")] if first is not None else []
    return tuple(sorted(told))
