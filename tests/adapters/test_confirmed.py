"""What the replicas had confirmed of an adapter's write is known, unless its transaction may not have waited for them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from tests.engines.confirming import confirming, senders, settled, write_unreplicated
from tests.engines.replicated import Replicated

from pgfleet.adapters.psycopg import AsyncFleet
from pgfleet.adapters.psycopg import Fleet as Threads
from pgfleet.adapters.sqlalchemy import FleetSessions
from pgfleet.client.fleet import Fleet
from pgfleet.client.guide import Guide
from pgfleet.errors import BlockRolledBack
from pgfleet.routing.token import Position, Token

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

INSERT = "insert into questions (subject) values ('one-a')"
LOCAL = "set local synchronous_commit = local"
#: What is done in a block, and whether its COMMIT is known to have waited for the replicas then; None: nor where it is.
PLAIN = {
    "nothing besides": ([INSERT], True),
    "for nobody": ([LOCAL, INSERT], False),
    "for their kernels": (["select set_config('synchronous_commit', 'remote_write', true)", INSERT], False),
}
#: psycopg asks the server; of SQLAlchemy's, whoever may have set anything may have set this.
ASKED = PLAIN | {
    "for no disk": (["set local synchronous_commit = off", INSERT], None),
    "back again": ([LOCAL, INSERT, "set local synchronous_commit = on"], True),
    "in a transaction of its own": ([LOCAL, INSERT, "commit", "begin"], None),
    "with nothing left to commit": ([INSERT, "commit"], None),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with confirming() as made:
        yield made


@pytest.fixture(autouse=True)
def _others_write_meanwhile(stage: Replicated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the answer to COMMIT and the question where the primary is, what no replica has."""
    plain = Guide.position

    async def position(*args: Any) -> Position:
        stopped = await senders(stage)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await write_unreplicated(stage)
            return await plain(*args)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    monkeypatch.setattr(Guide, "position", position)


@pytest.fixture
async def fleet(stage: Replicated) -> AsyncIterator[Fleet]:
    async with stage.client(region="us-west") as opened:
        await settled(opened)
        yield opened


def is_known(token: Token) -> bool | None:
    (position,) = token.of("one")
    if not position.timeline:
        return None
    assert position.within < position.lsn
    return position.within > 0


@pytest.mark.parametrize("how", ASKED)
async def test_psycopg_asks_before_it_commits(fleet: Fleet, how: str) -> None:
    statements, known = ASKED[how]
    async with AsyncFleet(fleet) as people:
        async with people.write("questions", key="one-a") as connection:
            for statement in statements:
                await connection.execute(statement)
        assert is_known(fleet.token()) is known
        async with people.read("questions", key="one-a") as connection:
            assert await (await connection.execute("select 1 from questions")).fetchone()


@pytest.mark.parametrize("how", PLAIN)
async def test_of_a_session_nothing_was_set_in(fleet: Fleet, how: str) -> None:
    statements, known = PLAIN[how]
    async with FleetSessions(fleet) as sessions, sessions.using("questions", key="one-a", write=True) as session:
        for statement in statements:
            await session.execute(text(statement))
        await session.commit()
    assert is_known(fleet.token()) is known


def test_in_threads(stage: Replicated) -> None:
    with Threads(stage.folder, region="us-west") as fleet:
        for how, (statements, known) in PLAIN.items():
            fleet.after(None, alone=True)
            with fleet.write("questions", key="one-a") as connection:
                for statement in statements:
                    connection.execute(statement)
            assert is_known(fleet.token()) is known, how


async def test_a_block_whose_error_was_caught_is_rolled_back(fleet: Fleet) -> None:
    async with AsyncFleet(fleet) as people:
        block = people.write("questions", key="one-a")
        connection = await block.__aenter__()
        with pytest.raises(psycopg.Error):
            await connection.execute("select 1 / 0")
        with pytest.raises(BlockRolledBack):
            await block.__aexit__(None, None, None)
    assert not fleet.token().of("one")
