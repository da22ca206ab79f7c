"""SQLAlchemy sessions whose time is up: what the caller hears, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.adapters.stage import Bank, bank

import pgfleet
from pgfleet.adapters.sqlalchemy import FleetSession, FleetSessions
from pgfleet.errors import BlockRolledBack

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = text("insert into questions (subject, stem) values ('PMP', 'late')")
SHORT = 0.4
ROLES = pytest.mark.parametrize("write", [True, False], ids=["write", "read"])


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1) as made:
        yield made


@pytest.fixture
async def sessions(servers: Bank) -> AsyncIterator[FleetSessions]:
    async with pgfleet.connect(servers.folder, region="us-west") as fleet, FleetSessions(fleet, size=1) as made:
        yield made


def using(sessions: FleetSessions, deadline: float = 20, *, write: bool = True) -> FleetSession:
    return sessions.using("questions", key="PMP", write=write, deadline=deadline)


async def backend(sessions: FleetSessions, *, write: bool = True) -> int:
    """Who answers; each time that it is asked with a transaction of its own."""
    async with using(sessions, write=write) as session:
        pid = await session.scalar(text("select pg_backend_pid()"))
        await session.commit()
        return int(pid)


async def hurried(sessions: FleetSessions, *, write: bool) -> FleetSession:
    """One that has a connection already, and no time to open another."""
    await backend(sessions, write=write)
    return using(sessions, SHORT, write=write)


async def rows(sessions: FleetSessions) -> int:
    async with using(sessions) as session:
        return int(await session.scalar(text("select count(*) from questions where stem = 'late'")))


@ROLES
async def test_a_begin_that_fails_does_no_harm_to_who_comes_next(sessions: FleetSessions, *, write: bool) -> None:
    pid = await backend(sessions, write=write)
    with pytest.raises(pgfleet.DeadlineExceeded):
        async with using(sessions, 1e-9, write=write) as session:
            await session.execute(text("select 1"))
    assert await backend(sessions, write=write) == pid


async def test_a_begin_that_the_server_refuses_does_no_harm_to_who_comes_next(sessions: FleetSessions) -> None:
    await backend(sessions, write=False)
    with pytest.raises(DBAPIError, match="serializable"):  # noqa: PT012 - the blocks are what is tested
        async with using(sessions, write=False) as session:
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            await session.execute(text("select 1"))
    for level in ("read committed", "repeatable read"):
        async with using(sessions, write=False) as session:
            await session.connection(execution_options={"isolation_level": level.upper()})
            assert await session.scalar(text("show transaction_isolation")) == level


async def test_more_callers_than_time_do_no_harm_to_who_comes_next(sessions: FleetSessions) -> None:
    async def one() -> None:
        async with using(sessions, 0.05) as session:
            await session.execute(text("select pg_sleep(0.003)"))
            await session.commit()

    for _ in range(2):
        ends = await asyncio.gather(*(one() for _ in range(60)), return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), pgfleet.DeadlineExceeded, pgfleet.OutcomeUnknown}
        assert await backend(sessions)


@ROLES
async def test_the_callers_own_error_stays(sessions: FleetSessions, *, write: bool) -> None:
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with await hurried(sessions, write=write) as session:
            await session.execute(text("select 1"))
            await asyncio.sleep(SHORT)
            raise ValueError("mine")
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with await hurried(sessions, write=write) as session, session.begin(), session.begin_nested():
            await session.execute(text("select 1"))
            await asyncio.sleep(SHORT)
            raise ValueError("mine")
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with using(sessions, write=write) as session, session.begin(), session.begin_nested():
            connection = await (await session.connection()).get_raw_connection()
            connection.driver_connection.terminate()  # type: ignore[union-attr]
            raise ValueError("mine")
    assert await backend(sessions, write=write)


@ROLES
async def test_what_comes_too_late_is_told_as_late(sessions: FleetSessions, *, write: bool) -> None:
    async with await hurried(sessions, write=write) as session:
        await session.execute(text("select 1"))
        await asyncio.sleep(SHORT)
        for _ in range(2):
            with pytest.raises(pgfleet.DeadlineExceeded):
                await session.execute(text("select 1"))
    with pytest.raises(pgfleet.DeadlineExceeded):
        async with await hurried(sessions, write=write) as session, session.begin_nested():
            await session.execute(text("select pg_sleep(30)"))
    async with await hurried(sessions, write=write) as session:
        with pytest.raises(pgfleet.DeadlineExceeded):
            await session.execute(text("select pg_sleep(30)"))
        with pytest.raises(pgfleet.DeadlineExceeded):
            await session.execute(text("select 1"))
    assert await backend(sessions, write=write)


@ROLES
@pytest.mark.parametrize("slow", ["the caller", "the server"])
async def test_rows_that_come_too_late_are_told_as_late(sessions: FleetSessions, slow: str, *, write: bool) -> None:
    sql = "select generate_series(1, 10000)" + (", pg_sleep(0.002)" if slow == "the server" else "")
    count = 0
    with pytest.raises(pgfleet.DeadlineExceeded):  # noqa: PT012
        async with await hurried(sessions, write=write) as session:
            async for _ in await session.stream(text(sql)):
                count += 1
                await asyncio.sleep(0.1 if slow == "the caller" else 0)
    assert count
    assert await backend(sessions, write=write)


@ROLES
async def test_a_commit_that_comes_too_late_is_not_sent(sessions: FleetSessions, *, write: bool) -> None:
    before = await rows(sessions)
    async with await hurried(sessions, write=write) as session:
        await session.execute(INSERT if write else text("select 1"))
        await asyncio.sleep(SHORT)
        with pytest.raises(pgfleet.DeadlineExceeded):
            await session.commit()
    assert await rows(sessions) == before
    assert await backend(sessions, write=write)


@ROLES
async def test_a_rollback_has_time_of_its_own(sessions: FleetSessions, *, write: bool) -> None:
    pid = await backend(sessions, write=write)
    async with await hurried(sessions, write=write) as session:
        await session.execute(text("select 1"))
        await asyncio.sleep(SHORT)
        await session.rollback()
        assert await session.scalar(text("select pg_backend_pid()")) == pid  # another transaction, whose time begins now
        await asyncio.sleep(SHORT)  # and it is closed when that is up, too
    assert await backend(sessions, write=write) == pid


async def test_a_commit_on_a_connection_that_has_ended_is_not_called_done(sessions: FleetSessions) -> None:
    before = await rows(sessions)
    async with using(sessions) as session:
        await session.execute(INSERT)
        connection = await (await session.connection()).get_raw_connection()
        connection.driver_connection.terminate()  # type: ignore[union-attr]
        with pytest.raises(BlockRolledBack):
            await session.commit()
    assert await rows(sessions) == before


async def test_what_the_callers_own_sql_began_does_not_reach_the_next(sessions: FleetSessions) -> None:
    pid = await backend(sessions)
    async with using(sessions) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(text("begin"))
        await session.execute(INSERT)
        xid = await session.scalar(text("select pg_current_xact_id()"))
    async with using(sessions) as session:
        assert await session.scalar(text("select pg_backend_pid()")) == pid
        assert await session.scalar(text("select pg_current_xact_id()")) != xid
