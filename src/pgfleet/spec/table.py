"""Tables: by which column their rows are placed, and where."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema

from pgfleet.spec import codes
from pgfleet.spec.part import Part
from pgfleet.spec.scalars import Count, Identifier, KeyValue, Wrong

#: The default number of buckets; kept for good, since another number moves most rows.
BUCKETS = 64
MAX_BUCKETS = 65_536

Buckets = Annotated[int, Field(strict=True, ge=1, le=MAX_BUCKETS)]

_PERIOD = re.compile(r"\s*(\d{1,5})\s*(day|week|month|year)s?\s*")
#: Days at least in one of each.
_DAYS = {"day": 1, "week": 7, "month": 28, "year": 365}


class Spread(Part):
    """One key's rows on several shards, by the hash of a second column."""

    hash: Identifier
    """The second column."""
    over: tuple[str, ...]
    """The shards; bucket b lives on the (b mod their number)th."""
    buckets: Buckets = BUCKETS
    """The number of buckets; kept for good."""


class Elsewhere(Part):
    """Where the keys live that are not listed: bucket b of SHA-256 on shard b mod the number of shards."""

    hash: Buckets
    """The number of buckets; kept for good."""
    over: tuple[str, ...]
    """The shards that the buckets are spread over, in turn."""


class Lookup(Part):
    """Finding a row's shard, and keeping it unique, by other columns than the key."""

    columns: tuple[Identifier, ...]
    """The columns that are looked up, together."""
    over: tuple[str, ...] = ()
    """The shards that hold the lookup, hashed; kept while it has entries. Unsaid: those of the table that no residency binds
    when it is first applied, for good."""
    buckets: Buckets = BUCKETS
    """The number of buckets; kept for good."""


def _kind(value: object) -> str:
    """Which of two forms was written. Tags have characters that no name has, so that they are never taken for a key."""
    return "<mapping>" if isinstance(value, dict | Part) else "<list>" if isinstance(value, list | tuple) else "<word>"


def _one(value: dict[str, Spread]) -> dict[str, Spread]:
    if len(value) != 1:
        one = f"{{{next(iter(value), 'Mathematics')}: {{hash: id, over: [stem, stem-2]}}}}"
        raise Wrong(codes.VALUE, f"one key and its spread were expected, such as {one}", hint=one)
    return value


def _period(text: str) -> str:
    match = _PERIOD.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise Wrong(codes.DURATION, f"{text!r} is not a period, such as 30 days, 13 months, 2 years", hint="13 months")
    return f"{match[1]} {match[2]}{'s' if match[1] != '1' else ''}"


def period_days(period: str) -> int:
    """At least so many days are in ``period`` (``13 months``: 364)."""
    number, unit = period.split()
    return int(number) * _DAYS[unit.removesuffix("s")]


Period = Annotated[
    str,
    AfterValidator(_period),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*(day|week|month|year)s?\s*$"}),
]
Item = Annotated[
    Annotated[KeyValue, Tag("<word>")]
    | Annotated[KeyValue, Tag("<list>")]
    | Annotated[dict[str, Spread], AfterValidator(_one), Tag("<mapping>")],
    Discriminator(_kind),
]


class Partition(Part):
    """Partitions by time inside each shard."""

    by: Identifier
    """The column; a date or a timestamp."""
    every: Literal["day", "week", "month", "year"]
    """What one partition spans."""
    ahead: Count = 6
    """Partitions that are there before their time comes."""
    keep: Period | None = None
    """How long a partition stays. Unsaid: for good."""
    then: Literal["archive", "drop"] | None = None
    """What becomes of it afterwards. Unsaid: archive."""


class Table(Part):
    """One table: its key, and the shards that hold it."""

    key: Identifier | None = None
    """The column whose value says where a row lives. It is in every unique index of the table."""
    place: dict[str, tuple[Item, ...]] = Field(default_factory=dict)
    """Keys per shard, listed."""
    elsewhere: (
        Annotated[
            Annotated[Literal["refuse"], Tag("<word>")]
            | Annotated[Elsewhere, Tag("<mapping>")]
            | Annotated[Elsewhere, Tag("<list>")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    """Where keys live that are not listed; `refuse`, or unsaid where `place` is: they are an error."""
    with_: str | None = Field(None, alias="with")
    """Rows live with the rows of this table that have the same key."""
    lookups: dict[
        Identifier,
        Annotated[
            Annotated[tuple[Identifier, ...], Tag("<list>")]
            | Annotated[Lookup, Tag("<mapping>")]
            | Annotated[tuple[Identifier, ...], Tag("<word>")],
            Discriminator(_kind),
        ],
    ] = Field(default_factory=dict)
    """Other columns by which a row is found and is unique: a name, and the columns."""
    partition: Partition | None = None
    """Partitions by time inside each shard; read and checked, rotation is to come."""

    def listed(self) -> list[tuple[str, str, Spread | None]]:
        """Every listed key with the shard it is listed under, in file order."""
        found: list[tuple[str, str, Spread | None]] = []
        for shard, items in self.place.items():
            for item in items:
                if isinstance(item, str):
                    found.append((item, shard, None))
                else:
                    found += [(key, shard, spread) for key, spread in item.items()]
        return found

    def lookup(self, name: str) -> Lookup:
        """A lookup in its long form."""
        said = self.lookups[name]
        return said if isinstance(said, Lookup) else Lookup(columns=said)
