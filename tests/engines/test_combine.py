"""Partial aggregates combined are what one PostgreSQL that holds all rows says, for every type, NULL, NaN and infinity."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engines.scratch import running

from pgfleet.client.row import CombinedRow
from pgfleet.client.scatter import Question
from pgfleet.client.sums import averaged
from pgfleet.control.connect import tls
from pgfleet.errors import CannotCombine

pytestmark = pytest.mark.engines

SHARDS = range(4)
AGGREGATES = "count({0}) as n_{0}, sum({0}) as sum_{0}, min({0}) as lo_{0}, max({0}) as hi_{0}, avg({0}) as mean_{0}"
COLUMNS = ("small", "big", "exact", "double", "span")


def how(column: str) -> dict[str, str]:
    return {
        f"n_{column}": "count", f"sum_{column}": "sum", f"lo_{column}": "min", f"hi_{column}": "max",
        f"mean_{column}": f"avg:n_{column}",
    }  # fmt: skip


COMBINE = {"n": "count"} | {name: word for column in COLUMNS for name, word in how(column).items()}


class One:
    """One server, asked from outside of any loop."""

    def __init__(self, connection: asyncpg.Connection[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.connection, self.loop = connection, loop

    def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        return list(self.loop.run_until_complete(self.connection.fetch(sql, *args)))


@pytest.fixture(scope="module")
def one() -> Iterator[One]:
    loop = asyncio.new_event_loop()
    with running("combine", "one") as shards:
        connection = loop.run_until_complete(
            asyncpg.connect(
                host="127.0.0.1", port=shards.servers["one"].port, user="postgres", password="postgres", database="app",
                ssl=tls(shards.folder),
            )
        )  # fmt: skip
        loop.run_until_complete(
            connection.execute(
                """create temp table marks
                   (shard int, topic text, small int, big bigint, exact numeric, double float8, span interval)"""
            )
        )
        yield One(connection, loop)
        loop.run_until_complete(connection.close())
    loop.close()


decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
odd_decimals = [Decimal(text) for text in ("NaN", "Infinity", "-Infinity", "1E-20", "9" * 60)]
rows = st.tuples(
    st.sampled_from(SHARDS),
    st.none() | st.sampled_from(["Algebra", "Größe", ""]),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | decimals | st.sampled_from(odd_decimals),
    st.none() | st.floats(width=32) | st.floats(min_value=-1e12, max_value=1e12),
    st.none() | st.timedeltas(min_value=timedelta(days=-300), max_value=timedelta(days=300)),
)  # fmt: skip


def same(found: Any, expected: Any, tolerance: Any = 0) -> bool:
    """NULL is NULL, NaN is NaN, of one type; numbers at most ``tolerance`` apart."""
    if found is None or expected is None or found != found or expected != expected:
        return bool((found is None) == (expected is None) and (found != found) == (expected != expected))
    if type(found) is not type(expected):
        return False
    if bool(found == expected):
        return True
    if isinstance(found, timedelta):
        return bool(abs(found - expected) <= tolerance)
    if isinstance(found, float) and not abs(found - expected) < float("inf"):
        return False
    return bool(abs(Fraction(found) - Fraction(expected)) <= Fraction(tolerance))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(rows, max_size=25), grouped=st.booleans())
def test_combined_is_what_one_database_says(one: One, data: list[tuple[Any, ...]], grouped: bool) -> None:
    one.fetch("truncate marks")
    if data:
        one.loop.run_until_complete(one.connection.copy_records_to_table("marks", records=data))
    group = "topic, " if grouped else ""
    tail = "group by topic order by topic" if grouped else ""
    aggregates = ", ".join(AGGREGATES.format(column) for column in COLUMNS)
    sql = f"select {group}count(*) as n, {aggregates} from marks {{}} {tail}"
    whole = one.fetch(sql.format(""))
    parts = {f"s{shard}": one.fetch(sql.format("where shard = $1"), shard) for shard in SHARDS}
    found = Question.of(sql, combine=COMBINE, order_by="topic" if grouped else None).answer(parts)
    assert len(found) == len(whole)
    for row, expected in zip(found, whole, strict=True):
        assert list(row.keys()) == list(expected.keys())
        members = [values for values in data if not grouped or values[1] == row["topic"]]
        for name, value in row.items():
            near = tolerance(name, members, parts, row if grouped else None)
            assert same(value, expected[name], near), (name, value, expected[name])


def tolerance(name: str, members: Sequence[tuple[Any, ...]], parts: dict[str, list[Any]], group: Any) -> Any:
    """How far a column may be from PostgreSQL's: only where PostgreSQL itself has rounded."""
    if name.startswith("mean_") and not name.endswith(("double", "span")):
        # Half a unit of each shard's mean, of ours, and of the whole's.
        means = [row[name] for answer in parts.values() for row in answer if group is None or row["topic"] == group["topic"]]
        scales = [int(mean.as_tuple().exponent) for mean in means if mean is not None and mean.is_finite()]
        return Fraction(10) ** max(scales, default=0) * 2
    if name.endswith("double"):
        doubles = [abs(values[5]) for values in members if values[5] is not None and values[5] == values[5]]
        total = sum(value for value in doubles if value < float("inf"))
        return total * 2**-50 * max(1, len(doubles))
    if name == "mean_span":
        return timedelta(microseconds=2 * len(SHARDS))
    return 0


@given(st.lists(st.tuples(st.decimals(allow_nan=False, allow_infinity=False), st.integers(1, 10**6)), min_size=1, max_size=6))
def test_a_mean_of_decimals_is_the_exact_one_rounded_once(pairs: list[tuple[Decimal, int]]) -> None:
    found = averaged([mean for mean, _ in pairs], [count for _, count in pairs])
    exact = sum(Fraction(mean) * count for mean, count in pairs) / sum(count for _, count in pairs)
    scale = -int(found.as_tuple().exponent)
    assert abs(Fraction(found) - exact) <= Fraction(1, 2) / 10**scale
    assert scale >= max(-int(mean.as_tuple().exponent) for mean, _ in pairs)
    assert exact == 0 or scale == 0 or len(str(abs(int(Fraction(found) * 10**scale)))) >= 16 or found == exact


def test_rows_read_like_records(one: One) -> None:
    (record,) = one.fetch("select 'Algebra' as topic, 3::bigint as n, null::int as nothing")
    (row,) = Question.of("", combine={"n": "count", "nothing": "sum"}).answer({"a": [record]})
    assert isinstance(row, CombinedRow)
    assert row == record
    assert tuple(row) == tuple(record)
    assert list(row.keys()) == list(record.keys())
    assert list(row.items()) == list(record.items())
    assert list(row.values()) == list(record.values())
    assert (row[0], row["n"], row[-1], row[0:2], len(row)) == (record[0], record["n"], record[-1], record[0:2], len(record))
    assert ("n" in row, "x" in row, 3 in row) == ("n" in record, "x" in record, 3 in record)
    assert (row.get("n"), row.get("x"), row.get("x", 7)) == (record.get("n"), record.get("x"), record.get("x", 7))
    assert hash(row) == hash(record)
    for wrong in ("x", 3):
        with pytest.raises((KeyError, IndexError)):
            record[wrong]
        with pytest.raises((KeyError, IndexError)):
            row[wrong]
    assert repr(row) == "<CombinedRow topic='Algebra' n=3 nothing=None>"


def test_sums_and_averages_that_cannot_be_name_their_column(one: One) -> None:
    def combined(sql: str, **combine: str) -> Any:
        return Question.of(sql, combine=combine).answer({"a": one.fetch(sql), "b": one.fetch(sql)})

    with pytest.raises(CannotCombine, match="column t cannot be combined as sum: str cannot"):
        combined("select 'x' as t", t="sum")
    with pytest.raises(CannotCombine, match="column n cannot be combined as count"):
        combined("select 1.5 as n", n="count")
    with pytest.raises(CannotCombine, match=r"column m cannot be combined as avg:n.*NULL is no mean of 3 values.*count\(x\)"):
        combined("select null::numeric as m, 3 as n", m="avg:n", n="count")
    with pytest.raises(CannotCombine, match="column m is an average weighted by n"):
        combined("select 1.0 as m, 3 as n", m="avg:n")
    with pytest.raises(CannotCombine, match="no column x"):
        combined("select 1 as n", x="sum")
    with pytest.raises(CannotCombine, match="2 columns n"):
        combined("select 1 as n, 2 as n", n="sum")
    with pytest.raises(CannotCombine, match="column other is neither"):
        Question.of("", combine={"n": "sum"}, group_by="topic").answer({"a": one.fetch("select 1 as n, 2 as other, 3 as topic")})
    with pytest.raises(CannotCombine, match="topic is grouped by, and combined"):
        Question.of("", combine={"topic": "sum"}, group_by=["topic"])
    with pytest.raises(CannotCombine, match="different columns"):
        Question.of("", combine={"n": "sum"}).answer({"a": one.fetch("select 1 as n"), "b": one.fetch("select 2 as n, 3 as x")})


def test_groups_are_those_that_postgresql_makes(one: One) -> None:
    sql = "select g, count(*) as n from (values {}) v(g) group by 1"
    halves = ["(null::float8), ('nan'), (0.0), (1)", "(null::float8), ('nan'), ('-0.0'), (2)"]
    answers = {str(n): one.fetch(sql.format(half)) for n, half in enumerate(halves)}
    found = Question.of(sql, combine={"n": "count"}, order_by="g").answer(answers)
    whole = one.fetch(sql.format(", ".join(halves)) + " order by 1")
    assert [row["n"] for row in found] == [row["n"] for row in whole] == [2, 1, 1, 2, 2]
    arrays = "select g, count(*) as n from (values (array[1,2]), (array[1,null])) v(g) group by 1"
    found = Question.of(arrays, combine={"n": "count"}).answer({shard: one.fetch(arrays) for shard in "ab"})
    assert [row["n"] for row in found] == [2, 2]


def test_no_rows_stay_no_rows() -> None:
    assert Question.of("select 1", combine={"n": "count"}).answer({"a": [], "b": []}) == []
