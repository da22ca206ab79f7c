"""psycopg's asynchronous connections by route, on real servers."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from tests.adapters.stage import GUARDS, Bank, Listener, bank

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet
from pgfleet.errors import NotOwned, PlacementMoved

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = "insert into questions (subject, stem) values ('PMP', %s)"
COUNT = "select count(*) from questions where stem = %s"


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(2) as made:
        yield made


@pytest.fixture
async def people(servers: Bank) -> AsyncIterator[AsyncFleet]:
    async with pgfleet.connect(servers.folder, region="us-west") as fleet, AsyncFleet(fleet, size=2) as made:
        yield made


async def one(conn: psycopg.AsyncConnection[tuple[object, ...]], sql: str, *args: object) -> object:
    row = await (await conn.execute(sql, args)).fetchone()
    assert row is not None
    return row[0]


async def until_count(people: AsyncFleet, stem: str, wanted: int) -> None:
    async with asyncio.timeout(10):
        while True:
            async with people.read("questions", key="PMP") as conn:
                if await one(conn, COUNT, stem) == wanted:
                    return


async def test_reads_go_near_and_writes_to_the_primary(people: AsyncFleet, servers: Bank) -> None:
    near = next(server.port for name, server in servers.nodes.items() if name.region == "us-west")
    async with people.read("questions", key="PMP") as conn:
        assert await one(conn, "select inet_server_port()") == near
        assert await one(conn, "show transaction_read_only") == "on"
    async with people.write("questions", key="PMP") as conn:
        assert await one(conn, "select inet_server_port()") == servers.nodes[servers.primary].port
        assert await one(conn, "select current_setting('pgfleet.key')") == "questions:PMP"
        assert await one(conn, "select current_setting('pgfleet.epoch')") == "7"
        await conn.execute(INSERT, ["near"])
    await until_count(people, "near", 1)


async def test_a_read_cannot_be_made_to_write(people: AsyncFleet) -> None:
    with pytest.raises(pgfleet.WriteInRead):
        async with people.read("questions", key="PMP") as conn:
            await conn.execute(INSERT, ["no"])
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        async with people.read("questions", key="PMP") as conn:
            await conn.execute("set transaction read write")


async def test_a_block_that_raises_leaves_nothing(people: AsyncFleet) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with people.write("questions", key="PMP") as conn:
            await conn.execute(INSERT, ["undone"])
            raise ZeroDivisionError
    with pytest.raises(pgfleet.errors.BlockRolledBack):  # noqa: PT012
        async with people.write("questions", key="PMP") as conn:
            await conn.execute(INSERT, ["undone"])
            with pytest.raises(psycopg.errors.DivisionByZero):
                await conn.execute("select 1 / 0")
    async with people.write("questions", key="PMP") as conn:
        async with conn.transaction(force_rollback=True):
            await conn.execute(INSERT, ["undone"])
        assert await one(conn, COUNT, "undone") == 0


async def test_commit_belongs_to_the_block(people: AsyncFleet) -> None:
    async with people.write("questions", key="PMP") as conn:
        with pytest.raises(psycopg.ProgrammingError, match="belongs to the block"):
            await conn.commit()
        with pytest.raises(psycopg.ProgrammingError, match="belongs to the block"):
            await conn.rollback()


@pytest.mark.parametrize(
    ("leave", "look", "clean"),
    [
        ("set statement_timeout = '7s'", "show statement_timeout", "0"),
        ("select set_config('application_name', 'mine', false)", "show application_name", "pgfleet"),
        ("create temp table left_behind ()", "select count(*) from pg_class where relname = 'left_behind'", 0),
        ("select pg_advisory_lock(77)", "select count(*) from pg_locks where locktype = 'advisory' and objid = 77", 0),
        ("listen news", "select count(*) from pg_listening_channels()", 0),
        ("prepare mine as select 1", "select count(*) from pg_prepared_statements where from_sql", 0),
        ("declare held cursor with hold for select 1", "select count(*) from pg_cursors where name = 'held'", 0),
        ("set role pg_read_all_data", "select current_user::text", "pgfleet_app"),
    ],
)
async def test_what_a_block_leaves_in_its_session_does_not_reach_the_next(
    people: AsyncFleet, servers: Bank, leave: str, look: str, clean: object
) -> None:
    servers.psql("grant pg_read_all_data to pgfleet_app", database="postgres")
    async with people.write("questions", key="PMP") as conn:
        await conn.execute(leave)
        before = await one(conn, "select pg_backend_pid()")
    async with people.write("questions", key="PMP") as conn:
        assert await one(conn, look) == clean
        if "prepare" not in leave:
            assert await one(conn, "select pg_backend_pid()") == before


async def test_every_call_has_a_deadline(people: AsyncFleet) -> None:
    began = time.monotonic()
    with pytest.raises(pgfleet.DeadlineExceeded, match="stem did not answer within 0"):
        async with people.read("questions", key="PMP", deadline=0.3) as conn:
            await conn.execute("select pg_sleep(30)")
    with pytest.raises(pgfleet.DeadlineExceeded):  # noqa: PT012
        async with people.write("questions", key="PMP", deadline=0.3) as conn:
            await conn.execute(INSERT, ["late"])
            await asyncio.sleep(0.4)  # COMMIT is not sent any more
    assert time.monotonic() - began < 3
    async with people.write("questions", key="PMP") as conn:
        assert await one(conn, COUNT, "late") == 0


async def test_borrowers_beyond_the_size_wait_within_their_deadline(people: AsyncFleet) -> None:
    async with people.write("questions", key="PMP"), people.write("questions", key="PMP"):
        with pytest.raises(pgfleet.DeadlineExceeded, match="free connection"):
            async with people.write("questions", key="PMP", deadline=0.2):
                pass
    async with people.write("questions", key="PMP", deadline=5):
        pass


async def test_a_cancelled_block_gives_its_place_back(people: AsyncFleet) -> None:
    async def sleep() -> None:
        async with people.write("questions", key="PMP") as conn:
            await conn.execute("select pg_sleep(30)")

    for _ in range(4):
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with people.write("questions", key="PMP", deadline=5):
        pass


async def test_a_commit_whose_wait_for_the_replicas_is_cancelled_is_not_called_done(people: AsyncFleet, servers: Bank) -> None:
    """The server answers COMMIT, with a notice: nobody but the primary has it."""
    servers.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
    try:
        with pytest.raises(pgfleet.OutcomeUnknown, match="outcome is not known") as told:  # noqa: PT012
            async with people.write("questions", key="PMP", deadline=20) as conn:
                await conn.execute(INSERT, ["alone"])
                pid = await one(conn, "select pg_backend_pid()")
                cancel = asyncio.create_task(asyncio.to_thread(cancel_its_wait, servers, pid))
        await cancel
        assert told.value.seen == ("the replicas did not confirm it",)
        with pytest.raises(pgfleet.OutcomeUnknown):
            async with people.write("questions", key="PMP", deadline=0.5) as conn:
                await conn.execute(INSERT, ["alone"])
    finally:
        servers.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")


def cancel_its_wait(servers: Bank, pid: object) -> None:
    servers.psql(
        f"""do $$ begin
          for i in 1..100 loop
            exit when exists (select from pg_stat_activity where pid = {pid} and wait_event = 'SyncRep');
            perform pg_sleep(0.05), pg_stat_clear_snapshot();
          end loop;
          perform pg_cancel_backend({pid});
        end $$"""
    )


async def test_a_write_that_leaves_a_row_can_be_asked(people: AsyncFleet, servers: Bank) -> None:
    with servers.nobody_confirms():
        with pytest.raises(pgfleet.OutcomeUnknown) as told:
            async with people.write("questions", key="PMP", deadline=0.6, resolvable=True) as conn:
                await conn.execute(INSERT, ["asked"])
        asked = asyncio.create_task(told.value.resolve())
        await asyncio.sleep(0.3)
        assert not asked.done()  # it is still waiting for its replica
    assert await asked == "committed"
    async with people.write("questions", key="PMP", resolvable=True) as conn:
        assert await one(conn, COUNT, "asked") == 1


async def test_reads_see_what_their_caller_wrote_whoever_wrote_it(servers: Bank) -> None:
    """The replicas stand still: only the primary can have it."""
    async with pgfleet.connect(servers.folder, region="us-west") as fleet, AsyncFleet(fleet) as people:

        async def seen(stem: str) -> object:
            async with people.read("questions", key="PMP") as conn:
                return await one(conn, COUNT, stem)

        with servers.standing_still():
            async with people.write("questions", key="PMP") as conn:
                await conn.execute(INSERT, ["by psycopg"])
            assert await seen("by psycopg") == 1
            assert await fleet.fetchval("questions", COUNT.replace("%s", "$1"), "by psycopg", key="PMP") == 1
            await fleet.execute("questions", INSERT.replace("%s", "$1"), "by asyncpg", key="PMP")
            assert await seen("by asyncpg") == 1
            token = str(fleet.token())

            async def with_token() -> object:
                with fleet.after(token):
                    return await seen("by asyncpg")

            stranger = contextvars.Context()
            assert await stranger.run(asyncio.ensure_future, seen("by asyncpg")) == 0
            assert await stranger.run(asyncio.ensure_future, with_token()) == 1


async def test_a_guards_refusal_says_what_it_means(people: AsyncFleet, servers: Bank) -> None:
    servers.psql(GUARDS)
    try:
        for stem, error in (("old", PlacementMoved), ("alien", NotOwned)):
            with pytest.raises(error):
                async with people.write("questions", key="PMP") as conn:
                    await conn.execute(INSERT, [stem])
    finally:
        servers.psql("drop function refuse cascade")


async def test_what_happens_is_told(servers: Bank) -> None:
    heard = Listener()
    async with pgfleet.connect(servers.folder, region="us-west", observers=[heard]) as fleet, AsyncFleet(fleet) as people:
        async with people.write("questions", key="PMP") as conn:
            await conn.execute(INSERT, ["told"])
        async with people.read("questions", key="PMP"):
            pass
        with pytest.raises(ZeroDivisionError):
            async with people.read("questions", key="PMP"):
                raise ZeroDivisionError
        assert heard.open_of["psycopg", servers.primary, "write"] == 1
    write, read, failed = heard.calls
    assert (write.kind, write.table, write.shard, write.node, write.outcome) == (
        "write", "questions", "stem", servers.primary, "ok",
    )  # fmt: skip
    assert (read.kind, read.outcome, sorted(read.waits)) == ("read", "ok", ["connection", "token"])
    assert "PMP is listed" in read.because
    assert failed.outcome == "failed"
    assert heard.open_of["psycopg", servers.primary, "write"] == 0


async def test_a_server_that_was_restarted_costs_nothing_but_another_connection(people: AsyncFleet, servers: Bank) -> None:
    async with people.write("questions", key="PMP") as conn:
        await conn.execute(INSERT, ["before"])
    server = servers.nodes[servers.primary]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    async with people.write("questions", key="PMP", deadline=20) as conn:
        await conn.execute(INSERT, ["after"])


async def test_a_failover_between_two_blocks(servers: Bank) -> None:
    with bank(1) as own:
        async with pgfleet.connect(own.folder) as fleet, AsyncFleet(fleet) as people:
            async with people.write("questions", key="PMP") as conn:
                await conn.execute(INSERT, ["first"])
            await asyncio.sleep(0.5)  # asynchronous replication: let it arrive
            heir = await asyncio.to_thread(own.fail_over)
            async with people.write("questions", key="PMP", deadline=20) as conn:
                assert await one(conn, "select inet_server_port()") == own.nodes[heir].port
                assert await one(conn, COUNT, "first") == 1
            assert heir.shard == "stem"
