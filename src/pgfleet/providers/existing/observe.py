"""What is seen of a fleet on servers that exist already: their own words, and what is kept in the folder here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pgfleet.errors import NotApplied
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.fleet import FleetSeen, ShardSeen
from pgfleet.facts.topology import MemberSeen, ShardTopology
from pgfleet.names import NodeName
from pgfleet.providers.existing.look import Answer, LoginOf, Look, answered, look, primary_of
from pgfleet.runtime.given import SECRETS, Given
from pgfleet.runtime.login import login_of
from pgfleet.runtime.sql import Login
from pgfleet.runtime.state import read_addresses


def freshest_login_of(folder: Path, book: AddressBook | None, given: Given | None) -> LoginOf:
    """How nodes are logged in to: as the file says now, where it speaks of the same server; else as it was applied."""

    def of(node: NodeAddress) -> Login:
        there = given.book.node(node.name) if given is not None else None
        if given is not None and there is not None and (there == replace(node, secret=there.secret) or book is None):
            return given.logins[node.name]
        if book is None:
            raise NotApplied(f"{node.name} was never applied here", hint="pgfleet apply")
        return login_of(folder, book, node, "")

    return of


async def observe(folder: Path, given: Given | None) -> FleetSeen:
    """What there is of the fleet in ``folder``; where it was never applied, of the servers that the file gives: somebody may have
    applied it elsewhere. Never raises because something is down.

    :param given: None: what the file gives cannot be resolved here.
    """
    try:
        book: AddressBook | None = read_addresses(folder)
    except NotApplied:
        book = None
    looked_at = book if book is not None or given is None else given.book
    nodes = looked_at.nodes if looked_at is not None else ()
    looks = await look(nodes, freshest_login_of(folder, book, given))
    shards = dict.fromkeys(node.name.shard for node in nodes)
    by_shard = {shard: {name: one for name, one in looks.items() if name.shard == shard} for shard in shards}
    return FleetSeen(
        addresses=book,
        shards={shard: _shard(shard, of_shard) for shard, of_shard in by_shard.items()},
        placement=_placement(folder),
        secrets=_secrets(folder),
    )


def _shard(shard: str, looks: Mapping[NodeName, Look]) -> ShardSeen:
    said, primary = answered(looks), primary_of(looks)
    members = {name: _member(name, one) for name, one in said.items()}
    there = said[primary] if primary is not None else None
    topology = ShardTopology(shard, primary, members, position=there.position if there is not None else None)
    prepared = there.shard[2] if there is not None and there.shard is not None else None
    return ShardSeen(topology, prepared=prepared, placement=there.placement if there is not None else None)


def _member(name: NodeName, one: Answer) -> MemberSeen:
    if not one.recovering:
        return MemberSeen(name, "primary", "running", one.position, one.timeline)
    state = "streaming" if one.receiving else "in archive recovery"
    return MemberSeen(name, "replica", state, one.position, one.timeline)


def _placement(folder: Path) -> str | None:
    """The map that was recorded here; what the shards hold is seen of each."""
    try:
        return (folder / "placement.json").read_text()
    except FileNotFoundError:
        return None


def told_apart(secret: str) -> str:
    """Equal for equal secrets; it stays in this process, and is in no file, plan or message."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _secrets(folder: Path) -> dict[str, str]:
    """What tells the kept secrets from others, of those that are ours to read."""
    kept = {}
    for path in sorted((folder / "secrets").glob(f"{SECRETS}*")):
        try:
            kept[path.name] = told_apart(path.read_text())
        except OSError:
            continue
    return kept
