"""Patroni's keys, read: the same whether a shard is read at once or followed key by key."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pgfleet.facts.topology import MemberSeen, ShardTopology, read_cluster, read_shards, split_key
from pgfleet.names import NodeName

EAST, EAST2, WEST = (NodeName("stem", "us-east", 1), NodeName("stem", "us-east", 2), NodeName("stem", "us-west", 1))


def member(role: str, position: int, *, state: str = "running", **more: object) -> str:
    """As Patroni 4.1 writes it (shortened)."""
    url = "postgres://127.0.0.1:21001/postgres"
    return json.dumps({"conn_url": url, "state": state, "role": role, "xlog_location": position, "timeline": 3, **more})


KEYS = {
    "leader": "us-east-1",
    "members/us-east-1": member("primary", 1000),
    "members/us-east-2": member("replica", 990, replay_lsn=900, receive_lsn=990, replication_state="streaming"),
    "members/us-west-1": member("replica", 700, tags={"noloadbalance": True}),
    "sync": json.dumps({"leader": "us-east-1", "sync_standby": "us-east-2,us-west-1", "quorum": 1}),
    "status": json.dumps({"optime": 1000, "slots": {"us_east_2": 980}}),
    "config": json.dumps({"ttl": 20}),
    "history": "[[1, 83886080, \"no recovery target specified\"]]",
}  # fmt: skip


def read(keys: dict[str, str]) -> ShardTopology:
    return read_shards([(f"/service/stem/{k}", v, 7) for k, v in keys.items()], ["stem"])["stem"]


def test_a_shard_is_read_from_its_keys() -> None:
    seen = read(KEYS)
    assert seen.primary == EAST
    assert seen.announced
    assert seen.members[EAST] == MemberSeen(EAST, "primary", "running", 1000, 3)
    assert not seen.members[WEST].balanced
    assert seen.sync.leader == EAST
    assert seen.sync.voters == (EAST2, WEST)
    assert seen.sync.quorum == 1
    assert seen.revision == 7
    assert not seen.switching


def test_lag_counts_what_was_replayed_and_not_what_was_received() -> None:
    seen = read(KEYS)
    assert seen.lag(EAST2) == 100
    assert seen.lag(EAST) == 0
    assert seen.lag(NodeName("stem", "eu-west", 1)) is None


def test_a_lock_before_the_promotion_is_not_announced() -> None:
    assert not read(KEYS | {"leader": "us-west-1"}).announced
    assert not read(KEYS).with_key("members/us-east-1", member("primary", 1, state="starting")).announced


def test_without_the_lock_there_is_no_primary() -> None:
    assert read(KEYS).with_key("leader", None, 8).primary is None


def test_a_switchover_that_was_asked_for_is_seen_until_its_key_goes() -> None:
    asked = read(KEYS | {"failover": json.dumps({"leader": "us-east-1", "member": "us-west-1"})})
    assert asked.switching
    assert not asked.with_key("failover", None, 9).switching
    later = json.dumps({"leader": "us-east-1", "scheduled_at": "2031-01-01T00:00:00+00:00"})
    assert not read(KEYS | {"failover": later}).switching


def test_the_rest_answer_says_the_same() -> None:
    answer = {"members": [
        {"name": "us-east-1", "role": "leader", "state": "running", "host": "127.0.0.1", "port": 1, "timeline": 3},
        {"name": "us-east-2", "role": "quorum_standby", "state": "streaming", "timeline": 3, "lag": 10},
        {"name": "us-west-1", "role": "replica", "state": "start failed", "lag": "unknown"},
    ], "scope": "stem"}  # fmt: skip
    seen = read_cluster("stem", answer)
    assert seen.primary == EAST
    assert seen.announced
    assert seen.lag(EAST2) == 10
    assert seen.lag(WEST) is None
    assert not seen.members[WEST].serves


def test_keys_of_other_services_and_shards_are_left_alone() -> None:
    assert split_key("/service/stem/leader") == ("stem", "leader")
    assert split_key("/service/stem/") is None
    assert split_key("/pgfleet/placement") is None
    assert read_shards([("/service/other/leader", "us-east-1", 1)], ["stem"]) == {"stem": ShardTopology("stem")}


NAMES = st.sampled_from([*KEYS, "members/us-west-2", "members/not a name", "failover", "failsafe", "x/y/z"])
JSON = st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3).map(json.dumps)
VALUES = st.one_of(st.sampled_from(list(KEYS.values())), st.text(max_size=20), st.just("[" * 5000), JSON)


@given(st.lists(st.tuples(NAMES, st.none() | VALUES)))
def test_following_key_by_key_ends_where_reading_at_once_does(changes: list[tuple[str, str | None]]) -> None:
    followed, last = read(KEYS), dict(KEYS)
    for revision, (key, value) in enumerate(changes, 8):
        followed = followed.with_key(key, value, revision)
        last.pop(key, None)
        if value is not None:
            last[key] = value
    at_once = read(last)
    assert (followed.primary, followed.members, followed.sync, followed.position, followed.switching) == (
        at_once.primary, at_once.members, at_once.sync, at_once.position, at_once.switching
    )  # fmt: skip


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(
    st.sampled_from(["members", "name", "role", "state", "lag"]), c), max_leaves=20))  # fmt: skip
def test_no_rest_answer_is_too_strange(answer: object) -> None:
    assert read_cluster("stem", answer).shard == "stem"
