"""Asking a node that is slow to be connected to: questions give up, the connection does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgfleet.errors import CannotConnect
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.sql import Login
from pgfleet.topology import probe
from pgfleet.topology.probe import Prober

NODE = NodeAddress(NodeName("stem", "apac", 1), "voter", "127.0.0.1", 1, 0)


class Answering:
    """A connection; answers one question at a time, as PostgreSQL does."""

    def __init__(self) -> None:
        self.open = True
        self.busy = False

    def is_closed(self) -> bool:
        return not self.open

    def terminate(self) -> None:
        self.open = False

    async def fetch(self, sql: str) -> list[dict[str, object]]:
        assert not self.busy
        self.busy = True
        await asyncio.sleep(0.01)
        self.busy = False
        return [{"recovering": True, "position": 100, "timeline": 1}]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Answering]:
    """Connections, each made in 0.2 s."""
    connections: list[Answering] = []

    async def connect(*_: Any, **__: Any) -> Answering:
        await asyncio.sleep(0.2)
        connections.append(Answering())
        return connections[-1]

    monkeypatch.setattr(probe, "connect", connect)
    return connections


async def test_a_connection_that_takes_longer_than_a_question_may_is_there_for_the_next(made: list[Answering]) -> None:
    prober = Prober(Login("a", "b"))
    assert await prober.ask(NODE, seconds=0.08) is None
    assert await prober.ask(NODE, seconds=0.08) is None
    word = await prober.ask(NODE, seconds=0.08)
    assert word is not None
    assert word.position == 100
    assert len(made) == 1
    prober.rest()
    assert not made[0].open


async def test_questions_at_once_take_turns_on_one_connection(made: list[Answering]) -> None:
    """`check` counts one for each prober (spec/pools.py)."""
    prober = Prober(Login("a", "b"))
    words = await asyncio.gather(*(prober.ask(NODE, seconds=2) for _ in range(3)))
    assert None not in words
    prober.rest()
    assert [connection.open for connection in made] == [False]


async def test_who_rests_makes_no_connection_any_more(made: list[Answering]) -> None:
    prober = Prober(Login("a", "b"))
    asking = asyncio.create_task(prober.ask(NODE, seconds=2))
    await asyncio.sleep(0.05)
    prober.rest()
    assert await asking is None
    await asyncio.sleep(0.3)
    assert made == []


async def test_one_that_was_not_begun_yet_when_it_was_let_go_is_made_anew(made: list[Answering]) -> None:
    """A task that is cancelled before its first step never runs: nothing in it can tidy up."""
    prober = Prober(Login("a", "b"))
    asking = asyncio.create_task(prober.ask(NODE, seconds=2))
    await asyncio.sleep(0)
    prober.rest()
    assert await asking is None
    assert await prober.ask(NODE, seconds=2) is not None
    assert len(made) == 1


async def test_a_session_is_that_of_the_last_word_while_it_lives(made: list[Answering]) -> None:
    prober = Prober(Login("a", "b"))
    assert prober.session(NODE.name) is None
    await prober.ask(NODE, seconds=2)
    assert prober.session(NODE.name) is made[0]  # type: ignore[comparison-overlap]
    made[0].open = False
    assert prober.session(NODE.name) is None
    await prober.ask(NODE, seconds=2)
    assert prober.session(NODE.name) is made[1]  # type: ignore[comparison-overlap]


async def test_a_node_that_refuses_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def connect(*_: Any, **__: Any) -> Answering:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0)
        raise CannotConnect("it is full", state="53300")

    monkeypatch.setattr(probe, "connect", connect)
    prober = Prober(Login("a", "b"))
    assert {*await asyncio.gather(prober.ask(NODE), prober.ask(NODE))} == {None}
    assert await prober.ask(NODE) is None
    assert tried == 3, "one after the other: an answer is never that to an earlier question"
    assert prober.refused[NODE.name] == "53300"
