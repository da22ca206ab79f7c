"""What a statement may leave in its session, from its text: never missed, and not seen where a quote or a comment holds it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.statement_texts import CALLS, statements

from pgfleet.client.statement import Harmless, lexemes, read_statement, touches

#: Names before a parenthesis that call nothing.
NAMED = [
    "insert into public.questions (subject,stem) values ($1,$2)",
    'insert into "public"."Questions" ("subject") values ($1)',
    "with q (a,b) as (select 1,2), r(c) as (select 1) select * from q, r",
    "with recursive q (a,b) as materialized (select 1,2), s as not materialized (select 1), r(c) as (select 1) table r",
    "select * from (values (1,2)) v (a,b)",
    "select * from t, (values (1,2)) v (a,b)",
    "select a from generate_series(1,2) g (a)",
    "select a from t join lateral unnest(t.x) with ordinality g (a, n) on true",
    "select a from t x (a, b) where a = 1",
    "select a from public.t x (a, b), s.u y (c)",
    "merge into t using (values (1,2)) v (s,st) on t.s = v.s when not matched then insert (s, st) values (v.s, v.st)",
    "select a from t cross join (values (1)) v (a)",
]
#: Calls whose arguments could be a list of columns.
CALLED = [
    "select 1 from t, set_config('a','b',false)",
    "select 1 from t, f (a, b)",
    "insert into t select set_config ('a')",
    "insert into t select f (a, b)",
    "select * from x join lateral f (a, b) on true",
    "with a as (select 1) select f (a, b)",
    "with a (x) as (select 1) select f (a, b)",
    "with a (x) as (select 1), b as (select f (a, b)) select 1",
    "with a (x) as (select 1), b as (select 2) select 1, f (a, b) as y",
    "select * from g (x) as (a int), f (a, b) as (c int)",
    "select * from t, g (x) as (a int), f (a, b) as (c int)",
    "select 1 operator(pg_catalog.+) f (a, b)",
    "select extract(epoch from operator(pg_catalog.-) f (a, b))",
    "select a at time zone f (a, b) from t",
    "select a from t limit f (a, b)",
    "select a from t fetch next f (a, b) rows only",
    "select (a) , f (a, b)",
    "select xmlroot(x, version f (a, b))",
    "select a from t x, only f (a, b)",
    "select a from t tablesample f (a, b)",
    "select a from t, lateral f (a, b)",
    "select a from t, lateral f (a, b) v (x)",
    "select a from f (a, b) v (x)",
    "select a from f (a, b) as v (x)",
    "select s.first(1), lower('x')",
    "select public.f (a, b)",
    'select "as" f (a, b)',
    "delete from t using f (a, b) x",
    "merge into t using f (a, b) x on true when matched then delete",
    "select a from t where (a) in (1) and f (a, b)",
    "select (a) = f (a, b)",
    "select variadic f (a, b)",
    "select 1 from t where a is distinct from f (a, b)",
    "select * from unnest(x) with ordinality as (a int), f (a, b) as (c int)",
    "select * from rows from (f (a, b)) v (x)",
]

KNOWN = Harmless(
    frozenset({"count", "lower", "now", "generate_series", "unnest", "gen_random_uuid", "to_tsvector"}), everything_else=True
)

#: All that the statements at random call.
MANY = Harmless(KNOWN.functions | {"system"}, everything_else=True)

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


@pytest.mark.parametrize("sql", [*CLEAN, *NAMED])
def test_leaves_nothing(sql: str) -> None:
    assert not touches(sql, KNOWN)


@pytest.mark.parametrize("sql", [*TOUCHING, *CALLED])
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


@given(st.data(), st.sampled_from(CALLS))
@settings(max_examples=400)
def test_a_call_is_seen_wherever_it_stands(data: st.DataObject, call: str) -> None:
    """And nothing is seen where the name stands for a column, a table or an alias."""
    assert touches(data.draw(statements(call)), MANY)


@given(statements())
def test_what_calls_nothing_leaves_nothing(sql: str) -> None:
    if not sql.startswith(("delete", "merge")):  # what is listed after their USING may be taken for calls
        assert not read_statement(sql).calls & {"f", "t", "q", "r", "v", "x", "g", "z"}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        list(lexemes(text))
    except ValueError:
        assert touches(text, KNOWN)
