"""Structure: every mistake at once, in words of the file, with a place and a hint that can be pasted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgfleet.errors import SpecError
from pgfleet.spec import codes
from pgfleet.spec.check import check
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.load import load
from pgfleet.spec.read import read

GOOD = """\
fleet: f
regions: {us: {}, eu: {}, ap: {}}
groups: {g: {home: us, voters: {us: 1, eu: 1, ap: 1}}}
shards:
  a: {group: g}
  b: {group: g}
tables:
  t: {key: k, place: {a: [x], b: [y]}}
"""


def told(text: str) -> list[tuple[str, str, str]]:
    """Code, place and hint of each mistake of structure."""
    return [(m.code, f"{m.position.line}:{m.position.column}", m.hint) for m in read("f", text).mistakes]


def test_the_example_is_good() -> None:
    assert check(read("f", GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "where", "hint"),
    [
        ("fleet: f", "flet: f", codes.UNKNOWN_KEY, "1:1", "fleet"),
        ("{group: g}\n  b", "{gruop: g}\n  b", codes.UNKNOWN_KEY, "5:7", "group"),
        ("home: us", "hmoe: us", codes.UNKNOWN_KEY, "3:14", "home"),
        ("key: k, ", "key: k, partition: {every: month, bye: at}, ", codes.UNKNOWN_KEY, "8:41", "by"),
        ("fleet: f", "fleet: My Fleet", codes.NAME, "1:8", "my-fleet"),
        ("fleet: f", "fleet: 12", codes.VALUE, "1:8", '"12"'),
        ("fleet: f", "fleet: [f]", codes.VALUE, "1:8", "f"),
        ("us: {}", "US: {}", codes.NAME, "2:11", "us"),
        ("us: {}", "us: local", codes.VALUE, "2:15", "{provider: local}"),
        ("eu: 1", "eu: one", codes.VALUE, "3:44", "1"),
        ("eu: 1", 'eu: "1"', codes.VALUE, "3:44", "1"),
        ("eu: 1", "eu: 1.0", codes.VALUE, "3:44", "1"),
        ("eu: 1", "eu: true", codes.VALUE, "3:44", "1"),
        ("eu: 1", "eu: -1", codes.VALUE, "3:44", "0"),
        ("eu: 1", "eu: 1000", codes.VALUE, "3:44", "64"),
        ("[x]", "x", codes.VALUE, "8:26", "[x]"),
        ("[x]", "[true]", codes.KEY_VALUE, "8:27", '"true"'),
        ("[x]", "[1.10]", codes.KEY_VALUE, "8:27", '"1.10"'),
        ("[x]", "[~]", codes.KEY_VALUE, "8:27", '"null"'),
        ("[x]", "[[x]]", codes.KEY_VALUE, "8:27", "x"),
        ("[x]", "[{x: {over: [a, b]}}]", codes.MISSING_KEY, "8:28", "hash: 64"),
        (
            "[x]",
            "[{x: {hash: id, over: [a, b]}, y: {hash: id, over: [a, b]}}]",
            codes.VALUE,
            "8:27",
            "{x: {hash: id, over: [stem, stem-2]}}",
        ),
        ("key: k,", "key: K,", codes.NAME, "8:12", "k"),
        ("t: {", "T: {", codes.NAME, "8:3", "t"),
        ("fleet: f", "fleet: f\npostgres: 9", codes.VALUE, "2:11", "15"),
        ("fleet: f", "fleet: f\nthrough: poller", codes.VALUE, "2:10", "pooler"),
        ("fleet: f", "fleet: f\npromises: {crash: {rto: 5}}", codes.DURATION, "2:25", "5 s"),
        ("fleet: f", "fleet: f\npromises: {crash: {rto: 5 sec}}", codes.DURATION, "2:25", "5 s"),
        ("fleet: f", "fleet: f\npromises: {crash: nothing}", codes.VALUE, "2:19", "{rto: 1 s, rpo: 0}"),
        ("fleet: f", "fleet: f\npromises: {availability: 99.9}", codes.VALUE, "2:26", "99.9 %"),
        ("fleet: f", "fleet: f\nsettings: {work_mem: [1]}", codes.VALUE, "2:22", '"1"'),
        ("key: k,", "key: k, elsewhere: refused,", codes.VALUE, "8:26", "refuse"),
        ("key: k,", "key: k, elsewhere: {hash: 0, over: [a]},", codes.VALUE, "8:33", "1"),
        ("key: k,", "key: k, partition: {by: at, every: month, keep: 13 moons},", codes.DURATION, "8:55", "13 months"),
        ("fleet: f", "fleet: {a: b}", codes.VALUE, "1:8", "my-fleet"),
        ("fleet: f", "fleet: 名前", codes.NAME, "1:8", "a-name"),
        ("fleet: f", "fleet: f\npromises: {crash: {rto: soon}}", codes.DURATION, "2:25", "1 s"),
        ("fleet: f", "fleet: f\npromises: {crash: {rto: 2m}}", codes.DURATION, "2:25", "2 min"),
        ("fleet: f", "fleet: f\npromises: {crash: {rto: true}}", codes.DURATION, "2:25", "1 s"),
        ("fleet: f", "fleet: f\npools: {max_connections: many}", codes.VALUE, "2:26", "100"),
        ("fleet: f", "fleet: f\npostgres: latest", codes.VALUE, "2:11", "15"),
        ("fleet: f", "fleet: f\nsettings: {work_mem: {a: b}}", codes.VALUE, "2:22", '""'),
        ("[x]", '["x\\0"]', codes.KEY_VALUE, "8:27", '"x"'),
        ("[x]", "{x: 1}", codes.VALUE, "8:26", "[x]"),
        ("[x]", "true", codes.VALUE, "8:26", '["true"]'),
        ("key: k,", "key: k, partition: [at],", codes.VALUE, "8:26", "{by: created_at, every: month}"),
        ("key: k,", "key: k, partition: {by: at, every: moon},", codes.VALUE, "8:42", "month"),
        ("key: k,", "key: k, lookups: {m: {colums: [mail]}},", codes.UNKNOWN_KEY, "8:29", "columns"),
    ],
)
def test_one_mistake(old: str, new: str, code: str, where: str, hint: str) -> None:
    assert old in GOOD
    assert hint, "every message says what to write instead"
    found = told(GOOD.replace(old, new, 1))
    assert (code, where, hint) in found
    assert len(found) == 1  # that a misspelt key is missing elsewhere need not be said


def test_missing_keys_show_what_to_write() -> None:
    assert told("regions: {}\nshards: {}\n") == [(codes.MISSING_KEY, "1:1", "fleet: my-fleet")]
    assert [hint for _, _, hint in told("fleet: f\n")] == [
        "regions: {here: {provider: local}}",
        "shards: {main: {voters: {home: 2}}}",
    ]


def test_structure_and_meaning_are_told_together() -> None:
    text = GOOD.replace("fleet: f", "fleet: f\ncolour: red").replace("b: [y]", "b: [x]").replace("eu: 1", "eu: one")
    found = [d.code for d in check(read("f", text))]
    assert found == [codes.UNKNOWN_KEY, codes.VALUE, codes.PLACED_TWICE]


def test_what_follows_from_a_mistake_is_not_a_mistake() -> None:
    # The group cannot be read, so nothing is said about the shards that use it.
    text = GOOD.replace("voters: {us: 1, eu: 1, ap: 1}", "voters: {us: one}, sync: 7")
    assert {d.code for d in check(read("f", text))} == {codes.VALUE}
    # A name whose body cannot be read is declared all the same.
    text = GOOD.replace("  b: {group: g}", "  b: 3")
    assert {d.code for d in check(read("f", text))} == {codes.VALUE}


def test_load_raises_with_all_of_them() -> None:
    with pytest.raises(SpecError) as caught:
        load("fleet.yaml", GOOD.replace("fleet: f", "fleet: F").replace("b: [y]", "c: [y]"))
    assert [d.code for d in caught.value.diagnostics if d.severity == "error"] == [codes.NAME, codes.UNKNOWN_SHARD]
    assert "fleet.yaml:1:8" in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_fleet_is_written_back_as_it_is_read() -> None:
    text = GOOD + (
        "promises: {crash: none, silent: {rto: 90 s, rpo: 50 ms}, replica_lag: {same region: 5 ms}}\n"
        "pools: {query_wait_timeout: 1 min}\n"
    )
    fleet = load("f", text)
    assert Fleet.model_validate(fleet.model_dump(mode="json", exclude_unset=True)) == fleet


def test_positions_can_be_asked_afterwards() -> None:
    loaded = read("f", GOOD)
    assert str(loaded.positions.of("groups", "g", "voters", "eu")) == "f:3:44"


WORDS = st.sampled_from(
    [
        "fleet",
        "regions",
        "groups",
        "shards",
        "tables",
        "key",
        "place",
        "elsewhere",
        "hash",
        "over",
        "with",
        "us",
        "a",
        "g",
        "home",
        "voters",
        "readers",
        "sync",
        "group",
        "promises",
        "crash",
        "region",
        "rto",
        "lookups",
        "columns",
        "partition",
    ]
)
VALUES = st.recursive(
    st.sampled_from(["us", "a", "t", "home", "1", "2", "0", "-1", "1.5", "true", "~", "none", "1 s", "99 %", "refuse", "x y"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(WORDS, inner, max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=6), st.booleans())
def test_no_file_is_too_wrong_to_be_judged(lines: dict[str, str], on_top: bool) -> None:
    """Only diagnostics come of it, each with a place in the file; without errors there is a fleet with shapes."""
    mixed = "\n".join(f"{key}: {value}" for key, value in lines.items())
    text = f"{GOOD}{mixed}\n" if on_top else f"{mixed}\n"
    loaded = read("f", text)
    found = check(loaded)
    for diagnostic in found:
        assert diagnostic.code in codes.CODES
        assert 1 <= diagnostic.position.line <= text.count("\n") + 1
    if not [d for d in found if d.severity == "error"]:
        assert loaded.fleet is not None
        assert loaded.fleet.shapes()
