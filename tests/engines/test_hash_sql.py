"""The hash in SQL is the hash in Python, on a real PostgreSQL, for every key that both can hold."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

import pytest
from tests.engines.scratch import Shards, running

from pgfleet.routing.hashing import MAX_BUCKETS, bucket, bucket_sql

pytestmark = pytest.mark.engines

TEXTS = [
    "",
    "PMP",
    "Social Sciences",
    "Größe",
    "日本語",
    "\U0001f418",
    "a\\b",
    "\\",
    "\\\\x41",
    "\\001",
    "'; --",
    "\x01\x7f",
    "e\u0301",
]


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("hash", "one") as started:
        yield started


def alphabet(chance: random.Random) -> str:
    """Any character that UTF-8 and PostgreSQL's text can hold."""
    while (code := chance.randrange(1, 0x110000)) in range(0xD800, 0xE000):
        pass
    return chr(code)


async def test_text_numbers_and_uuids_hash_alike(shards: Shards) -> None:
    chance = random.Random(20240501)
    texts = TEXTS + ["".join(alphabet(chance) for _ in range(chance.randrange(1, 12))) for _ in range(500)]
    numbers = [0, -1, 2**63 - 1, -(2**63)] + [chance.getrandbits(63) for _ in range(200)]
    uuids = [uuid.UUID(int=chance.getrandbits(128)) for _ in range(200)]
    for buckets in (1, 2, 3, 64, 1000, MAX_BUCKETS):
        for kind, keys in (("text", texts), ("bigint", numbers), ("uuid", uuids)):
            expression = bucket_sql("k", buckets)
            rows = await shards.fetch(
                "one", f"select {expression} from unnest($1::{kind}[]) with ordinality u(k, n) order by n", keys
            )
            assert [row[0] for row in rows] == [bucket(key, buckets) for key in keys]


async def test_it_may_stand_where_only_immutable_expressions_may(shards: Shards) -> None:
    connection = await shards.connect("one")
    try:
        await connection.execute(
            f"create table q (id bigint primary key, k text, b int generated always as ({bucket_sql('k', 64)}) stored)"
        )
        await connection.execute(f"create index on q (({bucket_sql('id', 64)}))")
        await connection.execute("insert into q values (1, 'History')")
        assert await connection.fetchval("select b from q") == bucket("History", 64)
        await connection.execute("drop table q")
    finally:
        await connection.close()


async def test_null_has_no_bucket(shards: Shards) -> None:
    assert await shards.fetch("one", f"select {bucket_sql('null::text', 64)}") == [(None,)]
