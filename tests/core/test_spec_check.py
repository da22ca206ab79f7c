"""Meaning: each rule in a file that breaks it, and nothing else said about that file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgfleet.spec import codes
from pgfleet.spec.check import check
from pgfleet.spec.read import read

SPEC = Path(__file__).resolve().parents[2] / "src" / "pgfleet" / "spec"

BASE = """\
fleet: f
regions: {us: {}, eu: {}, ap: {}}
groups:
  g: {home: us, voters: {us: 1, eu: 1, ap: 1}, sync: 1}
shards:
  a: {group: g}
  b: {group: g}
tables:
  t: {key: k, place: {a: [x], b: [y]}}
pools: {default_pool_size: 10}
"""
SHARDS = "shards:\n  a: {group: g}\n  b: {group: g}\n"
#: In test_spec_existing.py.
SHOWN_BY_GIVEN_SERVERS = {codes.SECRET_IN_FILE, codes.ONE_PROVIDER, codes.TRAIT, codes.DSN}
TABLE = "  t: {key: k, place: {a: [x], b: [y]}}\n"


def found(text: str) -> list[tuple[str, str, str, str]]:
    """Code, severity, the line with the text that begins at the position, and the hint of each diagnostic."""
    lines = text.split("\n")
    return [
        (
            d.code,
            d.severity,
            f"{d.position.line}: {lines[d.position.line - 1][d.position.column - 1 :][:16].strip()}",
            d.hint,
        )
        for d in check(read("f", text))
    ]


def shards(a: str, rest: str = "") -> str:
    return BASE.replace("  a: {group: g}", f"  a: {a}") + rest


def table(t: str) -> str:
    return BASE.replace(TABLE, f"  t: {t}\n")


def test_the_base_is_good() -> None:
    assert found(BASE) == []


@pytest.mark.parametrize(
    "pools",
    ["processes: 6", "per_process: 1, processes: 21", "max_client_conn: 1020, processes: 51}\nthrough: pooler\nsettings: {"],
)
def test_as_many_processes_as_fit_are_good(pools: str) -> None:
    assert found(BASE.replace("size: 10", f"size: 10, {pools}")) == []


ERRORS = [
    # names
    (shards("{group: gg}"), codes.UNKNOWN_GROUP, "6: gg}", "g"),
    (shards("{home: usa}"), codes.UNKNOWN_REGION, "6: usa}", "us"),
    (BASE.replace("eu: 1, ap: 1", "ue: 1, ap: 1"), codes.UNKNOWN_REGION, "4: ue: 1, ap: 1}, s", "eu"),
    (shards("{group: g, readers: {moon: 1}}"), codes.UNKNOWN_REGION, "6: moon: 1}}", "declared: us, eu, ap"),
    (shards("{group: g, residency: [us, eu, apx]}"), codes.UNKNOWN_REGION, "6: apx]}", "ap"),
    (table("{key: k, place: {a: [x], b: [y], c: [z]}}"), codes.UNKNOWN_SHARD, "9: c: [z]}}", "declared: a, b"),
    (
        table("{key: k, elsewhere: {hash: 8, over: [a, bb]}, place: {b: [y]}}"),
        codes.UNKNOWN_SHARD,
        "9: bb]}, place: {b:",
        "b",
    ),
    (
        table("{key: k, place: {a: [{x: {hash: id, over: [a, bx]}}], b: [y]}}"),
        codes.UNKNOWN_SHARD,
        "9: bx]}}], b: [y]}}",
        "b",
    ),
    (BASE.replace(TABLE, TABLE + "  u: {with: tt}\n"), codes.UNKNOWN_TABLE, "10: tt}", "t"),
    (BASE.replace("ap: {}}", "ap: {}, home: {}}"), codes.RESERVED_NAME, "2: home: {}}", "here"),
    (BASE + "database: postgres\n", codes.RESERVED_NAME, "11: postgres", "app"),
    (BASE.replace("us: {}", "us: {provider: aws}"), codes.PROVIDER, "2: aws}, eu: {}, ap", "provider: local"),
    ("fleet: f\nregions: {}\nshards: {}\n", codes.TOO_LITTLE, "2: regions: {}", "regions: {here: {provider: local}}"),
    # shapes
    (shards("{}"), codes.HOME, "6: a: {}", "home: us"),
    (shards("{home: us, voters: {eu: 2}}"), codes.HOME, "6: {eu: 2}}", "voters: {us: 1, eu: 2}"),
    (shards("{home: us, voters: {us: 0}}"), codes.TOO_LITTLE, "6: {us: 0}}", "voters: {home: 2}"),
    (shards("{group: g, sync: 3}"), codes.SYNC, "6: 3}", "sync: 2"),
    (
        shards("{home: us, voters: {home: 1, us: 1, eu: 1}}"),
        codes.SAID_TWICE,
        "6: {home: 1, us: 1,",
        "voters: {home: 2, eu: 1}",
    ),
    (shards("{group: g, residency: [us]}"), codes.RESIDENCY, "6: [us]}", "a: {…, voters: {us: 2}}"),
    (
        shards("{home: us, voters: {us: 2}, readers: {eu: 1}, residency: [us]}"),
        codes.RESIDENCY,
        "6: [us]}",
        "a: {…, readers: {}}",
    ),
    (shards("{group: g, home: us, residency: [eu, ap]}"), codes.RESIDENCY, "6: us, residency: [", "home: eu"),
    (shards("{home: us, primary: 'env:A'}"), codes.EXISTING, "6: 'env:A'}", "voters: {home: 2}"),
    (shards("{group: g, replicas: ['env:A']}"), codes.EXISTING, "6: ['env:A']}", "primary: env:PRIMARY_DSN"),
    # promises
    (shards("{group: g, sync: 0}"), codes.ASYNCHRONOUS, "6: 0}", "sync: 1"),
    (BASE + "promises: {silent: {rto: 5 s}}\n", codes.RTO_FLOOR, "11: 5 s}}", "rto: 22 s"),
    (BASE + "promises: {crash: {rto: 100 ms}}\n", codes.RTO_FLOOR, "11: 100 ms}}", "rto: 500 ms"),
    (BASE + "promises: {region: {rto: 1 s}}\n", codes.RTO_FLOOR, "11: 1 s}}", "rto: 22 s"),
    (
        shards("{home: us, voters: {us: 1}}"),
        codes.NOBODY_LEFT,
        "6: {us: 1}}",
        "voters: {home: 2}   or, to promise nothing:   promises: {crash: none, silent: none}",
    ),
    (
        shards("{home: us, voters: {us: 2}}", "promises: {region: {rto: 1 min}}\n"),
        codes.REGION_LOSS,
        "6: {us: 2}}",
        "voters: {us: 1, eu: 1, ap: 1}",
    ),
    (
        shards("{home: us, voters: {us: 2}, residency: [us]}", "promises: {region: {rto: 1 min}}\n"),
        codes.REGION_LOSS,
        "6: {us: 2}, residen",
        "promises: {region: none}",
    ),
    (
        shards("{home: us, voters: {us: 2, eu: 1, ap: 1}}", "promises: {region: {rto: 1 min}}\n"),
        codes.REGION_LOSS,
        "6: {us: 2, eu: 1, a",
        "sync: 2",
    ),
    (
        "fleet: f\nregions: {us: {}, eu: {}}\nshards: {a: {home: us, voters: {us: 1, eu: 1}}}\n"
        "promises: {region: {rto: 1 min}}\n",
        codes.ETCD_REGIONS,
        "4: {rto: 1 min}}",
        "declare a third region, or promises: {region: none}",
    ),
    # tables
    (
        table("{key: k, place: {a: [x, y], b: [y]}}"),
        codes.PLACED_TWICE,
        "9: y]}}",
        "to spread one key: {y: {hash: id, over: [a, …]}}",
    ),
    (
        table("{key: k, place: {a: [x, 1], b: ['1']}}"),
        codes.PLACED_TWICE,
        "9: '1']}}",
        "to spread one key: {1: {hash: id, over: [a, …]}}",
    ),
    (table("{key: k}"), codes.NO_PLACE, "9: t: {key: k}", "elsewhere: {hash: 64, over: [a, b]}"),
    (
        table("{key: k, elsewhere: refuse}"),
        codes.NO_PLACE,
        "9: t: {key: k, else",
        "elsewhere: {hash: 64, over: [a, b]}",
    ),
    (table("{place: {a: [x], b: [y]}}"), codes.MISSING_KEY, "9: t: {place: {a: [", "key: id"),
    (BASE.replace(TABLE, TABLE + "  u: {with: t, place: {a: [z]}}\n"), codes.WITH, "10: place: {a: [z]}}", "remove it"),
    (BASE.replace(TABLE, TABLE + "  u: {with: u}\n"), codes.WITH, "10: u}", "key: id   instead of `with`, on one of them"),
    (table("{key: k, elsewhere: {hash: 8, over: [a, b, a]}}"), codes.SPREAD, "9: a, b, a]}}", "over: [a, b]"),
    (
        table("{key: k, elsewhere: {hash: 8, over: []}, place: {a: [x], b: [y]}}"),
        codes.SPREAD,
        "9: []}, place: {a:",
        "over: [a, b]",
    ),
    (
        table("{key: k, elsewhere: {hash: 1, over: [a, b]}}"),
        codes.SPREAD,
        "9: {hash: 1, over:",
        "64 buckets, or more than there will ever be shards",
    ),
    (table("{key: k, place: {a: [{x: {hash: id, over: [b]}}]}}"), codes.SPREAD, "9: [b]}}]}}", "over: [a, b]"),
    (table("{key: k, place: {a: [{x: {hash: k, over: [a, b]}}]}}"), codes.SPREAD, "9: k, over: [a, b]}", "hash: id"),
    (table("{key: k, place: {a: [x], b: [y]}, lookups: {m: []}}"), codes.LOOKUP, "9: []}}", "m: [m]"),
    (table("{key: k, place: {a: [x], b: [y]}, lookups: {m: [k]}}"), codes.LOOKUP, "9: [k]}}", "remove it"),
    (table("{key: k, place: {a: [x], b: [y]}, lookups: {m: [c, c]}}"), codes.LOOKUP, "9: [c, c]}}", "[c]"),
    (
        BASE.replace("{group: g}", "{group: g, residency: [us, eu, ap]}").replace("b: [y]}", "b: [y]}, lookups: {m: [c]}"),
        codes.LOOKUP,
        "9: [c]}}",
        "m: {columns: [c], over: [a, b]}",
    ),
    (
        table("{key: k, place: {a: [x], b: [y]}, partition: {by: at, every: year, keep: 3 months}}"),
        codes.PARTITION,
        "9: 3 months}}",
        "keep: 2 years",
    ),
    (
        table("{key: k, place: {a: [x], b: [y]}, partition: {by: at, every: day, then: drop}}"),
        codes.PARTITION,
        "9: drop}}",
        "keep: 13 months",
    ),
    # settings and pools
    (BASE + "settings: {fsync: off}\n", codes.FORBIDDEN_SETTING, "11: fsync: off}", "remove it"),
    (BASE + "settings: {Synchronous_Commit: local}\n", codes.FORBIDDEN_SETTING, "11: Synchronous_Comm", "remove it"),
    (shards("{group: g, settings: {archive_command: x}}"), codes.FORBIDDEN_SETTING, "6: archive_command:", "remove it"),
    (shards("{group: g, settings: {max_connections: 5}}"), codes.FORBIDDEN_SETTING, "6: max_connections:", "remove it"),
    (BASE + "settings: {Work_Mem: 4MB}\n", codes.SETTING_NAME, "11: Work_Mem: 4MB}", "work_mem"),
    (BASE + 'settings: {work_mem: "4MB\\nfsync = off"}\n', codes.VALUE, '11: "4MB\\nfsync = of', '"4MB"'),
    (
        BASE.replace("size: 10", "size: 40") + "through: pooler\n",
        codes.CONNECTIONS,
        "10: 40}",
        "pools: {default_pool_size: 28}",
    ),
    # 85 are left of a node's 100: 6 x (10 + 3) fit, 7 do not; 21 x (1 + 3) fit, 22 do not.
    (BASE.replace("size: 10", "size: 10, processes: 7"), codes.CONNECTIONS, "10: 7}", "through: pooler"),
    (BASE.replace("size: 10", "size: 10, per_process: 1, processes: 22"), codes.CONNECTIONS, "10: 22}", "through: pooler"),
    (
        BASE.replace("size: 10", "size: 10, processes: 51") + "through: pooler\n",
        codes.CONNECTIONS,
        "10: 51}",
        "pools: {max_client_conn: 1020}",
    ),
    (
        shards("{voters: {us: 1}, home: us, promises: {crash: none, silent: none, region: none}}", "through: pooler\n").replace(
            "size: 10", "size: 15"
        ),
        codes.CONNECTIONS,
        "10: 15}",
        "pools: {default_pool_size: 14}",
    ),
]

WARNINGS = [
    (BASE.replace("size: 10", "size: 40"), codes.CONNECTIONS, "10: 40}", "pools: {default_pool_size: 28}"),
    (
        BASE.replace("size: 10", "size: 15") + "through: pooler\n",
        codes.CONNECTIONS,
        "10: 15}",
        "pools: {default_pool_size: 14}",
    ),
    (
        BASE.replace("size: 10", "size: 10, max_client_conn: 5"),
        codes.POOL_SIZE,
        "10: 10, max_client_c",
        "default_pool_size: 5",
    ),
    (BASE + "postgres: 17\n", codes.UNTESTED, "11: 17", "postgres: 15"),
    (table("{key: k, place: {a: [x]}}"), codes.EMPTY_SHARD, "7: b: {group: g}", "place: {b: [KEY]}   or remove it"),
    (
        shards("{group: g, sync: 0}", "promises: {crash: {rpo: 5 s}, silent: {rpo: 5 s}}\n"),
        codes.NOT_BOUNDED,
        "6: 0}",
        "sync: 1",
    ),
    (
        BASE + "promises: {silent: {rto: 1 h}, availability: 99.99 %}\n",
        codes.AVAILABILITY,
        "11: 99.99 %}",
        "availability: 99.86 %",
    ),
    (
        shards("{home: us, voters: {us: 1, eu: 2}}", "promises: {region: {rto: 1 min}}\n"),
        codes.REGION_LOSS,
        "6: {us: 1, eu: 2}}",
        "sync: 2",
    ),
    (
        shards("{home: us, voters: {us: 2}}", ""),
        codes.LEFT_ALONE,
        "6: {us: 2}}",
        "voters: {us: 3}   or promises: {crash: {rto: 5 s, rpo: 0}}",
    ),
    (
        shards("{home: us, voters: {us: 1, eu: 2}, sync: 2}", "promises: {crash: {rto: 3900 ms, rpo: 0}}\n"),
        codes.LEFT_ALONE,
        "6: {us: 1, eu: 2},",
        "sync: 1   or promises: {crash: {rto: 5 s, rpo: 0}}",
    ),
    (
        BASE.replace("eu: 1, ap: 1", "eu: 20, ap: 12"),
        codes.MANY_NODES,
        "5: shards:",
        "voters: {home: 2}   or fewer readers, where the machine is small",
    ),
]


@pytest.mark.parametrize(("text", "code", "where", "hint"), ERRORS)
def test_an_error_and_nothing_else(text: str, code: str, where: str, hint: str) -> None:
    assert (code, "error", where, hint) in found(text)
    assert {c for c, severity, _, _ in found(text) if severity == "error"} <= {code, codes.TOO_LITTLE}


@pytest.mark.parametrize(("text", "code", "where", "hint"), WARNINGS)
def test_a_warning_and_no_error(text: str, code: str, where: str, hint: str) -> None:
    assert found(text) == [(code, "warning", where, hint)]


@pytest.mark.parametrize(
    "shape", ["voters: {us: 2}, promises: {crash: {rto: 4 s}}", "voters: {us: 2}, promises: {crash: none}", "voters: {us: 3}"]
)
def test_where_somebody_is_left_to_confirm_or_nothing_else_is_promised(shape: str) -> None:
    assert found(shards(f"{{home: us, {shape}}}", "")) == []


def test_shards_of_one_group_are_told_once() -> None:
    text = BASE.replace("sync: 1", "sync: 3")
    [diagnostic] = check(read("f", text))
    assert diagnostic.message.endswith("(and 1 more shard alike)")
    assert str(diagnostic.position) == "f:4:54"


def test_nothing_promised_is_nothing_broken() -> None:
    quiet = "promises: {crash: none, silent: none, region: none}\n"
    assert found(shards("{home: us, voters: {us: 1}}", quiet)) == []
    assert found(shards("{group: g, sync: 0}", quiet)) == []


def test_every_code_is_used_and_explained() -> None:
    source = "".join(path.read_text() for path in sorted(SPEC.rglob("*.py")) if path.name != "codes.py")
    used = set(re.findall(r"codes\.([A-Z_]+)", source)) - {"CODES"}
    named = {name: value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    assert used == set(named)
    assert set(named.values()) == set(codes.CODES)
    for code in codes.CODES.values():
        assert code.title
        assert code.cause
        assert code.remedy


def test_every_message_says_what_to_write_instead() -> None:
    assert [text for text, _, _, hint in ERRORS + WARNINGS if not hint] == []


def test_every_rule_is_shown_here() -> None:
    shown = {code for _, code, _, _ in ERRORS + WARNINGS}
    assert {code for code in codes.CODES if code >= codes.UNKNOWN_REGION} - shown == SHOWN_BY_GIVEN_SERVERS
