"""Lookups, decided: which values a write claims and gives up, and what an entry of ``pgfleet.lookup`` means.

An entry is *claimed* by a write and confirmed when that write is known to be committed; it is *released* by a write in the
same two steps, and deleted. In between it is undecided, and only the outcome of that write, a row on the shard where it ran,
decides. A write that gives up a value that has no entry makes one that is *vacant*: claimed by nobody, being released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from pgfleet.errors import PlacementError
from pgfleet.routing.hashing import Key, key_text
from pgfleet.routing.placement import Placement

#: Between the texts of a lookup's several columns, as :meth:`Placement.lookup` hashes them.
SEPARATOR = "\x1f"
#: Bytes of UTF-8 that a value may have: PostgreSQL's B-tree takes 2704 with the names beside it (nbtree.h).
LONGEST = 2000

#: A value for one column, or a list or tuple with one for each; NULL among them claims nothing, as in a unique index.
Value = Key | None | Sequence[Key | None]


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One value of a lookup, and the shard that holds its entry. Sorted, all writes claim in the same order."""

    table: str
    lookup: str
    value: str
    shard: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """The write whose outcome decides about an entry, and the shard that knows it."""

    write: UUID
    shard: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What ``pgfleet.lookup`` holds for an address.

    :param age: seconds since it was claimed, or since its release began; on the clock of its own shard.
    """

    key: str
    second: str | None
    owner: str
    reservation: UUID
    confirmed: bool
    releasing: UUID | None
    releasing_on: str | None
    age: float

    @property
    def claimed(self) -> bool:
        """Whether the write that is waited for claims the value; it gives it up otherwise."""
        return not self.confirmed and self.releasing is None

    @property
    def undecided(self) -> Undecided | None:
        """Whose outcome must be known before the entry means anything; None: it holds."""
        if self.releasing is not None and self.releasing_on is not None:
            return Undecided(self.releasing, self.releasing_on)
        return None if self.confirmed else Undecided(self.reservation, self.owner)

    def holds(self, outcome: bool | None) -> bool:
        """Whether a row has the value, when the write it waits for came out so.

        :param outcome: committed, or not; None: neither yet.
        """
        if self.claimed:
            return outcome is True
        return self.confirmed and (self.releasing is None or outcome is not True)


def address(placement: Placement, table: str, lookup: str, value: Value) -> Address | None:
    """Where the entry of a value is; None: it has a NULL.

    :raises PlacementError: no such lookup, another number of values than it has columns, or a value that is no key.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [cast("Key | None", value)]
    hashed = placement.lookups.get((table, lookup))
    columns = [] if hashed is None or hashed.column is None else hashed.column.split(", ")
    if hashed is not None and len(values) != len(columns):
        raise PlacementError(f"lookup {lookup} of {table} is by {', '.join(columns)}; {len(values)} values were given")
    there = [each for each in values if each is not None]
    if len(there) < len(values):
        return None
    shard = placement.lookup(table, lookup, *there).shard
    texts = [key_text(each) for each in there]
    if len(texts) > 1 and any(SEPARATOR in text for text in texts):
        raise PlacementError(f"a value for lookup {lookup} of {table} contains U+001F, which stands between its columns")
    joined = SEPARATOR.join(texts)
    if len(joined.encode()) > LONGEST:
        raise PlacementError(f"a value for lookup {lookup} of {table} is longer than {LONGEST:,} bytes")
    return Address(table, lookup, joined, shard)


def addresses(placement: Placement, table: str, given: Mapping[str, Value]) -> tuple[Address, ...]:
    """Of every lookup's value that is not NULL, in the order in which they are claimed."""
    found = (address(placement, table, lookup, value) for lookup, value in given.items())
    return tuple(sorted(each for each in found if each is not None))


def by_columns(placement: Placement, table: str, given: Mapping[str, Value]) -> tuple[str, Value]:
    """The lookup that is meant by keyword arguments: its name with its value, or its columns with theirs.

    :raises PlacementError: none.
    """
    if len(given) == 1:
        ((name, value),) = given.items()
        if (table, name) in placement.lookups:
            return name, value
    for (of, name), hashed in sorted(placement.lookups.items()):
        columns = (hashed.column or "").split(", ")
        if of == table and sorted(columns) == sorted(given):
            return name, [_single(given[column], column) for column in columns]
    known = ", ".join(f"{name} ({hashed.column})" for (of, name), hashed in placement.lookups.items() if of == table)
    raise PlacementError(f"table {table} has no lookup by {', '.join(given) or 'nothing'}", hint=known and f"known: {known}")


def _single(value: Value, column: str) -> Key | None:
    if isinstance(value, (list, tuple)):
        raise PlacementError(f"one value was expected for {column}, not {len(value)}")
    return cast("Key | None", value)
