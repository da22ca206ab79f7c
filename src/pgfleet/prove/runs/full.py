"""The whole question bank on one machine: how long, how much memory, how busy while nobody asks anything."""

from __future__ import annotations

import asyncio

from pgfleet.prove.fleets import example
from pgfleet.prove.footprint import usage
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.runs.bring_up import pgfleet
from pgfleet.prove.show import Show
from pgfleet.prove.stage import staged
from pgfleet.units import format_size

WITHIN = 120.0
#: Seconds to let a new fleet come to rest, and to watch it.
REST, WATCH = 15.0, 20.0


async def run(show: Show, rounds: int | None) -> Page:
    times, nothing, rows = [], [], []
    what = ""
    for number in range(1, (rounds or 1) + 1):
        async with staged(example("question-bank")) as stage:
            shards = list(stage.fleet.shards)
            nodes = sum(len(stage.nodes(shard)) for shard in shards)
            what = f"{nodes} PostgreSQL nodes in {len(shards)} shards"
            with show.step(f"round {number}: {what}"):
                times.append(await pgfleet(stage, "apply"))
                await stage.whole(shards)
            with show.step("nothing to do"):
                nothing.append(await pgfleet(stage, "apply"))
            await asyncio.sleep(REST)
            with show.step(f"watched for {WATCH:g} s"):
                used = await usage(stage.folder, WATCH)
            total = [sum(one[at] for one in used.values()) for at in (0, 1, 2)]
            for engine, (count, size, share) in [
                *sorted(used.items()),
                ("all", (int(total[0]), int(total[1]), total[2])),
            ]:
                rows.append((number, engine, count, format_size(size), f"{share:.1%}"))
    text = (
        f"The example question-bank: {what}, 3 etcd members, 5 regions' poolers. Memory is PSS (shared pages are"
        f" counted once); CPU is the share of one core during {WATCH:g} s in which nobody asked the fleet anything,"
        " its own health checks aside."
    )
    return Page(
        "full", "The whole question bank on one machine", text, len(times),
        (
            Part(("round", "from nothing s", "nothing to do s"), tuple(
                (n, round(a, 1), round(b, 2)) for n, (a, b) in enumerate(zip(times, nothing, strict=True), 1)
            )),
            Part(("round", "engine", "processes", "memory", "idle CPU"), tuple(rows)),
        ),
        (Limit("from nothing, the slowest", max(times), WITHIN),),
    )  # fmt: skip
