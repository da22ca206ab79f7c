"""Answers of several shards, made one list: merged in order, LIMIT and OFFSET right across all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge as heap_merge
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, TypeVar

from pgfleet.client.order import Order, OrderBy
from pgfleet.errors import CannotMerge

RowT = TypeVar("RowT")
_FIRST = itemgetter(0)


class Rows(list[RowT]):
    """Rows of every shard that answered.

    ``missing``: the shards that did not, each with what it waited for; iterating over it names them.
    """

    def __init__(self, rows: Iterable[RowT], missing: Mapping[str, str] | None = None) -> None:
        super().__init__(rows)
        self.missing: Mapping[str, str] = dict(missing or {})


def merge(
    answers: Mapping[str, Sequence[RowT]] | Sequence[Sequence[RowT]],
    order_by: Order | OrderBy | None, *, descending: bool = False, limit: int | None = None, offset: int = 0,
    asked: int | None = None,
) -> list[RowT]:  # fmt: skip
    """All rows in order; rows that are equal stand in the order of their shards.

    :param answers: of each shard; an answer that is not in order is sorted first.
    :param asked: rows that each shard was asked for; None: all. A shard that gave as many, in another order than
        ours, may hold others that belong before them.
    :raises CannotMerge: no such column, no common order, or such a shard.
    """
    order = order_by if isinstance(order_by, Order) else Order.parse(order_by, descending=descending)
    named = answers if isinstance(answers, Mapping) else {f"answer {n}": answer for n, answer in enumerate(answers, 1)}
    end = None if limit is None else offset + limit
    if not order:
        return list(islice((row for answer in named.values() for row in answer), offset, end))
    try:
        keyed = [_keyed(answer, order, shard, asked) for shard, answer in named.items() if answer]
        return [row for _, row in islice(heap_merge(*keyed, key=_FIRST), offset, end)]
    except (TypeError, ArithmeticError) as error:
        raise order.incomparable(row for answer in named.values() for row in answer) from error


def _keyed(answer: Sequence[Any], order: Order, shard: str, asked: int | None) -> Sequence[tuple[Any, Any]]:
    key = order.key(list(answer[0].keys()))
    rows = [(key(row), row) for row in answer]
    if (wrong := next(descents(rows), None)) is not None:
        if asked is not None and len(rows) >= asked:
            raise misordered(shard, order, *wrong)
        rows.sort(key=_FIRST)
    return rows


def descents(rows: Sequence[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Neighbours, each with its key, of which the second belongs before the first."""
    for (before, first), (after, second) in pairwise(rows):
        if after < before:
            yield first, second


def misordered(shard: str, order: Order, first: Any, second: Any) -> CannotMerge:
    """A shard's own order is not the one that is merged by."""
    found = ", ".join(f"{term.column} {first[term.column]!r} before {second[term.column]!r}" for term in order.terms)
    return CannotMerge(
        f"{shard} sorts otherwise than by code point, or by a type whose order only PostgreSQL knows",
        seen=[found], hint='order_by=\'name collate "C"\', or an expression of a simple type that the query selects',
    )  # fmt: skip
