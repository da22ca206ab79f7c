"""What the keeper decides: fence before revoke, revoke only when somebody else can be elected. Nothing is started."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgfleet.providers.local.keeper.decide import (
    LEASE_IS_OVER,
    LONGEST_PAUSE,
    STOPPED_TOO_LONG,
    Act,
    Deed,
    LeadSeen,
    NodeSeen,
    changes,
    decide,
    pause_before_start,
)
from pgfleet.providers.local.keeper.fence import lead_from
from pgfleet.providers.local.units import NodeUnit, Unit, Units
from pgfleet.topology.etcd import KeyValue

ME = "us-east-1"
I_LEAD = LeadSeen(ME, 7, frozenset({"us-west-1"}))
ANOTHER_LEADS = LeadSeen("us-west-1", 8, frozenset({ME}))
I_LEAD_ALONE = LeadSeen(ME, 7)
MEMBERS = st.sampled_from([ME, "us-west-1", "us-east-2-1"])

leads = st.none() | st.builds(LeadSeen, st.none() | MEMBERS, st.integers(1, 9), st.frozensets(MEMBERS))
spans = st.floats(0, 100, allow_nan=False)
nodes = st.builds(NodeSeen, st.just(ME), st.booleans(), spans, spans, st.booleans(), st.booleans(), leads)


@given(nodes)
def test_no_lease_is_revoked_before_its_holder_has_ended_nor_when_nobody_else_can_be_elected(node: NodeSeen) -> None:
    if decide(node).deed is Deed.REVOKE:
        assert node.ended
        assert node.lead is not None
        assert node.lead.leader == ME
        assert node.lead.candidates - {ME}


@given(nodes)
def test_a_dead_node_is_started_and_a_living_one_is_not(node: NodeSeen) -> None:
    assert (decide(node).deed in (Deed.START, Deed.REVOKE)) == node.ended


@given(nodes)
def test_nothing_is_killed_that_was_not_stopped_or_hurt(node: NodeSeen) -> None:
    if decide(node).deed is Deed.FENCE:
        assert node.postgres_killed or max(node.patroni_stopped, node.postgres_stopped) >= STOPPED_TOO_LONG


@given(nodes)
def test_a_replica_is_never_killed_for_being_slow(node: NodeSeen) -> None:
    """The exception: a Patroni stopped so long that its PostgreSQL may be a second primary."""
    if not node.leads and node.patroni_stopped < LEASE_IS_OVER:
        assert decide(node).deed is not Deed.FENCE


def test_a_dead_primary_yields_at_once() -> None:
    assert decide(NodeSeen(ME, ended=True, lead=I_LEAD)).deed is Deed.REVOKE


def test_a_dead_replica_is_only_started() -> None:
    assert decide(NodeSeen(ME, ended=True, lead=ANOTHER_LEADS)).deed is Deed.START


def test_a_primary_without_a_replica_is_back_soonest_when_it_keeps_its_lease() -> None:
    assert decide(NodeSeen(ME, ended=True, lead=I_LEAD_ALONE)).deed is Deed.START


def test_silence_of_etcd_is_never_taken_for_consent() -> None:
    assert decide(NodeSeen(ME, ended=True, lead=None)).deed is Deed.START
    assert decide(NodeSeen(ME, postgres_killed=True, lead=None)).deed is Deed.LEAVE
    assert decide(NodeSeen(ME, patroni_stopped=5, postgres_stopped=5, lead=None)).deed is Deed.LEAVE


def test_a_primary_whose_postmaster_was_killed_is_fenced() -> None:
    assert decide(NodeSeen(ME, postgres_killed=True, lead=I_LEAD)).deed is Deed.FENCE
    assert decide(NodeSeen(ME, postgres_killed=True, lead=I_LEAD_ALONE)).deed is Deed.LEAVE
    assert decide(NodeSeen(ME, postgres_killed=True, lead=ANOTHER_LEADS)).deed is Deed.LEAVE


def test_a_stopped_primary_is_fenced_after_three_seconds_and_not_before() -> None:
    stopped = NodeSeen(ME, patroni_stopped=STOPPED_TOO_LONG - 0.1, postgres_stopped=STOPPED_TOO_LONG - 0.1, lead=I_LEAD)
    assert decide(stopped).deed is Deed.LEAVE
    assert decide(replace(stopped, patroni_stopped=STOPPED_TOO_LONG)).deed is Deed.FENCE
    assert decide(replace(stopped, postgres_stopped=STOPPED_TOO_LONG)).deed is Deed.FENCE


def test_a_postgresql_whose_patroni_lost_its_lease_while_it_was_stopped_does_not_stay_a_second_primary() -> None:
    orphan = NodeSeen(ME, patroni_stopped=LEASE_IS_OVER, postgres_runs=True, lead=ANOTHER_LEADS)
    assert decide(orphan).deed is Deed.FENCE
    assert decide(replace(orphan, lead=None)).deed is Deed.FENCE
    assert decide(replace(orphan, postgres_runs=False)).deed is Deed.LEAVE


def test_pauses_double_from_a_fifth_of_a_second_to_ten() -> None:
    assert [pause_before_start(n) for n in range(8)] == [0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_PAUSE]
    assert pause_before_start(10_000) == LONGEST_PAUSE


# -- Patroni's keys


def keys(**values: str) -> list[KeyValue]:
    return [KeyValue(f"/service/stem/{key.replace('_', '/', 1)}", value, lease=7) for key, value in values.items()]


SYNC = '{"leader": "us-east-1", "quorum": 1, "sync_standby": "us-west-1,us-east-2-1"}'


def test_candidates_hold_every_commit_and_are_alive() -> None:
    members = {f"members_{m}": "{}" for m in (ME, "us-west-1", "eu-west-1")}
    assert lead_from("stem", keys(leader=ME, sync=SYNC, **members)) == LeadSeen(ME, 7, frozenset({"us-west-1"}))


def test_a_sync_key_of_another_leader_names_nobody() -> None:
    seen = lead_from("stem", keys(leader="us-west-1", sync=SYNC, **{"members_us-east-2-1": "{}"}))
    assert seen == LeadSeen("us-west-1", 7)


def test_a_vacant_leader_key_and_a_broken_sync_key_are_no_reason_to_act() -> None:
    assert lead_from("stem", keys(sync=SYNC)).leader is None
    for broken in ("", "null", "[]", "{", '{"leader": "us-east-1"}'):
        assert lead_from("stem", keys(leader=ME, sync=broken)).candidates == frozenset()


# -- units.json


def unit(name: str, digest: str = "1", **more: object) -> Unit:
    return replace(Unit(name, ("/bin/true",), "/", {}, "/dev/null", digest=digest), **more)  # type: ignore[arg-type]


def test_what_differs_is_done_and_nothing_else() -> None:
    wanted = Units("f", (unit("new"), unit("same"), unit("changed", "2"), unit("reread", "2", on_change="reload")))
    running = {"same": "1", "changed": "1", "reread": "1", "gone": "1"}
    done = [(change.unit, change.act) for change in changes(wanted, running)]
    assert done == [("gone", Act.STOP), ("new", Act.START), ("changed", Act.RESTART), ("reread", Act.RELOAD)]


def test_a_unit_that_shall_not_be_touched_is_not() -> None:
    assert changes(Units("f", (unit("etcd/1", "2", on_change="none"),)), {"etcd/1": "1"}) == ()


names = st.from_regex(r"(etcd|node)/[a-z0-9-]{1,8}(/[a-z0-9-]{1,8})?", fullmatch=True)


@given(st.dictionaries(names, st.text("ab", max_size=2)), st.dictionaries(names, st.text("ab", max_size=2)))
def test_what_runs_as_wanted_needs_no_change(wanted: dict[str, str], running: dict[str, str]) -> None:
    units = Units("f", tuple(unit(name, digest) for name, digest in wanted.items()))
    assert changes(units, wanted) == ()
    touched = {change.unit for change in changes(units, running)}
    assert touched == {name for name in wanted.keys() | running.keys() if wanted.get(name) != running.get(name)}


def test_units_json_reads_back_as_it_was_written() -> None:
    node = NodeUnit("stem", ME, "/data")
    units = Units("f", (unit("node/stem/us-east-1", env={"A": "b"}, isolate=True, node=node, user="postgres"), unit("b")))
    assert Units.from_json(units.to_json()) == units


@given(st.sets(names, min_size=2))
def test_no_two_units_share_a_file(these: set[str]) -> None:
    assert len({unit(name).stem for name in these}) == len(these)
