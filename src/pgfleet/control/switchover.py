"""Switchover, as a person asks for it: names understood, one at a time, journaled."""

from __future__ import annotations

from pathlib import Path

from pgfleet.control.journal import Journal
from pgfleet.control.lock import acting
from pgfleet.errors import NoSuchName, ProviderCannot
from pgfleet.names import NodeName
from pgfleet.providers.driver import Driver
from pgfleet.runtime.state import read_addresses
from pgfleet.spec.fleet import Fleet


def node_of(fleet: Fleet, shard: str, node: str | None) -> NodeName | None:
    """The node called ``node`` (``us-west-1`` or ``stem/us-west-1``) of ``shard``; None for None.

    :raises NoSuchName: no such shard, or no such node in it.
    """
    if shard not in fleet.shards:
        raise NoSuchName(f"the file declares no shard {shard!r}", seen=[f"shards: {', '.join(fleet.shards)}"])
    if node is None:
        return None
    names = [one.name for one in fleet.shape(shard).nodes]
    for name in names:
        if node in (name.member, str(name)):
            return name
    raise NoSuchName(f"shard {shard} has no node {node!r}", seen=[f"nodes: {', '.join(n.member for n in names)}"])


def allowed(fleet: Fleet, shard: str) -> None:
    """:raises ProviderCannot: the fleet's provider has no means to change a primary."""
    if not fleet.traits.switchover:
        raise ProviderCannot(
            f"provider {fleet.provider} cannot change the primary of {shard}",
            hint="promote a replica by the means of whoever runs it; clients follow by themselves",
        )


async def switch_over(driver: Driver, folder: Path, shard: str, to: NodeName | None) -> NodeName:
    """Change the primary of ``shard`` to ``to``, or to the best candidate; the new primary.

    :raises NotApplied: there is no such fleet here.
    :raises FleetBusy, NoCandidate, PatroniRefused, NotSettled: it did not happen.
    """
    read_addresses(folder)  # before the lock, which makes the folder
    because = "a person asked for it" + (f", to {to.member}" if to is not None else "")
    with (
        acting(folder, "switchover"),
        Journal(folder / "journal.db") as journal,
        journal.act(actor="switchover", what="switchover", subject=shard, because=because) as told,
    ):
        new = await driver.switch_over(shard, to)
        told["told"] = f"{new.member} is primary"
        return new
