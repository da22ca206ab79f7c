"""The shape of a shard, with everything said: its nodes, where they stand, and how many must have a commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pgfleet.names import NodeName
from pgfleet.spec.quorum import Quorum


@dataclass(frozen=True, slots=True)
class NodeShape:
    """One PostgreSQL server. A voter can be elected and counts for the quorum; a reader only answers reads."""

    name: NodeName
    region: str
    kind: Literal["voter", "reader"]


@dataclass(frozen=True, slots=True)
class ShardShape:
    """A shard as it is to be.

    :param voters: per region; none where the nodes are given by DSNs, as readers and ``sync`` are nothing then.
    :param nodes: voters first, in each kind the home region first; numbered per region from 1, voters before readers.
    :param settings: PostgreSQL parameters as text: the fleet's, over them the group's, over them the shard's own.
    """

    name: str
    home: str
    voters: dict[str, int]
    readers: dict[str, int]
    sync: int
    settings: dict[str, str]
    nodes: tuple[NodeShape, ...]

    @property
    def quorum(self) -> Quorum:
        return Quorum(voters=sum(self.voters.values()), sync=self.sync)


@dataclass(frozen=True, slots=True)
class GivenNode:
    """One server of a shard that exists already.

    :param dsn: as the file says it: a reference, or a DSN without a password.
    :param path: where the file says so.
    """

    name: NodeName
    dsn: str
    path: tuple[str | int, ...]


def given_nodes(shard: str, dsns: Iterable[tuple[str, str, tuple[str | int, ...]]]) -> Iterator[GivenNode]:
    """Name the nodes, numbered per region from 1. :param dsns: region, DSN, path; the primary first."""
    used: dict[str, int] = {}
    for region, dsn, path in dsns:
        used[region] = used.get(region, 0) + 1
        yield GivenNode(NodeName(shard, region, used[region]), dsn, path)


def nodes_of(shard: str, home: str, voters: dict[str, int], readers: dict[str, int]) -> tuple[NodeShape, ...]:
    """Name the nodes. A voter more in a region that has readers renames those: numbers are given anew, voters first."""
    used: dict[str, int] = {}
    nodes: list[NodeShape] = []
    kinds: tuple[tuple[Literal["voter", "reader"], dict[str, int]], ...] = (("voter", voters), ("reader", readers))
    for kind, places in kinds:
        for region in sorted(places, key=lambda r: r != home):
            for _ in range(places[region]):
                used[region] = used.get(region, 0) + 1
                nodes.append(NodeShape(NodeName(shard, region, used[region]), region, kind))
    return tuple(nodes)
