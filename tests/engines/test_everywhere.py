"""One question to four servers: in order, bounded, with who is missing; and as a stream whose memory is bounded."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.engines.scratch import Shards, running

from pgfleet.client.scatter import Question, ask_all
from pgfleet.client.stream import Stream, stream
from pgfleet.control.connect import tls
from pgfleet.errors import CannotCombine, CannotMerge, DeadlineExceeded, ShardsSilent
from pgfleet.runtime.sql import Connection, Login, connect

pytestmark = pytest.mark.engines

SHARDS = ("certification", "stem", "humanities", "test-prep")
#: Rows of each shard for the stream that is too large to hold.
MANY, FEW = 200_000, 2_000


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("everywhere", *SHARDS) as started:
        for n, server in enumerate(started.servers.values()):
            server.psql(
                f"""create table questions (id bigint, subject text, difficulty int, stem text);
                insert into questions
                select i * 4 + {n}, 'S' || i % 7, nullif(i * 37 % 11, 5), repeat(md5(i::text), 5) from generate_series(1, 500) i;
                create table many as
                select i * 4 + {n} as id, repeat(md5(i::text), 5) as stem from generate_series(1, {MANY}) i;
                grant select on questions, many to pgfleet_app;""",
                "app",
            )
        yield started


class Client:
    """Asks as a client of one's own would: a connection for each call, whoever does not answer in time is silent."""

    def __init__(self, shards: Shards, seconds: float = 2.0) -> None:
        self.shards, self.seconds = shards, seconds
        self.open: set[Connection] = set()

    async def connect(self, shard: str) -> Connection:
        login = Login("pgfleet_app", "app", "pgfleet_app", tls(self.shards.folder))
        return await connect("127.0.0.1", self.shards.servers[shard].port, login, settings={}, seconds=self.seconds)

    @asynccontextmanager
    async def borrow(self, shard: str) -> AsyncIterator[Connection]:
        connection = await self.connect(shard)
        self.open.add(connection)
        try:
            yield connection
        finally:
            self.open.discard(connection)
            connection.terminate()
            await asyncio.sleep(0)  # its socket is closed in the loop's next turn

    @asynccontextmanager
    async def lend(self, shard: str) -> AsyncIterator[Connection]:
        async with self.borrow(shard) as connection:
            await connection.execute("begin read only")
            yield connection

    async def fetch(self, shard: str, sql: str, args: Sequence[Any]) -> list[asyncpg.Record]:
        async with self.borrow(shard) as connection:
            try:
                async with asyncio.timeout(self.seconds):
                    return list(await connection.fetch(sql, *args))
            except TimeoutError as error:
                raise DeadlineExceeded(f"{shard} did not answer within {self.seconds:g} s") from error

    async def everywhere(self, sql: str, *args: Any, partial: bool = False, **how: Any) -> Any:
        question = Question.of(sql, args, **how)
        answers, missing = await ask_all(
            SHARDS, lambda shard: self.fetch(shard, question.sql, question.args), what="questions", partial=partial
        )
        return question.answer(answers, missing)

    @asynccontextmanager
    async def stream(
        self, sql: str, *args: Any, patience: float = 5.0, prefetch: int = 3000, partial: bool = False, **how: Any
    ) -> AsyncIterator[Stream]:
        question = Question.of(sql, args, **how)
        async with stream(
            SHARDS, self.lend, question, what="questions", patience=patience, prefetch=prefetch, partial=partial
        ) as rows:
            yield rows


@pytest.fixture
async def client(shards: Shards) -> AsyncIterator[Client]:
    yield Client(shards)
    await asyncio.sleep(0.02)  # what was cut off while it was being opened is closed in the loop's next turns


async def whole(client: Client, sql: str) -> list[tuple[Any, ...]]:
    """What one database with the rows of all shards says: they are copied into a temporary table of one of them."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=client.shards.servers["stem"].port, user="postgres", password="postgres", database="app",
        ssl=tls(client.shards.folder),
    )  # fmt: skip
    try:
        await connection.execute("create temp table all_questions (like questions)")
        for shard in SHARDS:
            records = await client.fetch(shard, "select * from questions", ())
            await connection.copy_records_to_table("all_questions", records=[tuple(record) for record in records])
        return [tuple(row) for row in await connection.fetch(sql.replace("questions", "all_questions"))]
    finally:
        await connection.close()


ORDERS = ["difficulty desc nulls last, id", "subject, difficulty nulls first, id desc", "id", "stem desc, id"]
BOUNDS = [(None, 0), (20, 0), (20, 30), (0, 0), (5, 10_000), (None, 1990)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("limit", "offset"), BOUNDS)
async def test_the_order_and_its_bounds_are_those_of_one_database(
    client: Client, order: str, limit: int | None, offset: int
) -> None:
    sql = "select id, subject, difficulty, stem from questions"
    bound = f" order by {order} offset {offset}" + (f" limit {limit}" if limit is not None else "")
    expected = await whole(client, sql + bound)
    found = await client.everywhere(sql, order_by=order, limit=limit, offset=offset)
    assert [tuple(row) for row in found] == expected
    async with client.stream(sql, order_by=order, limit=limit, offset=offset, prefetch=90) as rows:
        assert [tuple(row) async for row in rows] == expected
        assert rows.missing == {}
    assert client.open == set()


async def test_each_shard_sends_no_more_than_could_be_needed(client: Client) -> None:
    question = Question.of("select id from questions where id > $1", (0,), order_by="id desc", limit=10, offset=5)
    for shard in SHARDS:
        assert len(await client.fetch(shard, question.sql, question.args)) == 15


async def test_the_bound_does_not_hide_an_index(client: Client) -> None:
    question = Question.of("select id, stem from many where id > 7", order_by="id", limit=10)
    client.shards.servers["stem"].psql("create index many_by_id on many (id); analyze many;", "app")
    plan = await client.fetch("stem", f"explain {question.sql.replace('$1', '10')}", ())
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan using many_by_id" in text
    assert "Sort" not in text


async def test_combined_across_servers(client: Client) -> None:
    sql = (
        "select subject, count(*) as n, sum(difficulty) as total, min(id) as lo, max(id) as hi, count(difficulty) as rated, "
        "avg(difficulty) as mean from questions group by subject"
    )
    combine = {"n": "count", "total": "sum", "lo": "min", "hi": "max", "rated": "count", "mean": "avg:rated"}
    found = await client.everywhere(sql, combine=combine, order_by="n desc, subject", limit=3)
    expected = await whole(client, f"{sql} order by n desc, subject limit 3")
    assert [tuple(row)[:-1] for row in found] == [row[:-1] for row in expected]
    assert all(abs(row["mean"] - other[-1]) < 1e-15 for row, other in zip(found, expected, strict=True))


async def test_a_shard_that_does_not_answer_is_named_or_is_an_error(client: Client, shards: Shards) -> None:
    shards.servers["stem"].stop()
    try:
        with pytest.raises(ShardsSilent, match="1 of 4 shards of questions") as caught:
            await client.everywhere("select count(*) as n from questions")
        assert caught.value.seen[0].startswith("stem: ")
        found = await client.everywhere("select count(*) as n from questions", partial=True, combine={"n": "count"})
        assert found == [(1500,)]
        assert list(found.missing) == ["stem"]
        assert found.missing["stem"]
        assert client.open == set()
        with pytest.raises(ShardsSilent, match="1 of 4 shards of questions"):
            async with client.stream("select id from questions", order_by="id", patience=2) as rows:
                await anext(rows)
        async with client.stream("select id from questions", order_by="id", patience=2, partial=True) as rows:
            assert len([row async for row in rows]) == 1500
            assert list(rows.missing) == ["stem"]
    finally:
        shards.servers["stem"].start()


async def test_a_shard_that_hangs_costs_one_deadline(client: Client) -> None:
    client.seconds = 0.5
    slow = "select pg_sleep(case when exists (select from questions where id % 4 = 1) then 30 else 0 end)::text as x, 1 as n"
    began = time.monotonic()
    found = await client.everywhere(slow, partial=True)
    assert list(found.missing) == ["stem"]
    assert len(found) == 3
    for order in ("n", None):
        async with client.stream(slow, order_by=order, patience=0.5, partial=True) as rows:
            assert len([row async for row in rows]) == 3
            assert rows.missing == {"stem": "no row for 0.5 s"}
    assert time.monotonic() - began < 5
    assert client.open == set()


async def test_what_a_server_refuses_is_raised_at_once_with_the_shard(client: Client) -> None:
    began = time.monotonic()
    wrong = "select 1 / (id % 4 - 1) from questions"
    client.seconds = 30
    with pytest.raises(asyncpg.DivisionByZeroError) as caught:
        await client.everywhere(wrong)
    assert caught.value.__notes__ == ["said by shard stem"]
    with pytest.raises(asyncpg.UndefinedColumnError):
        await client.everywhere("select id from questions", order_by="nope")
    with pytest.raises(asyncpg.UndefinedColumnError) as caught_again:
        async with client.stream("select nope from questions") as rows:
            await anext(rows)
    assert caught_again.value.__notes__[0].startswith("said by shard ")
    with pytest.raises(asyncpg.InterfaceError):
        async with client.stream("select $1::int") as rows:
            await anext(rows)
    assert time.monotonic() - began < 10
    assert client.open == set()


async def test_a_stream_writes_nothing(client: Client) -> None:
    with pytest.raises(asyncpg.PostgresError):
        async with client.stream("with gone as (delete from questions returning id) select * from gone") as rows:
            await anext(rows)
    assert await client.everywhere("select count(*) as n from questions", combine={"n": "count"}) == [(2000,)]


async def test_what_cannot_be_streamed_is_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(CannotCombine):
        async with client.stream("select 1 as n", combine={"n": "sum"}):
            pass
    wrong: list[Any] = [1, "3", 2**40, 4.5, True, None, float("nan")]
    for prefetch in wrong:
        with pytest.raises(CannotMerge, match="prefetch is"):
            async with client.stream("select 1", prefetch=prefetch):
                pass


async def test_leaving_early_ends_every_cursor(client: Client, shards: Shards) -> None:
    many = "select id, stem from many"
    async with client.stream(many, order_by="id", prefetch=30) as rows:
        assert [(await anext(rows))["id"] for _ in range(10)] == list(range(4, 14))
        assert len(client.open) == 4
    assert client.open == set()

    async def reader(sql: str, count: int) -> None:
        async with client.stream(sql, order_by="id", prefetch=30, patience=60) as rows:
            for _ in range(count):
                await anext(rows)
            raise ZeroDivisionError

    for count in (0, 1, 100):  # before the first row, and later
        with pytest.raises(ZeroDivisionError):
            await reader(many, count)
        assert client.open == set()
    task = asyncio.create_task(reader("select pg_sleep(30)::text as id", 1))  # while it waits for a row
    while len(client.open) < 4:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.open == set()


@pytest.mark.parametrize("order_by", [None, "id"])
async def test_a_stream_that_is_too_slow_leaves_nothing_waiting(client: Client, order_by: str | None) -> None:
    before = asyncio.all_tasks()
    for partial in (True, False):
        try:
            async with client.stream(
                "select id, pg_sleep(30) from many", order_by=order_by, patience=0.5, partial=partial
            ) as rows:
                assert [row async for row in rows] == []
                assert set(rows.missing) == set(SHARDS)
        except ShardsSilent:
            assert not partial
    assert asyncio.all_tasks() == before


async def test_a_shard_that_dies_in_the_middle_is_told(client: Client, shards: Shards) -> None:
    for partial in (True, False):
        async with client.stream(
            "select id from many where id < $1", 4 * FEW + 4, order_by="id", patience=2, prefetch=30, partial=partial
        ) as rows:
            seen = [(await anext(rows))["id"] for _ in range(100)]
            shards.servers["stem"].stop()
            try:
                if not partial:
                    with pytest.raises(ShardsSilent) as caught:
                        async for _ in rows:
                            pass
                    assert "rows" in caught.value.seen[0]
                    continue
                seen += [row["id"] async for row in rows]
                assert seen == sorted(seen)
                assert len([id_ for id_ in seen if id_ % 4 != 1]) == 3 * FEW
                assert 25 <= len([id_ for id_ in seen if id_ % 4 == 1]) < 200
                assert "after" in rows.missing["stem"]
            finally:
                shards.servers["stem"].start()


async def test_a_database_that_sorts_otherwise_is_found_out(client: Client, shards: Shards) -> None:
    collation = "en-x-icu"
    sql = f"select v collate \"{collation}\" as v from (values ('a'), ('B'), ('c')) t(v)"
    with pytest.raises(CannotMerge, match="sorts otherwise") as caught:
        await client.everywhere(sql, order_by="v", limit=3)
    assert 'collate "C"' in caught.value.hint
    assert [row["v"] for row in await client.everywhere(sql, order_by="v")] == ["B"] * 4 + ["a"] * 4 + ["c"] * 4
    assert [row["v"] for row in await client.everywhere(sql, order_by='v collate "C"', limit=3)] == ["B"] * 3
    with pytest.raises(CannotMerge, match="sorts otherwise"):
        async with client.stream(sql, order_by="v") as rows:
            [row async for row in rows]


def resident() -> int:
    """Bytes of memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_a_large_result_is_never_held(client: Client) -> None:
    gc.collect()
    before, most, count, last = resident(), 0, 0, 0
    began = time.monotonic()
    async with client.stream("select id, stem from many", order_by="id", patience=30, prefetch=1500) as rows:
        async for row in rows:
            assert row["id"] > last
            last, count = row["id"], count + 1
            if count % 10_000 == 0:
                most = max(most, resident() - before)
    assert count == 4 * MANY
    took = time.monotonic() - began
    sys.stdout.write(f"{count:,} rows in {took:.1f} s, memory grew by {most / 2**20:.1f} MB at most; ")
    held = await client.fetch("stem", "select id, stem from many", ())
    sys.stdout.write(f"one shard's {len(held):,} rows held: {(resident() - before) / 2**20:.1f} MB\n")
    assert most < 8 * 2**20
    assert resident() - before > 2 * most
