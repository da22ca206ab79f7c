"""The arithmetic of quorum commit, against every way in which nodes can be lost."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.spec.quorum import Quorum

SHAPES = [(voters, sync) for voters in range(2, 9) for sync in range(1, voters)]


@pytest.mark.parametrize(("voters", "sync"), SHAPES)
def test_every_election_meets_every_acknowledged_commit(voters: int, sync: int) -> None:
    """Any set of V - s + 1 voting replicas that elects holds a node of any set of s that acknowledged (V up to 7)."""
    quorum = Quorum(voters, sync)
    replicas = range(quorum.replicas)
    for electing in combinations(replicas, quorum.votes_needed):
        for acknowledged in combinations(replicas, sync):
            assert set(electing) & set(acknowledged)


@pytest.mark.parametrize(("voters", "sync"), SHAPES)
def test_one_vote_less_would_lose_a_commit(voters: int, sync: int) -> None:
    """The number of votes is not higher than it must be: a smaller set misses some commit."""
    quorum = Quorum(voters, sync)
    replicas = range(quorum.replicas)
    assert any(
        not set(electing) & set(acknowledged)
        for electing in combinations(replicas, quorum.votes_needed - 1)
        for acknowledged in combinations(replicas, sync)
    )


@pytest.mark.parametrize(("voters", "sync"), SHAPES)
def test_what_survives_is_what_can_be_lost(voters: int, sync: int) -> None:
    quorum = Quorum(voters, sync)
    assert quorum.survives == sync - 1
    assert quorum.replicas - quorum.survives >= quorum.votes_needed
    assert quorum.replicas - (quorum.survives + 1) < quorum.votes_needed
    assert quorum.lossless


def test_measured_shapes() -> None:
    # Five nodes with sync 1: an election needs all four others. Three with sync 2: one of both is enough.
    assert Quorum(5, 1).votes_needed == 4
    assert Quorum(3, 2).votes_needed == 1
    assert Quorum(3, 2).survives == 1


def test_without_replicas_nothing_survives() -> None:
    assert Quorum(1, 0).survives == -1
    assert Quorum(1, 0).votes_needed == 0


def test_asynchronous_is_not_lossless() -> None:
    assert not Quorum(3, 0).lossless
    assert Quorum(3, 0).survives == 1
    assert "may lack" in Quorum(3, 0).sentence()


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 3), min_size=1),
    st.integers(1, 11),
    st.sampled_from(["a", "b", "c", "d"]),
)
def test_a_region_is_survived_when_enough_votes_remain(places: dict[str, int], sync: int, region: str) -> None:
    """By counting heads, not by the formula: with the primary in the lost region, those that remain must elect."""
    quorum = Quorum(sum(places.values()), min(sync, sum(places.values()) - 1))
    survived = quorum.survives_region(region, places, primary_in=region)
    if region in places and quorum.sync:
        remaining = sum(count for other, count in places.items() if other != region)
        assert survived == (remaining >= quorum.votes_needed)
    assert quorum.survives_region("elsewhere", places, primary_in="a")


def test_the_rule_for_people() -> None:
    # Surviving a region needs sync to be one more than the voting replicas beside the primary there.
    assert not Quorum(4, 1).survives_region("a", {"a": 2, "b": 2}, primary_in="a")
    assert Quorum(4, 2).survives_region("a", {"a": 2, "b": 2}, primary_in="a")


def test_sentences() -> None:
    assert Quorum(3, 2).sentence() == (
        "a commit is on the primary and 2 of 2 voting replicas; an election needs 1 of them, "
        "so the primary and 1 other voter may be lost at once"
    )
    assert Quorum(1, 0).sentence() == "one voter: no replica can take over"
