"""Plans, as an operator reads them and as programs do, and what holds for every plan. See approved.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.golden.approved import approve
from tests.golden.fleets import FOLDER, book
from tests.golden.world import NOTHING, look, patched, perform, wanted, whole, with_unit

from pgfleet.cli.commands.plan import show
from pgfleet.control.apply import ROUNDS
from pgfleet.facts.fleet import FleetSeen, PlacementSeen, ShardSeen, UnitSeen
from pgfleet.facts.topology import ShardTopology
from pgfleet.names import NodeName
from pgfleet.plan.make import differences, make_plan
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Act
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.local.settings import patch_for
from pgfleet.render.patroni import dynamic_configuration
from pgfleet.routing.placement import Placement

STEM = """\
fleet: small
regions: {us-east: {}, us-west: {}, eu-west: {}}
shards:
  stem: {home: us-east, voters: {us-east: 1, us-west: 1}, sync: 1, promises: {region: none}}
tables:
  questions: {key: subject, place: {stem: [Mathematics]}}
"""
READER = STEM.replace("sync: 1,", "sync: 1, readers: {eu-west: 1},")
SETTING = STEM.replace("sync: 1,", "sync: 1, settings: {work_mem: 8MB},")
TWO = STEM.replace("tables:", "  arts: {home: us-west, voters: {us-west: 2}, sync: 1, promises: {region: none}}\ntables:")
PLACED = TWO.replace("place: {stem: [Mathematics]}", "place: {stem: [Mathematics], arts: [Drama]}")
FEWER = """\
fleet: small
regions: {us-east: {}, us-west: {}, eu-west: {}}
shards:
  stem: {home: us-west, voters: {us-west: 1}, promises: {crash: none, silent: none}}
tables:
  questions: {key: subject, place: {stem: [Mathematics]}}
"""
ONE_REGION = FEWER.replace("{us-east: {}, us-west: {}, eu-west: {}}", "{us-west: {}}")
FILES = {
    "stem": STEM, "reader": READER, "setting": SETTING, "two": TWO, "placed": PLACED, "fewer": FEWER, "one region": ONE_REGION,
}  # fmt: skip

EAST = NodeName("stem", "us-east", 1)


@pytest.fixture(scope="module", autouse=True)
def _ports_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGFLEET_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setenv("NO_COLOR", "1")
        for file in FILES:
            wants(file)  # ports are drawn by chance: not while Hypothesis looks
        yield


@cache
def wants(file: str, before: str | None = None) -> Wanted:
    """What ``file`` wants of a fleet that was never applied, or that is as the file ``before`` said."""
    was = None if before is None else wants(before)
    seen = NOTHING if was is None else replace(NOTHING, addresses=was.addresses, placement=was.placement)
    return wanted(FILES[file], FOLDER, seen)


@cache
def runs(file: str) -> FleetSeen:
    """The fleet that ``file`` declares, whole."""
    return whole(wants(file))


def with_shard(seen: FleetSeen, name: str, **changed: Any) -> FleetSeen:
    return replace(seen, shards={**seen.shards, name: replace(seen.shards[name], **changed)})


def with_primary(seen: FleetSeen, node: NodeName) -> FleetSeen:
    topology = replace(seen.shards[node.shard].topology, primary=node)
    return with_shard(seen, node.shard, topology=topology)


# -- approved plans ----------------------------------------------------------------------------------------------------------


def _backoff() -> FleetSeen:
    return with_unit(runs("stem"), "node/stem/us-west-1", state="backoff", problem="it ended with 1 as soon as it was started")


def _leftover() -> FleetSeen:
    units = {**runs("stem").units, "node/stem/eu-west-1": UnitSeen("node/stem/eu-west-1", "", "leftover")}
    return replace(runs("stem"), units=units)


def _everything_dead() -> FleetSeen:
    return look(replace(runs("stem"), keeper=False, etcd=False))


def _stopped() -> FleetSeen:
    """The shard that loses keys has let go of them, the one that gains them has not been told."""
    old, new = wants("two"), wants("placed", "two")
    return with_shard(runs("two"), "stem", placement=PlacementSeen((old.placement, new.placement), "of both"))


def _unguarded() -> FleetSeen:
    held = runs("stem").shards["stem"].placement
    assert held is not None
    return with_shard(runs("stem"), "stem", placement=replace(held, unguarded=("questions",)))


CASES: dict[str, Callable[[], tuple[Wanted, FleetSeen]]] = {
    "nothing-applied-yet": lambda: (wants("stem"), NOTHING),
    "everything-as-wanted": lambda: (wants("stem"), runs("stem")),
    "a-reader-more": lambda: (wants("reader", "stem"), runs("stem")),
    "a-setting-changed": lambda: (wants("setting", "stem"), runs("stem")),
    "a-setting-taken-out": lambda: (wants("stem", "setting"), runs("setting")),
    "a-shard-added": lambda: (wants("two", "stem"), runs("stem")),
    "a-shard-removed": lambda: (wants("stem", "two"), runs("two")),
    "a-node-removed": lambda: (wants("stem", "reader"), with_primary(runs("reader"), EAST)),
    "the-primary-removed": lambda: (wants("fewer", "stem"), with_primary(runs("stem"), EAST)),
    "a-region-removed": lambda: (wants("one region", "fewer"), runs("fewer")),
    "the-placement-changed": lambda: (wants("placed", "two"), runs("two")),
    "the-keeper-is-dead": lambda: (wants("stem"), look(replace(runs("stem"), keeper=False))),
    "everything-is-dead": lambda: (wants("stem"), _everything_dead()),
    "etcd-is-silent": lambda: (wants("stem"), look(replace(runs("stem"), etcd=False))),
    "a-process-in-backoff": lambda: (wants("stem"), _backoff()),
    "a-folder-left-over": lambda: (wants("stem"), _leftover()),
    "never-secured": lambda: (wants("stem"), replace(runs("stem"), authenticated=False)),
    "a-change-of-placement-was-stopped": lambda: (wants("placed", "two"), _stopped()),
    "a-table-without-guards": lambda: (wants("stem"), _unguarded()),
    "never-prepared": lambda: (wants("stem"), with_shard(runs("stem"), "stem", prepared=None)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_what_was_approved(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(*CASES[case]())
    show(plan)
    said = capsys.readouterr()
    approve(f"plans/{case}.txt", said.out + said.err)


def test_the_document_of_a_plan_is_what_was_approved() -> None:
    document = make_plan(*CASES["a-reader-more"]()).to_json()
    approve("plans/a-reader-more.json", json.dumps(document, indent=1) + "\n")


# -- what holds for every plan -----------------------------------------------------------------------------------------------

ORDER = list(Act)


def judge(plan: Plan) -> None:
    """What holds for every plan."""
    ranks = [ORDER.index(step.act) for step in plan.steps]
    assert ranks == sorted(ranks)
    for step in plan.steps:
        assert step.because
        assert step.risk
        assert step.undo
        assert step.destroys == (step.act in (Act.REMOVE_NODE, Act.REMOVE_SHARD)), step
        assert step.title in {s.title for s in plan.of(step.act)}
    assert len({step.title for step in plan.steps}) == len(plan.steps), "two steps would do one thing"
    assert plan.destructive == plan.of(Act.REMOVE_NODE, Act.REMOVE_SHARD)


def test_the_order_of_acts() -> None:
    """What others stand on comes first; what deletes data comes last, but for the record of where keys are now."""
    assert ORDER[0] is Act.PREPARE
    assert ORDER.index(Act.START_KEEPER) < ORDER.index(Act.CREATE_ETCD) < ORDER.index(Act.SECURE_ETCD)
    assert ORDER.index(Act.SECURE_ETCD) < ORDER.index(Act.CREATE_NODE) < ORDER.index(Act.PREPARE_SHARD)
    removals = [act for act in ORDER if act.value.startswith("remove")]
    assert ORDER[-len(removals) - 2 :] == [*removals, Act.RECORD_PLACEMENT, Act.GUARD_TABLES]


@pytest.mark.parametrize("file", FILES)
def test_a_fleet_that_is_as_wanted_has_no_plan(file: str) -> None:
    assert make_plan(wants(file), runs(file)) == Plan("small")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[str, FleetSeen]:
    """Some file, and its fleet after an apply that may have been killed, and after whatever befell it since."""
    file = draw(st.sampled_from(sorted(FILES)))
    plan = make_plan(wants(file), NOTHING)
    done = draw(st.integers(0, len(plan.steps)) | st.just(len(plan.steps)))
    truth = perform(replace(plan, steps=plan.steps[:done]), wants(file), NOTHING)
    for name in draw(st.sets(st.sampled_from(sorted(truth.units)))) if truth.units else ():
        if draw(st.booleans()):
            truth = with_unit(truth, name, state=draw(st.sampled_from(["backoff", "stopped", "starting"])))
        else:
            truth = with_unit(truth, name, digest="of another version")
    if truth.keeper and draw(st.booleans()):
        truth = replace(truth, keeper=False, etcd=truth.etcd and draw(st.booleans()))
    for name in draw(st.sets(st.sampled_from(sorted(truth.shards)))) if truth.shards else ():
        truth = with_shard(truth, name, prepared=None, placement=None)
    for name, shard in truth.shards.items():
        if shard.placement is not None and shard.placement.maps and draw(st.booleans()):
            [held] = shard.placement.maps
            unfinished = replace(shard.placement, maps=(held, wants("placed", "two").placement), functions="of both")
            unguarded = replace(shard.placement, unguarded=("questions",))
            truth = with_shard(truth, name, placement=draw(st.sampled_from([unfinished, unguarded])))
    return file, truth


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.sampled_from(sorted(FILES)))
def test_performing_plans_makes_it_so_in_the_rounds_that_apply_has(world: tuple[str, FleetSeen], file: str) -> None:
    before, truth = world
    goal = wants(file, before if truth.addresses is not None else None)
    plan = make_plan(goal, look(truth))
    for _ in range(ROUNDS - 1):
        judge(plan)
        truth = perform(plan, goal, truth)
        plan = make_plan(goal, look(truth))
    assert plan.steps == ()
    assert truth.keeper
    assert truth.etcd
    assert truth.units.keys() == goal.units.keys()
    assert {unit.digest for unit in truth.units.values()} == {unit.digest for unit in goal.units.values()}
    assert truth.placement == goal.placement
    for name, shard in goal.shards.items():
        assert truth.shards[name].configuration == shard.configuration
        assert truth.shards[name].prepared == shard.prepared
        assert truth.shards[name].placement == PlacementSeen((goal.placement,), shard.functions)


def test_a_plan_that_was_written_reads_the_same() -> None:
    """`apply PLAN` compares what was agreed to with what would be done."""
    plan = make_plan(*CASES["a-shard-removed"]())
    assert json.loads(json.dumps(plan.to_json())) == plan.to_json()


def test_data_goes_only_in_steps_that_say_so() -> None:
    plan = make_plan(*CASES["a-shard-removed"]())
    assert [step.title for step in plan.destructive] == ["remove shard arts"]
    plan = make_plan(*CASES["the-primary-removed"]())
    [step] = plan.destructive
    assert step.node == EAST
    assert "switchover" in step.risk


def test_of_a_silent_etcd_nothing_is_concluded() -> None:
    plan = make_plan(*CASES["etcd-is-silent"]())
    assert not plan.of(Act.SECURE_ETCD, Act.PREPARE_SHARD, Act.CHANGE_SETTINGS, Act.RECORD_PLACEMENT)
    assert plan.notes


def test_the_address_book_is_written_when_a_port_is_another() -> None:
    seen = replace(runs("stem"), addresses=book(STEM))
    assert [step.act for step in make_plan(wants("stem"), seen).steps] == [Act.PREPARE]


def test_the_summary_counts_every_step_once() -> None:
    for case in CASES.values():
        plan = make_plan(*case())
        numbers = [int(word) for word in plan.summary().split() if word.isdecimal()]
        assert sum(numbers) == len(plan.steps)


# -- differences -------------------------------------------------------------------------------------------------------------


def test_differences_are_named_with_both_sides() -> None:
    was = dynamic_configuration({"work_mem": "4MB", "jit": "off"}, sync=2, max_connections=100)
    now = dynamic_configuration({"work_mem": "8MB", "geqo": "off"}, sync=1, max_connections=100)
    assert differences(now, was) == {
        "postgresql.parameters.work_mem": ("4MB", "8MB"),
        "postgresql.parameters.geqo": ("not set", "off"),
        "postgresql.parameters.jit": ("off", "not set"),
        "synchronous_node_count": ("2", "1"),
    }
    assert differences(now, now) == {}


def test_what_patroni_keeps_for_itself_is_no_difference() -> None:
    made = dynamic_configuration({}, sync=1, max_connections=100)
    assert differences(made, made | {"slots": {"other": {"type": "logical"}}}) == {}


parameters = st.dictionaries(st.sampled_from(["work_mem", "jit", "geqo", "Work_Mem"]), st.sampled_from(["1", "2", "on"]))


@given(parameters, st.integers(0, 2), parameters, st.integers(0, 2))
def test_the_patch_for_differences_leaves_none(was: dict[str, str], sync: int, now: dict[str, str], then: int) -> None:
    seen = dynamic_configuration(was, sync=sync, max_connections=100)
    goal = dynamic_configuration(now, sync=then, max_connections=100)
    assert patched(seen, patch_for(goal, seen)) == goal
    assert (differences(goal, seen) == {}) == (goal == seen)


def test_a_shard_that_was_never_started_has_no_settings_to_change() -> None:
    seen = replace(runs("stem"), shards={"stem": ShardSeen(ShardTopology("stem"))})
    assert [step.act for step in make_plan(wants("stem"), seen).steps] == [Act.PREPARE_SHARD, Act.RECORD_PLACEMENT]


# -- the map of keys ---------------------------------------------------------------------------------------------------------


def test_an_epoch_is_never_given_to_two_maps() -> None:
    """Also where a change was stopped: a shard may have a map that was never recorded."""
    two, placed = Placement.from_json(wants("two").placement), Placement.from_json(wants("placed", "two").placement)
    assert (two.epoch, placed.epoch) == (1, 2)
    again = Placement.from_json(wanted(FILES["placed"], FOLDER, _stopped()).placement)
    assert again == placed, "it is the newest map that was seen: the change goes on"
    back = Placement.from_json(wanted(FILES["two"], FOLDER, _stopped()).placement)
    assert back.epoch == 3
    assert replace(back, epoch=1) == two
    assert [step.act for step in make_plan(wanted(FILES["two"], FOLDER, _stopped()), _stopped()).steps] == [Act.RECORD_PLACEMENT]
