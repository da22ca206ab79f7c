"""ORDER BY, understood on both sides: as SQL for each shard, as a key for the merge of what the shards answer.

The merge compares in Python, and means the same as PostgreSQL by: numbers, text by code point (``collate "C"``, which a
fleet's databases have), dates and times, uuid, bytea, boolean, network addresses; NaN greater than every other number; infinity
after every other instant; NULL last ascending and first descending unless said otherwise (PostgreSQL docs, 7.5). What else there
is, is refused (:mod:`pgfleet.client.comparing`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from pgfleet.errors import CannotMerge
from pgfleet.names import quote_identifier

#: What a caller writes: ``"difficulty desc nulls last, id"``, or the terms in a list.
OrderBy = str | Sequence[str]

_NAME = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
_TERM = re.compile(
    rf'\s*(?P<name>{_NAME})(?P<c>\s+collate\s+"C")?(?:\s+(?P<way>asc|desc))?(?:\s+nulls\s+(?P<nulls>first|last))?\s*',
    re.IGNORECASE,
)
#: Where a value stands among those of its column, before values are compared.
_FIRST, _EARLIER, _MIDDLE, _LATER, _LAST = range(5)
#: What asyncpg makes of infinity: without a time zone, also where the others have one.
_FOREVER, _EVER = datetime.max, datetime.min  # noqa: DTZ901
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class Term:
    """One column of an ORDER BY.

    :param column: its name in the answer.
    :param collate_c: the shards shall sort it by code point, whatever their databases' collation.
    """

    column: str
    descending: bool = False
    nulls_first: bool = False
    collate_c: bool = False

    def __str__(self) -> str:
        collation = ' collate "C"' if self.collate_c else ""
        way = " desc" if self.descending else ""
        return f"{quote_identifier(self.column)}{collation}{way} nulls {'first' if self.nulls_first else 'last'}"


@dataclass(frozen=True, slots=True)
class Order:
    """The columns, the most significant first; none: no order is asked for."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, order_by: OrderBy | None, *, descending: bool = False) -> Order:
        """:param descending: the direction of terms that do not say theirs.
        :raises CannotMerge: not a list of columns with ``asc``, ``desc``, ``nulls first``, ``nulls last``.
        """
        if order_by is None:
            return cls()
        texts = [order_by] if isinstance(order_by, str) else order_by
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise CannotMerge(f"order_by is text, or a list of texts, not {order_by!r}", hint="order_by='difficulty desc, id'")
        terms = tuple(term for text in texts for term in _terms(text, descending))
        names = [term.column for term in terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise CannotMerge(f"{twice} stands twice in {order_by!r}")
        return cls(terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        """As SQL, without the words ORDER BY."""
        return ", ".join(str(term) for term in self.terms)

    def key(self, columns: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
        """What rows with these columns are compared by.

        :raises CannotMerge: a column is not among them, or there twice.
        """
        parts = [(place(columns, term.column), term.descending, _FIRST if term.nulls_first else _LAST) for term in self.terms]
        if len(parts) == 1:
            at, down, null = parts[0]
            return lambda row: _part(row[at], down, null)
        return lambda row: tuple([_part(row[at], down, null) for at, down, null in parts])

    def incomparable(self, rows: Iterable[Any]) -> CannotMerge:
        """Which column holds values that have no common order; asked when comparing failed."""
        rows = list(rows)
        for term in self.terms:
            values = [row[term.column] for row in rows if row[term.column] is not None]
            try:
                sorted(values)
            except (TypeError, ArithmeticError):
                kinds = sorted({type(value).__name__ for value in values})
                break
        else:
            return CannotMerge(f"the rows have no common order by {self}")
        return CannotMerge(
            f"values of column {term.column} have no common order",
            seen=[f"they arrive as {', '.join(kinds)}"], hint="order by an expression of a simple type that the query selects",
        )  # fmt: skip


def place(columns: Sequence[str], name: str) -> int:
    """Where ``name`` stands in an answer's columns.

    :raises CannotMerge: nowhere, or twice.
    """
    if (found := columns.count(name)) == 1:
        return columns.index(name)
    if found:
        raise CannotMerge(f"the answer has {found} columns {name}", hint=f"give one of them another name: ... as {name}_2")
    raise CannotMerge(f"the answer has no column {name}", seen=[f"columns: {', '.join(columns)}"])


def _part(value: Any, down: bool, null: int) -> tuple[Any, ...]:
    if value is None:
        return (null, None)
    slot, value = standing(value)
    return (_FIRST + _LAST - slot, _Down(value)) if down else (slot, value)


def standing(value: Any) -> tuple[int, Any]:
    """Where a value that is not NULL stands among those of its type: what they are compared by."""
    if value != value:  # NaN
        return _LATER, None
    if isinstance(value, datetime) and value.tzinfo is None and value in (_FOREVER, _EVER):
        return (_LATER if value == _FOREVER else _EARLIER), None
    if isinstance(value, _ADDRESSES):
        return _MIDDLE, _address(value)
    return _MIDDLE, value


def _address(value: Any) -> tuple[int, int, int, int]:
    """By family, network, its length, and the address in it (src/backend/utils/adt/network.c, network_cmp_internal)."""
    network = value if isinstance(value, (IPv4Network, IPv6Network)) else getattr(value, "network", value)
    if isinstance(network, (IPv4Network, IPv6Network)):
        first = int(network.network_address)
        return value.version, first, network.prefixlen, first if network is value else int(value)
    return value.version, int(value), value.max_prefixlen, int(value)


class _Down:
    """A value of a descending column."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Down) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]  # only compared


def _terms(said: str, descending: bool) -> Iterator[Term]:
    at = 0
    while at <= len(said):
        match = _TERM.match(said, at)
        if match is None or said[match.end() : match.end() + 1] not in ("", ","):
            raise CannotMerge(
                f"{said[at:].strip()!r} is nothing to order by",
                hint='columns of the answer, each with: collate "C", asc or desc, nulls first or last',
            )
        yield _term(match, descending)
        at = match.end() + 1


def _term(match: re.Match[str], descending: bool) -> Term:
    name = match["name"]
    name = name[1:-1].replace('""', '"') if name.startswith('"') else re.sub("[A-Z]+", lambda found: found[0].lower(), name)
    down = descending if match["way"] is None else match["way"].lower() == "desc"
    first = down if match["nulls"] is None else match["nulls"].lower() == "first"
    return Term(name, down, first, match["c"] is not None)
