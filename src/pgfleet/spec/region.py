"""A region, and what provides it."""

from __future__ import annotations

from typing import Literal

from pgfleet.spec.part import Part
from pgfleet.spec.providers import DEFAULT

#: The alias of a shard's own home region inside ``voters`` and ``readers``.
HOME = "home"


class Region(Part):
    """A place that can be lost as a whole."""

    provider: str = DEFAULT
    """Where shards of this region live: `local` (processes on this machine) or `existing` (servers that are given by DSNs)."""
    role: Literal["disaster-recovery"] | None = None
    """A disaster-recovery region holds copies and takes over; reads are not sent there by choice."""
