"""The address book: what it says is read again, also from a book of before it said as much."""

from __future__ import annotations

import json

import pytest

from pgfleet.engines.pgbouncer import read_version
from pgfleet.facts.addresses import AddressBook, PoolerAddress
from pgfleet.render.pgbouncer import prepared_statements

BOOK = AddressBook(
    "bank", "/bank", "app", poolers=(PoolerAddress("us", "127.0.0.1", 6432, {"one": 1}, {"one": 2}, 200),), through="pooler",
    per_process=3,
)  # fmt: skip


def test_a_book_is_read_as_it_was_written() -> None:
    assert AddressBook.from_json(BOOK.to_json()) == BOOK


def test_a_book_of_before_says_direct() -> None:
    raw = json.loads(BOOK.to_json())
    del raw["through"], raw["per_process"], raw["poolers"][0]["prepared"]
    old = AddressBook.from_json(json.dumps(raw))
    assert (old.through, old.per_process, old.poolers[0].prepared) == ("direct", 10, 0)


@pytest.mark.parametrize(
    ("said", "version", "kept"),
    [
        ("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n", (1, 18), 0),
        ("PgBouncer 1.20.1\n", (1, 20), 0),
        ("PgBouncer 1.21.0\n", (1, 21), 200),
        ("PgBouncer 1.25.0\nlibevent 2.1.12-stable\n", (1, 25), 200),
        ("PgBouncer 2.0.0\n", (2, 0), 200),
        ("something else 9.9\n", (0, 0), 0),
    ],
)
def test_which_pgbouncer_keeps_prepared_statements(said: str, version: tuple[int, int], kept: int) -> None:
    assert read_version(said) == version
    assert prepared_statements(version) == kept
