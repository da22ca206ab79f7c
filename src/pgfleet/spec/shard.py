"""Shards, and groups that say once what many shards share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Discriminator, Field, Tag

from pgfleet.spec.part import Part
from pgfleet.spec.promises import Promises
from pgfleet.spec.scalars import Count, Name, Nodes, Setting


def _form(value: object) -> str:
    """Which form was written; tags have characters that no name has, so that they are never taken for a key."""
    return "<mapping>" if isinstance(value, dict) else "<list>" if isinstance(value, list | tuple) else "<word>"


_Dsns = Annotated[
    Annotated[tuple[str, ...], Tag("<list>")] | Annotated[str, Tag("<word>")] | Annotated[str, Tag("<mapping>")],
    Discriminator(_form),
]
#: DSNs of replicas: a list, all of them at home; or a DSN, or a list of them, by region.
Replicas: TypeAlias = Annotated[
    Annotated[tuple[str, ...], Tag("<list>")]
    | Annotated[dict[str, _Dsns], Tag("<mapping>")]
    | Annotated[tuple[str, ...], Tag("<word>")],
    Discriminator(_form),
]


class Group(Part):
    """The shape of a shard: where its nodes stand, and how many must have a commit before it is acknowledged."""

    home: Name | None = None
    """The region where the primary belongs. May be left out where the fleet has one region."""
    voters: dict[str, Nodes] | None = None
    """Nodes per region that can be elected and count for the quorum. `home`: the shard's home. Unsaid: {home: 2}."""
    sync: Count | None = None
    """How many voting replicas must have a commit before it is acknowledged. Unsaid: 1 (0 with a single voter)."""
    readers: dict[str, Nodes] = Field(default_factory=dict)
    """Nodes per region that only answer reads."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """PostgreSQL parameters."""
    promises: Promises = Field(default_factory=Promises)
    """Promises that differ from the fleet's."""


class Shard(Group):
    """One highly available PostgreSQL: a primary and its replicas. What it says comes before what its group says."""

    group: str | None = None
    """The group whose shape it has."""
    readers: dict[str, Nodes] | None = None  # type: ignore[assignment]  # unsaid means the group's, empty means none
    residency: tuple[str, ...] = ()
    """The only regions in which rows, copies and archives of this shard may be. Unsaid: anywhere."""
    primary: str | None = None
    """Provider `existing`: the DSN of the primary: what `env:NAME` or `file:PATH` holds, or one without a password."""
    replicas: Replicas = ()
    """Provider `existing`: DSNs of replicas, likewise: a list (all at home), or by region: `{us: env:A, eu: [env:B, env:C]}`."""
