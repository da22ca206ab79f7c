"""What a statement may leave in its session, from its text: never missed, and not seen where a quote or a comment holds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.client.statement import Harmless, lexemes, read_statement, touches

KNOWN = Harmless(
    frozenset({"count", "lower", "now", "generate_series", "unnest", "gen_random_uuid", "to_tsvector"}), everything_else=True
)

CLEAN = [
    "select 1",
    "select id, stem from questions where subject = $1 order by id limit 20",
    "select count(*) from questions where lower(stem) like '%set_config(%'",
    "select 'it''s ; fine', $$ listen x; $$, $a$ set role $a$ from questions -- set x = 1",
    "/* listen /* nested */ still */ select E'\\'; set x' from t",
    "with t (a, b) as (values (1, 2)) select * from t where a in (select b from t) and b between (1) and (2)",
    "insert into questions (subject, stem) values ($1, $2) on conflict (subject) do update set stem = '' returning id",
    "update questions set stem = coalesce($1, stem)::varchar(20) where (subject, id) = ($2, $3)",
    "delete from questions where subject = $1",
    "select x from generate_series(1, 10) as g (x), lateral (select now()) n",
    "select extract(epoch from now()), cast(1 as numeric(10, 2)), row(1, 2), array(select 1)",
    "select 1;",
    "SELECT Count(*) FROM Questions",
    "savepoint s",
    "rollback to savepoint s",
    "begin",
    "show search_path",
    "explain select count(*) from questions",
]
TOUCHING = [
    "",
    "set role postgres",
    "SET search_path TO x",
    "select set_config('a.b', 'c', false)",
    "select \"set_config\"('a.b', 'c', false)",
    "select pg_catalog.set_config('a.b', 'c', false)",
    "select set_config/* */('a.b', 'c', false)",
    "select SET_CONFIG ('a.b', 'c', false)",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(1)",
    "listen news",
    "commit;",
    "end",
    "abort",
    "rollback",
    "select 1 -- why\r, set_config('a.b', 'c', false)",
    'select "insert" into temp x from t',
    "prepare p as select 1",
    "declare c cursor with hold for select 1",
    "create temp table t (x int)",
    "select 1 into temp t",
    "select * into t from questions",
    "do $$ begin perform set_config('a.b', 'c', false); end $$",
    "call p()",
    "load 'auto_explain'",
    "discard plans",
    "select 1; set x.y = 1",
    "explain analyze select set_config('a.b', 'c', false)",
    "explain analyze create temp table t as select 1",
    "explain (analyze) execute p",
    "explain analyze declare c cursor with hold for select 1",
    "with x as (select set_config('a.b', 'c', false)) select * from x",
    "insert into questions (subject) values (set_config('a.b', 'c', false))",
    "select unknown_function(1)",
    "select 'no end",
    "select $x$ no end",
    "select /* no end",
    "reset all",
    "copy questions to stdout",
    "lock table questions",
    "alter role x set y = 1",
]


@pytest.mark.parametrize("sql", CLEAN)
def test_leaves_nothing(sql: str) -> None:
    assert not touches(sql, KNOWN)


@pytest.mark.parametrize("sql", TOUCHING)
def test_may_leave_something(sql: str) -> None:
    assert touches(sql, KNOWN)


@pytest.mark.parametrize("sql", CLEAN)
def test_before_the_catalogue_is_known_rows_touch_too(sql: str) -> None:
    shape = read_statement(sql)
    assert touches(sql, Harmless()) == (shape.first in {"select", "insert", "update", "delete", "with"} or bool(shape.calls))


@given(st.text(max_size=80), st.sampled_from(["'{}'", "$${}$$", "/*{}*/ 1", "$tag${}$tag$"]))
def test_what_stands_in_quotes_is_not_read(text: str, quotes: str) -> None:
    inside = text.replace("'", "''") if "'" in quotes else text
    if quotes != "'{}'" and any(mark in inside for mark in "$*/"):
        return  # it might end what it stands in
    sql = "select " + quotes.format(inside)
    assert not touches(sql, KNOWN)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        list(lexemes(text))
    except ValueError:
        assert touches(text, KNOWN)
