"""``pgfleet switchover``: a planned change of a shard's primary."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from pgfleet.cli import view


def switchover(
    context: typer.Context,
    shard: Annotated[str, typer.Argument(metavar="SHARD", help="The shard whose primary is to change.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NODE", help="The new primary: us-west-1 or stem/us-west-1; else the best."),
    ] = None,
) -> None:
    """Change the primary of a shard, planned.

    Nothing is lost; writes wait a few seconds."""
    from pgfleet.control.drivers import driver_of
    from pgfleet.control.switchover import allowed, node_of, switch_over

    driver, fleet, folder = driver_of(context.obj)
    node = node_of(fleet, shard, to)
    allowed(fleet, shard)
    began = time.monotonic()
    new = asyncio.run(switch_over(driver, folder, shard, node))
    took = time.monotonic() - began
    if context.obj.json:
        view.document(
            {"fleet": fleet.fleet, "shard": shard, "primary": new.member, "region": new.region, "took_seconds": round(took, 3)}
        )
    else:
        view.line(f"{shard}: {new.member} is primary, {took:.1f} s")
