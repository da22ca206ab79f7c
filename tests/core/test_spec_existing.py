"""Provider `existing` in the file: servers named and placed, and everything that it has no means for refused with a place."""

from __future__ import annotations

import pytest
from tests.core.test_spec_check import found

from pgfleet.spec import codes
from pgfleet.spec.check import check
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.load import load
from pgfleet.spec.providers import PROVIDERS
from pgfleet.spec.read import read

BASE = """\
fleet: f
regions: {us: {provider: existing}, eu: {provider: existing}}
shards:
  a: {home: us, primary: env:A}
  b: {home: eu, primary: env:B, replicas: [env:B2]}
tables:
  t: {key: k, place: {a: [x], b: [y]}}
"""
ONE = "fleet: f\nregions: {us: {provider: existing}}\nshards: {a: {primary: env:A}}\n"


def with_a(text: str) -> str:
    return BASE.replace("{home: us, primary: env:A}", text)


def nodes(text: str, shard: str) -> dict[str, str]:
    fleet: Fleet = load("f", text)
    return {node.name.member: node.dsn for node in fleet.given(shard)}


def test_servers_are_named_by_their_region_the_primary_first() -> None:
    assert nodes(BASE, "a") == {"us-1": "env:A"}
    assert nodes(BASE, "b") == {"eu-1": "env:B", "eu-2": "env:B2"}
    spread = with_a("{home: us, primary: env:A, replicas: {eu: [env:A3, env:A4], home: env:A2}}")
    assert nodes(spread, "a") == {"us-1": "env:A", "eu-1": "env:A3", "eu-2": "env:A4", "us-2": "env:A2"}


def test_the_shape_of_a_given_shard_is_its_servers_and_no_quorum() -> None:
    shape = load("f", BASE).shape("b")
    assert ([str(node.name) for node in shape.nodes], shape.voters, shape.sync) == (["b/eu-1", "b/eu-2"], {}, 0)


def test_a_fleet_of_given_servers_has_no_etcd() -> None:
    assert load("f", BASE).etcd_regions() == ()


def test_the_file_comes_back_as_it_was() -> None:
    text = with_a("{home: us, primary: env:A, replicas: {eu: [env:A3, env:A4], us: env:A2}}")
    fleet = load("f", text)
    assert Fleet.model_validate(fleet.model_dump(mode="json", exclude_unset=True)) == fleet


SECRETS = ["'postgresql://u:hunter2@h/d'", "'host=h password=hunter2'", "'postgresql://u@h/d?password=hunter2'"]

ERRORS = [
    (BASE.replace("eu: {provider: existing}", "eu: {}"), codes.ONE_PROVIDER, "2: eu: {}}", "eu: {provider: existing}"),
    (BASE.replace("us: {provider: existing}", "us: {}"), codes.ONE_PROVIDER, "2: eu: {provider: e", "eu: {provider: local}"),
    (ONE.replace("existing", "exsiting"), codes.PROVIDER, "2: exsiting}}", "provider: existing"),
    (ONE.replace("{primary: env:A}", "{}"), codes.EXISTING, "3: a: {}}", "primary: env:A_DSN"),
    (with_a("{primary: env:A}"), codes.HOME, "4: a: {primary: env", "home: us"),
    (with_a("{home: us, replicas: [env:A]}"), codes.EXISTING, "4: [env:A]}", "primary: env:PRIMARY_DSN"),
    (with_a("{home: us, primary: env:A, voters: {us: 2}}"), codes.EXISTING, "4: voters: {us: 2}}", "remove voters"),
    (with_a("{home: us, primary: env:A, sync: 0}"), codes.EXISTING, "4: sync: 0}", "remove sync"),
    (with_a("{home: us, primary: env:A, readers: {}, sync: 1}"), codes.EXISTING, "4: readers: {}, syn", "remove readers, sync"),
    (with_a("{home: us, primary: env:A, settings: {work_mem: 4MB}}"), codes.EXISTING, "4: settings: {work_", "remove settings"),
    (with_a("{home: us, primary: env:A, replicas: [env:A]}"), codes.EXISTING, "4: env:A]}", "a DSN for each server"),
    (BASE.replace("env:B2", "env:A"), codes.EXISTING, "5: env:A]}", "a DSN for each server"),
    (with_a("{home: us, primary: env:A, replicas: {ue: env:A2}}"), codes.UNKNOWN_REGION, "4: ue: env:A2}}", "eu"),
    (with_a("{home: us, primary: env:A, replicas: {us: env:C, home: []}}"), codes.SAID_TWICE, "4: {us: env:C, home", "us: […]"),
    (
        with_a("{home: us, primary: env:A, replicas: {eu: env:C}, residency: [us]}"),
        codes.RESIDENCY, "4: env:C}, residenc", "residency: [us, eu]",
    ),
    (BASE + "settings: {work_mem: 4MB}\n", codes.TRAIT, "8: settings: {work_", "remove settings"),
    (BASE + "through: pooler\n", codes.TRAIT, "8: pooler", "through: direct"),
    (BASE + "pools: {default_pool_size: 5}\n", codes.TRAIT, "8: default_pool_siz", "remove default_pool_size"),
    (
        BASE.replace("eu: {provider: existing}", "eu: {provider: existing, role: disaster-recovery}"),
        codes.TRAIT, "2: disaster-recover", "remove role",
    ),
    (ONE + "pools: {max_connections: 40, processes: 4}\n", codes.CONNECTIONS, "4: 4}", "per_process: 3"),
    (ONE + "pools: {max_connections: 40, processes: 9}\n", codes.CONNECTIONS, "4: 9}", "max_connections: 132"),
    (with_a("{home: us, primary: 'env:'}"), codes.DSN, "4: 'env:'}", "env:A_DSN"),
    (with_a("{home: us, primary: 'env:A B'}"), codes.DSN, "4: 'env:A B'}", "env:A_DSN"),
    (with_a("{home: us, primary: 'file:'}"), codes.DSN, "4: 'file:'}", "env:A_DSN"),
    (with_a("{home: us, primary: nonsense}"), codes.DSN, "4: nonsense}", "postgresql://USER@HOST:5432/DATABASE"),
    (with_a("{home: us, primary: 'postgresql://u@/d'}"), codes.DSN, "4: 'postgresql://u@", "postgresql://USER@HOST:5432/DATABASE"),
    (
        with_a("{home: us, primary: 'host=h user=u sslmode=prefer'}"),
        codes.DSN, "4: 'host=h user=u s", "sslmode=require, verify-full or disable",
    ),
    (
        ONE + "pools: {max_connections: 40, processes: 4, per_process: 5}\n",
        codes.CONNECTIONS, "4: 4, per_process:", "per_process: 3",
    ),
    *((with_a(f"{{home: us, primary: {dsn}}}"), codes.SECRET_IN_FILE, f"4: {dsn[:16]}", "env:A_DSN") for dsn in SECRETS),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "where", "hint"), ERRORS)
def test_an_error_and_nothing_else(text: str, code: str, where: str, hint: str) -> None:
    assert (code, "error", where, hint) in found(text)
    assert {c for c, severity, _, _ in found(text) if severity == "error"} == {code}


GOOD = [
    BASE,
    ONE,
    ONE + "pools: {max_connections: 60, processes: 4, per_process: 5}\n",
    ONE + "promises: {silent: {rto: 5 s}}\n",
    with_a("{home: us, primary: 'file:secrets/a.dsn'}"),
    with_a("{home: us, primary: 'postgresql://alice@db.example:6543/questions?sslmode=require'}"),
    with_a("{home: us, primary: 'host=db.example user=alice', replicas: {eu: 'host=db-eu.example user=alice'}}"),
    with_a("{home: us, primary: env:A, residency: [us], promises: {crash: none}}"),
]


@pytest.mark.parametrize(
    ("pools", "severity", "said", "hint"),
    [
        ("{max_connections: 10}", "warning", "leaves 0 for clients", "max_connections: 28"),
        ("{max_connections: 10, processes: 2}", "error", "2 processes x", "max_connections: 41"),
    ],
)
def test_servers_that_have_no_poolers_are_not_told_of_any(pools: str, severity: str, said: str, hint: str) -> None:
    (told,) = check(read("f", f"{ONE}pools: {pools}\n"))
    assert (told.code, told.severity, told.hint) == (codes.CONNECTIONS, severity, hint)
    assert said in told.message
    assert "pooler" not in told.message
    assert "-" not in told.message


@pytest.mark.parametrize("text", GOOD)
def test_nothing_is_said_of_what_is_good(text: str) -> None:
    assert found(text) == []


def test_no_message_repeats_a_password() -> None:
    text = with_a("{home: us, primary: 'postgresql://u:hunter2@h/d', replicas: ['host=x password=hunter2', 'hunter2:x@y']}")
    told = check(read("f", text))
    assert len(told) == 3
    assert not [d for d in told if "hunter2" in str(d)]


def test_every_provider_of_the_table_can_be_written() -> None:
    for provider in PROVIDERS:
        shard = "{voters: {us: 3}}" if PROVIDERS[provider].provisions else "{primary: env:A}"
        assert found(f"fleet: f\nregions: {{us: {{provider: {provider}}}}}\nshards: {{a: {shard}}}\n") == []
