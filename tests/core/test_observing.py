"""What the client tells about itself, and that it costs nothing where nobody listens."""

from __future__ import annotations

import asyncio
import timeit

import pytest

from pgfleet.client.observing import NOBODY, Observing, WatchedCall, code_of, outcome_of
from pgfleet.errors import BlockRolledBack, CannotConnect, DeadlineExceeded, OutcomeUnknown
from pgfleet.names import NodeName

NODE = NodeName("stem", "east", 1)


class Said:
    because = "it is near"


class Listener:
    def __init__(self) -> None:
        self.heard: list[WatchedCall] = []
        self.open = 0
        self.open_calls = 0

    def began(self, call: WatchedCall) -> object:
        self.open_calls += 1
        return self

    def ended(self, call: WatchedCall, begun: object) -> None:
        assert begun is self
        self.open_calls -= 1
        self.heard.append(call)

    def connections(self, driver: str, node: NodeName, role: str, count: int) -> None:
        self.open = count


def test_everything_that_happened_to_a_call_is_told_at_its_end() -> None:
    first, second = Listener(), Listener()
    observing = Observing([first, second])
    with observing.call("fetch", "questions", "stem") as call:
        assert (first.open_calls, first.heard) == (1, [])
        call.waited("token", 0.25)
        call.waited("token", 0.5)
        call.retried()
        call.hedged(won=True)
        call.hedged(won=False)
        call.at(NODE, Said())
    observing.connections("asyncpg", NODE, "read", 3)
    [told] = first.heard
    assert second.heard == [told]
    assert (told.kind, told.table, told.shard, told.node, told.because) == ("fetch", "questions", "stem", NODE, "it is near")
    assert (told.waits, told.retries, told.hedges, told.hedge_won) == ({"token": 0.75}, 1, 2, True)
    assert told.outcome == "ok"
    assert 0 <= told.seconds < 5
    assert (first.open, second.open, first.open_calls) == (3, 3, 0)


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (DeadlineExceeded("late"), "deadline", "PGF-U131"),
        (OutcomeUnknown("who knows"), "unknown", "PGF-U132"),
        (BlockRolledBack("no"), "refused", "PGF-F202"),
        (CannotConnect("gone"), "unreachable", "PGF-U130"),
        (asyncio.CancelledError(), "cancelled", "CancelledError"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
    ],
)
def test_how_a_call_ended_is_one_of_few_words(error: BaseException, outcome: str, code: str) -> None:
    listener = Listener()
    with pytest.raises(type(error)), Observing([listener]).call("write", "questions", "stem"):
        raise error
    assert (listener.heard[0].outcome, listener.heard[0].error) == (outcome, error)
    assert (outcome_of(error), code_of(error)) == (outcome, code)


def test_where_nobody_listens_a_call_costs_less_than_a_microsecond() -> None:
    said = Said()

    def call() -> None:
        with NOBODY.call("fetch", "questions", "stem") as one:
            one.at(NODE, said)

    assert min(timeit.repeat(call, number=10_000, repeat=20)) / 10_000 < 1e-6
