"""Silent nodes: however they were found out, and by how many at once, they are asked until they speak."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.client import breaker as module
from pgfleet.client.breaker import Breaker, by_asking
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName

NODE = NodeAddress(NodeName("stem", "west", 1), "voter", "127.0.0.1", 1, 0)


class Spoken:
    """A prober whose node answers, or does not; each question takes a turn of the loop."""

    def __init__(self) -> None:
        self.speaks = True
        self.asked = 0
        self.refused: dict[NodeName, str] = {}

    async def ask(self, node: NodeAddress, *, seconds: float) -> object:
        self.asked += 1
        await asyncio.sleep(0)
        return object() if self.speaks else None


def made(prober: Any) -> tuple[Breaker, list[bool]]:
    """A breaker, and what it told: whether the node was silent then."""
    told: list[bool] = []
    made: list[Breaker] = []
    made.append(Breaker(by_asking(prober), lambda name: told.append(name in made[0].silent)))
    return made[0], told


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.001)


async def turns(number: int = 40) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


async def test_a_node_that_is_suspected_and_speaks_is_not_silent() -> None:
    prober, dropped = Spoken(), []
    breaker, told = made(prober)
    breaker.suspect(NODE, lambda: dropped.append(1))
    await turns()
    assert (breaker.silent, told, dropped, prober.asked) == (set(), [], [], 1)


async def test_one_that_does_not_is_silent_until_it_speaks() -> None:
    prober, dropped = Spoken(), []
    prober.speaks = False
    breaker, told = made(prober)
    breaker.suspect(NODE, lambda: dropped.append(1))
    await turns()
    assert (breaker.silent, told, dropped) == ({NODE.name}, [True], [1])
    prober.speaks = True
    await turns()
    assert (breaker.silent, told) == (set(), [True, False])


async def test_one_that_fails_somebody_while_it_is_looked_at_speaks_again() -> None:
    """As it was seen under churn: both replicas of a shard stayed silent for ever, and its reads waited in vain."""
    breaker, told = made(Spoken())
    breaker.suspect(NODE, lambda: None)
    breaker.opened(NODE)
    assert breaker.silent == {NODE.name}
    await turns()
    assert (breaker.silent, told) == (set(), [True, False])


@given(st.lists(st.sampled_from(["suspect", "opened", "turn", "mute", "speaks"]), max_size=40))
def test_whoever_is_silent_is_asked(story: list[str]) -> None:
    """Whatever happens in whichever turn of the loop: a node that answers is not silent for long."""

    async def told() -> None:
        prober = Spoken()
        breaker, _ = made(prober)
        for what in story:
            match what:
                case "suspect":
                    breaker.suspect(NODE, lambda: None)
                case "opened":
                    breaker.opened(NODE)
                case "turn":
                    await asyncio.sleep(0)
                case _:
                    prober.speaks = what == "speaks"
        prober.speaks = True
        await turns()
        assert breaker.silent == set()
        assert breaker._asking == {}
        await breaker.aclose()

    asyncio.run(told())


async def test_whoever_hangs_on_a_node_that_is_silent_already_is_cut_off_at_once() -> None:
    prober, dropped = Spoken(), []
    prober.speaks = False
    breaker, _ = made(prober)
    breaker.opened(NODE)
    await turns()
    breaker.suspect(NODE, lambda: dropped.append(1))
    assert dropped == [1]
    await breaker.aclose()
