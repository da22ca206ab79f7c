"""Tables that ``pgfleet migrate`` makes are guarded from the moment anybody can see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from tests.engines.owning import prepare, put, session
from tests.engines.scratch import Shards, running
from tests.engines.test_migrate import run

from pgfleet.providers.ownership import Patience
from pgfleet.routing.placement import Placement, TablePlacement

pytestmark = pytest.mark.engines

PLACED = Placement(
    {
        "questions": TablePlacement("subject", {"PMP": "stem", "us": "users-eu"}, {}, None),
        "users": TablePlacement("region", {"eu": "users-eu"}, {}, None),
    }
)
QUESTIONS = "-- tables: questions\ncreate table questions (subject text, id bigint)"
USERS = """-- tables: users
create table users (region text, at date) partition by range (at);
create table users_p1 partition of users for values from ('2024-01-01') to ('2025-01-01')"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Shards]:
    with running("bank", "stem", "users-eu") as made:
        yield made


@pytest_asyncio.fixture
async def shards(servers: Shards) -> AsyncIterator[Shards]:
    await prepare(servers, "")
    await put(servers, PLACED)
    yield servers


async def state_of(shards: Shards, shard: str, statement: str) -> str | None:
    """The SQLSTATE with which an application's statement is refused; None: it is not."""
    async with session(shards, shard) as client:
        try:
            await client.execute(statement)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
    return None


async def test_what_a_file_makes_is_guarded_with_it(shards: Shards) -> None:
    results = await run(shards, {"0001_q.sql": QUESTIONS, "0002_u.sql": USERS})
    assert all(result.failure is None for result in results.values())
    assert await state_of(shards, "stem", "insert into questions values ('us', 1)") == "PF002"
    assert await state_of(shards, "stem", "insert into questions values ('PMP', 1)") is None
    assert await state_of(shards, "users-eu", "insert into users values ('us', '2024-05-01')") == "PF002"
    assert await state_of(shards, "users-eu", "insert into users_p1 values ('eu', '2024-05-01')") is None
    for shard in shards.servers:
        assert await shards.fetch(shard, "select pgfleet.unguarded()") == []


async def test_a_partition_and_a_file_without_a_transaction(shards: Shards) -> None:
    later = (
        "-- tables: users\n-- pgfleet: no-transaction\n"
        "create table if not exists users_p2 partition of users for values from ('2025-01-01') to ('2026-01-01')"
    )
    await run(shards, {"0001_q.sql": QUESTIONS, "0002_u.sql": USERS, "0003_p.sql": later})
    async with session(shards, "users-eu", settings={"pgfleet.epoch": "0"}) as stale:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await stale.execute("insert into users_p2 values ('eu', '2025-05-01')")
        assert caught.value.sqlstate == "PF001"


async def test_a_table_whose_key_comes_with_a_later_file(shards: Shards) -> None:
    first = {"0001_q.sql": "-- tables: questions\ncreate table questions (id bigint)"}
    assert (await run(shards, first))["stem"].failure is None
    assert await shards.fetch("stem", "select pgfleet.unguarded()") == [("questions",)]
    await run(shards, first | {"0002_k.sql": "-- tables: questions\nalter table questions add column subject text"})
    assert await state_of(shards, "stem", "insert into questions values (1, 'us')") == "PF002"


async def test_a_file_that_fails_leaves_neither_table_nor_guard(shards: Shards) -> None:
    results = await run(shards, {"0001_q.sql": f"{QUESTIONS}; select 1 / 0"})
    assert results["stem"].failure is not None
    assert await shards.fetch("stem", "select to_regclass('questions') is null") == [(True,)]


async def test_a_key_column_changes_its_type_where_the_guards_are_dropped_first(shards: Shards) -> None:
    files = {"0001_q.sql": QUESTIONS}
    await run(shards, files)
    changed = "-- tables: questions\n{}alter table questions alter column subject type varchar(40)"
    failure = (await run(shards, files | {"0002_t.sql": changed.format("")}))["stem"].failure
    assert failure is not None
    assert "used in a trigger definition" in failure.message
    names = ("pgfleet_statement", "zz_pgfleet_insert", "zz_pgfleet_update", "zz_pgfleet_delete")
    dropped = "".join(f"drop trigger {name} on questions;\n" for name in names)
    assert (await run(shards, files | {"0002_t.sql": changed.format(dropped)}))["stem"].failure is None
    assert await state_of(shards, "stem", "insert into questions values ('us', 1)") == "PF002"
    assert await shards.fetch("stem", "select pgfleet.unguarded()") == []


async def test_a_file_without_a_transaction_leaves_no_table_unguarded_where_it_stops(shards: Shards) -> None:
    text = (
        "-- tables: questions\n-- pgfleet: no-transaction\n"
        "create table if not exists questions (subject text, id bigint);\n"
        "create unique index concurrently if not exists by_nothing on questions (no_such_column)"
    )
    assert (await run(shards, {"0001_q.sql": text}))["stem"].failure is not None
    assert await shards.fetch("stem", "select pgfleet.unguarded()") == []
    assert await state_of(shards, "stem", "insert into questions values ('us', 1)") == "PF002"


async def test_in_a_file_without_a_transaction_the_role_stays(shards: Shards) -> None:
    shards.servers["stem"].psql("drop role if exists team; create role team; grant team to pgfleet_owner", "app")
    text = (
        "-- pgfleet: no-transaction\n-- tables: questions\nset role team;\n"
        "create temporary table if not exists first (n integer);\n"
        "create temporary table if not exists second as select current_user::text as who;\n"
        "do $$ begin assert (select who from second) = 'team'; end $$"
    )
    shards.servers["stem"].psql("grant temporary on database app to team", "app")
    try:
        assert (await run(shards, {"0001_q.sql": text}))["stem"].failure is None
    finally:
        shards.servers["stem"].psql("drop owned by team; drop role team", "app")


async def test_a_map_and_a_file_that_come_at_once_leave_nothing_unguarded(shards: Shards) -> None:
    """The file's transaction has looked which tables are placed, and has not ended, when its table is placed."""
    placed = replace(PLACED, epoch=2, tables={**PLACED.tables, "late": TablePlacement("k", {"x": "stem"}, {}, None)})
    async with session(shards, "stem", "pgfleet_owner") as owner:
        await owner.execute("begin; create table late (k text); select pgfleet.attach_guards()")
        changing = asyncio.create_task(put(shards, placed, Patience(lock=0.2, pause=0.1, whole=10.0)))
        await asyncio.sleep(0.7)
        assert not changing.done()
        await owner.execute("commit")
        await changing
    assert await shards.fetch("stem", "select pgfleet.unguarded()") == []
    assert await state_of(shards, "stem", "insert into late values ('y')") == "PF002"


async def test_a_file_that_makes_what_cannot_be_guarded_fails(shards: Shards) -> None:
    text = "-- tables: questions\ncreate table questions (subject date, id bigint)"
    failure = (await run(shards, {"0001_q.sql": text}))["stem"].failure
    assert failure is not None
    assert "cannot place its rows" in failure.message
    assert await shards.fetch("stem", "select to_regclass('questions')") == [(None,)]
