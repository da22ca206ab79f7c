"""Answers of several shards, made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg


class Rows(list[asyncpg.Record]):
    """Rows of every shard that answered. ``missing``: the shards that did not."""

    def __init__(self, rows: Iterable[asyncpg.Record], missing: tuple[str, ...] = ()) -> None:
        super().__init__(rows)
        self.missing = missing


def merge(
    answers: Sequence[Sequence[Any]], order_by: str | None, *, descending: bool = False, limit: int | None = None
) -> list[Any]:
    """All rows; in order of the column ``order_by``, NULL last ascending and first descending, as PostgreSQL has it.

    Text is ordered by code point, which is what the fleet's databases do (locale C.UTF-8).

    :raises KeyError: no such column in the answer.
    """
    rows = [row for answer in answers for row in answer]
    if order_by is not None:
        rows.sort(key=lambda row: _Key(row[order_by]), reverse=descending)
    return rows if limit is None else rows[:limit]


class _Key:
    """A value that may be NULL, greater than any that is not (PostgreSQL docs, 7.5)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Key) -> bool:
        if self.value is None:
            return False
        return other.value is None or bool(self.value < other.value)
