"""What the file means: shapes with everything said, defaults, and the examples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.spec.check import check
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.load import load
from pgfleet.spec.read import read
from pgfleet.spec.shape import nodes_of

CLONE = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CLONE / "examples").glob("*.yaml"))


def fleet(text: str) -> Fleet:
    return load("f", text)


def test_nodes_are_named_voters_first_and_home_first() -> None:
    nodes = nodes_of("stem", "us", {"eu": 1, "us": 2}, {"ap": 1, "us": 1})
    assert [(str(node.name), node.kind) for node in nodes] == [
        ("stem/us-1", "voter"),
        ("stem/us-2", "voter"),
        ("stem/eu-1", "voter"),
        ("stem/us-3", "reader"),
        ("stem/ap-1", "reader"),
    ]


places = st.dictionaries(st.sampled_from(["us", "us-1", "eu", "ap"]), st.integers(0, 4))


@given(places, places)
def test_names_are_unique_and_complete(voters: dict[str, int], readers: dict[str, int]) -> None:
    nodes = nodes_of("s", "us", voters, readers)
    assert len({node.name.member for node in nodes}) == len(nodes)
    assert Counter(node.region for node in nodes) == Counter(voters) + Counter(readers)
    assert sum(node.kind == "voter" for node in nodes) == sum(voters.values())
    assert [node.kind for node in nodes] == sorted((node.kind for node in nodes), reverse=True)


def test_the_shortest_file_has_everything_said() -> None:
    small = fleet("fleet: f\nregions: {here: {}}\nshards: {main: {}}\n")
    [shape] = small.shapes()
    assert (shape.home, shape.voters, shape.readers, shape.sync) == ("here", {"here": 2}, {}, 1)
    assert small.promises_of("main").crash is not None
    assert small.etcd_regions() == ("here", "here", "here")
    assert (small.postgres, small.database, small.through) == (15, "app", "direct")


def test_what_a_shard_says_comes_before_what_its_group_says() -> None:
    made = fleet(
        """
fleet: f
regions: {us: {}, eu: {}, ap: {}}
settings: {work_mem: 4MB, jit: off, max_wal_senders: 20}
groups: {g: {home: us, voters: {home: 2, eu: 1}, sync: 2, readers: {ap: 1}, settings: {work_mem: 8MB}}}
shards:
  a: {group: g}
  b: {group: g, home: eu, voters: {home: 3}, sync: 1, readers: {}, settings: {jit: true, random_page_cost: 1.10}}
"""
    )
    a, b = made.shapes()
    assert (a.home, a.voters, a.sync, a.readers) == ("us", {"us": 2, "eu": 1}, 2, {"ap": 1})
    assert a.settings == {"work_mem": "8MB", "jit": "off", "max_wal_senders": "20"}
    assert (b.home, b.voters, b.sync, b.readers) == ("eu", {"eu": 3}, 1, {})
    assert b.settings == {"work_mem": "8MB", "jit": "on", "max_wal_senders": "20", "random_page_cost": "1.10"}


def test_promises_come_from_the_nearest_place_that_says_them() -> None:
    made = fleet(
        """
fleet: f
regions: {us: {}, eu: {}, ap: {}}
groups: {g: {home: us, voters: {us: 1, eu: 1}, promises: {region: none}}}
shards:
  a: {group: g}
  b: {group: g, promises: {crash: {rto: 3 s}}}
promises: {region: {rto: 5 min, rpo: 0}, silent: {rto: 1 min, rpo: 0}}
"""
    )
    a, b = made.promises_of("a"), made.promises_of("b")
    assert a.region is not None
    assert (a.region.rto, a.region.rpo) == (None, None)
    assert a.silent is not None
    assert a.silent.rto == 60.0
    assert a.crash is not None
    assert a.crash.rto == 1.0
    assert b.crash is not None
    assert (b.crash.rto, b.crash.rpo) == (3.0, 0.0)


def test_etcd_stands_where_most_voters_are() -> None:
    made = fleet((CLONE / "examples" / "question-bank.yaml").read_text())
    assert made.etcd_regions() == ("us-east", "us-east-2", "us-west")
    two = fleet("fleet: f\nregions: {us: {}, eu: {}}\nshards: {a: {home: us, voters: {us: 1, eu: 1}}}\n")
    assert two.etcd_regions() == ("us", "eu", "us")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_have_neither_mistake_nor_doubt(example: Path) -> None:
    assert check(read(str(example), example.read_text())) == []


def test_examples_are_the_sizes_they_say() -> None:
    sizes = {}
    for example in EXAMPLES:
        shapes = fleet(example.read_text()).shapes()
        sizes[example.stem] = (len(shapes), sum(len(shape.nodes) for shape in shapes))
    assert sizes == {"smallest": (1, 2), "existing": (1, 2), "question-bank": (8, 34), "question-bank-demo": (4, 12)}


def test_examples_come_with_the_package() -> None:
    packed = CLONE / "src" / "pgfleet" / "spec" / "examples"
    assert {path.resolve() for path in EXAMPLES} == set(packed.glob("*.yaml"))


def test_the_smallest_example_is_small() -> None:
    lines = (CLONE / "examples" / "smallest.yaml").read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.lstrip().startswith("#")]) <= 8
