"""What a borrower leaves in its session does not reach the next one, by whichever way it was left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from tests.engines.pooled import Pooled, pooled
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.errors import BlockEnded
from pgfleet.runtime.sql import Connection

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

#: Functions and more of the application's that touch their session where no statement shows it.
HIDDEN = """
create function hides() returns int language plpgsql as $$ begin perform set_config('my.hidden', 'left', false); return 1; end $$;
create function looks_stable() returns int language plpgsql stable as $$
begin perform set_config('my.stable', 'left', false); return 1; end $$;
create view hiding as select hides() as h;
create table triggered (subject text default current_setting('my.none', true), n serial, primary key (n));
create function leaves() returns trigger language plpgsql as $$
begin perform set_config('my.trigger', 'left', false); return new; end $$;
create trigger leaving before insert on triggered for each row execute function leaves();
create sequence numbers;
create procedure proceeds() language plpgsql as $$ begin set my.procedure = 'left'; end $$;
create type pair as (a int, b int);
grant all on all tables in schema public to pgfleet_app;
grant all on all sequences in schema public to pgfleet_app;
"""

#: One question to a session: what is different from a new one, as sorted text.
LOOK = """
select coalesce(string_agg(what, ', ' order by what), '') from (
    select 'setting ' || name || '=' || setting as what from pg_settings
    where source = 'session' and name !~ '^(jit|transaction_.*)$'
    union all select 'prepared ' || name from pg_prepared_statements where from_sql
    union all select 'cursor ' || name from pg_cursors where is_holdable
    union all select 'listens ' || c from pg_listening_channels() c
    union all select 'lock ' || objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objid <> 1
    union all select 'temporary ' || relname from pg_class where relnamespace = pg_my_temp_schema() and relkind in ('r', 'S', 'v')
    union all select 'temporary function ' || proname from pg_proc where pronamespace = pg_my_temp_schema()
    union all select 'role ' || current_user where current_user <> session_user
    union all select 'user ' || session_user where session_user <> 'pgfleet_app'
    union all select 'my.' || n || '=' || current_setting('my.' || n, true)
        from unnest(array['a', 'b', 'hidden', 'stable', 'trigger', 'procedure', 'done']) n
        where coalesce(current_setting('my.' || n, true), '') <> ''
) found
"""

#: Sent as one statement each, by `execute` on the primary.
STATEMENTS = [
    "set my.a = 'left'",
    "set session my.a = 'left'",
    "set \"my.a\" = 'left'",
    "select set_config('my.a', 'left', false)",
    "select pg_catalog.set_config('my.a', 'left', false)",
    "with x as materialized (select set_config('my.a', 'left', false) as s) select * from x",
    "select s from (select set_config('my.a', 'left', false) as s) x",
    "select set_config(n, 'left', false) from (values ('my.a'), ('my.b')) v (n)",
    "/* select */ set /**/ my.a /**/ to 'left'",
    "set search_path = pg_catalog",
    "set time zone 'Asia/Tokyo'",
    "set statement_timeout = '5min'",
    "set work_mem = '7MB'",
    "set default_transaction_isolation = 'serializable'",
    "set session characteristics as transaction isolation level serializable",
    "set datestyle = 'German'",
    "set extra_float_digits = -3",
    "set application_name = 'somebody'",
    "set lock_timeout = '1ms'",
    "set plan_cache_mode = force_generic_plan",
    "set enable_seqscan = off",
    "set bytea_output = 'escape'",
    "select pg_advisory_lock(42)",
    "select pg_advisory_lock_shared(42)",
    "select pg_advisory_lock(4, 42)",
    "select pg_try_advisory_lock(42)",
    "select pg_try_advisory_lock_shared(42)",
    "listen news",
    "prepare mine as select 1",
    "prepare other (int) as select $1",
    "create temporary table mine (x int)",
    "create temp table mine as select 1 as x",
    "select 1 as x into temp mine",
    "create temp view mine as select 1 as x",
    "create temp sequence mine",
    "create function pg_temp.mine() returns int language sql as 'select 1'",
    "do $$ begin set my.done = 'left'; end $$",
    "do $$ begin execute 'set my.done = ''left'''; end $$",
    "do $$ begin execute 'prepare mine as select 1'; end $$",
    "do $$ begin perform pg_advisory_lock(42); end $$",
    "do $$ begin create temp table mine (x int); end $$",
    "call proceeds()",
    "select hides()",
    "select looks_stable()",
    "select * from hiding",
    "insert into triggered default values",
    "insert into triggered (subject) select set_config('my.a', 'left', false)",
    "update triggered set subject = set_config('my.a', 'left', false)",
    "explain analyze select set_config('my.a', 'left', false)",
    "explain analyze create temp table mine as select 1 as x",
    "select setseed(0.5), set_config('my.a', 'left', false)",
]

BLOCKS = {
    "a setting outside of a savepoint": ["set my.a = 'left'"],
    "a setting in a savepoint": ["savepoint s", "set my.a = 'left'", "release s"],
    "a committed setting of the block itself": ["set session my.a = 'left'", "select 1"],
    "a cursor that is held": ["declare mine cursor with hold for select 1"],
    "a cursor": ["declare mine cursor for select generate_series(1, 100)"],
    "a lock of the session": ["select pg_advisory_lock(42)"],
    "a lock of the transaction": ["select pg_advisory_xact_lock(42)"],
    "temporary rows": ["create temp table mine (x int) on commit preserve rows", "insert into mine values (1)"],
    "a notification": ["listen news", "notify news"],
    "a commit of the borrower's own, and a setting after it": ["commit", "set my.a = 'left'"],
    "a transaction of the borrower's own that stays open": ["commit", "begin", "select 1"],
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east", "us-west")) as made:
        made.shards["one"].psql(f"set role pgfleet_owner; {HIDDEN}")
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    """One connection to each node: whoever comes next has the session of whoever was there before."""
    async with stage.client(pool_size=1, region="us-west") as opened:
        yield opened


async def left(fleet: Fleet) -> str:
    """What the next borrower finds: on the primary, in a block."""
    async with fleet.write("questions", key="one-a") as connection:
        return str(await connection.fetchval(LOOK))


async def test_the_look_sees_what_is_there(fleet: Fleet) -> None:
    """So that the other tests can fail: in a session of one's own everything stays until it is given back."""
    async with fleet.write("questions", key="one-a", session=True) as connection:
        for sql in ("set my.a = 'left'", "prepare mine as select 1", "listen news", "create temp table mine (x int)",
                    "select pg_advisory_lock(42)", "begin; declare c cursor with hold for select 1; commit"):  # fmt: skip
            await connection.execute(sql)
        seen = await connection.fetchval(LOOK)
    for word in ("my.a=left", "prepared mine", "listens news", "temporary mine", "lock 42", "cursor c"):
        assert word in seen
    assert await left(fleet) == ""


@pytest.mark.parametrize("sql", STATEMENTS)
async def test_a_statement_leaves_nothing(fleet: Fleet, sql: str) -> None:
    await fleet.execute("questions", sql, key="one-a")
    assert await left(fleet) == ""


@pytest.mark.parametrize("what", BLOCKS)
async def test_a_block_leaves_nothing(fleet: Fleet, what: str) -> None:
    with contextlib.suppress(BlockEnded):
        async with fleet.write("questions", key="one-a") as connection:
            for sql in BLOCKS[what]:
                await connection.execute(sql)
    assert await left(fleet) == ""


@pytest.mark.parametrize("way", ["fetch", "fetchrow", "execute", "prepare", "cursor", "executemany", "copy", "simple"])
async def test_every_way_to_send_a_statement_is_watched(fleet: Fleet, way: str) -> None:
    sql = "select set_config('my.a', $1, false)"
    async with fleet.write("questions", key="one-a") as connection:
        match way:
            case "fetch":
                await connection.fetch(sql, "left")
            case "fetchrow":
                await connection.fetchrow(sql, "left")
            case "execute":
                await connection.execute(sql, "left")
            case "prepare":
                await (await connection.prepare(sql)).fetch("left")
            case "cursor":
                async for _ in connection.cursor(sql, "left"):
                    pass
            case "executemany":
                await connection.executemany("select set_config('my.a', $1, false)", [("left",)])
            case "copy":
                await connection.copy_from_query(sql, "left", output=_nowhere)
            case "simple":
                await connection.execute("select 1; set my.a = 'left'")
    assert await left(fleet) == ""


async def _nowhere(data: bytes) -> None:
    pass


@pytest.mark.parametrize("sql", [s for s in STATEMENTS if "temp" not in s and "listen" not in s and "triggered" not in s])
async def test_a_read_leaves_nothing(fleet: Fleet, sql: str) -> None:
    async with fleet.read("questions", key="one-a") as connection:
        try:
            await connection.execute(sql)
        except (asyncpg.ReadOnlySQLTransactionError, asyncpg.FeatureNotSupportedError):
            return
    async with fleet.read("questions", key="one-a") as connection:
        assert await connection.fetchval(LOOK) == ""


async def test_python_state_is_left_behind_too(fleet: Fleet) -> None:
    def told(*_: object) -> None: ...

    async with fleet.write("questions", key="one-a", session=True) as connection:
        await connection.set_type_codec(
            "json", schema="pg_catalog", encoder=str, decoder=lambda text: "decoded by the last borrower"
        )
        await connection.add_listener("news", told)
        connection.add_log_listener(told)
        connection.add_query_logger(told)
    async with fleet.write("questions", key="one-a") as next_one:
        assert await next_one.fetchval("select '1'::json") == "1"
        assert isinstance(next_one, Connection)
        assert not next_one.watched
    assert await left(fleet) == ""


async def test_the_value_of_anothers_sequence_is_not_told(fleet: Fleet) -> None:
    await fleet.execute("questions", "insert into triggered default values", key="one-a")
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        async with fleet.write("questions", key="one-a") as connection:
            await connection.fetchval("select lastval()")


async def test_a_statement_that_leaves_nothing_keeps_its_plan(fleet: Fleet) -> None:
    """Isolation is not bought by discarding everything: an ordinary statement's plan survives its borrower."""
    sql = "insert into questions (subject, stem) values ($1, $2)"
    seen: list[str] = []

    async def names(fleet: Fleet) -> str:
        async with fleet.write("questions", key="one-a") as connection:
            return str(
                await connection.fetchval("select string_agg(name, ' ') from pg_prepared_statements where statement = $1", sql)
            )

    with_hidden = "functions of this database touch their sessions, so every statement is followed by a reset"
    for _ in range(2):
        await fleet.execute("questions", sql, "one-a", "x", key="one-a")
        seen.append(await names(fleet))
    assert seen == ["None", "None"], with_hidden


async def test_without_hidden_state_plans_are_kept() -> None:
    with replicated(regions=("us-east",)) as made:
        async with made.client(pool_size=1) as fleet:
            sql = "insert into questions (subject, stem) values ($1, $2)"
            await fleet.execute("questions", sql, "one-a", "x", key="one-a")
            await fleet.execute("questions", sql, "one-a", "y", key="one-a")
            async with fleet.write("questions", key="one-a") as connection:
                assert await connection.fetchval("select count(*) from pg_prepared_statements where statement = $1", sql) == 1


# -- what no statement shows, and a comment hides ------------------------------------------------------------------------------

#: Bodies of PL/pgSQL that set a parameter; each in a database in which nothing else touches anything.
COMMENTED = {
    "a line": "begin -- why\n set my.hidden = 'left'; return new; end",
    "a line, and another sign of its end": "begin -- why\r set my.hidden = 'left'; return new; end",
    "a comment": "begin /* why */ set my.hidden = 'left'; return new; end",
    "comments of both kinds": "begin /* ** why -- */ -- /* and\n /**/ set my.hidden = 'left'; return new; end",
    "after a statement": "begin perform 1; /* ; */ set my.hidden = 'left'; return new; end",
    "after THEN": "begin if true then--\nset my.hidden = 'left'; end if; return new; end",
    "after ELSE": "begin if false then null; else /**/set my.hidden = 'left'; end if; return new; end",
    "after LOOP": "begin for i in 1..1 loop /* * */ set my.hidden = 'left'; end loop; return new; end",
    "in an exception": "begin perform 1/0; exception when others then /* a */ set my.hidden = 'left'; return new; end",
    "a comment in a comment": "begin /* a /* b */ c */ set my.hidden = 'left'; return new; end",
    "comments in comments": "begin /* a /* b /* c */ */ -- d */ -- e\n set my.hidden = 'left'; return new; end",
    "a comment in a string": "begin perform '/*'; set my.hidden = 'left'; perform '*/'; return new; end",
    "a statement in a string": "begin do E'begin\\nset my.hidden = \\'left\\'; end'; return new; end",
    "an escaped name": "begin perform u&\"\\0073et_config\"('my.hidden', 'left', false); return new; end",
    "a name and a comment": "begin perform set_config /* */ ('my.hidden', 'left', false); return new; end",
}
#: Bodies that do not: what a comment says is nothing.
QUIET = {
    "a comment that speaks of it": "begin /* then we had to reset */ perform 1; -- set\n return new; end",
    "an update": "begin update plain set n = 1; update plain /* of all */ set n = 1; return new; end",
}
MADE = """
create or replace function hides() returns int language plpgsql as $body$ {} $body$;
create or replace function leaves() returns trigger language plpgsql as $body$ {} $body$;
"""


@pytest.fixture(scope="module")
def quiet() -> Iterator[Pooled]:
    """Nothing that touches its session, yet. One session for all."""
    with pooled(servers=1) as made:
        made.fleet.shards["one"].psql(
            f"""set role pgfleet_owner; create table plain (n int); {MADE.format("begin return 1; end", "begin return new; end")}
            create trigger leaving before insert on questions for each row execute function leaves();
            grant all on plain to pgfleet_app;"""
        )
        yield made


@pytest.mark.parametrize("through", ["direct", "pooler"])
@pytest.mark.parametrize("body", [*COMMENTED, *QUIET])
async def test_what_a_comment_hides_is_found(quiet: Pooled, body: str, through: Any) -> None:
    text = (COMMENTED | QUIET)[body]
    quiet.fleet.shards["one"].psql("set role pgfleet_owner;" + MADE.format(text.replace("return new", "return 1"), text))
    found = "select coalesce(current_setting('my.hidden', true), '')"
    async with quiet.client(through=through, pool_size=1) as fleet:
        for sql in ("select hides()", "insert into questions (subject) values ('one-a')"):
            async with fleet.write("questions", key="one-a") as connection:
                await connection.fetch(sql)
                assert isinstance(connection, Connection)
                assert connection.touched is (body in COMMENTED)
                assert await connection.fetchval(found) == ("left" if body in COMMENTED else "")
            async with fleet.write("questions", key="one-a") as connection:
                assert await connection.fetchval(found) == ""
            if through == "pooler":
                other = await quiet.bare("one_rw")
                assert await other.fetchval(found) == ""
                await other.close()
