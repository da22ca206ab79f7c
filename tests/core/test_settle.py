"""Who is given up on while apply waits."""

from __future__ import annotations

from pgfleet.providers.local.keeper.control import UnitSeen
from pgfleet.providers.local.settle import GIVE_UP, crash_looping


def unit(state: str, *, restarts: int, short_lives: int) -> UnitSeen:
    return UnitSeen("node/stem/a-1", state, None, (), None, None, restarts, None, "it had ended", short_lives)


def test_a_node_that_ends_again_and_again_is_given_up_on() -> None:
    failing = unit("backoff", restarts=GIVE_UP, short_lives=GIVE_UP)
    assert crash_looping([failing]) == {"node/stem/a-1": "it had ended"}


def test_a_node_that_waits_for_an_election_is_not_however_old_it_is() -> None:
    assert crash_looping([unit("backoff", restarts=100, short_lives=1)]) == {}


def test_a_node_that_runs_again_is_not() -> None:
    assert crash_looping([unit("running", restarts=100, short_lives=GIVE_UP)]) == {}
