"""Rows of several shards in one order: NULL, NaN, directions, LIMIT and OFFSET, as one database would give them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.client.gather import Rows, merge
from pgfleet.client.order import Order
from pgfleet.client.row import Columns, CombinedRow
from pgfleet.client.scatter import Question, ask_all, bounded
from pgfleet.errors import CannotCombine, CannotMerge, DeadlineExceeded, ShardsSilent
from pgfleet.names import quote_identifier

COLUMNS = Columns(["a", "b", "n"])


def rows(*values: tuple[Any, ...]) -> list[CombinedRow]:
    return [CombinedRow(COLUMNS, value) for value in values]


numbers = st.none() | st.integers(-3, 3) | st.sampled_from([float("nan"), 0.5, float("inf"), -0.0])
texts = st.none() | st.sampled_from(["", "A", "a", "é", "z", "\U0001f418", "\uffff"])
shards_of_rows = st.lists(st.lists(st.tuples(numbers, texts), max_size=6), max_size=4)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
terms = st.tuples(st.sampled_from(["", " asc", " desc"]), st.sampled_from(["", " nulls first", " nulls last"]))


def sql_compares(one: Any, other: Any, way: str, nulls: str) -> int:
    """What PostgreSQL's documentation says of one column, written another way than the code under test."""
    if one is None or other is None:
        if one is None and other is None:
            return 0
        first = "first" in nulls or ("desc" in way and not nulls)
        return (-1 if first else 1) if one is None else (1 if first else -1)
    greater = {True: 1, False: -1}
    if one != one or other != other:
        result = int(one != one) - int(other != other)
    else:
        result = 0 if one == other else greater[one > other]
    return -result if "desc" in way else result


@given(shards_of_rows, st.tuples(terms, terms), st.integers(0, 5), st.none() | st.integers(0, 9))
def test_merged_is_what_one_database_that_has_all_rows_would_give(
    shards: list[list[tuple[Any, Any]]], said: tuple[tuple[str, str], tuple[str, str]], offset: int, limit: int | None
) -> None:
    (way_a, nulls_a), (way_b, nulls_b) = said
    compare: Callable[[Any], Any] = functools.cmp_to_key(
        lambda x, y: sql_compares(x[0], y[0], way_a, nulls_a) or sql_compares(x[1], y[1], way_b, nulls_b)
    )
    answers, number = {}, 0
    for shard, values in enumerate(shards):
        answers[f"s{shard}"] = rows(*[(a, b, (number := number + 1)) for a, b in values])
    whole = sorted((row for answer in answers.values() for row in answer), key=compare)
    order = f"a{way_a}{nulls_a}, b{way_b}{nulls_b}"
    expected = whole[offset:] if limit is None else whole[offset : offset + limit]
    assert [row["n"] for row in merge(answers, order, limit=limit, offset=offset)] == [row["n"] for row in expected]
    # Shards that were asked for so many rows only, in order, are enough.
    asked = None if limit is None else offset + limit
    cut = {shard: sorted(answer, key=compare)[:asked] for shard, answer in answers.items()}
    assert [row["n"] for row in merge(cut, order, limit=limit, offset=offset, asked=asked)] == [row["n"] for row in expected]


def test_equal_rows_stand_in_the_order_of_their_shards() -> None:
    merged = merge({"x": rows((1, "", 1), (1, "", 2)), "y": rows((1, "", 3))}, "a")
    assert [row["n"] for row in merged] == [1, 2, 3]


def test_without_an_order_rows_stand_as_they_came() -> None:
    assert [row["n"] for row in merge([rows((2, "", 1)), rows((1, "", 2))], None, limit=2)] == [1, 2]


def test_descending_is_the_direction_of_terms_that_say_none() -> None:
    assert str(Order.parse("a, b asc", descending=True)) == '"a" desc nulls first, "b" nulls last'


@pytest.mark.parametrize(
    ("said", "sql"),
    [
        ("Difficulty DESC NULLS LAST, id", '"difficulty" desc nulls last, "id" nulls last'),
        (["a desc", "b"], '"a" desc nulls first, "b" nulls last'),
        ('"Weird, ""Name""" desc', '"Weird, ""Name""" desc nulls first'),
        ('name collate "C" asc nulls first', '"name" collate "C" nulls first'),
        ("größe", '"größe" nulls last'),
        ("  a  ", '"a" nulls last'),
    ],
)
def test_orders_are_read_as_sql_reads_them(said: str | list[str], sql: str) -> None:
    order = Order.parse(said)
    assert str(order) == sql
    assert Order.parse(str(order)) == order


WRONG_TERMS = ["", "a,", ",a", "a b", "1", "a desc asc", "a nulls", "lower(a)", '"a', "a; drop table x", "q.a", 'a collate "de"']


@pytest.mark.parametrize("said", [*WRONG_TERMS, ["a", ""], [1]])
def test_what_is_no_list_of_columns_is_refused(said: Any) -> None:
    with pytest.raises(CannotMerge):
        Order.parse(said)


def test_a_column_twice_is_refused() -> None:
    with pytest.raises(CannotMerge, match="a stands twice"):
        Order.parse("a, b, a desc")


@given(st.lists(st.tuples(names, st.booleans(), st.booleans()), min_size=1, unique_by=lambda term: term[0]))
def test_every_order_can_be_said_as_text_and_read_again(said: list[tuple[str, bool, bool]]) -> None:
    ways = [(quote_identifier(name), " desc" if down else "", "first" if first else "last") for name, down, first in said]
    text = ", ".join(f"{name}{way} nulls {nulls}" for name, way, nulls in ways)
    order = Order.parse(text)
    assert [(term.column, term.descending, term.nulls_first) for term in order.terms] == said
    assert str(order) == text


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(CannotMerge, match="no column c") as caught:
        merge([rows((1, 2, 3))], "c")
    assert caught.value.seen == ("columns: a, b, n",)
    with pytest.raises(CannotMerge, match="2 columns a"):
        merge([[CombinedRow(Columns(["a", "a"]), (1, 2))]], "a")


def test_values_without_a_common_order_name_their_column() -> None:
    with pytest.raises(CannotMerge, match="column b"):
        merge([rows((1, {"x": 1}, 1), (1, {"y": 1}, 2)), rows((1, {}, 3))], "a, b")
    with pytest.raises(CannotMerge, match="column a"):
        merge([rows((1, 0, 1)), rows(("x", 0, 3))], "a, b")


def test_a_shard_that_sorts_otherwise_is_not_believed_where_it_cut_rows_off() -> None:
    german = rows(("a", 0, 1), ("A", 0, 2), ("b", 0, 3))
    with pytest.raises(CannotMerge, match="stem sorts otherwise") as caught:
        merge({"stem": german}, "a", limit=3, asked=3)
    assert caught.value.seen == ("a 'a' before 'A'",)
    # It gave all it has, so sorting it here is right.
    assert [row["a"] for row in merge({"stem": german}, "a", limit=4, asked=4)] == ["A", "a", "b"]
    assert [row["a"] for row in merge({"stem": german}, "a")] == ["A", "a", "b"]


def test_decimals_and_nan_of_numeric() -> None:
    values = rows((Decimal("NaN"), 0, 1), (Decimal("1E+3"), 0, 2), (None, 0, 3), (Decimal("Infinity"), 0, 4))
    assert [row["n"] for row in merge([values], "a")] == [2, 4, 1, 3]
    assert [row["n"] for row in merge([values], "a desc")] == [3, 1, 4, 2]


def test_rows_name_who_is_missing() -> None:
    found: Rows[int] = Rows([1], {"stem": "silent for 5 s"})
    assert list(found.missing) == ["stem"]
    assert found == [1]
    assert not Rows([1]).missing


# -- what is sent ----------------------------------------------------------------------------------------------------------


def test_a_question_is_bounded_by_limit_and_offset_together() -> None:
    question = Question.of("select id from q where s = $1;\n", ["x"], order_by="id desc", limit=10, offset=5)
    inside = 'select * from (\nselect id from q where s = $1\n) as of_one_shard order by "id" desc nulls first limit $2'
    assert question.sql.startswith(f"select * from ({inside}) as in_order where ")
    assert question.args == ("x", 15)
    assert question.asked == 15


def test_a_question_without_order_and_limit_is_sent_as_it_is() -> None:
    assert Question.of("select 1;").sql == "select 1;"


def test_a_comment_at_the_end_does_not_swallow_the_bound() -> None:
    text, more = bounded("select 1 -- one ;", 0, Order(), 3)
    assert text == "select * from (\nselect 1 -- one\n) as of_one_shard limit $1"
    assert more == (3,)


def test_what_is_combined_is_not_bounded_before() -> None:
    question = Question.of("select b, count(*) as n from q group by 1", order_by="n desc", limit=1, combine={"n": "count"})
    assert question.asked is None
    assert question.sql == "select b, count(*) as n from q group by 1"
    columns = Columns(["b", "n"])
    found = question.answer(
        {"x": [CombinedRow(columns, ("p", 2)), CombinedRow(columns, ("q", 3))], "y": [CombinedRow(columns, ("p", 2))]},
        {"z": "silent"},
    )
    assert found == [("p", 4)]
    assert list(found.missing) == ["z"]


WRONG_BOUNDS = [
    {"limit": -1},
    {"limit": True},
    {"limit": "3"},
    {"limit": 1.5},
    {"limit": float("nan")},
    {"limit": 2**63},
    {"limit": 2**62, "offset": 2**62},
    {"offset": -1},
    {"offset": None},
    {"offset": 2**63},
    {"group_by": "a"},
    {"order_by": 5},
    {"order_by": [5]},
    {"order_by": b"a"},
    {"order_by": {"a": "desc"}},
]


@pytest.mark.parametrize("wrong", WRONG_BOUNDS)
def test_wrong_bounds_are_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(CannotMerge, match=next(reversed(wrong))):
        Question.of("select 1", **wrong)


def test_a_wrong_combination_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(CannotCombine, match="column n"):
        Question.of("select 1", combine={"n": "median"})


@pytest.mark.parametrize("wrong", ["count", ["n"], {"n": 5}, {"n": None}, {"n": ["count"]}, {5: "count"}, {"n": b"count"}])
def test_what_says_no_combination_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(CannotCombine, match=r"combine|column n cannot be combined"):
        Question.of("select 1", combine=wrong)
    with pytest.raises(CannotCombine, match="group_by is"):
        Question.of("select 1", combine={"n": "count"}, group_by=5)  # type: ignore[arg-type]
    with pytest.raises(CannotCombine, match="group_by is"):
        Question.of("select 1", combine={"n": "count"}, group_by=[5])  # type: ignore[list-item]


async def test_who_did_not_answer_says_what_was_waited_for() -> None:
    async def ask(shard: str) -> int:
        if shard == "two":
            raise DeadlineExceeded("two did not answer within 5 s", seen=["waited for: a free connection to two-1, of 10"])
        return 1

    answers, missing = await ask_all(["one", "two"], ask, what="questions", partial=True)
    assert answers == {"one": 1}
    assert missing == {"two": "two did not answer within 5 s (waited for: a free connection to two-1, of 10)"}
    with pytest.raises(ShardsSilent, match="1 of 2") as caught:
        await ask_all(["one", "two"], ask, what="questions")
    assert caught.value.seen == (f"two: {missing['two']}",)
