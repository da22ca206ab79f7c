"""Which node, etcd member and pooler of a fleet gets which port: the address book that fits the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pgfleet.facts.addresses import AddressBook, EtcdAddress, NodeAddress, PoolerAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.providers.local.ports import Ports
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.shape import ShardShape

HOST = "127.0.0.1"


def assign(
    fleet: Fleet, shapes: Sequence[ShardShape], folder: Path, seen: AddressBook | None, ports: Ports, *, prepared: int = 0
) -> AddressBook:
    """The address book of ``fleet``: what has an address keeps it, what is new gets ports, what is gone is left out.

    :param prepared: prepared statements that this host's PgBouncer keeps for its clients.
    """
    etcd = seen.etcd if seen is not None else ()
    if not etcd:
        etcd = tuple(
            EtcdAddress(f"etcd-{number}", region, HOST, ports.take(), ports.take())
            for number, region in enumerate(fleet.etcd_regions(), 1)
        )
    nodes: list[NodeAddress] = []
    for shape in shapes:
        for node in shape.nodes:
            known = seen.node(node.name) if seen is not None else None
            port, rest = (known.port, known.rest_port) if known is not None else (ports.take(), ports.take())
            nodes.append(NodeAddress(node.name, node.kind, HOST, port, rest))
    poolers: list[PoolerAddress] = []
    for region in fleet.regions:
        pooler = next((p for p in seen.poolers if p.region == region), None) if seen is not None else None
        poolers.append(
            PoolerAddress(
                region,
                HOST,
                pooler.port if pooler else ports.take(),
                {s.name: (pooler.read_write.get(s.name) if pooler else None) or ports.take() for s in shapes},
                {s.name: (pooler.read_only.get(s.name) if pooler else None) or ports.take() for s in shapes},
                prepared,
            )
        )
    return AddressBook(
        fleet.fleet, str(folder), fleet.database, etcd, tuple(nodes), tuple(poolers), fleet.through, fleet.pools.per_process
    )


def with_leaving(book: AddressBook, seen: FleetSeen) -> AddressBook:
    """``book``, and the nodes of what was seen that are still here: until a node is gone it may be the primary, whom others
    must find."""
    known = seen.addresses.nodes if seen.addresses is not None else ()
    leaving = tuple(node for node in known if book.node(node.name) is None and f"node/{node.name}" in seen.units)
    return replace(book, nodes=book.nodes + leaving)


def ports_of(book: AddressBook) -> set[int]:
    """Every port in ``book``."""
    ports = {port for e in book.etcd for port in (e.client_port, e.peer_port)}
    ports |= {port for n in book.nodes for port in (n.port, n.rest_port)}
    for pooler in book.poolers:
        ports |= {pooler.port, *pooler.read_write.values(), *pooler.read_only.values()}
    return ports
