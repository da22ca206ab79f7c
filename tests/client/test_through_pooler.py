"""Through a pooler: the same client, no connection to any node, and sessions that are the next client's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tests.client.test_state_isolation import BLOCKS, HIDDEN, LOOK, STATEMENTS
from tests.engines.pooled import REGION, Pooled, pooled, write_book

from pgfleet.adapters.psycopg import AsyncFleet
from pgfleet.adapters.psycopg import Fleet as ThreadsFleet
from pgfleet.adapters.sqlalchemy import FleetSessions
from pgfleet.client.fleet import Fleet
from pgfleet.client.pooled_borrowing import NO_PRIMARY
from pgfleet.errors import (
    BlockRolledBack,
    CannotConnect,
    DeadlineExceeded,
    DirectOnly,
    NoPooler,
    OutcomeUnknown,
    SessionState,
    WriteInRead,
)
from pgfleet.runtime.sql import Connection, sqlstate
from pgfleet.runtime.state import read_addresses
from pgfleet.spec.pools import PROBES

# ruff: noqa: PT012 - what is refused inside a block is refused on the block's way out
pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

INSERT = "insert into questions (subject, id) values ($1, $2)"
FIND = "select pg_is_in_recovery() as replica, exists (select from questions where subject = $1 and id = $2) as found"
#: Where PgBouncer itself sets what its client said.
TOLD = "('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')"
LOOK_POOLED = LOOK.replace("source = 'session'", f"source = 'session' and name not in {TOLD}")


@pytest.fixture(scope="module")
def narrow() -> Iterator[Pooled]:
    """One server connection each way: whoever comes next has the session of whoever was there before. And a database with
    functions, triggers and views that touch their session where no statement shows it."""
    with pooled(servers=1, waits=1.5) as made:
        made.fleet.shards["one"].psql(f"set role pgfleet_owner; {HIDDEN}")
        yield made


@pytest.fixture(scope="module")
def stage() -> Iterator[Pooled]:
    with pooled(servers=3, waits=120.0, per_process=40) as made:
        yield made


@pytest.fixture
async def fleet(stage: Pooled) -> AsyncIterator[Fleet]:
    async with stage.client() as opened:
        yield opened


@pytest.fixture
async def crowded(narrow: Pooled) -> AsyncIterator[Fleet]:
    async with narrow.client() as opened:
        yield opened


@pytest.fixture
async def owner(stage: Pooled) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await stage.fleet.connect("one", role="postgres")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("sql", "waits"),
    [
        ("select 1", True),
        ("set local work_mem = '5MB'", True),
        ("set local Synchronous_Commit = local", False),
        ("select set_config('synchronous' || '_commit', 'off', true)", False),
    ],
)
async def test_who_says_for_whom_its_commit_waits_is_heard(fleet: Fleet, sql: str, waits: bool) -> None:
    async with fleet.write("questions", key="one-a") as connection:
        assert isinstance(connection, Connection)
        await connection.execute(sql)
        assert connection.waits_for_replicas is waits
    async with fleet.write("questions", key="one-a") as connection:
        assert isinstance(connection, Connection)
        await connection.fetch("select 1")
        assert connection.waits_for_replicas, "that was another transaction"


# -- sessions ----------------------------------------------------------------------------------------------------------------


async def found(narrow: Pooled, database: str = "one_rw") -> str:
    """What another client of the pooler finds in its session."""
    connection = await narrow.bare(database)
    try:
        return str(await connection.fetchval(LOOK_POOLED))
    finally:
        await connection.close()


async def test_the_look_sees_what_another_client_left(narrow: Pooled) -> None:
    """So that the other tests can fail: a pooler undoes nothing by itself."""
    careless = await narrow.bare("one_rw")
    await careless.execute("set my.a = 'left'")
    await careless.execute("select pg_advisory_lock(42)")
    await careless.execute("prepare mine as select 1")
    seen = await found(narrow)
    await careless.execute("discard all")
    await careless.close()
    assert seen == "lock 42, my.a=left, prepared mine"
    assert await found(narrow) == ""


@pytest.mark.parametrize("sql", STATEMENTS)
async def test_a_statement_is_refused_or_leaves_nothing(narrow: Pooled, crowded: Fleet, sql: str) -> None:
    hidden = any(word in sql for word in ("hides", "hiding", "looks_stable", "default values"))
    with contextlib.nullcontext() if hidden else pytest.raises(SessionState, match="may leave something"):
        await crowded.execute("questions", sql, key="one-a")
    assert await found(narrow) == ""


@pytest.mark.parametrize("what", [what for what in BLOCKS if what not in ("a cursor", "a lock of the transaction")])
async def test_a_block_is_refused_what_it_would_leave_and_rolled_back(narrow: Pooled, crowded: Fleet, what: str) -> None:
    row = uuid4()
    with pytest.raises(SessionState):
        async with crowded.write("questions", key="one-a") as connection:
            await connection.execute(INSERT, "one-a", row)
            for sql in BLOCKS[what]:
                await connection.execute(sql)
    assert await found(narrow) == ""
    assert not (await find(crowded, row, max_staleness=0))[1]


async def test_a_block_that_goes_on_after_a_refusal_keeps_the_rest(narrow: Pooled, crowded: Fleet) -> None:
    row = uuid4()
    async with crowded.write("questions", key="one-a") as connection:
        with pytest.raises(SessionState):
            await connection.execute("set my.a = 'left'")
        await connection.execute(INSERT, "one-a", row)
    assert (await find(crowded, row))[1]
    assert await found(narrow) == ""


async def test_what_ends_with_the_transaction_is_allowed(narrow: Pooled, crowded: Fleet) -> None:
    async with crowded.write("questions", key="one-a") as connection:
        await connection.execute("set local my.a = 'mine'")
        assert await connection.fetchval("select set_config('my.b', $1, true)", "also mine") == "also mine"
        assert await connection.fetchval("select current_setting('my.a')") == "mine"
        await connection.execute("select pg_advisory_xact_lock(42)")
        await connection.execute("declare c cursor for select generate_series(1, 100)")
        assert len(await connection.fetch("fetch 10 from c")) == 10
        assert [row[0] async for row in connection.cursor("select generate_series(1, 3)")] == [1, 2, 3]
        async with connection.transaction():
            await connection.execute(INSERT, "one-b", uuid4())
        await connection.executemany(INSERT, [("one-b", uuid4()), ("one-b", uuid4())])
        await connection.copy_records_to_table("questions", records=[("one-b", uuid4())], columns=["subject", "id"])
        told = bytearray()

        async def tell(data: bytes) -> None:
            told.extend(data)

        await connection.copy_from_query("select subject from questions where subject = $1", "one-b", output=tell)
        assert told == b"one-b\n" * 4
    assert await found(narrow) == ""


async def test_what_a_trigger_leaves_is_undone_before_the_commit(narrow: Pooled, crowded: Fleet) -> None:
    for _ in range(2):
        async with crowded.write("questions", key="one-a") as connection:
            await connection.execute("insert into triggered default values")
            assert await connection.fetchval("select current_setting('my.trigger')") == "left"
        assert await found(narrow) == ""
    with pytest.raises(ZeroDivisionError):
        async with crowded.write("questions", key="one-a") as connection:
            await connection.execute("select hides()")
            raise ZeroDivisionError
    assert await found(narrow) == ""
    assert await crowded.fetchval("questions", "select hides()", key="one-a") == 1
    begins_with = "setting client_connection_check_interval=1000, setting default_transaction_read_only=on"
    assert await found(narrow, "one_ro") == begins_with
    assert await crowded.fetchval("questions", "show default_transaction_read_only", key="one-a") == "on"


async def test_an_error_that_was_caught_rolls_back_also_where_something_has_to_be_undone(narrow: Pooled, crowded: Fleet) -> None:
    row = uuid4()
    with pytest.raises(BlockRolledBack):
        async with crowded.write("questions", key="one-a") as connection:
            await connection.execute(INSERT, "one-a", row)
            await connection.execute("select hides()")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetch("select 1/0")
    assert await found(narrow) == ""
    assert not (await find(crowded, row, max_staleness=0))[1]


async def test_a_client_that_goes_away_inside_a_block_takes_its_session_along(narrow: Pooled, crowded: Fleet) -> None:
    async with crowded.write("questions", key="one-a") as connection:
        before = connection.get_server_pid()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        async with crowded.write("questions", key="one-a") as connection:
            # As somebody's function would that no catalogue tells of: past everything that looks.
            await connection._protocol.query("select pg_advisory_lock(42)", 5.0)
            connection.terminate()
            await connection.fetchval("select 1")
    assert before is not None
    assert await found(narrow) == ""


async def test_a_function_that_was_just_made_is_known(narrow: Pooled, crowded: Fleet) -> None:
    await crowded.fetch("questions", "select 1", key="one-a")
    await asyncio.sleep(1.1)  # what the catalogue said is no longer young
    narrow.fleet.shards["one"].psql(
        "set role pgfleet_owner; create or replace function just_made() returns int language sql as 'select 7'"
    )
    assert await crowded.execute("questions", "select just_made()", key="one-a") == "SELECT 1"


async def test_a_session_of_ones_own_is_refused(fleet: Fleet) -> None:
    with pytest.raises(SessionState, match='through="direct"'):
        async with fleet.write("questions", key="one-a", session=True):
            pytest.fail("there is none")
    with pytest.raises(SessionState, match='through="direct"'):
        async with fleet.read("questions", key="one-a", session=True):
            pytest.fail("there is none")


async def test_an_adapter_is_told_that_it_would_go_past_the_pooler(stage: Pooled, fleet: Fleet) -> None:
    for adapter in (AsyncFleet(fleet), FleetSessions(fleet)):
        with pytest.raises(DirectOnly):
            await adapter.__aenter__()
    with pytest.raises(DirectOnly):
        await asyncio.to_thread(ThreadsFleet(stage.fleet.folder).__enter__)
    async with (
        stage.client(through="direct") as direct,
        AsyncFleet(direct) as people,
        people.read("questions", key="one-a") as connection,
    ):
        assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_a_prepared_statement_needs_a_pooler_that_knows_it(stage: Pooled, fleet: Fleet) -> None:
    async with fleet.read("questions", key="one-a") as connection:
        if stage.pooler.address.prepared:
            assert await (await connection.prepare("select 1 + $1::int")).fetchval(2) == 3
            return
        with pytest.raises(SessionState, match=r"before 1\.21"):
            await connection.prepare("select 1")


# -- reads and writes --------------------------------------------------------------------------------------------------------


async def insert(fleet: Fleet) -> UUID:
    row = uuid4()
    await fleet.execute("questions", INSERT, "one-a", row, key="one-a")
    return row


async def find(fleet: Fleet, row: UUID, **more: Any) -> tuple[bool, bool]:
    """Whether a replica answered, and whether the row was there."""
    (one,) = await fleet.fetch("questions", FIND, "one-a", row, key="one-a", **more)
    return one["replica"], one["found"]


@contextlib.contextmanager
def paused(stage: Pooled) -> Iterator[None]:
    """A replica that receives and does not replay."""
    stage.fleet.shards["one"].psql("select pg_wal_replay_pause()", REGION)
    try:
        yield
    finally:
        stage.fleet.shards["one"].psql("select pg_wal_replay_resume()", REGION)


async def test_a_replica_that_has_it_answers(fleet: Fleet) -> None:
    seen = [await find(fleet, await insert(fleet)) for _ in range(30)]
    assert [was_found for _, was_found in seen] == [True] * 30
    assert any(replica for replica, _ in seen)


async def test_one_that_does_not_have_it_is_passed_over_for_the_primary(stage: Pooled, fleet: Fleet) -> None:
    with paused(stage):
        row = await insert(fleet)
        assert await find(fleet, row) == (False, True)
        async with fleet.read("questions", key="one-a") as connection:
            assert await connection.fetchval("select true from questions where id = $1", row)
            assert not await connection.fetchval("select pg_is_in_recovery()")
        token = str(fleet.token())

        async def elsewhere() -> tuple[bool, bool]:
            async with stage.client() as other:
                other.after(token)
                return await find(other, row)

        assert await asyncio.create_task(elsewhere()) == (False, True)


async def test_without_the_token_a_lagging_replica_is_believed(stage: Pooled, fleet: Fleet) -> None:
    """So that the other tests can fail."""
    with paused(stage):
        row = await asyncio.create_task(insert(fleet))
        assert await find(fleet, row) == (True, False)


async def test_one_snapshot_is_never_older_than_what_was_asked_for(stage: Pooled, fleet: Fleet) -> None:
    row = await insert(fleet)
    async with fleet.read("questions", key="one-a", isolation="repeatable read") as connection:
        assert await connection.fetchval("show transaction_isolation") == "repeatable read"
        assert await connection.fetchval("show transaction_read_only") == "on"
        assert not await connection.fetchval("select pg_is_in_recovery()")
        assert await connection.fetchval("select true from questions where id = $1", row)


async def test_max_staleness_is_proven_or_the_primary_answers(stage: Pooled, fleet: Fleet) -> None:
    async def another() -> UUID:
        return await insert(fleet)

    await asyncio.create_task(another())
    assert (await find(fleet, uuid4(), max_staleness="5 s"))[0]
    with paused(stage):
        row = await asyncio.create_task(another())
        await asyncio.sleep(0.4)
        assert await find(fleet, row, max_staleness=0.3) == (False, True)
        assert await find(fleet, row, max_staleness=60) == (True, False)


async def test_reads_are_read_only_wherever_they_go(stage: Pooled, fleet: Fleet) -> None:
    for more in ({}, {"max_staleness": 0}):
        with pytest.raises(WriteInRead):
            await fleet.fetch("questions", "insert into questions (subject) values ('one-a') returning id", key="one-a", **more)
    with pytest.raises(WriteInRead):
        async with fleet.read("questions", key="one-a") as connection:
            await connection.execute("insert into questions (subject) values ('one-a')")
    bare = await stage.bare("one_ro")
    assert await bare.fetchval("show default_transaction_read_only") == "on"
    await bare.close()


async def test_a_hedged_read_asks_the_primary_when_the_replica_hangs(stage: Pooled, fleet: Fleet) -> None:
    import signal

    for _ in range(5):
        await fleet.fetch("questions", "select 1", key="one-a")
    stage.fleet.shards["one"].signal(REGION, signal.SIGSTOP)
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        (row,) = await fleet.fetch("questions", "select pg_is_in_recovery() as r", key="one-a", hedge=0.1, deadline=20)
        assert not row["r"]
        assert loop.time() - began < 8
        (row,) = await fleet.fetch("questions", "select pg_is_in_recovery() as r", key="one-a", deadline=6)
        assert not row["r"], "half of the deadline is the replica's, the rest the primary's"
    finally:
        stage.fleet.shards["one"].signal(REGION, signal.SIGCONT)


async def test_a_write_says_its_key_and_its_epoch_in_the_transaction_and_to_nobody_else(stage: Pooled, fleet: Fleet) -> None:
    said = "select current_setting('pgfleet.key', true) || ' ' || current_setting('pgfleet.epoch', true)"
    async with fleet.write("questions", key="one-a") as connection:
        assert await connection.fetchval(said) == f"questions:one-a {stage.fleet.placement.epoch}"
    bare = await stage.bare("one_rw")
    assert (await bare.fetchval(said) or "").strip() == ""
    await bare.close()


async def test_a_former_primary_is_told_at_begin(stage: Pooled) -> None:
    """SHARD_ro stands for a SHARD_rw that still leads to who was demoted."""
    bare = await stage.bare("one_ro")
    with pytest.raises(asyncpg.FeatureNotSupportedError) as caught:
        await bare.execute("begin read write; select 1")
    assert sqlstate(caught.value) == NO_PRIMARY
    await bare.close()


async def test_functions_run_again(fleet: Fleet) -> None:
    runs = 0

    async def both(connection: asyncpg.Connection[Any], name: str) -> int:
        nonlocal runs
        runs += 1
        count = await connection.fetchval("select count(*) from questions where subject = 'one-b'")
        await asyncio.sleep(0.05)
        await connection.execute("insert into questions (subject, stem) values ('one-b', $1)", f"{name} {count}")
        return int(count)

    counts = await asyncio.gather(
        *(fleet.transact("questions", both, n, key="one-b", isolation="serializable", deadline=60) for n in "abc")
    )
    assert sorted(counts) == [min(counts), min(counts) + 1, min(counts) + 2], "as if one after the other"
    assert runs > 3


async def test_plans_are_kept_where_the_pooler_knows_them(stage: Pooled) -> None:
    sql = "select count(*) as kept from questions where subject = $1"
    async with stage.client() as fleet:
        for _ in range(20):
            await fleet.fetchval("questions", sql, "one-a", key="one-a")
    bare = await stage.bare("one_ro")
    # The same connection of the pooler may or may not answer: all have been used.
    kept = await bare.fetchval("select count(*) from pg_prepared_statements where statement = $1", sql)
    await bare.close()
    assert kept == (1 if stage.pooler.address.prepared else 0)


async def test_a_column_that_was_added_is_seen_by_whoever_asks_again(stage: Pooled, owner: asyncpg.Connection[Any]) -> None:
    sql = "select * from widened where a = $1"
    await owner.execute("set role pgfleet_owner; create table widened (a int); insert into widened values (1)")
    async with stage.client(deadline=20) as fleet:

        async def looked(connection: asyncpg.Connection[Any]) -> list[str]:
            return list((await connection.fetch(sql, 1))[0].keys())

        async def everywhere() -> list[list[str]]:
            found = [list((await fleet.fetch("questions", sql, 1, key="one-a", max_staleness=60))[0].keys()) for _ in range(4)]
            return [*found, *[await fleet.transact("questions", looked, key="one-a") for _ in range(4)]]

        await insert(fleet)
        assert await everywhere() == [["a"]] * 8
        await owner.execute("alter table widened add column b int default 2")
        await insert(fleet)  # and whoever answers has it
        assert await everywhere() == [["a", "b"]] * 8
        assert await fleet.execute("questions", "update widened set a = $1 where b = 2", 3, key="one-a") == "UPDATE 1"


# -- outcomes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_commit_that_the_replicas_did_not_confirm_is_unknown_and_resolved(
    fleet: Fleet, owner: asyncpg.Connection[Any], how: str
) -> None:
    """PgBouncer passes the server's warning on, and a connection that it loses is lost to its client, too."""
    await owner.execute("alter system set synchronous_standby_names = 'nobody'")
    await owner.execute("select pg_reload_conf()")

    async def write(row: UUID) -> None:
        async with fleet.write("questions", key="one-a", resolvable=True, deadline=60) as connection:
            await connection.execute(INSERT, "one-a", row)

    try:
        row = uuid4()
        task = asyncio.create_task(write(row))
        pid = None
        async with asyncio.timeout(30):
            while pid is None:
                if task.done():  # the server has not noticed yet that it has a replica to wait for
                    row = uuid4()
                    task = asyncio.create_task(write(row))
                pid = await owner.fetchval("select pid from pg_stat_activity where wait_event = 'SyncRep' and query = 'commit'")
                await asyncio.sleep(0.02)
        await owner.execute(f"select {how}($1)", pid)
        with pytest.raises(OutcomeUnknown) as caught:
            await task
    finally:
        await owner.execute("alter system reset synchronous_standby_names")
        await owner.execute("select pg_reload_conf()")
    assert await caught.value.resolve(deadline=20) == "committed"
    assert await owner.fetchval("select true from questions where id = $1", row)


async def test_what_breaks_before_the_commit_is_done_again(fleet: Fleet, owner: asyncpg.Connection[Any]) -> None:
    row, runs = uuid4(), 0

    async def broken_once(connection: asyncpg.Connection[Any]) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(INSERT, "one-a", row)
        if runs == 1:
            await owner.execute("select pg_terminate_backend($1)", await connection.fetchval("select pg_backend_pid()"))
        await connection.fetchval("select 1")

    await fleet.transact("questions", broken_once, key="one-a", deadline=30)
    assert runs == 2
    assert await owner.fetchval("select count(*) from questions where id = $1", row) == 1


async def test_one_that_was_asked_about_can_never_be_committed(fleet: Fleet) -> None:
    outcomes = fleet._open.outcomes
    assert await outcomes.resolve("one", uuid4(), answered=False, seconds=20) == "aborted"
    assert await outcomes.clean("one", hours=0) >= 0


# -- waiting -----------------------------------------------------------------------------------------------------------------


async def test_a_pooler_without_a_free_server_says_so(crowded: Fleet) -> None:
    loop = asyncio.get_running_loop()
    async with crowded.write("questions", key="one-a", deadline=60):
        began = loop.time()
        with pytest.raises(DeadlineExceeded, match="query_wait_timeout"):
            await crowded.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=30)
        assert loop.time() - began < 15
        with pytest.raises(DeadlineExceeded, match="a server connection of the pooler of us-west"):
            await crowded.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=0.4)
    async with crowded.read("questions", key="one-a", deadline=60):
        with pytest.raises(DeadlineExceeded, match="query_wait_timeout"):
            await crowded.fetch("questions", "select 1", key="one-a", deadline=60)
    await crowded.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=30)


async def test_a_block_ends_by_its_deadline(fleet: Fleet) -> None:
    row = uuid4()
    with pytest.raises(DeadlineExceeded):
        async with fleet.write("questions", key="one-a", deadline=2) as connection:
            await connection.execute(INSERT, "one-a", row)
            await asyncio.sleep(30)
    assert not (await find(fleet, row, max_staleness=0, deadline=20))[1]


async def test_a_pooler_that_is_started_again_is_waited_for(stage: Pooled) -> None:
    async with stage.client(deadline=30) as fleet:
        await insert(fleet)
        stage.pooler.stop()
        try:
            with pytest.raises(DeadlineExceeded, match="cannot be connected to"):
                await fleet.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=0.5)
            waiting = [asyncio.create_task(insert(fleet)), asyncio.create_task(insert(fleet))]
            await asyncio.sleep(0.2)
        finally:
            stage.pooler.start()
        for row in await asyncio.gather(*waiting):
            assert (await find(fleet, row, max_staleness=0))[1]


async def test_another_regions_pooler_stands_in(stage: Pooled) -> None:
    book = read_addresses(stage.fleet.folder)
    (here,) = book.poolers
    write_book(stage.fleet, replace(book, poolers=(replace(here, region="us-east", port=1), here)))
    try:
        async with stage.fleet.client(region="us-east", deadline=30) as fleet:
            assert (await find(fleet, await insert(fleet)))[1]
    finally:
        write_book(stage.fleet, book)


async def test_what_is_asked_for_is_what_is_used(stage: Pooled) -> None:
    async with stage.client(through="direct") as fleet:
        assert fleet._open.pooled is None
        assert fleet.explain("questions", key="one-a").read == f"{REGION}-1"
    async with stage.client() as fleet:
        assert fleet.explain("questions", key="one-a").write == f"the pooler of {REGION}, one_rw"
    with pytest.raises(ValueError, match="through"):
        stage.client(through="sideways")
    book = read_addresses(stage.fleet.folder)
    write_book(stage.fleet, replace(book, poolers=()))
    try:
        with pytest.raises(NoPooler):
            async with stage.client():
                pytest.fail("there is none")
    finally:
        write_book(stage.fleet, book)


async def test_who_is_not_let_in_says_so(stage: Pooled) -> None:
    secret = stage.fleet.folder / "secrets" / "pgfleet_app"
    before = secret.read_text()
    secret.write_text("wrong")
    try:
        async with stage.client() as fleet:
            with pytest.raises((DeadlineExceeded, CannotConnect), match=r"cannot be connected to|did not answer"):
                await fleet.execute("questions", INSERT, "one-a", uuid4(), key="one-a", deadline=1)
    finally:
        secret.write_text(before)


# -- numbers -----------------------------------------------------------------------------------------------------------------

COUNT = """
select count(*) filter (where usename = 'pgfleet_app'), count(*) filter (where application_name = 'pgfleet probe')
from pg_stat_activity where backend_type = 'client backend'
"""


class Counting:
    """The most connections of applications, and of their probes, that each server had at one moment."""

    def __init__(self, stage: Pooled) -> None:
        self._stage, self.most, self.probes, self.looks = stage, {"us-east": 0, REGION: 0}, 0, 0

    async def __aenter__(self) -> Counting:
        self._connections = {r: await self._stage.fleet.connect("one", r, role="postgres") for r in self.most}
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for connection in self._connections.values():
            await connection.close()

    async def _count(self) -> None:
        while True:
            for region, connection in self._connections.items():
                ((count, probes),) = await connection.fetch(COUNT)
                self.most[region], self.probes = max(self.most[region], count), max(self.probes, probes)
            self.looks += 1
            await asyncio.sleep(0.01)


def connections(fleet: Fleet) -> int:
    """What it has open to the pooler, for its one shard."""
    assert fleet._open.pooled is not None
    return sum(pool.open for pool in fleet._open.pooled.pooler.used.values())


async def mixed(fleet: Fleet, number: int) -> int:
    """A task as an application has many: it writes, reads what it wrote, and reads what others did."""
    row = await insert(fleet)
    assert (await find(fleet, row))[1]
    await find(fleet, row, max_staleness="1 min")
    async with fleet.read("questions", key="one-b") as connection:
        await connection.fetch("select subject from questions limit 1")
    return number


async def test_three_hundred_tasks_share_a_few_server_connections(stage: Pooled) -> None:
    async with stage.client(deadline=120, pool_size=300) as fleet, Counting(stage) as counting:
        done = await asyncio.gather(*(asyncio.create_task(mixed(fleet, number)) for number in range(300)))
        opened = connections(fleet)
    assert done == list(range(300))
    assert counting.looks > 5
    assert 0 < counting.most["us-east"] <= stage.servers
    assert 0 < counting.most[REGION] <= stage.servers
    assert counting.probes == 0, "no node is connected to"
    assert stage.servers < opened <= 300


async def test_a_process_opens_to_the_pooler_what_the_file_says(stage: Pooled) -> None:
    async with stage.client(deadline=120) as fleet, asyncio.TaskGroup() as group:
        for number in range(120):
            group.create_task(mixed(fleet, number))
        most = 0
        for _ in range(30):
            await asyncio.sleep(0.02)
            most = max(most, connections(fleet))
        assert 0 < most <= 40


async def test_a_process_opens_to_a_node_what_check_counts(stage: Pooled) -> None:
    size = 4
    stage.pooler.stop()  # its connections are the same role's
    async with (
        stage.client(through="direct", deadline=120, pool_size=size) as fleet,
        Counting(stage) as counting,
        asyncio.TaskGroup() as group,
    ):
        for number in range(60):
            group.create_task(mixed(fleet, number))
        for _ in range(20):  # doubts and suspicions are what the other two probes ask for
            await asyncio.sleep(0.01)
            for name in list(fleet._open.router.addresses):
                fleet._open.router.failed(name, silent=True)
    stage.pooler.start()
    assert size <= max(counting.most.values()) <= size + PROBES
    assert counting.probes > 0


# -- ordinary SQL that names something before a parenthesis ---------------------------------------------------------------------

NAMING = [
    "insert into public.questions (subject, stem) values ('one-a', 'x')",
    "with q (a, b) as (select 1, 2), r (c) as (select 3) insert into questions (subject, stem) select 'one-a', a::text from q, r",
    "insert into questions (subject, stem) select 'one-a', b from (values (1, 'b')) v (a, b)",
    "insert into questions (subject, stem) select 'one-a', a::text from generate_series(1, 2) g (a)",
    "merge into questions q using (values ('one-a', 'y')) v (s, st) on q.subject = v.s and q.stem = v.st "
    "when not matched then insert (subject, stem) values (v.s, v.st)",
]


@pytest.mark.parametrize("through", ["direct", "pooler"])
async def test_names_before_a_parenthesis_are_no_calls(stage: Pooled, through: Any) -> None:
    async with stage.client(through=through) as fleet:
        for sql in NAMING:
            await fleet.execute("questions", sql, key="one-a")
        async with fleet.write("questions", key="one-a") as connection:
            assert isinstance(connection, Connection)
            for sql in NAMING:
                await connection.execute(sql)
            assert not connection.touched


# -- a server that ends inside a read block -------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", range(8))
async def test_a_read_block_whose_server_ends_says_so_in_its_own_words(fleet: Fleet, looks: int) -> None:
    """Not in those of asyncpg about its state. :param looks: turns of the loop before it is used, in which it sees the end."""
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with fleet.read("questions", key="one-a") as connection:
            os.kill(await connection.fetchval("select pg_backend_pid()"), signal.SIGTERM)
            time.sleep(0.1)  # noqa: ASYNC251 - not the loop: it would see it
            for _ in range(looks):
                await asyncio.sleep(0)
            await connection.fetch("select 1")
    assert await fleet.fetchval("questions", "select 1", key="one-a") == 1
