"""What is said of a write is so: not done only where it was not, again only where it was not, and a mistake is a mistake."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.errors import BlockEnded, DeadlineExceeded, FleetClosed, Outcome, OutcomeUnknown, TokenUnreadable

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = "insert into questions (subject, id) values ('one-a', $1)"
COUNT = "select count(*) from questions where stem = $1"
PROCEDURE = """
create procedure halfway(what text) language plpgsql as $$ begin
    insert into questions (subject, stem) values ('one-a', what);
    commit;
    raise exception using errcode = '40001', message = 'the second half';
end $$;
grant insert, select on questions to pgfleet_app
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east",)) as made:
        made.shards["one"].psql(f"set role pgfleet_owner; {PROCEDURE}")
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client() as opened:
        yield opened


class Stopped:
    """Inserts a row, and then stops the process that is to commit it."""

    def __init__(self) -> None:
        self.row, self.pid, self.runs = uuid4(), 0, 0

    async def __call__(self, connection: asyncpg.Connection) -> int:
        self.runs += 1
        await connection.execute(INSERT, self.row)
        self.pid = await connection.fetchval("select pg_backend_pid()")
        os.kill(self.pid, signal.SIGSTOP)
        return self.runs


async def count(fleet: Fleet, stem: str) -> int:
    return int(await fleet.fetchval("questions", COUNT, stem, key="one-a"))


async def test_a_commit_that_was_sent_is_unknown_when_the_time_is_up(fleet: Fleet) -> None:
    insert = Stopped()
    with pytest.raises(OutcomeUnknown) as caught:
        await fleet.transact("questions", insert, key="one-a", deadline=1.0)
    assert caught.value.resolvable
    os.kill(insert.pid, signal.SIGCONT)
    outcome = await caught.value.resolve(deadline=10)
    found = await fleet.fetchval("questions", "select true from questions where id = $1", insert.row, key="one-a")
    assert bool(found) == (outcome == "committed")


async def test_who_is_cancelled_while_it_commits_ends(fleet: Fleet) -> None:
    insert = Stopped()
    task = asyncio.create_task(fleet.transact("questions", insert, key="one-a", deadline=20))
    async with asyncio.timeout(10):
        while not insert.pid:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(task, 5)
        assert insert.runs == 1
    finally:
        os.kill(insert.pid, signal.SIGCONT)


async def test_a_commit_of_the_functions_own_is_not_done_again(fleet: Fleet) -> None:
    stem, runs = str(uuid4()), 0

    async def commits(connection: asyncpg.Connection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute("insert into questions (subject, stem) values ('one-a', $1)", stem)
        pid = await connection.fetchval("select pg_backend_pid()")
        await connection.execute("commit")
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.3)

    await fleet.transact("questions", commits, key="one-a", deadline=20)
    assert (await count(fleet, stem), runs) == (1, 1), "its own row says that it was committed"


async def test_rows_that_cannot_be_read_were_written_once(fleet: Fleet, stage: Replicated) -> None:
    stem = str(uuid4())
    returning = "insert into questions (subject, stem) values ('one-a', $1) returning questions"
    for _ in range(20):  # every connection there is has its plan
        await fleet.execute("questions", returning, "before", key="one-a")
    stage.shards["one"].psql("alter table questions add column another int")
    try:
        try:
            await fleet.execute("questions", returning, stem, key="one-a")
        except OutcomeUnknown:
            assert await count(fleet, stem) == 1
        else:
            assert await count(fleet, stem) == 1
    finally:
        stage.shards["one"].psql("alter table questions drop column another")


@pytest.mark.parametrize(
    ("args", "kind"), [((1, 2), asyncpg.InterfaceError), (("no id",), asyncpg.DataError), ((), asyncpg.InterfaceError)]
)
async def test_arguments_that_do_not_fit_are_a_mistake(fleet: Fleet, args: tuple[object, ...], kind: type[Exception]) -> None:
    runs = 0

    async def wrong(connection: asyncpg.Connection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute(INSERT, *args)

    async def pid(connection: asyncpg.Connection) -> int:
        return int(await connection.fetchval("select pg_backend_pid()"))

    pids = []
    for _ in range(3):  # the first may be a session that was taken over from readers, and ends
        pids.append(await fleet.transact("questions", pid, key="one-a"))
        with pytest.raises(kind) as caught:
            await fleet.execute("questions", INSERT, *args, key="one-a")
        assert not isinstance(caught.value, OutcomeUnknown)
        runs = 0
        with pytest.raises(Exception, match=r"argument|syntax|parameter") as caught:
            await fleet.transact("questions", wrong, key="one-a", deadline=5)
        assert not isinstance(caught.value, (OutcomeUnknown, DeadlineExceeded))
        assert runs == 1
    assert pids[1] == pids[2], "nothing was cut off"


async def test_what_is_unknown_of_another_write_is_not_its_own(fleet: Fleet) -> None:
    async def resolved(_: float) -> Outcome:
        return "committed"

    async def other(connection: asyncpg.Connection) -> None:
        await connection.fetch("select 1")
        raise OutcomeUnknown("another write", resolver=resolved)

    with pytest.raises(OutcomeUnknown, match="another write"):
        await fleet.transact("questions", other, key="one-a", deadline=5)


async def test_a_procedure_that_committed_a_part_is_not_called_again(fleet: Fleet) -> None:
    stem = str(uuid4())
    with pytest.raises(asyncpg.SerializationError, match="second half"):
        await fleet.execute("questions", "call halfway($1)", stem, key="one-a", deadline=3)
    assert await count(fleet, stem) == 1


async def test_what_a_function_failed_of_until_its_deadline_is_told(fleet: Fleet) -> None:
    async def fails(connection: asyncpg.Connection) -> None:
        await connection.execute("do $$ begin raise exception using errcode = '40001', message = 'once more'; end $$")

    with pytest.raises(DeadlineExceeded) as caught:
        await fleet.transact("questions", fails, key="one-a", deadline=0.5)
    assert "once more" in caught.value.seen[-1]


@pytest.mark.parametrize("word", ["commit", "rollback", "end", "abort"])
async def test_a_block_whose_sql_ends_its_transaction_says_so(fleet: Fleet, word: str) -> None:
    stem = str(uuid4())
    with pytest.raises(BlockEnded):  # noqa: PT012 - the block is what is tested
        async with fleet.write("questions", key="one-a") as connection:
            await connection.execute("insert into questions (subject, stem) values ('one-a', $1)", stem)
            await connection.execute(word)
    assert await count(fleet, stem) == (1 if word in ("commit", "end") else 0)


async def test_a_session_has_no_transaction_to_claim_in(fleet: Fleet) -> None:
    more: dict[str, Any]
    for more in ({"claims": {"email": "a"}}, {"releases": {"email": "a"}}, {"resolvable": True}, {"isolation": "serializable"}):
        with pytest.raises(ValueError, match="session=True"):
            fleet.write("questions", key="one-a", session=True, **more)
    with pytest.raises(ValueError, match="session=True"):
        fleet.read("questions", key="one-a", session=True, isolation="serializable")


async def test_words_that_mean_nothing_are_refused_before_anything_is_borrowed(fleet: Fleet) -> None:
    given: Any

    async def nothing(connection: asyncpg.Connection) -> None: ...

    for level in ("bogus", 5, ""):
        with pytest.raises(ValueError, match="isolation is "):
            fleet.write("questions", key="one-a", isolation=level)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="isolation is "):
            fleet.read("questions", key="one-a", isolation=level)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="isolation is "):
            await fleet.transact("questions", nothing, key="one-a", isolation=level)  # type: ignore[arg-type]
    for claims in ("email", ["email"], 5):
        with pytest.raises(ValueError, match="claims is "):
            fleet.write("questions", key="one-a", claims=claims)  # type: ignore[arg-type]
    for given in (float("nan"), True, -1, []):
        with pytest.raises(ValueError, match="max_staleness is "):
            await fleet.fetch("questions", "select 1", key="one-a", max_staleness=given)
    for given in (float("nan"), True, 0, [], "q95"):
        with pytest.raises(ValueError, match="hedge is "):
            await fleet.fetch("questions", "select 1", key="one-a", hedge=given)
    for given in (5, b"pgf2.x", [], "pgf9.x"):
        with pytest.raises(TokenUnreadable):
            fleet.after(given)
    with pytest.raises(RuntimeError, match="open already"):
        await fleet.__aenter__()


@pytest.mark.parametrize("sql", ["", ";", "-- nothing"])
async def test_no_statement_does_nothing(fleet: Fleet, sql: str) -> None:
    assert await fleet.execute("questions", sql, key="one-a") == ""


@pytest.mark.parametrize("state", ["08001", "08006", "57P01", "57P03", "57P05"])
async def test_an_error_that_the_applications_own_code_raises_is_its_own(fleet: Fleet, state: str) -> None:
    sql = f"do $$ begin raise exception using errcode = '{state}', message = 'remote said no'; end $$"
    for call in (fleet.execute, fleet.fetch):
        with pytest.raises(asyncpg.PostgresError, match="remote said no"):
            await call("questions", sql, key="one-a", deadline=3.0)
    with pytest.raises(asyncpg.PostgresError, match="remote said no"):
        await fleet.transact("questions", lambda connection: connection.execute(sql), key="one-a", deadline=3.0)


async def test_after_what_is_unknown_its_caller_reads_from_the_primary(fleet: Fleet) -> None:
    insert = Stopped()
    try:
        with pytest.raises(OutcomeUnknown):
            async with fleet.write("questions", key="one-a", deadline=0.5) as connection:
                await insert(connection)
        (position,) = fleet.token().of("one")
        assert position.timeline == 0, "nobody knows where it is: only a primary can show it"
    finally:
        os.kill(insert.pid, signal.SIGCONT)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with fleet.write("questions", key="one-a", session=True) as connection:
            await connection.execute(INSERT, uuid4())
            raise ZeroDivisionError
    assert fleet.token().of("one")[0].timeline == 0
    await fleet.execute("questions", INSERT, uuid4(), key="one-a")
    assert fleet.token().of("one")[0].timeline > 0


async def test_what_is_written_after_a_token_is_seen_after_that_too(fleet: Fleet) -> None:
    with fleet.after(None):
        await fleet.execute("questions", INSERT, uuid4(), key="one-a")
        within = fleet.token()
    assert fleet.token() == within
    with fleet.after(None, alone=True):
        await fleet.execute("questions", INSERT, uuid4(), key="one-a")
    assert fleet.token() == within


async def test_nothing_is_opened_after_the_close(stage: Replicated) -> None:
    async with stage.client() as fleet:
        router = fleet._open.router
        task = asyncio.create_task(fleet.fetch("questions", "select pg_sleep(1)", key="one-a"))
        await asyncio.sleep(0.2)
    with pytest.raises(FleetClosed):
        await task
    assert sum(pool.open for pool in router.pools.values()) == 0


async def test_who_is_let_in_nowhere_is_told_why(stage: Replicated) -> None:
    shard = stage.shards["one"]
    shard.psql("alter role pgfleet_app password 'another'")
    try:
        async with stage.client() as fleet:
            for call in (fleet.fetch, fleet.execute):
                with pytest.raises(DeadlineExceeded) as caught:
                    await call("questions", "select 1", key="one-a", deadline=1.5)
                assert "password authentication failed" in caught.value.seen[0]
    finally:
        shard.psql("alter role pgfleet_app password 'pgfleet_app'")


async def test_a_region_without_a_node_is_told(stage: Replicated) -> None:
    with pytest.warns(RuntimeWarning, match="no node in region 'nowhere'"):
        async with stage.client(region="nowhere") as fleet:
            assert await fleet.fetchval("questions", "select 1", key="one-a") == 1


@pytest.mark.parametrize(
    ("first", "known"),
    [
        ("select 1", True),
        ("set local work_mem = '1MB'", True),
        ("set local synchronous_commit = local", True),
        ("set local synchronous_commit = off", False),
        ("select set_config('synchronous_commit', 'off', true)", False),
        ("commit; begin", False),
    ],
)
async def test_where_a_write_is_that_waited_for_nobody_is_not_known(fleet: Fleet, first: str, known: bool) -> None:
    async with fleet.write("questions", key="one-a") as connection:
        await connection.execute(first)
        await connection.execute(INSERT, uuid4())
    assert (fleet.token().of("one")[0].timeline > 0) is known
