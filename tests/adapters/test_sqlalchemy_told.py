"""Spans and counters of SQLAlchemy sessions tell how a transaction ended, in the words of the other adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.adapters.stage import GUARDS, Bank, Listener, bank

import pgfleet
from pgfleet.adapters.sqlalchemy import FleetSession, FleetSessions
from pgfleet.client.observing import code_of
from pgfleet.errors import BlockRolledBack, NotOwned, PlacementMoved

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = text("insert into questions (subject, stem) values ('PMP', 'told')")
ONE = text("select 1")
WRONG = text("select 1 / 0")


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1) as made:
        yield made


@pytest.fixture
def heard() -> Listener:
    return Listener()


@pytest.fixture
async def sessions(servers: Bank, heard: Listener) -> AsyncIterator[FleetSessions]:
    async with (
        pgfleet.connect(servers.folder, region="us-west", observers=[heard]) as fleet,
        FleetSessions(fleet, size=1) as made,
    ):
        yield made


def using(sessions: FleetSessions, *, write: bool = True, deadline: float = 20, **more: Any) -> FleetSession:
    return sessions.using("questions", key="PMP", write=write, deadline=deadline, **more)


def told(heard: Listener) -> tuple[str, str]:
    """How the only call ended, and the code of its error."""
    (call,) = heard.calls
    heard.calls.clear()
    return call.outcome, code_of(call.error) if call.error is not None else ""


async def test_what_was_committed_is_ok(sessions: FleetSessions, heard: Listener) -> None:
    async with using(sessions) as session:
        await session.execute(INSERT)
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(WRONG)
        await session.commit()
    assert told(heard) == ("ok", "")
    async with using(sessions, write=False) as session, session.begin():
        await session.execute(ONE)
    assert told(heard) == ("ok", "")


@pytest.mark.parametrize("write", [True, False], ids=["write", "read"])
async def test_what_the_callers_own_code_raised_is_failed(sessions: FleetSessions, heard: Listener, *, write: bool) -> None:
    with pytest.raises(KeyError):  # noqa: PT012
        async with using(sessions, write=write) as session:
            await session.execute(ONE)
            raise KeyError("x")
    assert told(heard) == ("failed", "KeyError")
    with pytest.raises(KeyError):  # noqa: PT012
        async with using(sessions, write=write) as session, session.begin():
            await session.execute(ONE)
            raise KeyError("x")
    assert told(heard) == ("failed", "KeyError")
    async with using(sessions, write=write) as session:
        await session.execute(ONE)
        await session.rollback()
    assert told(heard) == ("ok", "")


async def test_what_the_server_refused_is_failed(sessions: FleetSessions, heard: Listener) -> None:
    with pytest.raises(DBAPIError):
        async with using(sessions) as session:
            await session.execute(WRONG)
    assert told(heard) == ("failed", "22012")
    with pytest.raises(BlockRolledBack):  # noqa: PT012
        async with using(sessions) as session:
            with pytest.raises(DBAPIError):
                await session.execute(WRONG)
            await session.commit()
    assert told(heard) == ("refused", BlockRolledBack.code)


async def test_what_we_refuse_is_refused(sessions: FleetSessions, heard: Listener, servers: Bank) -> None:
    async with using(sessions, write=False) as session:
        with pytest.raises(pgfleet.WriteInRead):
            await session.execute(INSERT)
    assert told(heard) == ("refused", pgfleet.WriteInRead.code)
    servers.psql(GUARDS)
    try:
        for stem, error, outcome in (("old", PlacementMoved, "unreachable"), ("alien", NotOwned, "refused")):
            with pytest.raises(error):
                async with using(sessions) as session:
                    await session.execute(text(f"insert into questions (subject, stem) values ('PMP', '{stem}')"))
            assert told(heard) == (outcome, error.code)
    finally:
        servers.psql("drop function refuse cascade")


async def test_what_was_late_is_a_deadline(sessions: FleetSessions, heard: Listener) -> None:
    for write in (True, False):
        async with using(sessions, write=write) as session:
            await session.execute(ONE)
        assert told(heard) == ("ok", "")
        with pytest.raises(pgfleet.DeadlineExceeded):
            async with using(sessions, write=write, deadline=0.4) as session:
                await session.execute(text("select pg_sleep(30)"))
        assert told(heard) == ("deadline", pgfleet.DeadlineExceeded.code)
    async with using(sessions) as session:
        await session.execute(ONE)
        await session.commit()
        heard.calls.clear()
        session.using("questions", key="PMP", write=True, deadline=0.4)
        await session.execute(ONE)
        await asyncio.sleep(0.5)
        with pytest.raises(pgfleet.DeadlineExceeded):
            await session.commit()
    assert told(heard) == ("deadline", pgfleet.DeadlineExceeded.code)


async def test_what_nobody_knows_is_unknown(sessions: FleetSessions, heard: Listener, servers: Bank) -> None:
    with servers.nobody_confirms():
        async with using(sessions, deadline=0.6) as session:
            await session.execute(INSERT)
            with pytest.raises(pgfleet.OutcomeUnknown):
                await session.commit()
    assert told(heard) == ("unknown", pgfleet.OutcomeUnknown.code)


async def test_what_was_cancelled_is_cancelled(sessions: FleetSessions, heard: Listener) -> None:
    async def slow() -> None:
        async with using(sessions) as session:
            await session.execute(text("select pg_sleep(30)"))

    task = asyncio.create_task(slow())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told(heard)[0] == "cancelled"


async def test_the_wait_for_a_connection_is_told(sessions: FleetSessions, heard: Listener) -> None:
    async def hold() -> None:
        async with using(sessions) as session:
            await session.execute(text("select pg_sleep(0.3)"))

    await asyncio.gather(hold(), hold())
    waits = sorted(call.waits["connection"] for call in heard.calls)
    assert waits[0] < 0.3 <= waits[1] + 0.1
    heard.calls.clear()
    async with using(sessions) as session:
        await session.execute(ONE)
        with pytest.raises(pgfleet.DeadlineExceeded) as late:
            await using(sessions, deadline=0.1).execute(ONE)
        assert late.value.seen == ("waited for: a free connection to us-east-1, of 1",)
    assert [call.outcome for call in heard.calls] == ["deadline", "ok"]
