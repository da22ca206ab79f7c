"""Looking at a fleet on this host: its folder, its keeper, etcd, its primaries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pgfleet.engines.etcd import authentication_enabled
from pgfleet.errors import EtcdRefused, EtcdUnreachable, KeeperUnreachable, NotApplied
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.fleet import FleetSeen, PlacementSeen, ShardSeen, UnitSeen
from pgfleet.facts.topology import NAMESPACE, ShardTopology, read_shards
from pgfleet.names import NodeName
from pgfleet.providers.local.access import etcd_as
from pgfleet.providers.local.keeper.control import KeeperClient
from pgfleet.providers.local.prepare import read_prepared
from pgfleet.providers.local.units import read_units
from pgfleet.runtime.state import read_addresses

PLACEMENT = "/pgfleet/placement"


async def observe(folder: Path) -> FleetSeen:
    """What there is of the fleet in ``folder``, everything asked at once. Never raises because something is down."""
    try:
        book = read_addresses(folder)
    except NotApplied:
        return FleetSeen()
    (keeper, units), seen = await asyncio.gather(_units(folder, book), _coordination(folder, book))
    return replace(seen, addresses=book, keeper=keeper, units=units)


async def _units(folder: Path, book: AddressBook) -> tuple[bool, dict[str, UnitSeen]]:
    wanted = {unit.name: UnitSeen(unit.name, unit.digest) for unit in read_units(folder)}
    for shard in sorted((folder / "nodes").glob("*")):
        for member in sorted(shard.glob("*")):
            name = f"node/{shard.name}/{member.name}"
            wanted.setdefault(name, UnitSeen(name, "", state="leftover"))
    try:
        status = await KeeperClient(folder).status()
    except KeeperUnreachable:
        return False, wanted
    for unit in status.units:
        known = wanted.get(unit.name)
        if known is not None and known.state != "leftover":
            wanted[unit.name] = replace(
                known, state=unit.state, pid=unit.pid, database_pid=unit.postmaster, restarts=unit.restarts,
                problem="" if unit.state == "running" else unit.last_because,
            )  # fmt: skip
    return True, wanted


async def _coordination(folder: Path, book: AddressBook) -> FleetSeen:
    if not book.etcd or not (folder / "certificates" / "operator.key").exists():
        return FleetSeen()
    async with etcd_as(folder, book, None, timeout=1.0) as stranger:
        try:
            if not await authentication_enabled(stranger):
                return FleetSeen(etcd=True)
        except EtcdUnreachable:
            return FleetSeen()
    try:
        async with etcd_as(folder, book, "keeper") as etcd:
            keys, placement = await asyncio.gather(etcd.range(NAMESPACE, prefix=True), etcd.range(PLACEMENT))
    except (EtcdUnreachable, EtcdRefused):
        return FleetSeen(authenticated=True)
    names = {node.name.shard for node in book.nodes}
    shards = read_shards(((kv.key, kv.value, kv.mod_revision) for kv in keys.kvs), names)
    configurations = {kv.key: kv.value for kv in keys.kvs if kv.key.endswith("/config")}
    prepared = await _prepared(folder, book, shards)
    return FleetSeen(
        etcd=True,
        authenticated=True,
        shards={
            name: ShardSeen(topology, _configuration(configurations.get(f"{NAMESPACE}{name}/config")), *prepared[name])
            for name, topology in shards.items()
        },
        placement=placement.first.value if placement.first is not None else None,
    )


def _configuration(text: str | None) -> Mapping[str, object] | None:
    return json.loads(text) if text is not None else None


async def _prepared(
    folder: Path, book: AddressBook, shards: Mapping[str, ShardTopology]
) -> dict[str, tuple[str | None, PlacementSeen | None]]:
    async def one(primary: NodeName | None) -> tuple[str | None, PlacementSeen | None]:
        node = book.node(primary) if primary is not None else None
        return await read_prepared(folder, book, node) if node is not None else (None, None)

    answers = await asyncio.gather(*(one(topology.primary) for topology in shards.values()))
    return dict(zip(shards, answers, strict=True))
