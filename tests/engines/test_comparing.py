"""Every type in order, combined and bounded, on two shards: as one database has it, or refused; never another order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from tests.engines.scratch import Shards, running

from pgfleet.client.scatter import Question, ask_all
from pgfleet.client.stream import stream
from pgfleet.control.connect import tls
from pgfleet.errors import CannotCombine, CannotMerge
from pgfleet.runtime.sql import Connection, Login, connect

pytestmark = pytest.mark.engines

SHARDS = ("one", "two")
SAID = r"column lvl (is of type|holds intervals)|code point: column lvl"
Values = list[str | None]
TYPES = """
create type lvl as enum ('low', 'high', 'mid'); create domain spot as text collate "C"; create domain rank as lvl;
create extension if not exists citext;
"""
#: Type -> values of the first shard, and of the second.
RIGHT: dict[str, tuple[Values, Values]] = {
    "int": (["3", "-1", None, "9"], ["4", "0", None]),
    "numeric": (["NaN", "1e40", "-1.5", "Infinity"], ["-Infinity", "2", None]),
    "float8": (["NaN", "1e40", "-1.5", "Infinity"], ["-Infinity", "2", None, "-0"]),
    "text": (["b", "B", "é", None, ""], ["a", "Z", "😀", "\uffff"]),
    "varchar(9)": (["b", "B"], ["a", "Z"]),
    "name": (["b", "B"], ["a", "Z"]),
    "spot": (["b", "B"], ["a", "Z"]),
    "bytea": (["\\xff", "\\x00", "\\x"], ["\\x00ff", "\\xfe"]),
    "bool": (["t", None], ["f", "t"]),
    "uuid": (["ffffffff-ffff-ffff-ffff-ffffffffffff"], ["00000000-0000-0000-0000-000000000000"]),
    "date": (["infinity", "2020-01-01", None], ["-infinity", "2021-01-01"]),
    "timestamp": (["infinity", "2020-01-01"], ["-infinity", "2021-01-01", None]),
    "timestamptz": (["infinity", "2020-01-01 00:00+02", None], ["-infinity", "2019-12-31 23:00+00", "infinity"]),
    "time": (["12:00", "00:00"], ["23:59:59.9"]),
    "interval": (["1 mon", "-3 days", "11 mons 40 days"], ["29 days", "31 days", None]),
    "inet": (["10.0.0.1", "10.0.0.0/8", "::1", None], ["10.0.0.2/8", "10.1.0.0/16", "9.0.0.1", "1.2.3.4/8", "::/0"]),
    "cidr": (["10.0.0.0/8", "10.0.0.0/16", "::/0"], ["9.0.0.0/8", "10.0.0.1/32", "255.0.0.0/8"]),
    "macaddr": (["08:00:2b:01:02:03"], ["07:ff:2b:01:02:03", "ff:00:2b:01:02:03"]),
    "int[]": (["{1,2}", "{3}"], ["{1}", "{2,9}", None]),
}  # fmt: skip
#: Type -> the same, each shard in Python's order by itself, so that nothing shows it; and a part of the hint.
WRONG: dict[str, tuple[Values, Values, str]] = {
    "lvl": (["high", "mid"], ["low", "mid"], "enum_range("),
    "rank": (["high", "mid"], ["low"], "::text"),
    "money": (["1.00", "5.00"], ["10.00"], "::numeric"),
    "jsonb": (['"a"', "1"], ['"b"'], "->>"),
    "citext": (["A", "a"], ["B", "b"], "lower("),
    "interval": (["359 days", "1 year 1 day"], ["363 days"], "epoch"),
    'text collate "en-x-icu"': (["a", "b"], ["B"], 'collate "C"'),
    "pg_lsn": (["0/2", "0/10"], ["0/3"], "::text"),
    "int4range": (["[1,2)"], ["[3,4)"], "::text"),
}  # fmt: skip
#: Compared by PostgreSQL, or with no order that can be asked for.
UNCOMBINED = {"jsonb", "bool", "uuid", "bytea", "cidr", "macaddr", "rank", "int4range"}


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("comparing", *SHARDS) as started:
        for n, server in enumerate(started.servers.values()):
            text = TYPES
            every_type = [*RIGHT.items(), *((type_, (one, two)) for type_, (one, two, _) in WRONG.items())]
            for table, (type_, values) in enumerate(every_type):
                rows = ", ".join("(null)" if value is None else f"('{value}')" for value in values[n])
                every = ", ".join("(null)" if value is None else f"('{value}')" for value in (*values[0], *values[1]))
                for name, them in (("part", rows), ("whole", every)):
                    text += f"create table {name}_{table} (lvl {type_}); insert into {name}_{table} values {them};\n"
            server.psql(text + "grant select on all tables in schema public to pgfleet_app", "app")
        yield started


class Client:
    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    @asynccontextmanager
    async def lend(self, shard: str, database: str = "app") -> AsyncIterator[Connection]:
        login = Login("pgfleet_app", database, "pgfleet_app", tls(self.shards.folder))
        connection = await connect("127.0.0.1", self.shards.servers[shard].port, login, settings={})
        try:
            await connection.execute("begin read only")
            yield connection
        finally:
            connection.terminate()

    async def fetch(self, shard: str, sql: str, args: Sequence[Any] = ()) -> list[asyncpg.Record]:
        async with self.lend(shard) as connection:
            return list(await connection.fetch(sql, *args))

    async def everywhere(self, sql: str, **how: Any) -> list[tuple[Any, ...]]:
        question = Question.of(sql, **how)
        answers, _ = await ask_all(SHARDS, lambda shard: self.fetch(shard, question.sql, question.args), what="questions")
        return [tuple(row) for row in question.answer(answers)]

    async def stream(self, sql: str, **how: Any) -> list[tuple[Any, ...]]:
        async with stream(SHARDS, self.lend, Question.of(sql, **how), what="questions", patience=10) as rows:
            return [tuple(row) async for row in rows]


@pytest.fixture
def client(shards: Shards) -> Client:
    return Client(shards)


@pytest.mark.parametrize("type_", RIGHT)
@pytest.mark.parametrize("way", ["", " desc", " nulls first"])
async def test_the_order_of_a_type_is_postgresqls(client: Client, type_: str, way: str) -> None:
    n = list(RIGHT).index(type_)
    expected = [row[0] for row in await client.fetch("one", f"select lvl::text as said from whole_{n} order by lvl{way}")]
    sql = f"select lvl, lvl::text as said from part_{n}"
    order = f"lvl{way}"
    assert [said for _, said in await client.everywhere(sql, order_by=order)] == expected
    assert [said for _, said in await client.everywhere(sql, order_by=order, limit=3)] == expected[:3]
    assert [said for _, said in await client.stream(sql, order_by=order)] == expected
    assert [said for _, said in await client.stream(sql, order_by=order, limit=3)] == expected[:3]


@pytest.mark.parametrize("type_", [type_ for type_ in RIGHT if type_ not in UNCOMBINED])
async def test_the_least_and_the_greatest_are_postgresqls(client: Client, type_: str) -> None:
    n = list(RIGHT).index(type_)
    expected = await client.fetch("one", f"select min(lvl) as lo, max(lvl) as hi from whole_{n}")
    found = await client.everywhere(f"select min(lvl) as lo, max(lvl) as hi from part_{n}", combine={"lo": "min", "hi": "max"})
    assert repr(found) == repr([tuple(row) for row in expected])


@pytest.mark.parametrize("type_", WRONG)
async def test_an_order_that_only_postgresql_knows_is_refused(client: Client, type_: str) -> None:
    n, hint = len(RIGHT) + list(WRONG).index(type_), WRONG[type_][2]
    sql = f"select lvl from part_{n}"
    bounded = [{"limit": 2}] if "collate" in type_ else [{}, {"limit": 2}]
    for how in bounded:
        with pytest.raises(CannotMerge, match=SAID) as caught:
            await client.everywhere(sql, order_by="lvl", **how)
        assert hint in caught.value.hint
        with pytest.raises(CannotMerge, match=SAID):
            await client.stream(sql, order_by="lvl", **how)
    if type_ not in UNCOMBINED:
        with pytest.raises(CannotCombine, match=SAID) as combined:
            await client.everywhere(f"select max(lvl) as lvl, 1 as n from part_{n}", combine={"lvl": "max", "n": "sum"})
        assert hint in combined.value.hint
        if type_ != "interval":  # the least of them are short
            with pytest.raises(CannotCombine, match=SAID):
                await client.everywhere(f"select min(lvl) as lvl from part_{n}", combine={"lvl": "min"})
    if "collate" not in type_:
        with pytest.raises(CannotMerge):
            await client.everywhere(
                f"select lvl, count(*) as n from part_{n} group by lvl", combine={"n": "count"}, order_by="lvl"
            )


async def test_what_the_hints_say_works(client: Client) -> None:
    def named(type_: str) -> str:
        return f"part_{len(RIGHT) + list(WRONG).index(type_)}"

    enum = f"select lvl, array_position(enum_range(lvl), lvl) as lvl_place from {named('lvl')}"
    assert [row[0] for row in await client.everywhere(enum, order_by="lvl_place")] == ["low", "high", "mid", "mid"]
    money = f"select lvl::numeric as lvl_number from {named('money')}"
    assert [int(row[0]) for row in await client.everywhere(money, order_by="lvl_number")] == [1, 5, 10]
    other = named('text collate "en-x-icu"')
    assert await client.everywhere(f"select lvl from {other}", order_by='lvl collate "C"', limit=2) == [("B",), ("a",)]
    least = f'select min(lvl collate "C") as lvl from {other}'
    assert await client.everywhere(least, combine={"lvl": "min"}) == [("B",)]


#: Of a database -> whether its text is sorted by code point.
DATABASES = {
    "locale_provider icu icu_locale 'en-US' locale 'C'": False,  # what says C is not what it sorts by
    "locale_provider libc locale 'C.utf8'": True,
    "locale_provider libc locale 'C'": True,
}


@pytest.mark.parametrize("how", DATABASES)
async def test_a_database_is_judged_by_what_it_sorts_by(client: Client, how: str) -> None:
    async with client.lend("one") as connection:
        if connection.get_server_version().major < 15:
            pytest.skip("PostgreSQL before 15 knows no providers of locales")
    client.shards.servers["one"].psql(
        f"drop database if exists other; create database other template template0 encoding 'UTF8' {how}"
    )
    question = Question.of("select v from (values ('a'), ('b'), ('C')) t (v)", order_by="v", limit=2)

    async def ask(shard: str) -> list[asyncpg.Record]:
        async with client.lend(shard, "other") as connection:
            return list(await connection.fetch(question.sql, *question.args))

    if DATABASES[how]:
        answers, _ = await ask_all(["one"], ask, what="questions")
        assert [row["v"] for row in question.answer(answers)] == ["C", "a"]
    else:
        with pytest.raises(CannotMerge, match="one sorts otherwise") as caught:  # a, b: in order, and yet not the first two
            await ask_all(["one"], ask, what="questions")
        assert caught.value.hint == "order_by='v collate \"C\"'"
