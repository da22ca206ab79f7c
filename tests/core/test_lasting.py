"""What a statement leaves when its transaction has ended: what ends with it is nothing, what may not is never missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.client.lasting import Leaves, left
from pgfleet.client.statement import Harmless, touches

FUNCTIONS = frozenset({"count", "lower", "now", "generate_series", "unnest", "current_setting", "pg_advisory_xact_lock", "greet"})
KNOWN, HIDING = Harmless(FUNCTIONS, everything_else=True), Harmless(FUNCTIONS, everything_else=False)

NOTHING = [
    "",
    ";",
    "select 1",
    "(select 1) union all (select 2)",
    "insert into questions (subject) values ($1); update questions set stem = lower(stem);",
    "with x as (select count(*) from t) select * from x",
    "select pg_advisory_xact_lock(1)",
    "set local my.a = 'x'",
    "SET LOCAL role readers",
    "set transaction isolation level serializable",
    "set constraints all deferred",
    "select set_config('my.a', $1, true)",
    "select set_config('my.a', coalesce($1, lower('X')), TRUE), set_config('my.b', 'b', true) from t",
    "savepoint s; release s",
    "rollback to savepoint s",
    "rollback to s",
    "show work_mem",
    "explain analyze select count(*) from t",
    "explain (analyze, buffers) select count(*) from t",
    "explain verbose insert into t values (1)",
    "declare c cursor for select generate_series(1, 10)",
    "declare c no scroll cursor without hold for select 1",
    "fetch 10 from c",
    "close c",
    "lock table t in share mode",
    "notify news, 'x'",
    "truncate t",
    "copy (select lower(a) from t) to stdout",
    "copy t (a, b) from stdin (format csv)",
    "copy t to stdout",
    "begin",
    "table t",
    "select 'set x = 1; listen y', $$ commit; $$ -- discard all",
]
ORDINARY = [
    "insert into public.questions (subject, stem) values ($1, $2)",
    "with q (a, b) as (select 1, 2), r (c) as (select count(*) from q) select * from q, r",
    "select * from (values (1, 2)) v (a, b)",
    "select a from generate_series(1, 2) g (a)",
    "merge into s using (values (1, 2)) v (s, st) on s.s = v.s when not matched then insert (s, st) values (v.s, v.st)",
    "explain analyze insert into public.t (a) values (1)",
    "copy (select a from (values (1)) v (a)) to stdout",
    "declare c cursor for select a from t x (a, b)",
]
STATE = {
    "set my.a = 'x'": "SET",
    "set session my.a = 'x'": "SET",
    "reset all": "RESET",
    "discard all": "DISCARD",
    "listen news": "LISTEN",
    "unlisten *": "UNLISTEN",
    "prepare p as select 1": "PREPARE",
    "execute p": "EXECUTE",
    "deallocate all": "DEALLOCATE",
    "load 'x'": "LOAD",
    "do $$ begin end $$": "DO",
    "call p()": "CALL",
    "create temp table t (a int)": "CREATE",
    "select 1 into temp t": "SELECT INTO",
    "explain analyze create temp table t as select 1": "CREATE",
    "explain (analyze) execute p": "EXECUTE",
    "explain analyze select set_config('a.b', 'c', false)": "set_config()",
    "explain": "EXPLAIN",
    "explain " * 3000: "EXPLAIN",
    "copy ((select pg_advisory_lock(1))) to stdout": "pg_advisory_lock()",
    "select set_config('a.b', 'c', false)": "set_config()",
    "select set_config('a.b', 'c', $1)": "set_config()",
    "select set_config('a.b', 'c', not true)": "set_config()",
    "select set_config('a.b', 'c', true), set_config('a.b', 'c', false)": "set_config()",
    "select set_config(is_local := false, setting_name := 'a.b', new_value := 'true')": "set_config()",
    "select pg_advisory_lock(1)": "pg_advisory_lock()",
    "insert into t values (unheard_of())": "unheard_of()",
    "select 1 from t, set_config('a.b', 'c', false)": "set_config()",
    "select * from t x (a, b), unheard_of (a, b)": "unheard_of()",
    "select * from t, unheard_of (a, b) as (c int)": "unheard_of()",
    "with a (b) as (select 1), c as (select unheard_of (a, b)) select 1": "unheard_of()",
    "(select pg_advisory_lock(1)) union all (select null)": "pg_advisory_lock()",
    "copy (select pg_advisory_lock(1)) to stdout": "pg_advisory_lock()",
    "declare c cursor with hold for select 1": "a cursor WITH HOLD",
    "declare c cursor for select pg_advisory_lock(1)": "pg_advisory_lock()",
    "insert into t values (1); set my.a = 'x'": "SET",
    "commit": "COMMIT, which ends the transaction",
    "end": "END, which ends the transaction",
    "abort": "ABORT, which ends the transaction",
    "rollback": "ROLLBACK, which ends the transaction",
    "insert into t values (1); commit; select 1": "COMMIT, which ends the transaction",
    "prepare transaction 'x'": "PREPARE",
    "select 'no end": "a text that cannot be read (no end of ')",
    "$1": "a text that does not begin with a word",
}
HIDDEN = ["select greet('x')", "insert into t values (1)", "explain analyze insert into t values (1)", "truncate t",
          "copy t from stdin", "set local my.a = 'x'; insert into t values (1)"]  # fmt: skip


@pytest.mark.parametrize("sql", [*NOTHING, *ORDINARY])
def test_it_ends_with_its_transaction(sql: str) -> None:
    assert left(sql, KNOWN).leaves is Leaves.NOTHING


@pytest.mark.parametrize("sql", STATE)
def test_it_stays_and_is_named(sql: str) -> None:
    for harmless in (KNOWN, HIDING, Harmless()):
        assert left(sql, harmless).leaves is Leaves.STATE
    assert left(sql, KNOWN).what == STATE[sql]


@pytest.mark.parametrize("sql", HIDDEN)
def test_what_the_text_does_not_show_is_known_to_be_there(sql: str) -> None:
    assert left(sql, KNOWN).leaves is Leaves.NOTHING
    assert left(sql, HIDING).leaves is Leaves.HIDDEN


def test_nothing_is_believed_before_the_catalogue_was_asked() -> None:
    assert left("select count(*) from t", Harmless()).leaves is Leaves.STATE


_WORDS = "select set local insert into t values ( ) 1 , ; commit explain analyze copy to stdout set_config 'a' true false lower"
WORDS = st.sampled_from([*_WORDS.split(), "declare", "c", "cursor", "for", "hold", "with", "temp", "rollback"])


@given(st.lists(WORDS, max_size=12))
def test_one_statement_of_rows_that_touches_its_session_is_never_taken_for_nothing(words: list[str]) -> None:
    """What the two judges say may differ only where something ends with the transaction."""
    sql = " ".join(words)
    if left(sql, KNOWN).leaves is Leaves.NOTHING and words[:1] in (["select"], ["insert"]) and ";" not in words:
        assert not touches(sql, KNOWN) or "set_config" in words


@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=12))
def test_a_text_of_several_leaves_what_the_worst_of_them_leaves(first: list[str], second: list[str]) -> None:
    one, two = " ".join(first), " ".join(second)
    both = left(f"{one};{two}", KNOWN).leaves
    assert both == max(left(one, KNOWN).leaves, left(two, KNOWN).leaves)
