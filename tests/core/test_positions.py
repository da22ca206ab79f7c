"""What a node said of its position counts until it is started again."""

from __future__ import annotations

from typing import Any, cast

from pgfleet.client.positions import Positions
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.topology.probe import OwnWord, Prober

PRIMARY = NodeAddress(NodeName("stem", "east", 1), "voter", "127.0.0.1", 1, 0)
REPLICA = NodeAddress(NodeName("stem", "west", 1), "voter", "127.0.0.1", 2, 0)


class Saying:
    """A prober whose nodes say what they are told to, each in a session that lasts until it is started again."""

    def __init__(self) -> None:
        self.at = {PRIMARY.name: 100, REPLICA.name: 100}
        self._sessions: dict[NodeName, object] = {name: object() for name in self.at}
        self._spoke: dict[NodeName, object] = {}

    def started_again(self, name: NodeName, at: int) -> None:
        self.at[name], self._sessions[name] = at, object()

    def session(self, name: NodeName) -> object | None:
        spoke = self._spoke.get(name)
        return spoke if spoke is self._sessions[name] else None

    async def ask(self, node: NodeAddress, *, seconds: float, question: str) -> OwnWord:
        self._spoke[node.name] = self._sessions[node.name]
        return OwnWord(node is REPLICA, self.at[node.name], 1, 0.001)


def told() -> tuple[Saying, Positions]:
    prober: Any = Saying()
    return prober, Positions(cast("Prober", prober), lambda name, word: None)


async def test_a_position_only_grows_while_the_node_runs() -> None:
    prober, positions = told()
    assert positions.replayed(REPLICA.name) == -1
    await positions.ask(REPLICA)
    prober.at[REPLICA.name] = 90  # an answer that was overtaken by a later one
    await positions.ask(REPLICA)
    assert positions.replayed(REPLICA.name) == 100


async def test_one_that_was_started_again_may_be_behind_what_it_showed() -> None:
    prober, positions = told()
    await positions.ask(REPLICA)
    prober.started_again(REPLICA.name, at=80)
    assert positions.replayed(REPLICA.name) == -1, "nothing is known of it"
    await positions.ask(REPLICA)
    assert positions.replayed(REPLICA.name) == 80


async def test_nor_is_it_proven_to_be_fresh_any_more() -> None:
    prober, positions = told()
    await positions.prove(PRIMARY, [REPLICA])
    assert positions.fresh("stem", 10) == {REPLICA.name}
    prober.started_again(REPLICA.name, at=80)
    assert positions.fresh("stem", 10) == frozenset()
    await positions.ask(REPLICA)
    assert positions.fresh("stem", 10) == frozenset(), "it has not come so far again"
    prober.at[REPLICA.name] = 100
    await positions.ask(REPLICA)
    assert positions.fresh("stem", 10) == {REPLICA.name}
