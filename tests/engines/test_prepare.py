"""A shard is prepared by a superuser only where it must be: what the owner of its schema has put there runs as the owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engines.scratch import Shards, running

from pgfleet.providers.local.credentials import Credentials
from pgfleet.providers.local.prepare import prepare_shard, prepared_digest

pytestmark = pytest.mark.engines

ROLES = ("pgfleet_owner", "pgfleet_app", "pgfleet_monitor")
CREDENTIALS = Credentials({}, {}, {role: role for role in ROLES}, "")

#: Whoever runs it tries to be more than the owner, and tells who it was. (Writing to the fleet's own tables fires it.)
TRAP = """
create table public.told (who text, may boolean);
create function public.climb() returns trigger language plpgsql as $$
begin
    reset role;
    insert into public.told select current_user, rolsuper from pg_roles where rolname = current_user;
    return new;
end $$;
create trigger climb before insert or update on pgfleet.shard for each row execute function public.climb();
"""


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("prepared", "one") as started:
        started.servers["one"].psql("create role rewind")
        yield started


async def prepare(shards: Shards) -> None:
    [primary] = shards.book.nodes
    await prepare_shard(shards.folder, shards.book, primary, CREDENTIALS)


async def test_a_trigger_of_the_owner_is_never_run_by_a_superuser(shards: Shards) -> None:
    await prepare(shards)
    connection = await shards.connect("one")
    await connection.execute(TRAP)
    await connection.close()
    await prepare(shards)
    assert await shards.fetch("one", "select distinct who, may from public.told") == [("pgfleet_owner", False)]
    query = "select prepared, tableowner::text from pgfleet.shard, pg_tables where schemaname = 'pgfleet' and tablename = 'shard'"
    assert await shards.fetch("one", query) == [(prepared_digest("app"), "pgfleet_owner")]


async def test_no_function_of_the_schema_is_everybodys_that_need_not_be(shards: Shards) -> None:
    """Those that run as their owner least of all: made into a trigger of one's own, they would run one's own casts."""
    await prepare(shards)
    query = """select proname::text from pg_proc p where pronamespace = 'pgfleet'::regnamespace
               and has_function_privilege('public', p.oid, 'execute') order by 1"""
    assert await shards.fetch("one", query) == []
