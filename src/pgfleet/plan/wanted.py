"""What the file asks for, as values that can be compared with what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgfleet.facts.addresses import AddressBook


@dataclass(frozen=True, slots=True)
class WantedUnit:
    """One process that should run.

    :param because: the line of the file that asks for it: ``fleet.yaml:18 shards.stem``.
    """

    name: str
    digest: str
    because: str


@dataclass(frozen=True, slots=True)
class WantedShard:
    """:param prepared: digest of roles, database and schema. :param configuration: Patroni's dynamic configuration.
    :param functions: digest of the functions that judge which rows are its own.
    """

    name: str
    because: str
    configuration: Mapping[str, object]
    prepared: str
    functions: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """:param placement: the map of keys, as stable text; with the epoch that it has after all maps that were seen.
    :param provisions: a keeper and an etcd of the fleet's own belong to it; else its servers are given, and nothing runs here.
    :param secrets: what tells one secret from another, by the name of its file: those that come from outside.
    """

    fleet: str
    because: str
    addresses: AddressBook
    units: Mapping[str, WantedUnit]
    shards: Mapping[str, WantedShard]
    placement: str
    notes: tuple[str, ...] = ()
    provisions: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict)
