"""Plans, address books and logins of servers that are given by DSNs: nothing of this starts a server."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from pgfleet.errors import DsnUnreadable, SecretUnreadable
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.fleet import FleetSeen, PlacementSeen, ShardSeen
from pgfleet.facts.topology import ShardTopology
from pgfleet.names import NodeName
from pgfleet.plan.make import known, make_plan
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.existing.provider import ExistingProvider
from pgfleet.routing.placement import Placement
from pgfleet.runtime.login import login_of
from pgfleet.spec.load import load_positioned

FILE = """\
fleet: shop
regions: {cloud: {provider: existing}}
shards: {main: {primary: env:A_DSN, replicas: ['file:b.dsn', 'host=db-3 user=alice dbname=shop sslrootcert=ca.crt']}}
tables: {questions: {key: subject}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("A_DSN", "postgresql://alice:one@db-1:6432/shop?sslmode=require")
    (tmp_path / "fleet.yaml").write_text(FILE)
    (tmp_path / "b.dsn").write_text("postgresql://alice:two@db-2\n")
    (tmp_path / "ca.crt").write_text(
        Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt").read_text()
    )
    return tmp_path


def provider(place: Path) -> ExistingProvider:
    loaded = load_positioned(str(place / "fleet.yaml"), (place / "fleet.yaml").read_text())
    return ExistingProvider(loaded.judged(), loaded.positions, place / "state" / "shop")


def as_wanted(wanted: Wanted) -> FleetSeen:
    shards = {
        name: ShardSeen(ShardTopology(name), prepared=one.prepared, placement=PlacementSeen((wanted.placement,), one.functions))
        for name, one in wanted.shards.items()
    }
    return FleetSeen(addresses=wanted.addresses, shards=shards, placement=wanted.placement, secrets=wanted.secrets)


def acts(wanted: Wanted, seen: FleetSeen) -> list[str]:
    return [step.act.value for step in make_plan(wanted, seen).steps]


def test_each_dsn_is_an_address(place: Path) -> None:
    book = provider(place).wanted(FleetSeen()).addresses
    one, two, three = book.nodes
    assert (str(one.name), one.host, one.port, one.database, one.user) == ("main/cloud-1", "db-1", 6432, "shop", "alice")
    assert (one.protection, one.secret, one.rest_port) == ("require", "node.main.cloud-1", 0)
    assert (str(two.name), two.host, two.port, book.database_of(two)) == ("main/cloud-2", "db-2", 5432, "app")
    assert (two.protection, two.authority) == ("verify-full", "")
    assert (three.protection, three.authority, three.secret) == ("verify-full", str(place / "ca.crt"), "")
    assert "one" not in book.to_json().replace("none", "")


def test_a_plan_has_three_kinds_of_steps_and_says_why(place: Path) -> None:
    wanted = provider(place).wanted(FleetSeen())
    plan = make_plan(wanted, FleetSeen())
    assert [step.act.value for step in plan.steps] == ["prepare", "prepare shard", "record placement"]
    assert not plan.destructive
    for step in plan.steps:
        assert step.because.startswith(str(place / "fleet.yaml"))
        assert step.risk
        assert step.undo


def test_what_is_as_wanted_needs_no_step(place: Path) -> None:
    wanted = provider(place).wanted(FleetSeen())
    seen = as_wanted(wanted)
    assert acts(wanted, seen) == []
    assert known(seen)
    assert acts(wanted, replace(seen, secrets={})) == ["prepare"]
    assert acts(wanted, replace(seen, secrets={**wanted.secrets, "node.main.cloud-1": "another"})) == ["prepare"]
    assert acts(wanted, replace(seen, placement=None)) == ["record placement"]
    assert acts(wanted, replace(seen, shards={})) == ["prepare shard", "record placement"]
    unguarded = replace(
        seen.shards["main"], placement=PlacementSeen((wanted.placement,), wanted.shards["main"].functions, ("q",))
    )
    assert acts(wanted, replace(seen, shards={"main": unguarded})) == ["guard tables"]


def test_no_secret_is_in_a_plan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_DSN", "postgresql://alice:hunter2@db-1/shop")
    wanted = provider(place).wanted(FleetSeen())
    assert "hunter2" not in json.dumps(make_plan(wanted, FleetSeen()).to_json()) + repr(wanted)


def test_another_map_has_the_next_epoch(place: Path) -> None:
    wanted = provider(place).wanted(FleetSeen())
    seen = as_wanted(wanted)
    assert provider(place).wanted(seen).placement == wanted.placement
    (place / "fleet.yaml").write_text(FILE.replace("{key: subject}", "{key: topic}"))
    changed = provider(place).wanted(seen)
    assert json.loads(changed.placement)["epoch"] == json.loads(wanted.placement)["epoch"] + 1
    assert provider(place).wanted(as_wanted(changed)).placement == changed.placement


GROWING = FILE.replace("shards: {main: {", "shards: {more: {primary: env:MORE}, main: {")
BY_STEM = "tables: {questions: {key: subject, elsewhere: {hash: 8, over: [main]}, lookups: {stem: [stem]}}}\n"
BY_MORE = BY_STEM.replace("elsewhere", "place: {more: [PMP]}, elsewhere")


def test_a_shard_that_is_added_leaves_lookups_where_they_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsaid, a lookup's shards are those of the map in force, and a plan says no more than that keys are placed otherwise."""
    monkeypatch.setenv("MORE", "postgresql://alice:one@db-9/shop?sslmode=require")
    tables = "tables: {questions: {key: subject}}\n"
    (place / "fleet.yaml").write_text(FILE.replace(tables, BY_STEM))
    wanted = provider(place).wanted(FleetSeen())
    seen = as_wanted(wanted)
    (place / "fleet.yaml").write_text(GROWING.replace(tables, BY_STEM))
    grown = provider(place).wanted(seen)
    assert grown.placement == wanted.placement, "a shard that holds nothing yet changes no map"
    (place / "fleet.yaml").write_text(GROWING.replace(tables, BY_MORE))
    placed = Placement.from_json(provider(place).wanted(seen).placement)
    assert placed.epoch == 2
    assert placed.lookups["questions", "stem"].over == ("main",)
    anew = Placement.from_json(provider(place).wanted(FleetSeen()).placement)
    assert anew.lookups["questions", "stem"].over == ("more", "main")


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (" ", "A_DSN is not set"),
        ("nonsense", "this is no DSN"),
        ("postgresql://alice:hunter2@a,b/shop", "names one server"),
        ("postgresql://alice:hunter2@a/shop?sslrootcert=none.crt", "authority cannot be read"),
    ],
)
def test_what_leads_nowhere_is_said_with_its_line(place: Path, monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    monkeypatch.setenv("A_DSN", variable)
    with pytest.raises(DsnUnreadable) as told:
        provider(place).wanted(FleetSeen())
    assert said in told.value.message
    assert "fleet.yaml:3 shards.main.primary" in told.value.message
    assert "hunter2" not in str(told.value)


# -- address books and logins -------------------------------------------------------------------------------------------------


def test_a_book_of_before_is_read() -> None:
    node = {"name": "stem/us-1", "kind": "voter", "host": "127.0.0.1", "port": 5432, "rest_port": 8008}
    old = {"fleet": "f", "folder": "/f", "database": "app", "etcd": [], "nodes": [node], "poolers": []}
    [read] = AddressBook.from_json(json.dumps(old)).nodes
    assert read == NodeAddress(NodeName("stem", "us", 1), "voter", "127.0.0.1", 5432, 8008)
    assert (read.user, read.protection) == ("", "fleet")


def test_a_book_comes_back_as_it_was(place: Path) -> None:
    book = provider(place).wanted(FleetSeen()).addresses
    assert AddressBook.from_json(book.to_json()) == book


def test_a_login_is_the_roles_or_the_dsns(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pgfleet_app").write_text("ours")
    (tmp_path / "secrets" / "node.a.b-1").write_text("theirs")
    ours = NodeAddress(NodeName("a", "b", 1), "voter", "h", 1)
    theirs = replace(ours, user="alice", database="shop", secret="node.a.b-1", protection="require")
    book = AddressBook("f", str(tmp_path), "app", nodes=(ours,))
    one, two = (login_of(tmp_path, book, node, "pgfleet_app") for node in (ours, theirs))
    assert (one.role, one.database, one.password, one.tls) == ("pgfleet_app", "app", "ours", None)
    assert (two.role, two.database, two.password) == ("alice", "shop", "theirs")
    assert login_of(tmp_path, book, replace(theirs, secret=""), "pgfleet_app").password is None
    with pytest.raises(SecretUnreadable):
        login_of(tmp_path, book, replace(theirs, secret="node.a.b-2"), "pgfleet_app")


@pytest.mark.parametrize(
    ("protection", "asks", "by_name"),
    [("require", ssl.CERT_NONE, False), ("verify-ca", ssl.CERT_REQUIRED, False), ("verify-full", ssl.CERT_REQUIRED, True)],
)
def test_protection_is_what_it_is_called(tmp_path: Path, protection: str, asks: ssl.VerifyMode, by_name: bool) -> None:
    node = NodeAddress(NodeName("a", "b", 1), "voter", "h", 1, user="alice", protection=protection)  # type: ignore[arg-type]
    tls = login_of(tmp_path, AddressBook("f", str(tmp_path), "app"), node, "").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (asks, by_name)
