"""``pgfleet migrate`` against real servers: recorded with the file, resumable after a kill, never half on a shard."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from tests.engines.scratch import Shards, running

from pgfleet.control.apply_file import Stopped, apply_file
from pgfleet.control.connect import connect
from pgfleet.control.journal import Journal
from pgfleet.control.migrate import LOCK, ShardMigrated, check, migrate
from pgfleet.control.pace import Pace
from pgfleet.errors import (
    MigrateFailed,
    MigrateInterrupted,
    MigrateUnderWay,
    MigrationChanged,
    NotApplied,
    ShardsUnreachable,
)  # fmt: skip
from pgfleet.plan.migrations import read_migrations

pytestmark = pytest.mark.engines

SHARDS_OF = {"questions": ("stem",), "users": ("users-eu",)}
QUICK = Pace(lock_seconds=0.2, patience_seconds=2, statement_seconds=20, commit_seconds=20, turn_seconds=1)


@pytest.fixture(scope="module")
def servers() -> Iterator[Shards]:
    with running("bank", "stem", "users-eu") as made:
        yield made


@pytest.fixture
def shards(servers: Shards) -> Shards:
    for server in servers.servers.values():
        if server.process is None:
            server.start()
    servers.empty()
    return servers


async def run(shards: Shards, files: dict[str, str], *, pace: Pace = QUICK, look: bool = False) -> dict[str, ShardMigrated]:
    found = read_migrations("schema", {name: text.encode() for name, text in files.items()}, SHARDS_OF)
    with Journal(shards.folder / "journal.db") as journal:
        results = await migrate(
            shards.book,
            found,
            SHARDS_OF,
            shards.servers,
            journal=None if look else journal,
            by="someone@here",
            pace=pace,
        )
    return {result.shard: result for result in results}


def applied(result: ShardMigrated) -> list[int]:
    return [done.number for done in result.applied]


A = {"0001_a.sql": "create table a (n integer primary key)"}
B = {"0002_b.sql": "-- tables: users\ncreate table b (n integer); insert into b values (1); insert into b values (2)"}
C = {"0003_c.sql": "-- tables: questions\ncreate table c (n integer)"}


async def test_each_shard_is_given_the_files_of_its_tables_and_records_them(shards: Shards) -> None:
    results = await run(shards, A | B | C)
    assert {name: applied(result) for name, result in results.items()} == {"stem": [1, 3], "users-eu": [1, 2]}
    query = "select number, name, applied_by, applied_at >= started_at, took >= 0 from pgfleet.migrations order by number"
    assert await shards.fetch("users-eu", query) == [
        (1, "0001_a.sql", "someone@here", True, True),
        (2, "0002_b.sql", "someone@here", True, True),
    ]
    assert await shards.fetch("users-eu", "select count(*) from b") == [(2,)]
    again = await run(shards, A | B | C)
    assert [applied(result) for result in again.values()] == [[], []]
    assert again["stem"].already == ("0001_a.sql", "0003_c.sql")


async def test_the_application_may_use_what_the_files_made(shards: Shards) -> None:
    await run(shards, {"0001_a.sql": "create table a (n integer generated always as identity, t text)"})
    await shards.fetch("stem", "insert into a (t) values ('x')", role="pgfleet_app")
    assert await shards.fetch("stem", "update a set t = 'y' returning n", role="pgfleet_app") == [(1,)]


async def test_two_that_apply_one_file_at_once_apply_it_once(shards: Shards) -> None:
    """The record's key stands behind the advisory lock, and is believed; also of a file without a transaction that has ended."""
    folder = A | {
        "0002_i.sql": "insert into a values (1); select pg_sleep(0.5)",
        "0003_u.sql": "-- pgfleet: no-transaction\nupdate a set n = n + 1",
    }
    await run(shards, A)
    found = read_migrations("schema", {name: text.encode() for name, text in folder.items()}, SHARDS_OF)
    with Journal(shards.folder / "journal.db") as journal:

        async def apply(number: int, by: str) -> None:
            connected = await connect(shards.book, "stem", "pgfleet_owner", settings={})
            try:
                await apply_file(connected.connection, found[number - 1], by, QUICK, journal, "stem")
            finally:
                connected.connection.terminate()

        await asyncio.gather(apply(2, "one"), apply(2, "two"))
        await apply(3, "one")
        await apply(3, "two")
        assert await shards.fetch("stem", "select n from a") == [(2,)]
        other = read_migrations("schema", {n: (t + ";").encode() for n, t in folder.items()}, SHARDS_OF)
        found = other
        with pytest.raises(Stopped, match="another file"):
            await apply(2, "two")
    assert await shards.fetch("stem", "select number, applied_by from pgfleet.migrations where number = 3") == [(3, "one")]


async def test_looking_changes_nothing(shards: Shards) -> None:
    results = await run(shards, A | B, look=True)
    assert results["users-eu"].remaining == ("0001_a.sql", "0002_b.sql")
    assert await shards.fetch("stem", "select to_regnamespace('pgfleet') is null") == [(True,)]


async def test_a_mistake_is_told_with_its_place_and_other_shards_go_on(shards: Shards) -> None:
    bad = {"0002_b.sql": "-- tables: users\ncreate table b (n integer);\n\ninsert into b\n  values (1), (x);\nselect 1"}
    results = await run(shards, A | bad | C)
    assert applied(results["stem"]) == [1, 3]
    assert applied(results["users-eu"]) == [1]
    failure = results["users-eu"].failure
    assert failure is not None
    assert (failure.place, failure.sqlstate, failure.source) == ("schema/0002_b.sql:5:16", "42703", "values (1), (x);")
    assert await shards.fetch("users-eu", "select to_regclass('b') is null") == [(True,)], "rolled back whole"
    with pytest.raises(MigrateFailed) as caught:
        check(list(results.values()))
    assert 'users-eu: schema/0002_b.sql:5:16: column "x" does not exist (42703)' in caught.value.seen
    assert "stem: every file is applied" in caught.value.seen
    mended = await run(shards, A | B | C)
    assert applied(mended["users-eu"]) == [2]


async def test_an_error_without_a_position_is_told_where_its_statement_begins(shards: Shards) -> None:
    text = "create table a (n integer primary key);\ninsert into a values (1);\n  insert into a values (1);"
    failure = (await run(shards, {"0001_a.sql": text}))["stem"].failure
    assert failure is not None
    assert (failure.place, failure.sqlstate) == ("schema/0001_a.sql:3:3", "23505")
    assert "already exists" in failure.detail


async def test_a_commit_that_is_refused_leaves_nothing(shards: Shards) -> None:
    text = (
        "create table a (n integer primary key, p integer references a deferrable initially deferred);insert into a values (1, 2)"
    )
    failure = (await run(shards, {"0001_a.sql": text}))["stem"].failure
    assert failure is not None
    assert (failure.sqlstate, failure.lost) == ("23503", False)
    assert await shards.fetch("stem", "select count(*) from pgfleet.migrations") == [(0,)]


async def test_what_a_file_sets_does_not_reach_the_next(shards: Shards) -> None:
    texts = {
        "0001_a.sql": "create schema other; set search_path = other; set role pg_monitor",
        "0002_b.sql": "create table here (n integer)",
    }
    shards.servers["stem"].psql("grant pg_monitor to pgfleet_owner")
    shards.servers["users-eu"].psql("grant pg_monitor to pgfleet_owner")
    results = await run(shards, texts)
    assert applied(results["stem"]) == [1, 2]
    assert await shards.fetch("stem", "select to_regclass('public.here') is not null") == [(True,)]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"0001_a.sql": "create table a (n bigint primary key)"}, "was changed"),
        ({"0001_z.sql": A["0001_a.sql"]}, "it is 0001_z.sql now"),
    ],
)
async def test_a_file_that_was_applied_must_stay_as_it_is(shards: Shards, files: dict[str, str], why: str) -> None:
    await run(shards, A)
    with pytest.raises(MigrationChanged, match=why):
        await run(shards, files | B | C)
    assert await shards.fetch("stem", "select to_regclass('c') is null") == [(True,)], "nothing was begun"


async def test_a_record_of_a_file_that_is_gone_is_told(shards: Shards) -> None:
    await run(shards, A | B | C)
    with pytest.raises(MigrationChanged, match="not in the folder"):
        await run(shards, A)


async def test_nothing_is_begun_unless_every_shard_answers(shards: Shards) -> None:
    shards.servers["users-eu"].stop()
    with pytest.raises(ShardsUnreachable, match="1 of 2 shards") as caught:
        await run(shards, A)
    assert any("users-eu/us-east-1" in line for line in caught.value.seen)
    assert await shards.fetch("stem", "select to_regnamespace('pgfleet') is null") == [(True,)]


async def test_a_shard_that_was_never_applied_is_said_so(shards: Shards) -> None:
    found = read_migrations("schema", {"0001_a.sql": b"-- tables: lost\n"}, ["lost"])
    with pytest.raises(NotApplied, match="'nowhere'"):
        await migrate(shards.book, found, {"lost": ["nowhere"]}, ["nowhere"], journal=None, by="x", pace=QUICK)


async def test_a_lock_is_waited_for_briefly_and_again(shards: Shards) -> None:
    await run(shards, A)
    other = await shards.connect("stem")
    await other.execute("begin; lock table a in access share mode")

    async def let_go() -> None:
        await asyncio.sleep(1)
        await other.execute("rollback")

    letting = asyncio.create_task(let_go())
    results = await run(shards, A | {"0002_b.sql": "alter table a add column t text"})
    await letting
    await other.close()
    assert applied(results["stem"]) == [2]
    with Journal(shards.folder / "journal.db") as journal:
        waits = [e for e in journal.read() if e.what == "wait"]
    assert waits, "it is journaled"
    assert "another transaction holds a lock" in waits[-1].because


async def test_patience_ends(shards: Shards) -> None:
    await run(shards, A)
    other = await shards.connect("stem")
    await other.execute("begin; lock table a in access share mode")
    pace = Pace(lock_seconds=0.1, patience_seconds=0.8, turn_seconds=1)
    results = await run(shards, A | {"0002_b.sql": "alter table a add column t text"}, pace=pace)
    await other.close()
    failure = results["stem"].failure
    assert failure is not None
    assert (failure.sqlstate, failure.place) == ("55P03", "schema/0002_b.sql:1:1")
    assert applied(results["users-eu"]) == [2]


async def test_a_statement_has_a_limit(shards: Shards) -> None:
    pace = Pace(statement_seconds=0.3)
    failure = (await run(shards, {"0001_a.sql": "select pg_sleep(10)"}, pace=pace))["stem"].failure
    assert failure is not None
    assert failure.sqlstate == "57014"
    assert "--statement-timeout" in failure.hint


async def test_two_at_once_cannot_both_act(shards: Shards) -> None:
    other = await shards.connect("users-eu")
    await other.execute(f"set application_name = 'pgfleet migrate'; select pg_advisory_lock({LOCK})")
    with pytest.raises(MigrateUnderWay, match="users-eu") as caught:
        await run(shards, A)
    assert caught.value.seen[0].startswith("pgfleet migrate, connected since")
    await other.close()
    slow = {"0001_a.sql": "create table a (n integer); select pg_sleep(0.5)"}
    one, two = await asyncio.gather(run(shards, slow), run(shards, slow, pace=Pace(turn_seconds=10)))
    assert sorted([applied(one["stem"]), applied(two["stem"])]) == [[], [1]]


KILLED = """
import asyncio, sys
from pathlib import Path
from pgfleet.control.journal import Journal
from pgfleet.control.migrate import migrate
from pgfleet.control.pace import Pace
from pgfleet.plan.migrations import read_migrations
from pgfleet.runtime.state import read_addresses

folder = Path(sys.argv[1])
found = read_migrations("schema", {name: text.encode() for name, text in eval(sys.argv[2]).items()}, [])
shards = ["stem", "users-eu"]
with Journal(folder / "journal.db", tell=lambda event: print(event, flush=True)) as journal:
    asyncio.run(migrate(read_addresses(folder), found, {}, shards, journal=journal, by="x", pace=Pace()))
"""


def start(shards: Shards, files: dict[str, str], until: str) -> subprocess.Popen[str]:
    """A migrate in a process of its own, as far as the line that holds ``until``."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(shards.folder), repr(files)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            return process
    process.communicate()
    raise AssertionError(f"it ended before {until!r}")


async def test_a_kill_leaves_the_file_and_its_record_or_neither(shards: Shards) -> None:
    files = A | {"0002_b.sql": "create table b (n integer); select pg_sleep(60)"}
    process = start(shards, files, "stem 0002_b.sql began")
    await asyncio.sleep(0.5)
    process.kill()
    process.communicate()
    began = time.monotonic()
    results = await run(shards, A | {"0002_b.sql": "create table b (n integer)"}, pace=Pace(turn_seconds=10))
    assert time.monotonic() - began < 10, "the killed one's backend noticed that nobody is there"
    assert applied(results["stem"]) == [2]
    assert applied(results["users-eu"])[-1] == 2


async def test_an_interruption_stops_in_good_order(shards: Shards) -> None:
    process = start(shards, A | {"0002_b.sql": "create table b (n integer); select pg_sleep(60)"}, "stem 0002_b.sql began")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert "0002_b.sql failed" in out
    assert await shards.fetch("stem", "select count(*) from pgfleet.migrations") == [(1,)]


async def test_a_server_that_dies_midway_is_lost_and_goes_on_later(shards: Shards) -> None:
    task = asyncio.create_task(run(shards, {"0001_a.sql": "create table a (n integer); select pg_sleep(2)"}))
    await asyncio.sleep(1)
    server = shards.servers["stem"]
    server.stop()
    results = await task
    failure = results["stem"].failure
    assert failure is not None
    assert failure.lost
    assert applied(results["users-eu"]) == [1]
    with pytest.raises(MigrateInterrupted):
        check(list(results.values()))
    server.start()
    results = await run(shards, {"0001_a.sql": "create table a (n integer); select pg_sleep(2)"})
    assert (applied(results["stem"]), applied(results["users-eu"])) == ([1], [])


INDEX = "-- pgfleet: no-transaction\ncreate unique index concurrently if not exists once on only a (n);"


async def test_an_index_that_was_left_invalid_is_made_again(shards: Shards) -> None:
    table = {"0001_a.sql": "create table a (n integer); insert into a values (1), (1)"}
    results = await run(shards, table | {"0002_index.sql": INDEX})
    failure = results["stem"].failure
    assert failure is not None
    assert failure.sqlstate == "23505"
    valid = "select indisvalid from pg_index where indexrelid = 'once'::regclass"
    assert await shards.fetch("stem", valid) == [(False,)]
    records = "select number, applied_at is not null from pgfleet.migrations order by number"
    assert await shards.fetch("stem", records) == [(1, True), (2, False)]
    await shards.fetch("stem", "delete from a where ctid = '(0,2)'")
    results = await run(shards, table | {"0002_index.sql": INDEX})
    assert applied(results["stem"]) == [2]
    assert await shards.fetch("stem", valid) == [(True,)]
    assert await shards.fetch("stem", records) == [(1, True), (2, True)]


async def test_an_index_waits_for_older_transactions_longer_than_for_locks(shards: Shards) -> None:
    await run(shards, {"0001_a.sql": "create table a (n integer)"})
    other = await shards.connect("stem")
    await other.execute("begin; insert into a values (1)")

    async def let_go() -> None:
        await asyncio.sleep(1)
        await other.execute("commit")

    letting = asyncio.create_task(let_go())
    results = await run(shards, {"0001_a.sql": "create table a (n integer)", "0002_index.sql": INDEX})
    await letting
    await other.close()
    assert applied(results["stem"]) == [2]


async def test_a_commit_that_the_replicas_do_not_confirm_is_not_believed(shards: Shards) -> None:
    server = shards.servers["stem"]
    await run(shards, A)
    server.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
    try:
        results = await run(shards, A | {"0002_b.sql": "create table b (n integer)"}, pace=Pace(commit_seconds=1))
        failure = results["stem"].failure
        assert failure is not None
        assert (failure.lost, failure.sqlstate) == (True, "")
        assert "not known" in failure.message
    finally:
        server.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")
    results = await run(shards, A | {"0002_b.sql": "create table b (n integer)"})
    assert results["stem"].already == ("0001_a.sql", "0002_b.sql"), "it had happened, and its record with it"


async def test_a_commit_whose_wait_is_cancelled_is_not_believed(shards: Shards) -> None:
    server = shards.servers["stem"]
    await run(shards, A)
    server.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
    try:
        task = asyncio.create_task(run(shards, A | {"0002_b.sql": "create table b (n integer)"}))
        await asyncio.sleep(1)
        server.psql("select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'pgfleet migrate'")
        failure = (await task)["stem"].failure
    finally:
        server.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")
    assert failure is not None
    assert failure.lost
    assert "cancelled" in failure.message


async def test_a_file_without_transaction_runs_each_statement_alone(shards: Shards) -> None:
    text = textwrap.dedent("""\
        -- pgfleet: no-transaction
        create table if not exists a (n integer);
        vacuum a;
        alter system set log_min_messages = warning;
    """)
    results = await run(shards, {"0001_a.sql": text})
    failure = results["stem"].failure
    assert failure is not None, "only a superuser may do that"
    assert failure.place == "schema/0001_a.sql:4:1"
    assert await shards.fetch("stem", "select to_regclass('a') is not null") == [(True,)]
