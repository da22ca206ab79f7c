"""Whether servers are one shard: each rule by a story, and that what is in order is never refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.errors import (
    DsnRejected,
    NoSuchNode,
    NotOneShard,
    PgfleetError,
    PooledEndpoint,
    PrivilegeMissing,
    TakenAlready,
    TwoPrimaries,
)
from pgfleet.names import NodeName
from pgfleet.providers.catalog import DRIVERS
from pgfleet.providers.existing.judge import fault
from pgfleet.providers.existing.look import Answer, Look, Silence, primary_of
from pgfleet.spec.providers import PROVIDERS

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
NODES = [NodeName("main", "cloud", number) for number in (1, 2, 3)]
SOURCES = {node: f"fleet.yaml:{node.number} shards.main" for node in NODES}

PRIMARY = Answer(
    recovering=False, receiving=False, position=1000, timeline=3, system=7, started=BEGAN, version=150018, user="alice",
    database="shop", may_create=True, has_schema=False, owns_schema=False,
)  # fmt: skip
REPLICA = replace(PRIMARY, recovering=True, receiving=True, position=990, started=BEGAN + timedelta(seconds=1))
THIRD = replace(REPLICA, started=BEGAN + timedelta(seconds=2))


def judged(*looks: Look) -> PgfleetError | None:
    return fault("shop", "main", dict(zip(NODES, looks, strict=False)), SOURCES)


def test_a_primary_and_its_replicas_are_a_shard() -> None:
    assert judged(PRIMARY, REPLICA, THIRD) is None
    assert judged(REPLICA, PRIMARY) is None
    assert judged(PRIMARY) is None
    assert judged(PRIMARY, Silence("nothing listens")) is None
    assert judged(replace(PRIMARY, has_schema=True, owns_schema=True, may_create=False)) is None
    assert judged(replace(PRIMARY, has_schema=True, owns_schema=True, shard=("shop", "main", "x"))) is None


@pytest.mark.parametrize(
    ("looks", "kind"),
    [
        ((PRIMARY, Silence("unsupported startup parameter", "08P01")), PooledEndpoint),
        ((PRIMARY, Silence("password authentication failed", "28P01")), DsnRejected),
        ((Silence("no such database", "3D000"),), DsnRejected),
        ((Silence("certificate verify failed"), REPLICA), DsnRejected),
        ((Silence("rejected SSL upgrade"), REPLICA), DsnRejected),
        ((PRIMARY, PRIMARY), NotOneShard),
        ((PRIMARY, replace(REPLICA, system=8)), NotOneShard),
        ((PRIMARY, replace(REPLICA, user="bob")), NotOneShard),
        ((PRIMARY, replace(REPLICA, database="shap")), NotOneShard),
        ((PRIMARY, replace(REPLICA, recovering=False, timeline=4)), TwoPrimaries),
        ((REPLICA, THIRD), NoSuchNode),
        ((REPLICA, Silence("nothing listens")), NoSuchNode),
        ((replace(PRIMARY, shard=("shop", "other", "x")),), TakenAlready),
        ((replace(PRIMARY, shard=("other", "main", "x")),), TakenAlready),
        ((replace(PRIMARY, may_create=False),), PrivilegeMissing),
        ((replace(PRIMARY, has_schema=True),), PrivilegeMissing),
    ],
)
def test_what_is_no_shard_is_refused(looks: tuple[Look, ...], kind: type[PgfleetError]) -> None:
    found = judged(*looks)
    assert type(found) is kind
    assert found.hint
    assert "main" in str(found)


LOOKS = st.one_of(
    st.just(Silence("nothing listens")),
    st.builds(
        lambda recovering, timeline, system, started: replace(
            PRIMARY, recovering=recovering, timeline=timeline, system=system, started=BEGAN + timedelta(seconds=started)
        ),
        st.booleans(), st.integers(1, 3), st.integers(7, 8), st.integers(0, 3),
    ),
)  # fmt: skip


@given(st.lists(LOOKS, min_size=1, max_size=3))
def test_what_is_accepted_has_one_primary_and_copies_of_it(looks: list[Look]) -> None:
    found = judged(*looks)
    said = [one for one in looks if isinstance(one, Answer)]
    accepted = (
        sum(not one.recovering for one in said) == 1
        and len({one.system for one in said}) == 1
        and len({one.started for one in said}) == len(said)
    )
    assert (found is None) == accepted


@given(st.lists(LOOKS, min_size=1, max_size=3))
def test_of_two_primaries_the_later_one_counts(looks: list[Look]) -> None:
    said = dict(zip(NODES, looks, strict=False))
    claims = {name: one for name, one in said.items() if isinstance(one, Answer) and not one.recovering}
    primary = primary_of(said)
    assert (primary is None) == (not claims)
    if primary is not None:
        assert claims[primary].timeline == max(one.timeline for one in claims.values())


def test_every_provider_has_a_driver_and_traits() -> None:
    assert DRIVERS.keys() == PROVIDERS.keys()
