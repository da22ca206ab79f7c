"""Every configuration that pgfleet renders, byte for byte. See approved.py for how to agree to a change."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.approved import approve
from tests.golden.fleets import ALONE, BANK, composed, file_of, lines, provider

from pgfleet.providers.local.compose import digest
from pgfleet.render.haproxy import check_interval
from pgfleet.render.ownership import functions
from pgfleet.render.patroni import LOOP_WAIT, RETRY_TIMEOUT, TTL, dynamic_configuration
from pgfleet.render.postgres import FORCED, PROPOSED, postgres_parameters
from pgfleet.routing.ownership import ownership
from pgfleet.routing.placement import Placement
from pgfleet.spec import codes
from pgfleet.spec.check import check
from pgfleet.spec.forced import why_forbidden
from pgfleet.spec.read import read

#: One subject is spread, a subject more is listed, and a table follows by a key column of its own.
SPREAD = BANK.replace(
    "humanities: [Business]}", "humanities: [Business, Drama, {Law: {hash: id, over: [humanities, stem]}}]}"
).replace("tables:\n", "tables:\n  answers: {with: questions, key: topic}\n")

RENDERED = {
    "patroni/voter.yml": (BANK, "node/stem/us-east-1", "patroni.yml"),
    "patroni/reader.yml": (BANK, "node/stem/eu-west-2", "patroni.yml"),
    "patroni/alone.yml": (ALONE, "node/main/here-1", "patroni.yml"),
    "pgbouncer/three-regions.ini": (BANK, "pgbouncer/us-west", "pgbouncer.ini"),
    "pgbouncer/one-region.ini": (ALONE, "pgbouncer/here", "pgbouncer.ini"),
    "pgbouncer/userlist.txt": (BANK, "pgbouncer/us-west", "userlist.txt"),
    "haproxy/three-regions.cfg": (BANK, "haproxy/us-west", "haproxy.cfg"),
    "haproxy/one-region.cfg": (ALONE, "haproxy/here", "haproxy.cfg"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_configuration_is_what_was_approved(name: str) -> None:
    text, unit, file = RENDERED[name]
    approve(name, file_of(composed(text)[unit], file))


def test_a_pooler_that_knows_prepared_statements_is_told_to_keep_them() -> None:
    units = composed(BANK, pgbouncer=(1, 21))
    approve("pgbouncer/since-1-21.ini", file_of(units["pgbouncer/us-west"], "pgbouncer.ini"))
    assert "prepared" not in file_of(composed(BANK, pgbouncer=(1, 20))["pgbouncer/us-west"], "pgbouncer.ini")


@pytest.mark.parametrize("unit", ["etcd/1", "node/stem/us-east-1", "pgbouncer/us-west", "haproxy/us-west"])
def test_a_command_line_is_what_was_approved(unit: str) -> None:
    approve(f"commands/{unit.partition('/')[0]}.txt", lines(composed(BANK)[unit].unit.argv))


@pytest.mark.parametrize("sync", [0, 1, 2])
def test_the_configuration_that_lives_in_etcd_is_what_was_approved(sync: int) -> None:
    made = dynamic_configuration({"work_mem": "8MB"}, sync=sync, max_connections=100)
    approve(f"patroni/dynamic-sync-{sync}.yml", yaml.safe_dump(made, sort_keys=False))


def test_parameters_where_the_owner_says_nothing_are_what_was_approved() -> None:
    made = postgres_parameters({}, max_connections=100)
    approve("postgres/parameters.conf", "".join(f"{name} = '{value}'\n" for name, value in made.items()))


@pytest.mark.parametrize("shard", ["stem", "humanities"])
def test_what_a_shard_owns_is_what_was_approved(shard: str) -> None:
    placement = Placement.of(provider(SPREAD).fleet)
    approve(f"ownership/{shard}.sql", functions([ownership(placement, shard)]) + "\n")


def test_what_a_shard_owns_between_two_maps_is_what_was_approved() -> None:
    maps = [Placement.of(provider(text).fleet) for text in (BANK, SPREAD)]
    approve("ownership/stem-between.sql", functions([ownership(each, "stem") for each in maps]) + "\n")


def test_patroni_is_given_no_time_that_it_would_raise() -> None:
    """Patroni 4.1 raises what is below its floors with no more than a line in its log."""
    assert TTL >= 20
    assert LOOP_WAIT >= 1
    assert RETRY_TIMEOUT >= 3
    assert LOOP_WAIT + 2 * RETRY_TIMEOUT <= TTL


def test_a_reader_is_never_elected_and_never_waited_for() -> None:
    units = composed(BANK)
    tags = yaml.safe_load(file_of(units["node/stem/eu-west-2"], "patroni.yml"))["tags"]
    assert (tags["nofailover"], tags["nosync"], tags["noloadbalance"]) == (True, True, False)
    tags = yaml.safe_load(file_of(units["node/stem/eu-west-1"], "patroni.yml"))["tags"]
    assert (tags["nofailover"], tags["nosync"]) == (False, False)
    writes = file_of(units["haproxy/us-east"], "haproxy.cfg").split("listen stem_rw")[1].split("frontend")[0]
    assert "eu-west-1" in writes
    assert "eu-west-2" not in writes


def test_no_secret_is_on_a_command_line_or_in_an_environment() -> None:
    for text in (BANK, ALONE):
        for one in composed(text).values():
            assert "password" not in " ".join([*one.unit.argv, *one.unit.env.values()])


def test_the_pooler_holds_verifiers_and_no_password() -> None:
    userlist = file_of(composed(BANK)["pgbouncer/us-west"], "userlist.txt")
    assert "password-of" not in userlist
    for line in userlist.splitlines():
        assert re.fullmatch(r'"pgfleet_\w+" "SCRAM-SHA-256\$4096:[^"]+"', line)


def test_nothing_listens_beyond_loopback() -> None:
    for text in (BANK, ALONE):
        for one in composed(text).values():
            everything = "\n".join([*one.unit.argv, *one.files.values()])
            assert "0.0.0.0" not in everything
            assert not re.search(r"listen_addr\s*=\s*\*|bind \*|listen: '?\*", everything)


def test_a_digest_tells_configurations_apart_and_nothing_else() -> None:
    first, again = composed(BANK), composed(BANK)
    other = composed(BANK.replace("settings: {work_mem: 8MB}", "settings: {work_mem: 9MB}"))
    assert {name: digest(one) for name, one in first.items()} == {name: digest(one) for name, one in again.items()}
    assert {name for name in first if digest(first[name]) != digest(other[name])} == {
        name for name in first if name.startswith("node/stem/")
    }  # their bootstrap part; LocalProvider.wanted composes without it


def test_checks_stay_within_their_share_of_a_core() -> None:
    assert check_interval(1, 0.07) == 500
    assert check_interval(10_000, 0.03) == 5000
    assert check_interval(100, 0.07) == 2100


# -- settings that lose data cannot be rendered ------------------------------------------------------------------------------

DANGEROUS = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "zero_damaged_pages": "on",
    "ignore_checksum_failure": "on", "data_sync_retry": "on", "ssl": "off", "wal_level": "minimal",
}  # fmt: skip


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A parameter that is forced, as PostgreSQL would read it: any case, blanks around it."""
    name = draw(st.sampled_from(sorted(FORCED)))
    spelt = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in name)
    return draw(st.sampled_from(["", " ", "\t"])) + spelt + draw(st.sampled_from(["", " ", "\n"]))


@given(
    st.dictionaries(spellings() | st.text(min_size=1), st.text() | st.sampled_from(["off", "local", "minimal"])),
    st.integers(1, 5000),
    st.integers(0, 3),
)
def test_no_settings_render_anything_but_what_is_forced(settings: dict[str, str], most: int, sync: int) -> None:
    made = dynamic_configuration(settings, sync=sync, max_connections=most)
    postgresql = made["postgresql"]
    assert isinstance(postgresql, dict)
    parameters = postgresql["parameters"]
    folded = [name.strip().lower() for name in parameters]
    assert len(set(folded)) == len(folded), "PostgreSQL takes the last of two"
    assert {name: parameters[name] for name in FORCED} == FORCED
    assert parameters["max_connections"] == str(most)


def test_what_loses_data_is_among_what_is_forced() -> None:
    assert DANGEROUS.keys() <= FORCED.keys()
    assert not {name for name, value in DANGEROUS.items() if FORCED[name] == value}
    assert not PROPOSED.keys() & FORCED.keys()


def test_the_owner_may_propose_otherwise_where_nothing_is_forced() -> None:
    made = postgres_parameters({"Shared_Buffers": "1GB", "pg_stat_statements.max": "500"}, max_connections=50)
    assert made["shared_buffers"] == "1GB"
    assert made["pg_stat_statements.max"] == "500"


@given(spellings())
def test_the_file_may_not_set_what_is_forced(spelt: str) -> None:
    assert why_forbidden(spelt.strip())
    for place in ("", "group", "shard"):
        said = [d.code for d in check(read("fleet.yaml", _setting(spelt, place)))]
        assert set(said) & {codes.FORBIDDEN_SETTING, codes.SETTING_NAME}, (spelt, place, said)


def _setting(name: str, place: str) -> str:
    settings = {name: "off"}
    document = {
        "fleet": "f",
        "regions": {"us": {}},
        "groups": {"g": {"voters": {"us": 2}} | ({"settings": settings} if place == "group" else {})},
        "shards": {"main": {"group": "g"} | ({"settings": settings} if place == "shard" else {})},
    }
    return yaml.safe_dump(document | ({"settings": settings} if not place else {}))
