"""The example's schema, applied by the command itself: ids, duplicates, search, the shard key, partitions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.engines.scratch import Shards, running

pytestmark = pytest.mark.engines

SCHEMA = Path(__file__).parents[2] / "examples" / "question-bank" / "schema"
FLEET = """
fleet: bank
regions: {us-east: {provider: local}}
shards: {stem: {voters: {us-east: 1}, sync: 0}, users-us: {voters: {us-east: 1}, sync: 0}}
tables:
  questions: {key: subject, place: {stem: [Mathematics]}}
  users: {key: region, place: {users-us: [us]}}
  user_sessions: {with: users}
  audit_logs: {with: users}
promises: {crash: none, silent: none}
"""


def pgfleet(shards: Shards, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pgfleet", "-f", str(shards.folder / "fleet.yaml"), *words]
    environment = os.environ | {"PGFLEET_STATE": str(shards.folder.parent)}
    return subprocess.run(argv, env=environment, text=True, capture_output=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("bank", "stem", "users-us") as made:
        (made.folder / "fleet.yaml").write_text(FLEET)
        yield made


@pytest.fixture(scope="module")
def applied(shards: Shards) -> Any:
    done = pgfleet(shards, "migrate", str(SCHEMA), "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture
def bank(shards: Shards, applied: Any) -> Shards:
    return shards


def test_every_shard_has_the_files_of_its_tables(applied: Any) -> None:
    files = {shard["shard"]: [done["number"] for done in shard["applied"]] for shard in applied["shards"]}
    assert files == {"stem": [1, 2], "users-us": [1, 3, 4, 5]}


def test_a_second_run_has_nothing_to_do(bank: Shards) -> None:
    done = pgfleet(bank, "migrate", str(SCHEMA))
    assert (done.returncode, done.stdout) == (0, "nothing to do: 5 files, 2 shards, as the folder says\n")


def test_the_journal_tells_it(bank: Shards) -> None:
    done = pgfleet(bank, "log")
    assert "migrate stem 0002_questions.sql ended" in done.stdout
    assert "because not recorded there" in done.stdout


async def test_ids_are_of_version_7_and_in_order(bank: Shards) -> None:
    rows = await bank.fetch("stem", "select uuid_v7() from generate_series(1, 3000)")
    ids = [uuid.UUID(str(row[0])) for row in rows]
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == len(ids)
    # Two of the same microsecond are in no order; nothing else may be out of it.
    instants = [one.int >> 64 for one in ids]
    assert instants == sorted(instants)
    milliseconds = ids[0].int >> 80
    assert abs(milliseconds / 1000 - datetime.now(UTC).timestamp()) < 60


async def test_the_time_of_an_id_can_be_read_back(bank: Shards) -> None:
    [(off, other)] = await bank.fetch(
        "stem", "select abs(extract(epoch from now() - uuid_v7_time(uuid_v7()))), uuid_v7_time(gen_random_uuid())"
    )
    assert off < 1
    assert other is None


ADD = "insert into questions (subject, stem, choices, answer) values ($1, $2, $3, $4) returning id"


async def test_the_same_question_is_taken_once(bank: Shards) -> None:
    await bank.fetch("stem", ADD, "Mathematics", "2 + 2?", ["4", "5"], 0, role="pgfleet_app")
    with pytest.raises(asyncpg.UniqueViolationError):
        await bank.fetch("stem", ADD, "Mathematics", "2 + 2?", ["4", "5"], 1, role="pgfleet_app")
    await bank.fetch("stem", ADD, "Mathematics", "2 + 2?", ["3", "4"], 1, role="pgfleet_app")
    await bank.fetch("stem", ADD, "Physics", "2 + 2?", ["4", "5"], 0, role="pgfleet_app")


@pytest.mark.parametrize(("choices", "answer"), [(["one"], 0), (["a", "b"], 2), (["a", "b"], -1), ([], 0)])
async def test_an_answer_is_one_of_the_choices(bank: Shards, choices: list[str], answer: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.fetch("stem", ADD, "Mathematics", "which?", choices, answer)


async def test_search_and_listing_use_their_indexes(bank: Shards) -> None:
    await bank.fetch(
        "stem",
        "insert into questions (subject, stem, choices, answer, difficulty)"
        " select 'Mathematics', 'How many primes are below ' || n || '?', array['1', '2'], 0, 1 + n % 5"
        " from generate_series(1, 20000) as n",
    )
    await bank.fetch("stem", "analyze questions")
    search = "select id from questions where tsv @@ websearch_to_tsquery('english', 'prime 777') and subject = 'Mathematics'"
    assert "questions_search" in await plan(bank, search)
    assert len(await bank.fetch("stem", search)) == 1
    listing = "select stem from questions where subject = 'Mathematics' and difficulty = 2 order by id limit 20"
    assert "questions_by_difficulty" in await plan(bank, listing)


async def plan(bank: Shards, query: str) -> str:
    return "\n".join(row[0] for row in await bank.fetch("stem", f"explain {query}"))


async def test_a_change_is_dated(bank: Shards) -> None:
    [(key,)] = await bank.fetch("stem", ADD, "Mathematics", "3 + 3?", ["6", "7"], 1)
    query = "update questions set answer = $2 where id = $1 and subject = 'Mathematics' returning updated_at > created_at"
    assert await bank.fetch("stem", query, key, 1) == [(False,)], "nothing was changed"
    assert await bank.fetch("stem", query, key, 0) == [(True,)]


UNIQUE = """
select c.relname, array_agg(a.attname::text)
from pg_index i
join pg_class c on c.oid = i.indrelid and c.relkind in ('r', 'p') and not c.relispartition
join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
where i.indisunique
group by i.indexrelid, c.relname
"""


async def test_the_shard_key_is_in_every_unique_index(bank: Shards) -> None:
    keys = {"questions": "subject", "users": "region", "user_sessions": "region", "audit_logs": "region"}
    found = await bank.fetch("stem", UNIQUE) + await bank.fetch("users-us", UNIQUE)
    assert {table for table, _ in found} == set(keys)
    for table, columns in found:
        assert keys[table] in columns, (table, columns)


async def test_partitions_are_months_of_utc_without_a_default(bank: Shards) -> None:
    query = (
        "select relid::text, pg_get_expr(relpartbound, relid)"
        " from pg_partition_tree($1) join pg_class on oid = relid where level = 1"
    )
    for table in ("user_sessions", "audit_logs"):
        found = dict(await bank.fetch("users-us", query, table))
        assert len(found) == 8
        assert "DEFAULT" not in found.values()
        first = datetime.now(UTC).strftime("%Y%m01")
        assert found[f"{table}_p{first}"].startswith(f"FOR VALUES FROM ('{datetime.now(UTC):%Y-%m}-01 00:00:00+00')")


async def test_a_users_sessions_live_and_end_with_the_user(bank: Shards) -> None:
    query = "insert into users (region, email) values ('us', 'Ada@example.org') returning id"
    [(user,)] = await bank.fetch("users-us", query, role="pgfleet_app")
    session = "insert into user_sessions (region, user_id, answered, correct) values ('us', $1, 3, $2)"
    await bank.fetch("users-us", session, user, 2, role="pgfleet_app")
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.fetch("users-us", session, user, 4, role="pgfleet_app")
    with pytest.raises(asyncpg.UniqueViolationError):
        await bank.fetch("users-us", "insert into users (region, email) values ('us', 'ada@example.org')")
    await bank.fetch("users-us", "delete from users where region = 'us' and id = $1", user, role="pgfleet_app")
    assert await bank.fetch("users-us", "select count(*) from user_sessions") == [(0,)]
