"""``pgfleet sql``: psql on the right node, its password nowhere to be seen; rows as JSON; every shard at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.engines.scratch import Shards, binaries, running

pytestmark = pytest.mark.engines

FLEET = """
fleet: bank
regions: {us-east: {provider: local}}
shards: {stem: {voters: {us-east: 1}, sync: 0}, users-us: {voters: {us-east: 1}, sync: 0}}
tables:
  questions: {key: subject, place: {stem: [Mathematics]}}
  users: {key: region, place: {users-us: [us], stem: [eu]}}
promises: {crash: none, silent: none}
"""


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("bank", "stem", "users-us") as made:
        (made.folder / "fleet.yaml").write_text(FLEET)
        yield made


def pgfleet(shards: Shards, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pgfleet", "-f", str(shards.folder / "fleet.yaml"), "sql", *words]
    environment = os.environ | {
        "PGFLEET_STATE": str(shards.folder.parent), "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGPASSWORD": "another's", "PGSERVICE": "another's", "PSQLRC": "/dev/null",
    }  # fmt: skip
    return subprocess.run(argv, env=environment, input=stdin, text=True, capture_output=True, check=False, timeout=60)


def said(shards: Shards, *words: str, stdin: str = "") -> str:
    done = pgfleet(shards, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def results(shards: Shards, *words: str) -> Any:
    done = pgfleet(shards, "--json", *words)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)["results"]


WHO = "select current_user, inet_server_port(), (select ssl from pg_stat_ssl where pid = pg_backend_pid())"


@pytest.mark.parametrize(
    ("words", "shard", "role"),
    [
        (["--shard", "stem"], "stem", "pgfleet_owner"),
        (["--table", "questions", "--key", "Mathematics"], "stem", "pgfleet_owner"),
        (["--table", "questions"], "stem", "pgfleet_owner"),
        (["--table", "users", "--key", "us", "--as", "app"], "users-us", "pgfleet_app"),
        (["--shard", "users-us", "--as", "monitor"], "users-us", "pgfleet_monitor"),
        (["--shard", "users-us", "--as", "superuser"], "users-us", "postgres"),
    ],
)
def test_psql_runs_where_it_should_as_whom_it_should(shards: Shards, words: list[str], shard: str, role: str) -> None:
    assert said(shards, *words, "-c", WHO, "--", "-XAt") == f"{role}|{shards.servers[shard].port}|t"


def test_psql_reads_its_input_and_connects_again(shards: Shards) -> None:
    assert said(shards, "--shard", "stem", "--", "-XAtq", stdin="\\c\nselect 1 + 1;\n").endswith("2")


def test_the_exit_status_is_psqls(shards: Shards) -> None:
    assert pgfleet(shards, "--shard", "stem", "-c", "select 1 / 0", "--", "-X").returncode == 1


def test_the_password_is_in_no_argument_and_no_environment(shards: Shards) -> None:
    shown = said(shards, "--shard", "stem", "--", "-XAtq", stdin="\\! tr '\\0' '\\n' < /proc/$PPID/environ; ps -o args= $PPID")
    assert "PGPASSFILE=/proc/self/fd/" in shown
    assert "PGPASSWORD" not in shown
    assert "another's" not in shown


def test_rows_as_json_keep_their_meaning(shards: Shards) -> None:
    query = """select 1 as n, 1.50 as price, 'x' as t, null as nothing, '{"a": [1]}'::jsonb as j, array[1, 2] as list,
               true as b, '2026-01-31 01:14:09+00'::timestamptz as at, '\\x00ff'::bytea as raw, 'NaN'::float8 as nan"""
    [answer] = results(shards, "--shard", "stem", "-c", query)
    assert (answer["shard"], answer["node"], answer["status"]) == ("stem", "stem/us-east-1", "SELECT 1")
    assert answer["rows"] == [
        {
            "n": 1, "price": "1.50", "t": "x", "nothing": None, "j": {"a": [1]}, "list": [1, 2], "b": True,
            "at": "2026-01-31T01:14:09+00:00", "raw": "\\x00ff", "nan": "nan",
        }
    ]  # fmt: skip


def test_what_is_changed_stays_changed(shards: Shards) -> None:
    results(shards, "--shard", "stem", "-c", "create table kept (n integer)")
    assert results(shards, "--shard", "stem", "-c", "insert into kept values (1), (2) returning n")[0]["rows"] == [
        {"n": 1},
        {"n": 2},
    ]
    assert results(shards, "--shard", "stem", "-c", "vacuum kept")[0]["status"] == "VACUUM"
    assert results(shards, "--shard", "stem", "-c", "select count(*) from kept", "--as", "app")[0]["rows"] == [{"count": 2}]


def test_every_shard_at_once(shards: Shards) -> None:
    out = said(shards, "--shard", "all", "-c", "select inet_server_port() as port")
    assert [line.split() for line in out.splitlines()] == [
        ["shard", "port"],
        ["stem", str(shards.servers["stem"].port)],
        ["users-us", str(shards.servers["users-us"].port)],
    ]


def test_a_shard_that_refuses_is_told_beside_those_that_answer(shards: Shards) -> None:
    said(shards, "--shard", "stem", "-c", "create table if not exists only_here ()")
    done = pgfleet(shards, "--shard", "all", "-c", "select count(*) from only_here", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (5, "PGF-E121")
    assert error["seen"] == ['users-us: relation "only_here" does not exist']
    assert error["shards"][0]["rows"] == [{"count": 0}]


def test_a_server_that_is_slow_is_given_up(shards: Shards) -> None:
    done = pgfleet(shards, "--shard", "stem", "-c", "select pg_sleep(20)", "--json", "--timeout", "300ms")
    assert json.loads(done.stdout)["error"]["seen"] == ["SQLSTATE 57014"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "which of 2 shards?"),
        (["--shard", "nowhere"], 2, "no shard 'nowhere'"),
        (["--table", "users"], 2, "users is on 2 shards"),
        (["--key", "x"], 2, "--key needs --table"),
        (["--table", "questions", "--key", "Alchemy"], 4, "Alchemy"),
        (["--shard", "stem", "--role", "replica"], 3, "no node of stem is a replica"),
        (["--shard", "stem", "--json"], 2, "need a statement"),
        (["--shard", "stem", "-c", "select 1; select 2", "--json"], 5, "multiple commands"),
    ],
)
def test_what_cannot_be_done_is_said(shards: Shards, words: list[str], status: int, message: str) -> None:
    done = pgfleet(shards, *words)
    assert message in done.stderr + done.stdout
    assert done.returncode == status
