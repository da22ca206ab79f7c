"""Changed settings of a shard: told to Patroni, and restarts where PostgreSQL asks for them, the primary last."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

from pgfleet.errors import NotSettled
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.topology import ShardTopology
from pgfleet.names import NodeName
from pgfleet.plan.wanted import WantedShard
from pgfleet.providers.local.access import rest_of
from pgfleet.providers.local.settle import Settling, all_streaming
from pgfleet.providers.local.switchover import switch_over, voters_of

#: Seconds for one node to restart and stream again.
RESTART_WITHIN = 60.0


def patch_for(wanted: Mapping[str, object], seen: Mapping[str, object]) -> dict[str, object]:
    """The change for Patroni's ``PATCH /config``: everything wanted, and None for parameters that nobody wants any more."""
    patch = dict(wanted)
    postgresql = wanted.get("postgresql")
    there = seen.get("postgresql")
    if isinstance(postgresql, Mapping) and isinstance(there, Mapping):
        parameters = dict(postgresql.get("parameters", {}))
        gone = dict.fromkeys(set(there.get("parameters") or {}) - set(parameters))
        patch["postgresql"] = {**postgresql, "parameters": parameters | gone}
    if "synchronous_node_count" not in wanted and "synchronous_node_count" in seen:
        patch["synchronous_node_count"] = None
    return patch


async def change_settings(
    folder: Path, book: AddressBook, shard: WantedShard, settling: Settling, leaving: Collection[NodeName] = ()
) -> str:
    """Bring the shard's dynamic configuration to what is wanted, and restart what waits for it.

    :param leaving: nodes that are about to go: they are not restarted, though one may be the primary.
    :returns: what was done, for the progress line.
    :raises PatroniUnreachable, PatroniRefused, NotSettled: it stopped there; apply goes on from what it sees then.
    """
    nodes = tuple(node for node in book.of_shard(shard.name) if node.name not in leaving)
    names = [node.name for node in nodes]
    topology = await _whole(settling, shard.name, names)
    primary = _address(book, topology.primary)
    status, seen = await rest_of(folder, primary).call("GET", "/config")
    await rest_of(folder, primary).patch_configuration(patch_for(shard.configuration, seen if status == 200 else {}))
    # Patroni compares the new settings with PostgreSQL's in its next loop, a second later at most; ask until it has looked.
    pending = await _pending(folder, nodes)
    if not pending:
        return "in force"
    replicas = [node for node in nodes if node.name in pending and node.name != primary.name]
    for replica in replicas:
        await rest_of(folder, replica).restart()
        topology = await _whole(settling, shard.name, names)
    others = [name for name in voters_of(book, shard.name) if name != primary.name and name not in leaving]
    if primary.name in pending:
        if others:
            await switch_over(folder, book, shard.name, None, settling, leaving=leaving)
        await rest_of(folder, primary).restart()
        await _whole(settling, shard.name, names)
    moved = primary.name in pending and others
    return f"in force after a restart of {len(pending)} nodes" + (", the primary after a switchover" if moved else "")


async def _pending(folder: Path, nodes: tuple[NodeAddress, ...]) -> set[NodeName]:
    found: set[NodeName] = set()
    for _ in range(6):  # three loops of Patroni: it looks once a second
        await asyncio.sleep(0.5)
        answers = await asyncio.gather(*(rest_of(folder, node).call("GET", "/patroni") for node in nodes))
        found |= {node.name for node, (_, said) in zip(nodes, answers, strict=True) if said.get("pending_restart")}
    return found


async def _whole(settling: Settling, shard: str, names: list[NodeName]) -> ShardTopology:
    return await settling.until(shard, lambda t: all_streaming(t, names), names, within=RESTART_WITHIN, what="whole")


def _address(book: AddressBook, name: NodeName | None) -> NodeAddress:
    node = book.node(name) if name is not None else None
    if node is None:
        raise NotSettled(f"{name} is not in the address book")
    return node
