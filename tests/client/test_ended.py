"""A connection that ends inside a block, at every point: nothing is written, and nothing is called unknown that was not sent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.client.fleet import Fleet
from pgfleet.errors import OutcomeUnknown

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = "insert into questions (subject, id) values ('one-a', $1)"
#: Times that the loop looks between the server's last word and what is sent next: asyncpg reads that word in one of them (TLS
#: takes one more), and in a later one that it hung up.
LOOKS, READ = range(8), 3


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east",)) as made:
        yield made


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client() as opened:
        yield opened


async def end(connection: asyncpg.Connection, looks: int) -> None:
    """End the session's process and wait until it has gone; then look ``looks`` times."""
    pid = await connection.fetchval("select pg_backend_pid()")
    os.kill(pid, signal.SIGTERM)
    while _lives(pid):
        os.sched_yield()  # not the loop: it would see it
    for _ in range(looks):
        await asyncio.sleep(0)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - as quick as may be
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def is_there(fleet: Fleet, row: UUID) -> bool:
    return bool(await fleet.fetchval("questions", "select true from questions where id = $1", row, key="one-a"))


@pytest.mark.parametrize("looks", LOOKS)
async def test_before_a_statement(fleet: Fleet, looks: int) -> None:
    row = uuid4()
    with pytest.raises((asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):  # noqa: PT012 - the block is what is tested
        async with fleet.write("questions", key="one-a") as connection:
            await connection.execute(INSERT, row)
            await end(connection, looks)
            await connection.fetch("select 1")
    assert not await is_there(fleet, row)


@pytest.mark.parametrize("looks", LOOKS)
async def test_before_its_commit(fleet: Fleet, looks: int) -> None:
    row, known = uuid4(), True
    try:
        async with fleet.write("questions", key="one-a") as connection:
            await connection.execute(INSERT, row)
            await end(connection, looks)
    except OutcomeUnknown:
        known = False
    except asyncpg.ConnectionDoesNotExistError as error:
        assert "nothing was written" in str(error)  # noqa: PT017 - one of two
    else:
        raise AssertionError("it was not committed")
    assert not await is_there(fleet, row)
    assert known or looks < READ, "nothing had been sent"


@pytest.mark.parametrize("looks", LOOKS[READ:])
async def test_a_function_runs_again(fleet: Fleet, looks: int) -> None:
    rows: list[UUID] = []

    async def insert(connection: asyncpg.Connection) -> None:
        rows.append(uuid4())
        await connection.execute(INSERT, rows[-1])
        if len(rows) == 1:
            await end(connection, looks)

    await fleet.transact("questions", insert, key="one-a", deadline=20)
    assert [await is_there(fleet, row) for row in rows] == [False, True]
