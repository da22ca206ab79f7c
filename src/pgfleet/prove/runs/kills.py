"""Killing what a shard's writes depend on: the primary's database, its Patroni, the keeper, and several at once."""

from __future__ import annotations

from typing import Any

from pgfleet.names import NodeName
from pgfleet.prove.evidence import quantile
from pgfleet.prove.experiment import Observed, Timing, observe
from pgfleet.prove.faults import KILLS, Fault, Struck
from pgfleet.prove.fleets import with_a_stronger_shard
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.runs.ground import application, broken, ground
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage

WITHIN = 0.6
#: A crash strikes the first; what takes a voter with it, the second, whose commits are on three nodes.
SHARD, STRONGER = "certification", "stem"
TEXT = (
    "The fleet of question-bank-demo (4 shards of 3 PostgreSQL nodes; `stem` has 5, and its commits reach two replicas), with"
    " an application that reads from all of it and writes to one shard about every 8 ms. Something is killed with"
    " SIGKILL while it runs. A *gap* is the longest interval between two acknowledged writes on that shard; *lost*"
    " counts acknowledged writes of all clients that are not read back from the primary afterwards; *writers at once*"
    " comes from the timeline that each row recorded in its own insert. The psycopg client knows nothing of the"
    " fleet: it is behind PgBouncer and HAProxy, with a deadline of 2 s a call."
)
COLUMNS = (
    "what was killed", "round", "gap s", "gap psycopg s", "lock gone s", "lock taken s", "writes every ms", "acknowledged",
    "lost", "unknown", "errors", "writers at once", "timelines", "kept",
)  # fmt: skip


async def run(show: Show, rounds: int | None) -> Page:
    n = rounds or 5
    found: dict[str, list[Observed]] = {name: [] for name in KILLS}
    async with ground(with_a_stronger_shard(STRONGER), show) as (stage, client):
        for number in range(1, n + 1):
            for name, fault in KILLS.items():
                shard = STRONGER if name == "primary and voter" else SHARD
                with show.step(f"{name}, round {number}") as told:
                    one = await strike(stage, client, shard, name, fault, number)
                    told.append(f"gap {one.verdict.rto_seconds:.3f} s, {one.verdict.acknowledged_writes_lost} lost;")
                found[name].append(one)
    crash = [one.verdict.rto_seconds for one in found["crash"]]
    return Page(
        "kills", "Killing a primary, and what stands behind it", TEXT, n,
        (Part(SUMMARY, tuple(_summary(name, seen) for name, seen in found.items())), Part(COLUMNS, _rows(found))),
        (Limit("postmaster and Patroni killed: gap through the client, median", quantile(crash, 0.5), WITHIN),),
        tuple(text for name, seen in found.items() for text in broken(seen, name)),
    )  # fmt: skip


async def strike(stage: Stage, client: Any, shard: str, name: str, fault: Fault, number: int) -> Observed:
    """One round; returns when the shard is whole again."""
    topology = (await stage.whole([shard]))[shard]
    primary = topology.primary
    assert primary is not None  # noqa: S101 - whole
    voters: tuple[NodeName, ...] = tuple(v for v in topology.sync.voters if v != primary)

    async def now() -> Struck:
        return await fault(stage.folder, primary, voters)

    promise = stage.fleet.promises_of(shard).crash
    running = application(client, stage, shard, number)
    observed = await observe(
        stage, running, shard, name, now, promise=promise.rto if promise else None, timing=Timing(before=2.5, after=5.0)
    )
    await stage.whole([shard])
    return observed


SUMMARY = (
    "what was killed",
    "n",
    "gap: median s",
    "max s",
    "gap psycopg: median s",
    "max s",
    "lost",
    "writers at once",
    "kept",
)


def _summary(name: str, seen: list[Observed]) -> tuple[Any, ...]:
    gaps = [one.verdict.rto_seconds for one in seen]
    theirs = [one.verdict.pooler_seconds or 0.0 for one in seen]
    return (
        name, len(seen), quantile(gaps, 0.5), max(gaps), quantile(theirs, 0.5), max(theirs),
        sum(one.verdict.acknowledged_writes_lost for one in seen), max(one.verdict.writers_at_once for one in seen),
        all(one.verdict.kept for one in seen),
    )  # fmt: skip


def _rows(found: dict[str, list[Observed]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (
            name, number, one.verdict.rto_seconds, one.verdict.pooler_seconds, one.after("released"), one.after("taken"),
            round(one.verdict.resolution_seconds * 1000, 1), one.verdict.acknowledged_writes,
            one.verdict.acknowledged_writes_lost, one.verdict.unknown, sum(one.tally.errors.values()),
            one.verdict.writers_at_once, one.verdict.timelines, one.verdict.kept,
        )
        for name, seen in found.items()
        for number, one in enumerate(seen, 1)
    )  # fmt: skip
