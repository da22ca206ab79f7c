"""Promises: what the owner of the fleet may count on, by class of fault. ``prove`` measures them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from pgfleet.spec.part import Part
from pgfleet.spec.scalars import Duration, Percentage

NONE = "none"


class Loss(Part):
    """What a fault may cost. None: nothing is promised."""

    rto: Duration | None = None
    """Seconds until writes are answered again."""
    rpo: Duration | None = 0.0
    """Seconds of acknowledged writes that may be lost."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": NONE, "description": "Nothing is promised."}, handler(core)]}


#: ``none`` where nothing is promised.
NOTHING = Loss.model_construct(rto=None, rpo=None)


def _loss(value: object) -> object:
    return {"rto": None, "rpo": None} if value == NONE else value


def _loss_text(loss: Loss | None) -> object:
    return None if loss is None else NONE if loss == NOTHING else loss.model_dump(mode="json", exclude_none=True)


Promise = Annotated[Loss | None, BeforeValidator(_loss), PlainSerializer(_loss_text)]


class ReplicaLag(Part):
    """How far behind a replica may be, 99 times of 100."""

    same_region: Duration | None = Field(None, alias="same region")
    """Of a replica in the primary's region."""
    other_regions: Duration | None = Field(None, alias="other regions")
    """Of a replica elsewhere."""


class Latency(Part):
    """How long a query by key may take, seen by the application."""

    p50: Duration | None = None
    """50 of 100 queries are answered within it."""
    p95: Duration | None = None
    """95 of 100 queries are answered within it."""
    p99: Duration | None = None
    """99 of 100 queries are answered within it."""


class Promises(Part):
    """Promises by class of fault. A shard's come before its group's, and those before the fleet's."""

    crash: Promise = None
    """A process or its node's PostgreSQL dies, its keeper lives. Unsaid: {rto: 1 s, rpo: 0}."""
    silent: Promise = None
    """A machine or its network is gone. Unsaid: {rto: 25 s, rpo: 0}."""
    region: Promise = None
    """A whole region is gone. Unsaid: nothing is promised."""
    replica_lag: ReplicaLag | None = None
    """How far behind replicas may be."""
    query: Latency | None = None
    """How long a query by key may take."""
    availability: Percentage | None = None
    """The share of a month in which writes are answered."""

    def over(self, other: Promises) -> Promises:
        """These promises, and ``other``'s where these say nothing."""
        said = {name: value for name in Promises.model_fields if (value := getattr(self, name)) is not None}
        return other.model_copy(update=said)


#: What a file promises that says nothing: what the engines keep where a voter is left that a commit need not wait for.
DEFAULTS = Promises.model_construct(
    crash=Loss.model_construct(rto=1.0, rpo=0.0), silent=Loss.model_construct(rto=25.0, rpo=0.0), region=NOTHING
)
