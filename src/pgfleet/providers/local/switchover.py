"""Switchover: a planned change of the primary, to a replica that has everything."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import asyncpg

from pgfleet.errors import NoCandidate, NotSettled
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.topology import ShardTopology
from pgfleet.names import NodeName
from pgfleet.providers.local.access import connect_as, rest_of
from pgfleet.providers.local.settle import Settling

#: Seconds in which the new primary must take writes after Patroni said that it is done.
WRITABLE_WITHIN = 30.0
#: Seconds for somebody to be able to take over: Patroni counts a replica that has just come back in a loop or two later.
CANDIDATE_WITHIN = 10.0


def candidates(topology: ShardTopology, voters: Collection[NodeName]) -> list[NodeName]:
    """Who may take over without losing anything: voters that take part in synchronous replication and stream, the one that
    has come farthest first. Where nothing is replicated synchronously, all that stream: a primary that stops in good order
    sends them everything first.

    :param voters: that the file declares.
    """
    members = topology.members
    taking_part = topology.sync.voters if topology.sync.leader is not None else voters
    able = [n for n in taking_part if n != topology.primary and n in members and members[n].state == "streaming"]
    return sorted(able, key=lambda n: (-(members[n].position or 0), n))


def voters_of(book: AddressBook, shard: str) -> tuple[NodeName, ...]:
    """Who of ``shard`` may be elected."""
    return tuple(node.name for node in book.of_shard(shard) if node.kind == "voter")


async def switch_over(
    folder: Path, book: AddressBook, shard: str, to: NodeName | None, settling: Settling, *, home: str = "",
    leaving: Collection[NodeName] = (),
) -> NodeName:  # fmt: skip
    """Make ``to``, or the best candidate, the primary of ``shard``; the new primary.

    :param home: a region whose candidates go before others.
    :param leaving: nodes that are no candidates.
    :raises NoCandidate: nobody can, or ``to`` cannot.
    :raises PatroniRefused: Patroni said no.
    """
    nodes = [node.name for node in book.of_shard(shard)]
    voters = voters_of(book, shard)

    def able(topology: ShardTopology) -> list[NodeName]:
        return [name for name in candidates(topology, voters) if name not in leaving]

    try:
        topology = await settling.until(
            shard,
            lambda t: t.primary is not None and t.announced and (to in able(t) if to else bool(able(t))),
            nodes,
            within=CANDIDATE_WITHIN,
            what="ready",
        )
    except NotSettled as error:
        raise NoCandidate(
            f"no switchover of {shard}: " + (f"{to} cannot take over now" if to else "no node can take over now"),
            seen=error.seen,
            hint="pgfleet status",
        ) from error
    old = topology.primary
    chosen = to or sorted(able(topology), key=lambda name: name.region != home)[0]  # sorted() keeps the order within each
    primary = book.node(old) if old is not None else None
    if primary is None:
        raise NotSettled(f"{old} is not in the address book")
    await _checkpoint(folder, book, old)
    await rest_of(folder, primary).switchover(primary.name.member, chosen.member)
    after = await settling.until(
        shard,
        lambda t: t.primary not in (None, old) and t.announced,
        nodes,
        within=WRITABLE_WITHIN,
        what="switched over",
    )
    assert after.primary is not None  # noqa: S101 - what was waited for
    return after.primary


async def _checkpoint(folder: Path, book: AddressBook, name: NodeName | None) -> None:
    """The shutdown's own checkpoint is part of the pause: a checkpoint now leaves little for it."""
    node = book.node(name) if name is not None else None
    if node is None:
        return
    connection = await connect_as(folder, node, "postgres", "postgres", timeout=60.0)
    try:
        await connection.execute("checkpoint")
    except asyncpg.PostgresError as error:
        raise NotSettled(f"no checkpoint on {name}", seen=[str(error)]) from error
    finally:
        await connection.close()
