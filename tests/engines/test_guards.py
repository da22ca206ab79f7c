"""A shard's guards, on real servers: what was opened under an old map, or is not the shard's, changes nothing."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.engines.owning import prepare, put, session
from tests.engines.scratch import Shards, running

from pgfleet.errors import NotGuarded
from pgfleet.routing.hashing import bucket
from pgfleet.routing.placement import Hashed, Placement, TablePlacement

pytestmark = pytest.mark.engines

DAY = datetime.date(2024, 5, 1)


def mapped(epoch: int, **listed: str) -> Placement:
    """Subjects as listed, and `spread` over both by id; regions in a place each."""
    spread = {"spread": Hashed(4, ("a", "b"), "id")}
    regions = TablePlacement("region", {"eu": "a", "us": "b"}, {}, None)
    tables = {"q": TablePlacement("subject", listed, spread, None), "audit_logs": regions}
    return Placement(tables, {"answers": "q"}, {"answers": "topic"}, epoch=epoch)


OLD = mapped(1, PMP="a", AWS="a", GRE="b")
NEW = mapped(2, PMP="a", AWS="b", GRE="b")

WRITES = {
    "insert": "insert into q (subject, id) values ('{key}', {id})",
    "update": "update q set note = 'x' where subject = '{key}' and id = {id}",
    "delete": "delete from q where subject = '{key}' and id = {id}",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Shards]:
    with running("guarded", "a", "b") as started:
        yield started


@pytest_asyncio.fixture
async def shards(servers: Shards) -> AsyncIterator[Shards]:
    """Two shards that have the old map."""
    await prepare(servers)
    await put(servers, OLD)
    yield servers


async def refused(connection: asyncpg.Connection[Any], statement: str, *args: object) -> tuple[str, dict[str, Any]]:
    """The SQLSTATE and the detail of a statement that must be refused."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await connection.execute(statement, *args)
    detail = getattr(caught.value, "detail", None)
    return str(caught.value.sqlstate), json.loads(detail) if detail else {}


async def with_rows(shards: Shards) -> None:
    for shard, keys in (("a", ("PMP", "AWS")), ("b", ("GRE",))):
        for key in keys:
            await shards.fetch(shard, "insert into q (subject, id) values ($1, 1)", key)


# -- epochs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("row", [1, 99], ids=["a row", "no row"])
@pytest.mark.parametrize("key", ["PMP", "AWS"], ids=["a key that stayed", "a key that went"])
async def test_under_an_old_epoch_nothing_is_changed(shards: Shards, verb: str, row: int, key: str) -> None:
    await with_rows(shards)
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as stale:
        assert await stale.execute(WRITES["update"].format(key=key, id=1)) == "UPDATE 1", "its epoch is the newest"
        await put(shards, NEW)
        state, detail = await refused(stale, WRITES[verb].format(key=key, id=row))
        assert state == "PF001"
        assert detail == {"shard": "a", "epoch": 2, "since": 2, "settled": True, "table": "q", "key": None}
        assert await stale.fetchval("select count(*) from q") == 2, "reads are not refused"
        assert (await refused(stale, "insert into audit_logs values ('eu', 1, $1)", DAY))[0] == "PF001", "another table, too"
    async with session(shards, "a", settings={"pgfleet.epoch": "2"}) as fresh:
        assert (await fresh.execute(WRITES["update"].format(key="PMP", id=1))) == "UPDATE 1"


async def test_truncate_under_an_old_epoch(shards: Shards) -> None:
    await put(shards, NEW)
    async with session(shards, "a", "pgfleet_owner", {"pgfleet.epoch": "1"}) as stale:
        assert (await refused(stale, "truncate q"))[0] == "PF001"
    async with session(shards, "a", "pgfleet_owner", {"pgfleet.epoch": "2"}) as fresh:
        assert await fresh.execute("truncate q") == "TRUNCATE TABLE"


async def test_a_shard_that_keeps_what_it_has_refuses_no_old_epoch(shards: Shards) -> None:
    await put(shards, mapped(2, PMP="a", AWS="a", GRE="b", LSAT="b"))
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as client:
        assert await client.execute(WRITES["insert"].format(key="PMP", id=1)) == "INSERT 0 1"
    async with session(shards, "b", settings={"pgfleet.epoch": "1"}) as client:
        assert (await refused(client, WRITES["insert"].format(key="GRE", id=1)))[0] == "PF001"
    assert await shards.fetch("a", "select epoch, since from pgfleet.placement") == [(2, 1)]
    assert await shards.fetch("b", "select epoch, since from pgfleet.placement") == [(2, 2)]


async def test_a_newer_epoch_than_the_shard_knows_is_judged_by_ownership(shards: Shards) -> None:
    async with session(shards, "a", settings={"pgfleet.epoch": "7"}) as ahead:
        assert await ahead.execute(WRITES["insert"].format(key="PMP", id=1)) == "INSERT 0 1"
        assert (await refused(ahead, WRITES["insert"].format(key="GRE", id=1)))[0] == "PF002"


async def test_an_epoch_that_is_no_number_is_refused(shards: Shards) -> None:
    async with session(shards, "a", settings={"pgfleet.epoch": "two"}) as client:
        assert (await refused(client, WRITES["insert"].format(key="PMP", id=1)))[0] == "22P02"


# -- ownership ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", WRITES)
async def test_a_key_that_is_not_owned_is_refused_without_any_claim(shards: Shards, verb: str) -> None:
    await with_rows(shards)
    await put(shards, NEW)
    async with session(shards, "a") as client:
        state, detail = await refused(client, WRITES[verb].format(key="AWS", id=1 if verb != "insert" else 2))
        assert state == "PF002"
        assert detail == {"shard": "a", "epoch": 2, "since": 2, "settled": True, "table": "q", "key": "AWS"}
        assert await client.execute(WRITES[verb].format(key="PMP", id=1 if verb != "insert" else 2)) != ""
        assert (await refused(client, WRITES["insert"].format(key="nobody's", id=1).replace("y's", "y''s")))[0] == "PF002"


async def test_a_row_cannot_be_moved_in_or_out_by_an_update(shards: Shards) -> None:
    await with_rows(shards)
    await put(shards, NEW)
    async with session(shards, "a") as client:
        state, detail = await refused(client, "update q set subject = 'GRE' where subject = 'PMP'")
        assert (state, detail["key"]) == ("PF002", "GRE")
        state, detail = await refused(client, "update q set subject = 'PMP', id = 5 where subject = 'AWS'")
        assert (state, detail["key"]) == ("PF002", "AWS")
        assert await client.execute("update q set id = 7 where subject = 'PMP'") == "UPDATE 1"


async def test_whatever_comes_in_is_looked_at(shards: Shards) -> None:
    """COPY, several rows, ON CONFLICT, MERGE, a statement inside a function, and one that refers to nothing that is placed."""
    async with session(shards, "a") as client:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await client.copy_records_to_table("q", records=[("PMP", 1, ""), ("GRE", 1, "")])
        assert caught.value.sqlstate == "PF002"
        assert await client.copy_records_to_table("q", records=[("PMP", 1, ""), ("AWS", 1, "")]) == "COPY 2"
        many = "insert into q (subject, id) select case when n = 500 then 'GRE' else 'PMP' end, n from generate_series(2, 600) n"
        assert (await refused(client, many))[0] == "PF002"
        upsert = "insert into q (subject, id) values ('GRE', 1) on conflict (subject, id) do update set note = 'x'"
        assert (await refused(client, upsert))[0] == "PF002"
        merge = (
            "merge into q using (values ('GRE', 1)) v (s, i) on q.subject = v.s and q.id = v.i"
            " when not matched then insert (subject, id) values (v.s, v.i)"
        )
        assert (await refused(client, merge))[0] == "PF002"
        assert (await refused(client, "do $$ begin insert into q (subject, id) values ('GRE', 1); end $$"))[0] == "PF002"
        assert await client.execute("insert into free values (1)") == "INSERT 0 1"
        assert await client.fetchval("select count(*) from q") == 2


async def test_another_trigger_cannot_change_the_key_behind_the_guard(shards: Shards) -> None:
    await shards.fetch(
        "a",
        """do $$ begin
             create function other() returns trigger language plpgsql as 'begin new.subject := ''GRE''; return new; end';
             create trigger zealous before insert on q for each row execute function other();
           end $$""",
    )
    async with session(shards, "a") as client:
        assert (await refused(client, WRITES["insert"].format(key="PMP", id=1)))[0] == "PF002"


async def test_tables_that_follow_are_judged_by_their_own_key(shards: Shards) -> None:
    async with session(shards, "a") as client:
        assert await client.execute("insert into answers values ('PMP', 1)") == "INSERT 0 1"
        state, detail = await refused(client, "insert into answers values ('GRE', 1)")
        assert (state, detail["table"], detail["key"]) == ("PF002", "answers", "GRE")


async def test_a_key_that_is_spread_is_judged_by_the_second_column(shards: Shards) -> None:
    ids = {shard: [n for n in range(20) if ("a", "b")[bucket(n, 4) % 2] == shard] for shard in ("a", "b")}
    for shard, other in (("a", "b"), ("b", "a")):
        async with session(shards, shard) as client:
            await client.execute(WRITES["insert"].format(key="spread", id=ids[shard][0]))
            assert (await refused(client, WRITES["insert"].format(key="spread", id=ids[other][0])))[0] == "PF002"
            move = f"update q set id = {ids[other][0]} where subject = 'spread'"
            assert (await refused(client, move))[0] == "PF002"
            assert await client.execute(f"update q set id = {ids[shard][1]} where subject = 'spread'") == "UPDATE 1"
            # A table without that column: either shard may have such rows.
            await client.execute("insert into answers values ('spread', 1)")


async def test_a_spread_by_another_column_comes_to_tables_that_are_guarded(shards: Shards) -> None:
    """The guards tell the new column before it decides, and no longer the old one when it does not."""
    rule = OLD.tables["q"]
    note = replace(OLD, epoch=2, tables={**OLD.tables, "q": replace(rule, spread={"spread": Hashed(4, ("a", "b"), "note")})})
    await put(shards, note)
    assert await shards.fetch("a", "select seconds from pgfleet.placed where relation = 'q'") == [(["note"],)]
    assert await shards.fetch("a", "select pgfleet.unguarded()") == []
    notes = {("a", "b")[bucket(text, 4) % 2]: text for text in map(str, range(20))}
    async with session(shards, "a") as client:
        await client.execute(f"insert into q values ('spread', 1, '{notes['a']}')")
        assert (await refused(client, f"insert into q values ('spread', 2, '{notes['b']}')"))[0] == "PF002"


# -- claims of a key ---------------------------------------------------------------------------------------------------------


async def test_a_claimed_key_is_refused_also_where_no_row_matches(shards: Shards) -> None:
    await put(shards, NEW)
    async with session(shards, "a") as client:
        async with client.transaction():
            await client.execute("select set_config('pgfleet.key', 'q:PMP', true)")
            assert await client.execute(WRITES["update"].format(key="PMP", id=99)) == "UPDATE 0"
            await client.execute("select set_config('pgfleet.key', 'q:spread', true)")
            assert await client.execute(WRITES["update"].format(key="spread", id=99)) == "UPDATE 0"
        for verb in ("update", "delete"):
            for table in ("q", "answers"):
                async with client.transaction():
                    await client.execute("select set_config('pgfleet.key', 'q:AWS', true)")
                    statement = WRITES[verb].format(key="AWS", id=99) if table == "q" else "delete from answers where number = 99"
                    # A savepoint: the claim outlives the refusal.
                    with pytest.raises(asyncpg.PostgresError) as caught:
                        async with client.transaction():
                            await client.execute(statement)
                    assert caught.value.sqlstate == "PF002"
                    assert json.loads(str(caught.value.detail))["key"] == "AWS"
                    assert await client.execute("delete from audit_logs where region = 'eu'") == "DELETE 0", "another root"
        assert await client.execute(WRITES["update"].format(key="AWS", id=99)) == "UPDATE 0", "no claim: nothing is known"


# -- isolation ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
@pytest.mark.parametrize("verb", WRITES)
async def test_a_snapshot_from_before_the_change_cannot_write(shards: Shards, isolation: Any, verb: str) -> None:
    await with_rows(shards)
    async with session(shards, "b") as client:
        transaction = client.transaction(isolation=isolation)
        await transaction.start()
        assert await client.fetchval("select count(*) from q where subject = 'AWS'") == 0
        await put(shards, NEW)
        async with session(shards, "b") as other:
            await other.execute(WRITES["insert"].format(key="AWS", id=1))
        # It owns AWS by now, but this snapshot does not see its rows: an UPDATE would find none.
        assert (await refused(client, WRITES[verb].format(key="AWS", id=1)))[0] == "40001"
        await transaction.rollback()
        async with client.transaction(isolation=isolation):
            assert await client.execute(WRITES["update"].format(key="AWS", id=1)) == "UPDATE 1"


async def test_a_snapshot_from_before_a_change_elsewhere_may_write(shards: Shards) -> None:
    async with session(shards, "a") as client, client.transaction(isolation="serializable"):
        await client.fetchval("select count(*) from q")
        await put(shards, mapped(2, PMP="a", AWS="a", GRE="b", LSAT="b"))
        assert await client.execute(WRITES["insert"].format(key="PMP", id=1)) == "INSERT 0 1"


async def test_many_that_write_at_once_in_serializable_transactions(shards: Shards) -> None:
    """The guards themselves are no cause of serialization failures, and lock no row."""

    async def one(number: int) -> None:
        async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as client:
            for row in range(20):
                async with client.transaction(isolation="repeatable_read"):
                    await client.execute(WRITES["insert"].format(key="PMP", id=number * 100 + row))

    await asyncio.gather(*map(one, range(8)))
    assert await shards.fetch("a", "select count(*) from q") == [(160,)]
    assert await shards.fetch("a", "select xmax::text from pgfleet.gate") == [("0",)]


# -- partitions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relation", ["audit_logs", "audit_logs_p1"])
async def test_partitioned_tables_and_their_partitions(shards: Shards, relation: str) -> None:
    async with session(shards, "a") as client:
        assert await client.execute(f"insert into {relation} values ('eu', 1, $1)", DAY) == "INSERT 0 1"
        state, detail = await refused(client, f"insert into {relation} values ('us', 1, $1)", DAY)
        assert (state, detail["table"], detail["key"]) == ("PF002", "audit_logs", "us")
        moved = "update audit_logs set at = at + 365"  # to the other partition: a delete and an insert
        assert await client.execute(moved) == "UPDATE 1"
        assert (await refused(client, "update audit_logs set region = 'us', at = at - 365"))[0] == "PF002"
    regions = replace(OLD.tables["audit_logs"], listed={"eu": "b", "us": "a"})
    await put(shards, replace(OLD, epoch=2, tables={**OLD.tables, "audit_logs": regions}))
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as stale:
        assert (await refused(stale, f"delete from {relation} where region = 'ap'"))[0] == "PF001"
        assert (await refused(stale, f"insert into {relation} values ('eu', 2, $1)", DAY))[0] == "PF001"
    async with session(shards, "a") as client:
        assert (await refused(client, "delete from audit_logs"))[0] == "PF002", "the row that was left behind"


async def test_a_partition_that_comes_later_is_found(shards: Shards) -> None:
    await shards.fetch("a", "create table audit_logs_p3 partition of audit_logs for values from ('2026-01-01') to ('2027-01-01')")
    late = datetime.date(2026, 5, 1)
    async with session(shards, "a") as client:
        assert (await refused(client, "insert into audit_logs_p3 values ('us', 1, $1)", late))[0] == "PF002", "its rows at once"
    assert await shards.fetch("a", "select pgfleet.unguarded()") == [("audit_logs",)]
    assert await shards.fetch("a", "select pgfleet.attach_guards()") == [("audit_logs",)]
    await put(shards, mapped(2, PMP="b", AWS="a", GRE="b"))
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as stale:
        assert (await refused(stale, "insert into audit_logs_p3 values ('eu', 1, $1)", late))[0] == "PF001"


# -- attaching ---------------------------------------------------------------------------------------------------------------


async def test_guards_that_are_gone_disabled_or_others_are_found_and_mended(shards: Shards) -> None:
    for harm in (
        "drop trigger zz_pgfleet_update on q",
        "alter table q disable trigger pgfleet_statement",
        "alter table q enable always trigger zz_pgfleet_delete",
        "alter table audit_logs_p2 disable trigger pgfleet_statement",
        "alter table audit_logs_p1 disable trigger zz_pgfleet_insert",
        "alter table audit_logs_p2 enable replica trigger zz_pgfleet_delete",
    ):
        table = harm.partition(" on ")[2] or ("audit_logs" if "audit" in harm else "q")
        assert await shards.fetch("a", "select pgfleet.unguarded()") == []
        await shards.fetch("a", harm)
        assert await shards.fetch("a", "select pgfleet.unguarded()", role="pgfleet_monitor") == [(table,)]
        assert await shards.fetch("a", "select pgfleet.attach_guards()") == [(table,)]
    assert await shards.fetch("a", "select pgfleet.unguarded()") == []


#: Names that sort after the guards': as bytes, whatever a locale says.
@pytest.mark.parametrize("name", ["zz_q_normalise", "übersetzen"])
@pytest.mark.parametrize("relation", ["q", "audit_logs_p1"])
async def test_a_trigger_that_comes_after_the_guards_is_told(shards: Shards, name: str, relation: str) -> None:
    await shards.fetch("a", "create function other() returns trigger language plpgsql as 'begin return new; end'")
    for_row = f"before insert or update on {relation} for each row execute function other()"
    await shards.fetch("a", f'create trigger "{name}" {for_row}')
    table = relation.removesuffix("_p1")
    assert await shards.fetch("a", "select pgfleet.unguarded()", role="pgfleet_monitor") == [(table,)]
    with pytest.raises(NotGuarded) as caught:
        await put(shards, OLD)
    assert name in caught.value.seen[0]
    assert "comes after the guards" in caught.value.seen[0]
    await shards.fetch("a", f'alter trigger "{name}" on {relation} rename to normalise')
    assert await shards.fetch("a", "select pgfleet.unguarded()") == []
    await shards.fetch("a", f'create trigger "zz_{name}" after update on {relation} for each row execute function other()')
    assert await shards.fetch("a", "select pgfleet.unguarded()") == [], "what comes after the row changes nothing of it"


async def test_tables_that_inherit_are_guarded_like_the_one_they_inherit_from(shards: Shards) -> None:
    """Their rows are seen, changed and deleted through it."""
    await shards.fetch("a", "create table q_old () inherits (q)")
    await shards.fetch("a", "create table q_older () inherits (q_old)")
    assert await shards.fetch("a", "select pgfleet.unguarded()") == [("q",)]
    await put(shards, OLD)
    assert await shards.fetch("a", "select pgfleet.unguarded()") == []
    for relation in ("q_old", "q_older"):
        await shards.fetch("a", f"grant insert on {relation} to pgfleet_app")
        async with session(shards, "a") as client:
            assert (await refused(client, f"insert into {relation} (subject, id) values ('GRE', 1)"))[0] == "PF002"
            await client.execute(f"insert into {relation} (subject, id) values ('PMP', 1)")
        async with session(shards, "a", settings={"pgfleet.epoch": "0"}) as stale:
            assert (await refused(stale, f"insert into {relation} (subject, id) values ('PMP', 2)"))[0] == "PF001"


@pytest.mark.parametrize(
    "key", ["date", "timestamptz", "interval", "money", "bytea", "float8", "numeric", "boolean", "jsonb", "text[]", "day"]
)
async def test_a_column_whose_text_is_the_sessions_cannot_place_rows(shards: Shards, key: str) -> None:
    await shards.fetch("a", "create domain day as date")
    await shards.fetch("a", f"create table t (k {key})")
    with pytest.raises(NotGuarded) as caught:
        await put(shards, replace(OLD, epoch=2, tables={**OLD.tables, "t": TablePlacement("k", {"x": "a"}, {}, None)}))
    assert "column k, of type" in caught.value.seen[0]
    assert "uuid" in caught.value.seen[0], "the hint"
    assert await shards.fetch("a", "select pgfleet.unguarded()") == [("t",)]


@pytest.mark.parametrize("key", ["text", "varchar(9)", "char(3)", "smallint", "integer", "bigint", "uuid", "mood", "named"])
async def test_columns_that_can_place_rows(shards: Shards, key: str) -> None:
    await shards.fetch("a", "create type mood as enum ('x')")
    await shards.fetch("a", "create domain other as varchar(9)")
    await shards.fetch("a", "create domain named as other check (value <> '')")
    await shards.fetch("a", f"create table t (k {key})")
    await put(shards, replace(OLD, epoch=2, tables={**OLD.tables, "t": TablePlacement("k", {"x": "a"}, {}, None)}))
    assert await shards.fetch("a", "select pgfleet.unguarded()") == []


async def test_a_second_column_whose_text_is_the_sessions(shards: Shards) -> None:
    await shards.fetch("a", "create table t (k text, at date)")
    rule = TablePlacement("k", {}, {"x": Hashed(4, ("a", "b"), "at")}, None)
    with pytest.raises(NotGuarded) as caught:
        await put(shards, replace(OLD, epoch=2, tables={**OLD.tables, "t": rule}))
    assert "column at, of type date" in caught.value.seen[0]


async def test_a_table_that_is_no_longer_placed_is_let_go(shards: Shards) -> None:
    await put(shards, replace(OLD, epoch=2, tables={"q": OLD.tables["q"]}, follows={}))
    triggers = "select distinct tgrelid::regclass::text from pg_trigger where tgname ~ 'pgfleet'"
    assert await shards.fetch("a", triggers) == [("q",)]
    async with session(shards, "a") as client:
        await client.execute("insert into audit_logs values ('us', 1, $1)", DAY)


async def test_a_table_without_its_key_column_is_said(shards: Shards) -> None:
    wrong = {**OLD.tables, "free": TablePlacement("subject", {"x": "a"}, {}, None)}
    with pytest.raises(NotGuarded) as caught:
        await put(shards, replace(OLD, epoch=2, tables=wrong))
    assert "table free has no column subject" in caught.value.seen[0]
    assert await shards.fetch("a", "select pgfleet.unguarded()") == [("free",)]
    assert await shards.fetch("a", "select pgfleet.attach_guards()") == [], "a migration may have made it before its column"
    await shards.fetch("a", "alter table free add column subject text")
    assert await shards.fetch("a", "select pgfleet.attach_guards()") == [("free",)]


async def test_a_key_column_that_is_generated(shards: Shards) -> None:
    await shards.fetch("a", "drop table answers")
    topic = "topic text generated always as (split_part(full_topic, '/', 1)) stored"
    await shards.fetch("a", f"create table answers (id bigint primary key, full_topic text, {topic})")
    assert await shards.fetch("a", "select pgfleet.attach_guards()") == [("answers",)]
    async with session(shards, "a") as client:
        await client.execute("insert into answers (id, full_topic) values (1, 'PMP/scope')")
        assert (await refused(client, "insert into answers (id, full_topic) values (2, 'GRE/scope')"))[0] == "PF002"
        assert (await refused(client, "update answers set full_topic = 'GRE/scope'"))[0] == "PF002"
        assert await client.execute("delete from answers") == "DELETE 1"


# -- who may what ------------------------------------------------------------------------------------------------------------


async def test_the_application_reads_the_map_and_changes_none_of_it(shards: Shards) -> None:
    async with session(shards, "a") as client:
        assert Placement.from_json(await client.fetchval("select map from pgfleet.placement")) == OLD
        for statement in (
            "update pgfleet.placement set epoch = 9",
            "delete from pgfleet.placed",
            "select * from pgfleet.gate",
            "update pgfleet.gate set since = 0",
            "select pgfleet.attach_guards()",
            "alter table q disable trigger user",
            "drop trigger pgfleet_statement on q",
            "create or replace function pgfleet.owns_q(key text, seconds jsonb) returns boolean language sql return true",
            "set session_replication_role = replica",
            "truncate q",
        ):
            assert (await refused(client, statement))[0] == "42501", statement


async def test_whoever_may_write_may_where_functions_are_nobodys(shards: Shards) -> None:
    """Default privileges that keep functions from everybody keep nobody from tables that are guarded since."""
    await shards.fetch("a", "alter default privileges for role pgfleet_owner revoke execute on functions from public")
    await shards.fetch("a", "create table t (k text)")
    await put(shards, replace(OLD, epoch=2, tables={**OLD.tables, "t": TablePlacement("k", {"x": "a"}, {}, None)}))
    async with session(shards, "a") as client:
        await client.execute("insert into t values ('x')")
        assert (await refused(client, "insert into t values ('y')"))[0] == "PF002"


@pytest.mark.parametrize(
    "function",
    [
        "guard_row()",
        "guard_statement()",
        "refuse_statement('q', 1)",
        "refuse('PF002', '', '', '')",
        "unguarded()",
        "holds('q', 'q:x')",
        "turn()",
        "later('q'::regclass)",
    ],
)
async def test_nobody_makes_guards_of_his_own(shards: Shards, function: str) -> None:
    """They run as their owner, and a cast of one's own on a table of one's own would too."""
    async with session(shards, "a") as client:
        if function.startswith("guard"):
            await client.execute("create temporary table mine (subject text)")
            statement = f"create trigger t before insert on mine for each row execute function pgfleet.{function}"
        else:
            statement = f"select pgfleet.{function}"
        assert (await refused(client, statement))[0] == "42501"


async def test_a_role_that_knows_nothing_of_pgfleet_is_guarded_too(shards: Shards) -> None:
    shards.servers["a"].psql(
        "drop role if exists clerk; create role clerk login password 'clerk'; grant all on q to clerk", "app"
    )
    async with session(shards, "a", "clerk") as client:
        assert await client.execute(WRITES["insert"].format(key="PMP", id=1)) == "INSERT 0 1"
        state, detail = await refused(client, WRITES["insert"].format(key="GRE", id=1))
        assert (state, detail["shard"]) == ("PF002", "a")
        await client.execute("create temporary table gate (turn bigint); set search_path = pg_temp, public")
        await client.execute("create function pg_temp.sha256(bytea) returns bytea language sql as 'select null::bytea'")
        assert (await refused(client, WRITES["insert"].format(key="GRE", id=1)))[0] == "PF002"
    shards.servers["a"].psql("drop owned by clerk; drop role clerk", "app")
