"""A primary whose every process is stopped, as when its machine hangs, and which goes on later as"
" if nothing had been."""

from __future__ import annotations

from pgfleet.names import NodeName
from pgfleet.prove.experiment import Observed, Timing, observe
from pgfleet.prove.faults import STOPPED_FOR, Struck
from pgfleet.prove.faults import stop as hang
from pgfleet.prove.fleets import example
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.runs.ground import application, broken, ground
from pgfleet.prove.show import Show

SHARD = "certification"
WITHIN = 25.0
TEXT = (
    f"Every process of a primary's node gets SIGSTOP; those that still exist get SIGCONT {STOPPED_FOR:g} s later. A"
    " stopped server keeps its connections open and says nothing, so only deadlines notice it. *Late* counts writes"
    " that were acknowledged on a timeline after a newer one had acknowledged its first: what an old primary would do"
    " that wakes up and does not know that it was replaced."
)
COLUMNS = (
    "round", "gap s", "gap psycopg s", "lock gone s", "lock taken s", "acknowledged", "lost", "late", "errors", "timelines",
    "kept",
)  # fmt: skip


async def run(show: Show, rounds: int | None) -> Page:
    found: list[Observed] = []
    async with ground(example("question-bank-demo"), show) as (stage, client):
        for number in range(1, (rounds or 3) + 1):
            topology = (await stage.whole([SHARD]))[SHARD]

            async def now(primary: NodeName | None = topology.primary) -> Struck:
                assert primary is not None  # noqa: S101 - whole
                return await hang(stage.folder, primary, ())

            promise = stage.fleet.promises_of(SHARD).silent
            with show.step(f"round {number}") as told:
                one = await observe(
                    stage, application(client, stage, SHARD, number), SHARD, "stop", now,
                    promise=promise.rto if promise else None,
                    timing=Timing(before=2.5, resume=STOPPED_FOR, after=8.0),
                )  # fmt: skip
                told.append(f"{one.struck.told}; gap {one.verdict.rto_seconds:.2f} s;")
                await stage.whole([SHARD])
            found.append(one)
    rows = tuple(
        (
            number, one.verdict.rto_seconds, one.verdict.pooler_seconds, one.after("released"), one.after("taken"),
            one.verdict.acknowledged_writes, one.verdict.acknowledged_writes_lost, one.verdict.late,
            sum(one.tally.errors.values()), one.verdict.timelines, one.verdict.kept,
        )
        for number, one in enumerate(found, 1)
    )  # fmt: skip
    return Page(
        "stop", "A primary that hangs and comes back", TEXT, len(found), (Part(COLUMNS, rows),),
        (Limit("gap through the client, the longest", max(one.verdict.rto_seconds for one in found), WITHIN),),
        tuple(broken(found, "stop")),
    )  # fmt: skip
