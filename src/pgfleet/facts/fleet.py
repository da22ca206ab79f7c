"""What was seen of a fleet at one moment. Absence is a fact too: None means that nobody could look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.topology import ShardTopology


@dataclass(frozen=True, slots=True)
class UnitSeen:
    """One process that the provider owns.

    :param digest: of the configuration it was last given.
    :param pid: on its host; None while it does not run.
    :param database_pid: the postmaster's, on its host, for a node.
    """

    name: str
    digest: str
    state: str = "absent"
    pid: int | None = None
    database_pid: int | None = None
    restarts: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PlacementSeen:
    """The map of keys as a shard's primary holds it.

    :param maps: as texts, the newest last; more than one: a change of it is not finished; empty: it never had any.
    :param functions: digest of the functions that judge rows.
    :param unguarded: tables that are there and do not refuse what is not the shard's.
    """

    maps: tuple[str, ...] = ()
    functions: str = ""
    unguarded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardSeen:
    """One shard as its coordination store and its primary tell it.

    :param configuration: Patroni's dynamic configuration; None where the shard was never started.
    :param prepared: digest of the roles, database and schema that the primary was prepared with; None where unknown.
    :param placement: None where unknown.
    """

    topology: ShardTopology
    configuration: Mapping[str, object] | None = None
    prepared: str | None = None
    placement: PlacementSeen | None = None


@dataclass(frozen=True, slots=True)
class FleetSeen:
    """:param addresses: None: never applied here. :param keeper: whether it answers. :param etcd: whether it answers.
    :param secrets: what tells one secret from another, by the name of its file: those that are kept here.
    :param placement: the map of keys that was last applied, as text. :param misplaced: rows that a new map would lose sight of.
    """

    addresses: AddressBook | None = None
    keeper: bool = False
    etcd: bool = False
    authenticated: bool = False
    units: Mapping[str, UnitSeen] = field(default_factory=dict)
    shards: Mapping[str, ShardSeen] = field(default_factory=dict)
    placement: str | None = None
    misplaced: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
