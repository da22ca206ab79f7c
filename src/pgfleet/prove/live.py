"""A line a second while an application runs."""

from __future__ import annotations

import asyncio
import time

from pgfleet.prove.evidence import longest_gap
from pgfleet.prove.experiment import WARM_UP
from pgfleet.prove.load import Application
from pgfleet.prove.show import Show
from pgfleet.prove.tally import tally


async def tell_every_second(application: Application, began: float, shard: str, show: Show) -> None:
    """Until it is cancelled: rates of the second that passed, and the longest write gap on ``shard`` up to now."""
    told = 0
    second = 0
    while True:
        second += 1
        await asyncio.sleep(max(0.0, began + second - time.monotonic()))
        now = tally(application.calls[told:], 1.0)
        told = len(application.calls)
        if second <= WARM_UP:
            continue
        gap = longest_gap(
            (ack.at for ack in application.acks if ack.shard == shard and ack.at >= began + WARM_UP), time.monotonic()
        )
        errors = sum(now.errors.values())
        show.say(
            f"  {second:3d} s   {now.reads:5d} reads/s, {now.replica_share:4.0%} by replicas"
            f"   {now.writes:4d} writes/s   {errors} errors   longest write gap {gap.seconds * 1000:5.0f} ms"
        )
