"""Provider `existing`, on a primary and a replica that pgfleet did not start: every command, the client, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.docs.documented import documented, wrong
from tests.engines.desk import FILE, SCHEMA, Desk, make_desk
from tests.engines.outside import OWNER, PASSWORD, STRANGER, Outside, dsn, outside, value
from tests.engines.scratch import POSTGRES_USER, binaries, free_port

import pgfleet
from pgfleet.errors import DsnUnreadable
from pgfleet.runtime.state import read_addresses

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def pair() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.fixture
def desk(pair: Outside, tmp_path: Path) -> Desk:
    return make_desk(pair, tmp_path)


def steps(document: dict[str, Any]) -> list[str]:
    return [f"{step['act']} {step['subject']}" for step in document["steps"]]


AS_STRANGER = (f"{OWNER}:", f"{STRANGER}:")
ALL = ["prepare shop", "prepare shard main", "record placement shop"]


def test_a_fleet_from_two_dsns(desk: Desk) -> None:
    for command in ("check", "plan"):
        assert wrong(desk.document(command), documented()[command]) == []
    assert steps(desk.document("plan")) == ALL
    assert not desk.folder.exists()
    assert steps(desk.document("apply")) == ALL
    assert steps(desk.document("plan")) == []
    assert steps(desk.document("apply")) == []
    assert value(desk.pair.primary, "select fleet || '/' || shard from pgfleet.shard", desk.database) == "shop/main"
    assert (
        value(desk.pair.primary, "select nspowner::regrole from pg_namespace where nspname = 'pgfleet'", desk.database) == OWNER
    )


def test_the_book_holds_no_password_and_the_secrets_are_ours_alone(desk: Desk) -> None:
    desk.said("apply")
    assert PASSWORD not in (desk.folder / "addresses.json").read_text()
    book = read_addresses(desk.folder)
    assert [(str(node.name), node.user, node.database, node.secret) for node in book.nodes] == [
        ("main/cloud-1", OWNER, desk.database, "node.main.cloud-1"), ("main/near-1", OWNER, desk.database, "node.main.near-1"),
    ]  # fmt: skip
    for path in (desk.folder / "secrets").iterdir():
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (PASSWORD, 0o600)
    assert stat.S_IMODE((desk.folder / "secrets").stat().st_mode) == 0o700
    everything = [path for path in desk.folder.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    assert not [path for path in everything if PASSWORD.encode() in path.read_bytes()]


def test_what_is_applied_needs_no_environment_afterwards(desk: Desk) -> None:
    desk.said("apply")
    desk.environment.clear()
    assert desk.document("status")["healthy"]
    assert desk.document("sql", "-c", "select 1 as one")["results"][0]["rows"] == [{"one": 1}]
    assert desk.error("plan")["code"] == "PGF-U230"


def test_status_says_who_is_who(desk: Desk) -> None:
    desk.said("apply")
    document = desk.document("status")
    assert wrong(document, documented()["status"]) == []
    assert (document["healthy"], document["problems"], document["keeper"]) == (True, [], None)
    assert document["etcd"] == {"answers": None, "members": []}
    [shard] = document["shards"]
    primary, [replica] = shard["primary"], shard["replicas"]
    assert (primary["node"], primary["region"], primary["state"], primary["timeline"]) == ("cloud-1", "cloud", "running", 1)
    assert (replica["node"], replica["region"], replica["state"], replica["timeline"]) == ("near-1", "near", "streaming", 1)
    assert replica["lag_bytes"] is not None
    assert replica["address"] == f"127.0.0.1:{desk.pair.replica.port}"
    ours, theirs = (f"postgresql://alice@127.0.0.1:{s.port}/{desk.database}" for s in (desk.pair.primary, desk.pair.replica))
    assert shard["endpoints"] == {
        "cloud": {"read_write": ours, "read_only": theirs}, "near": {"read_write": ours, "read_only": theirs}
    }  # fmt: skip
    assert "cloud-1" in desk.said("status")


def test_migrate_and_sql(desk: Desk) -> None:
    desk.said("apply")
    assert "1 file applied" in desk.said("migrate", str(desk.place / "schema"))
    assert "nothing to do" in desk.said("migrate", str(desk.place / "schema"))
    desk.document("sql", "-c", "insert into questions values (1, 'PMP', 'Why?')")
    desk.pair.caught_up()
    where = "select inet_server_port(), pg_is_in_recovery(), count(*), current_user from questions"
    assert desk.said("sql", "-c", where, "--", "-XAt") == f"{desk.pair.primary.port}|f|1|alice"
    assert desk.said("sql", "--role", "replica", "-c", where, "--", "-XAt") == f"{desk.pair.replica.port}|t|1|alice"
    assert desk.said("sql", "--table", "questions", "--key", "PMP", "-c", "select 1", "--", "-XAt") == "1"
    assert desk.error("sql", "--as", "superuser", "-c", "select 1")["code"] == "PGF-C001"
    assert "migrate" in desk.said("log")


def test_a_password_of_two_lines_is_not_for_psql(desk: Desk) -> None:
    desk.pair.primary.psql("drop role if exists breaks; create role breaks login superuser password E'two\\nlines'")
    desk.pair.caught_up()
    desk.environment = {
        name: text.replace(f"{OWNER}:{PASSWORD}@", "breaks:two%0Alines@") for name, text in desk.environment.items()
    }
    desk.said("apply")
    assert desk.document("sql", "-c", "select current_user")["results"][0]["rows"] == [{"current_user": "breaks"}]
    done = desk.run("sql", "-c", "select 1", "--", "-XAt")
    assert done.returncode == 2
    assert "line break" in done.stderr
    assert "lines" not in done.stdout + done.stderr


async def test_the_client_reads_on_the_replica_and_writes_on_the_primary(desk: Desk) -> None:
    desk.said("apply")
    desk.said("migrate", str(desk.place / "schema"))
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state"), region="near") as fleet:
        told = fleet.explain("questions", key="PMP")
        assert (told.shard, told.read, told.write) == ("main", "near-1", "cloud-1")
        await fleet.execute("questions", "insert into questions values (1, 'PMP', 'Why?')", key="PMP")
        desk.pair.caught_up()
        [row] = await fleet.fetch("questions", "select inet_server_port(), count(*) from questions", key="PMP")
        assert tuple(row) == (desk.pair.replica.port, 1)
        async with fleet.write("questions", key="PMP") as connection:
            assert await connection.fetchval("select inet_server_port()") == desk.pair.primary.port


async def test_an_applications_own_host_needs_the_file_and_its_variables_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.said("apply")
    desk.said("migrate", str(desk.place / "schema"))
    for name, text in desk.environment.items():
        monkeypatch.setenv(name, text)
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "nothing"), region="near") as fleet:
        assert fleet.explain("questions", key="PMP").read == "near-1"
        await fleet.execute("questions", "insert into questions values (1, 'PMP', 'Why?')", key="PMP")
    monkeypatch.delenv("MAIN_DSN")
    with pytest.raises(DsnUnreadable):
        await pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "nothing")).__aenter__()


def test_switchover_is_not_ours(desk: Desk) -> None:
    error = desk.error("switchover", "main")
    assert (error["code"], error["status"]) == ("PGF-F233", 4)
    assert not desk.folder.exists()


def test_another_password_is_seen_and_kept(desk: Desk) -> None:
    desk.said("apply")
    desk.pair.primary.psql(f"alter role {OWNER} password 'an0ther'")
    desk.pair.caught_up()
    try:
        changed = {name: text.replace(PASSWORD, "an0ther") for name, text in desk.environment.items()}
        made = desk.document("plan", **changed)
        assert steps(made) == ["prepare shop"]
        assert "an0ther" not in json.dumps(made)
        desk.said("apply", **changed)
        assert desk.document("status")["healthy"]
    finally:
        desk.pair.primary.psql(f"alter role {OWNER} password '{PASSWORD}'")
        desk.pair.caught_up()


def test_an_apply_that_is_killed_is_repeated(desk: Desk) -> None:
    for pause in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2):
        process = subprocess.Popen(desk.argv("apply"), env=desk.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    desk.said("apply")
    assert steps(desk.document("plan")) == []
    assert desk.document("status")["healthy"]


def test_two_operators_on_two_hosts_take_turns(desk: Desk) -> None:
    there = [*desk.argv("apply")]
    there[there.index("--state") + 1] = str(desk.place / "elsewhere")
    running = [
        subprocess.Popen(argv, env=desk.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for argv in (desk.argv("apply"), there)
    ]
    told = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], told


def test_another_host_finds_what_was_applied_from_the_first(desk: Desk) -> None:
    desk.said("apply")
    (desk.place / "fleet.yaml").write_text(FILE.replace("{key: subject}", "{key: topic}"))
    desk.said("apply")
    epoch = value(desk.pair.primary, "select epoch from pgfleet.placement", desk.database)
    assert epoch == "2"
    there = Desk(desk.pair, desk.place / "elsewhere", desk.database, desk.environment)
    there.place.mkdir()
    (there.place / "fleet.yaml").write_text((desk.place / "fleet.yaml").read_text())
    assert steps(there.document("plan")) == ["prepare shop", "record placement shop"]
    there.said("apply")
    assert value(desk.pair.primary, "select epoch from pgfleet.placement", desk.database) == epoch
    assert steps(desk.document("plan")) == []


def test_destroy_forgets_and_deletes_no_row(desk: Desk) -> None:
    desk.said("apply")
    desk.said("migrate", str(desk.place / "schema"))
    desk.said("sql", "-c", "insert into questions values (1, 'PMP', 'Why?')")
    assert desk.error("destroy")["code"] == "PGF-F104"
    desk.said("destroy", "--yes")
    assert not desk.folder.exists()
    assert value(desk.pair.primary, "select count(*) from questions", desk.database) == "1"
    assert value(desk.pair.primary, "select count(*) from pgfleet.shard", desk.database) == "1"
    desk.said("apply")
    desk.said("destroy", "--yes", "--schema")
    assert value(desk.pair.primary, "select count(*) from questions", desk.database) == "1"
    assert value(desk.pair.primary, "select to_regnamespace('pgfleet') is null", desk.database) == "t"


def test_destroy_does_not_take_what_depends_on_the_schema(desk: Desk) -> None:
    desk.said("apply")
    desk.pair.primary.psql("create view mine as select fleet from pgfleet.shard", desk.database)
    error = desk.error("destroy", "--yes", "--schema")
    assert (error["code"], error["status"]) == ("PGF-F236", 4)
    assert "mine" in error["seen"][0]
    assert desk.folder.exists()
    desk.pair.primary.psql("drop view mine", desk.database)
    desk.said("destroy", "--yes", "--schema")


# -- strange input ---------------------------------------------------------------------------------------------------------


def test_what_the_file_names_must_be_there(desk: Desk) -> None:
    assert "MAIN_DSN is not set" in desk.error("apply", MAIN_DSN="")["message"]
    assert desk.error("apply", MAIN_DSN="nonsense")["code"] == "PGF-U230"
    (desk.place / "fleet.yaml").write_text(FILE.replace("env:MAIN_DSN", "'file:main.dsn'"))
    assert "main.dsn cannot be read" in desk.error("apply")["message"]
    (desk.place / "main.dsn").write_text(desk.environment["MAIN_DSN"] + "\n")
    desk.said("apply")


@pytest.mark.parametrize(
    ("change", "code", "status", "said"),
    [
        ({"MAIN_DSN": (PASSWORD, "wrong")}, "PGF-E230", 5, "password authentication failed"),
        ({"REPLICA_DSN": (PASSWORD, "wrong")}, "PGF-E230", 5, "password authentication failed"),
        ({"MAIN_DSN": ("/shop", "/shap")}, "PGF-E230", 5, "does not exist"),
        ({"MAIN_DSN": (OWNER + ":", "nobody:")}, "PGF-E230", 5, "nobody"),
        ({"MAIN_DSN": ("@127.0.0.1", "@127.0.0.1:1,127.0.0.1")}, "PGF-U230", 3, "names one server"),
        ({"REPLICA_DSN": ("REPLICA", "MAIN")}, "PGF-F230", 4, "one and the same server"),
        ({"REPLICA_DSN": AS_STRANGER}, "PGF-F230", 4, "different users"),
        ({"MAIN_DSN": AS_STRANGER, "REPLICA_DSN": AS_STRANGER}, "PGF-F232", 4, "may not create"),
    ],
)  # fmt: skip
def test_a_dsn_that_leads_nowhere_good(desk: Desk, change: dict[str, tuple[str, str]], code: str, status: int, said: str) -> None:
    changed = {}
    for name, (old, new) in change.items():
        changed[name] = desk.environment["MAIN_DSN"] if old == "REPLICA" else desk.environment[name].replace(old, new, 1)
    error = desk.error("apply", **changed)
    assert (error["code"], error["status"]) == (code, status)
    assert said in json.dumps(error)
    assert error["hint"]
    assert PASSWORD not in json.dumps(error)
    assert not (desk.folder / "addresses.json").exists()
    assert value(desk.pair.primary, "select to_regnamespace('pgfleet') is null", desk.database) == "t"


def test_a_primary_that_is_not_there(desk: Desk) -> None:
    nowhere = desk.environment["MAIN_DSN"].replace(f":{desk.pair.primary.port}/", ":9/")
    error = desk.error("apply", MAIN_DSN=nowhere)
    assert (error["code"], error["status"]) == ("PGF-U120", 3)
    assert "fleet.yaml:3 shards.main.primary: cloud-1: 127.0.0.1:9" in error["seen"][0]
    assert "it is a standby" in error["seen"][1]


def test_a_replica_that_is_not_there_yet(desk: Desk) -> None:
    nowhere = desk.environment["REPLICA_DSN"].replace(f":{desk.pair.replica.port}/", ":9/")
    assert "not there yet: main/near-1" in desk.said("apply", REPLICA_DSN=nowhere)
    [problem] = desk.document("status")["problems"]
    assert problem.startswith("main: near-1 is silent: 127.0.0.1:9")
    assert steps(desk.document("apply")) == ["prepare shop"]
    assert desk.document("status")["healthy"]


def test_a_standby_under_primary_is_fine_while_another_is_primary(desk: Desk) -> None:
    desk.said("apply", MAIN_DSN=desk.environment["REPLICA_DSN"], REPLICA_DSN=desk.environment["MAIN_DSN"])
    [shard] = desk.document("status")["shards"]
    assert (shard["primary"]["node"], shard["replicas"][0]["node"]) == ("near-1", "cloud-1")
    assert shard["problems"] == ["its primary is in near, away from home cloud"]


def test_a_standby_alone_is_no_shard(desk: Desk) -> None:
    (desk.place / "fleet.yaml").write_text(
        FILE.replace("primary: env:MAIN_DSN, replicas: {near: env:REPLICA_DSN}", "primary: env:REPLICA_DSN")
    )
    error = desk.error("apply")
    assert error["code"] == "PGF-U120"
    assert "every DSN leads to a standby" in error["hint"]


def test_a_copy_of_something_else(desk: Desk) -> None:
    stranger = desk.pair.stranger(f"stranger-{desk.database}")
    stranger.psql(f"create database {desk.database} owner {OWNER}")
    error = desk.error("apply", REPLICA_DSN=dsn(stranger, desk.database))
    assert (error["code"], error["status"]) == ("PGF-F230", 4)
    assert "system identifier" in error["seen"][0]
    stranger.stop()


def test_a_database_that_is_another_fleets_already(desk: Desk) -> None:
    desk.said("apply")
    desk.said("destroy", "--yes")
    (desk.place / "fleet.yaml").write_text(FILE.replace("fleet: shop", "fleet: other"))
    error = desk.error("apply")
    assert (error["code"], error["status"]) == ("PGF-F234", 4)
    assert "shard main of fleet shop" in error["message"]


def test_a_schema_made_beforehand_is_enough(desk: Desk) -> None:
    desk.pair.primary.psql(f"create schema pgfleet authorization {STRANGER}", desk.database)
    desk.pair.caught_up()
    theirs = {name: text.replace(f"{OWNER}:", f"{STRANGER}:") for name, text in desk.environment.items()}
    desk.said("apply", **theirs)
    assert desk.document("status")["healthy"]
    assert desk.error("apply")["code"] == "PGF-F232"


def test_a_map_that_would_lose_rows_is_refused(desk: Desk) -> None:
    other = desk.pair.database()
    two = FILE.replace("}}}\ntables", "}}, two: {home: cloud, primary: env:TWO_DSN}}\ntables")
    placed = two.replace("{key: subject}", "{key: subject, place: {main: [PMP], two: [AWS]}}")
    (desk.place / "fleet.yaml").write_text(placed)
    desk.environment["TWO_DSN"] = dsn(desk.pair.primary, other)
    desk.said("apply")
    desk.said("migrate", str(desk.place / "schema"))
    desk.said("sql", "--shard", "main", "-c", "insert into questions values (1, 'PMP', 'Why?')")
    (desk.place / "fleet.yaml").write_text(placed.replace("main: [PMP], two: [AWS]", "two: [AWS, PMP]"))
    error = desk.error("apply")
    assert (error["code"], error["seen"]) == ("PGF-F105", ["questions: PMP has rows on main, the file wants them on two"])
    epoch = json.loads((desk.folder / "placement.json").read_text())["epoch"]
    (desk.place / "fleet.yaml").write_text(placed.replace("two: [AWS]", "two: [AWS, GRE]"))
    assert steps(desk.document("apply")) == ["record placement shop"]
    assert json.loads((desk.folder / "placement.json").read_text())["epoch"] == epoch + 1


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_no_server(desk: Desk, mode: str) -> None:
    with pooler(desk.pair, mode) as port:
        through = desk.environment["MAIN_DSN"].replace(f":{desk.pair.primary.port}/", f":{port}/")
        error = desk.error("apply", MAIN_DSN=through)
    assert (error["code"], error["status"]) == ("PGF-F235", 4)
    assert "-pooler" in error["hint"]


@contextmanager
def pooler(pair: Outside, mode: str) -> Iterator[int]:
    """PgBouncer before the primary, as a provider would have it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer is installed")
    port, folder = free_port(), pair.root / f"pooler-{mode}"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "users.txt").write_text(f'"{OWNER}" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={pair.primary.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\npool_mode = {mode}\n"
        f"auth_file = {folder}/users.txt\n"
    )
    process = subprocess.Popen([program, "-q", str(folder / "pgbouncer.ini")], user=POSTGRES_USER, cwd="/")
    try:
        until = time.monotonic() + 10
        while subprocess.run([binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


TWO = FILE.replace("}}}\ntables", "}}, two: {home: cloud, primary: env:TWO_DSN}}\ntables").replace(
    "{key: subject}", "{key: subject, place: {main: [PMP], two: [AWS]}}"
)


def test_tables_refuse_what_is_not_their_shards(desk: Desk) -> None:
    (desk.place / "fleet.yaml").write_text(TWO)
    desk.environment["TWO_DSN"] = dsn(desk.pair.primary, desk.pair.database())
    desk.said("apply")
    desk.said("migrate", str(desk.place / "schema"))
    insert = "insert into questions values (1, 'AWS', 'Why?')"
    desk.document("sql", "--shard", "two", "-c", insert)
    error = desk.error("sql", "--shard", "main", "-c", insert)
    assert (error["code"], error["seen"][-1]) == ("PGF-E121", "SQLSTATE PF002")
    desk.said("destroy", "--yes", "--schema")
    assert value(desk.pair.primary, "select count(*) from pg_trigger where not tgisinternal", desk.database) == "0"


def test_a_table_that_is_not_the_users_to_guard(desk: Desk) -> None:
    (desk.place / "fleet.yaml").write_text(TWO)
    desk.environment["TWO_DSN"] = dsn(desk.pair.primary, desk.pair.database())
    desk.pair.primary.psql(SCHEMA + f"grant select, insert on questions to {OWNER}", desk.database)
    error = desk.error("apply")
    assert (error["code"], error["status"]) == ("PGF-E271", 5), error
    desk.pair.primary.psql(f"grant trigger on questions to {OWNER}", desk.database)
    desk.said("apply")
    assert desk.document("plan")["steps"] == []


# -- how connections are protected ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["?sslmode=require", "?sslmode=verify-ca&sslrootcert=ca.crt", "?sslmode=verify-full&sslrootcert=ca.crt"]
)
async def test_tls_as_the_dsn_says(desk: Desk, mode: str) -> None:
    (desk.place / "ca.crt").write_bytes(desk.pair.authority.read_bytes())
    desk.environment = {name: text + mode for name, text in desk.environment.items()}
    desk.said("apply")
    assert desk.document("status")["healthy"]
    ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert desk.said("sql", "-c", ssl, "--", "-XAt") == "t"
    assert desk.document("sql", "-c", ssl)["results"][0]["rows"] == [{"ssl": True}]
    async with pgfleet.connect(desk.place / "fleet.yaml", state=str(desk.place / "state")) as fleet:
        assert await fleet.fetchval("questions", ssl, key="PMP") is True


def test_a_certificate_that_nobody_vouches_for(desk: Desk) -> None:
    error = desk.error("apply", MAIN_DSN=desk.environment["MAIN_DSN"] + "?sslmode=verify-full")
    assert (error["code"], error["status"]) == ("PGF-E230", 5)
    assert "sslrootcert" in error["hint"]
    error = desk.error("apply", MAIN_DSN=desk.environment["MAIN_DSN"] + "?sslrootcert=no-such.crt")
    assert error["code"] == "PGF-U230"
