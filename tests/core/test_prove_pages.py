"""What is proved on, what calls add up to, what an etcd key says, and the page at the end."""

from __future__ import annotations

import json
from dataclasses import replace

import yaml
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.facts.topology import ShardTopology
from pgfleet.prove.chronicle import moments
from pgfleet.prove.fleets import balanced, listing, with_a_stronger_shard
from pgfleet.prove.measured import Limit, Page, Part, render
from pgfleet.prove.questions import by_subject, generate
from pgfleet.prove.tally import Call, tally
from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

SHARDS = ("certification", "stem", "humanities", "test-prep")


@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 6000), min_size=1, max_size=40))
def test_shards_hold_about_equally_many_rows(counts: dict[str, int]) -> None:
    placed = balanced(counts, SHARDS)
    assert sorted(subject for subjects in placed.values() for subject in subjects) == sorted(counts)
    held = [sum(counts[subject] for subject in subjects) for subjects in placed.values()]
    assert max(held) - min(held) <= max(counts.values())


def test_a_fleet_is_made_that_lists_every_subject() -> None:
    counts = {f"subject {number}": 1000 + number for number in range(20)}
    placed = balanced(counts, SHARDS)
    placement = Placement.of(load("made.yaml", listing(placed)))
    for shard, subjects in placed.items():
        for subject in subjects:
            found = placement.shard("questions", subject)
            assert (found.shard, found.because) == (shard, f"{subject} is listed")


def test_a_stronger_shard_is_the_example_but_for_one_shape() -> None:
    fleet = load("made.yaml", with_a_stronger_shard("stem"))
    assert {shape.name: shape.sync for shape in fleet.shapes()} == {s: 2 if s == "stem" else 1 for s in SHARDS}
    assert {shape.name: len(shape.nodes) for shape in fleet.shapes()} == {s: 5 if s == "stem" else 3 for s in SHARDS}


def test_questions_by_subject_keep_their_order() -> None:
    questions = [*generate("PMP", 3), *generate("AWS", 2)]
    assert {subject: len(listed) for subject, listed in by_subject(questions).items()} == {"PMP": 3, "AWS": 2}


def test_what_calls_add_up_to() -> None:
    page = Call(1.0, 0.002, "page", "stem", replica=True)
    calls = [
        page, replace(page, replica=False, took=0.010), Call(1.1, 0.004, "insert", "stem"),
        replace(page, error="DeadlineExceeded", replica=None), Call(1.2, 0.004, "update", "stem", error="DeadlineExceeded"),
    ]  # fmt: skip
    found = tally(calls, 2.0)
    assert (found.reads, found.writes, found.on_replicas) == (2, 1, 1)
    assert (found.reads_per_second, found.writes_per_second, found.replica_share) == (1.0, 0.5, 0.5)
    assert found.errors == {"DeadlineExceeded": 2}
    assert found.read_p99 == 0.010
    json.dumps(found.to_json(), allow_nan=False)


def test_nothing_adds_up_to_nothing() -> None:
    found = tally([], 0.0)
    assert (found.reads_per_second, found.replica_share) == (0.0, 0.0)
    json.dumps(found.to_json(), allow_nan=False)


def member(role: str, state: str) -> str:
    return json.dumps({"role": role, "state": state})


def test_a_failover_as_its_keys_tell_it() -> None:
    before = ShardTopology("stem").with_key("leader", "us-east-1").with_key("members/us-east-1", member("primary", "running"))
    steps = [("leader", None), ("leader", "us-west-1"), ("members/us-west-1", member("primary", "running"))]
    told = []
    for at, (key, value) in enumerate(steps):
        after = before.with_key(key, value)
        told += [(m.at, m.what, m.who) for m in moments(float(at), before, after) if m.what != "state"]
        before = after
    assert told == [(0.0, "released", "us-east-1"), (1.0, "taken", "us-west-1"), (2.0, "announced", "us-west-1")]


def test_a_switchover_begins_with_a_request() -> None:
    before = ShardTopology("stem").with_key("leader", "us-east-1")
    after = before.with_key("failover", '{"leader": "us-east-1", "member": "us-west-1"}')
    assert [moment.what for moment in moments(0.0, before, after)] == ["asked"]


def test_a_limit_says_whether_it_was_kept() -> None:
    assert str(Limit("gap", 0.42, 0.6)) == "gap: 0.42 s (asked for: ≤ 0.6 s) kept"
    assert str(Limit("share", 71.0, 80.0, "%", least=True)).endswith("NOT KEPT")


def test_a_page_says_on_what_and_how_often() -> None:
    part = Part(("what", "gap s"), (("crash | burn", 0.4215),), "Each round:")
    page = Page("kills", "Killing", "Text.", 5, (part,), (Limit("gap", 0.42, 0.6),))
    text = render(page, {"machine": "2 cores", "PostgreSQL": "15.1"})
    assert "| crash \\| burn | 0.421 |" in text or "| crash \\| burn | 0.422 |" in text
    for line in (
        "# Killing",
        "Each round:",
        "|---|---:|",
        "| command | `script/prove kills` |",
        "| n | 5 |",
        "| machine | 2 cores |",
    ):
        assert line in text
    assert page.kept
    assert not replace(page, broken=("something was lost",)).kept


def test_the_made_files_are_yaml_with_their_reason_on_top() -> None:
    text = with_a_stronger_shard("stem")
    assert text.startswith("# Made from the example question-bank-demo: ")
    assert yaml.safe_load(text)["fleet"] == "question-bank-demo"
