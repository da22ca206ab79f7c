"""Nothing is lost sight of: changes of the map that would leave rows, or entries of lookups, where nobody looks are refused."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio
from tests.engines.owning import QUICK, prepare, put, reach_of, session
from tests.engines.scratch import Shards, running

from pgfleet.errors import LookupLosesEntries, PgfleetError, PlacementLosesRows, RowsUnseen
from pgfleet.facts.fleet import FleetSeen, PlacementSeen, ShardSeen
from pgfleet.facts.topology import ShardTopology
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.key_column import PAGE
from pgfleet.providers.misplaced import nothing_is_left, refuse_lost_rows
from pgfleet.providers.ownership import change_map
from pgfleet.routing.hashing import bucket
from pgfleet.routing.lookup import address
from pgfleet.routing.placement import Hashed, Placement, TablePlacement
from pgfleet.spec.load import load

pytestmark = pytest.mark.engines

TABLES = """
create table users (region text, home text, n integer, email text, primary key (region, n));
create table accounts (account text, n integer, primary key (account, n));
create table numbers (id bigint primary key);
"""
HALVES = Hashed(64, ("a", "b"))


@pytest.fixture(scope="module")
def servers() -> Iterator[Shards]:
    with running("losing", "a", "b", "c") as started:
        yield started


@pytest_asyncio.fixture
async def shards(servers: Shards) -> AsyncIterator[Shards]:
    await prepare(servers, TABLES)
    yield servers


def placed(table: str, rule: TablePlacement, epoch: int) -> Placement:
    return Placement({table: rule}, epoch=epoch)


async def change(shards: Shards, new: Placement) -> None:
    """As `apply`: once with everybody writing, once with them held still."""
    await change_map(reach_of(shards), shards.servers, new, vacated=nothing_is_left, patience=QUICK)


async def look_before(shards: Shards, old: Placement, new: Placement) -> None:
    """What `apply` does before anything is changed."""
    seen = PlacementSeen((old.to_json(),))
    topologies = {
        node.name.shard: ShardSeen(ShardTopology(node.name.shard, primary=node.name), placement=seen)
        for node in shards.book.nodes
    }
    wanted = Wanted("f", "f", shards.book, {}, {}, new.to_json())
    known = FleetSeen(shards.book, shards=topologies, placement=old.to_json())
    await refuse_lost_rows(lambda node: shards.connect(node.name.shard), known, wanted)


async def refused(shards: Shards, old: Placement, new: Placement, kind: type[PgfleetError], on: str = "a") -> PgfleetError:
    """The refusal before anything is changed, which the one under the lock repeats; the old map stays in force, of rows at least
    on the shard that has them."""
    with pytest.raises(kind) as before:
        await look_before(shards, old, new)
    with pytest.raises(kind):
        await change(shards, new)
    for name in shards.servers if kind is LookupLosesEntries else [on]:
        assert await shards.fetch(name, "select epoch, narrowed from pgfleet.placement") == [(old.epoch, [])]
    return before.value


# -- lookups -----------------------------------------------------------------------------------------------------------------

FILE = """\
fleet: f
regions: {{us: {{}}}}
shards: {{a: {{}}, b: {{}}, c: {{}}}}
tables:
  users: {{key: region, place: {place}, lookups: {{email: {lookup}}}}}
"""
TWO = "{a: [us], b: [eu]}"
THREE = "{a: [us], b: [eu], c: [apac]}"
OTHERS = {
    "over": "{columns: [email], over: [b, a]}",
    "more": "{columns: [email], over: [a, b, c]}",
    "buckets": "{columns: [email], over: [a, b], buckets: 32}",
    "columns": "{columns: [home, email], over: [a, b]}",
}


def declared(place: str = TWO, lookup: str = "[email]", known: tuple[Placement, ...] = ()) -> Placement:
    return Placement.of(load("f", FILE.format(place=place, lookup=lookup)), epoch=len(known) + 1, known=known)


async def claim(shards: Shards, placement: Placement, email: str) -> str:
    at = address(placement, "users", "email", email)
    assert at is not None
    query = """insert into pgfleet.lookup (table_name, lookup, value, key, owner, reservation, confirmed)
               values ('users', 'email', $1, 'us', 'a', $2, true)"""
    await shards.fetch(at.shard, query, at.value, uuid.uuid4(), role="pgfleet_app")
    return at.shard


async def test_a_shard_that_is_added_moves_no_entry(shards: Shards) -> None:
    """The ordinary way to grow: entries are found where they were, and nothing is refused."""
    old = declared()
    await put(shards, old)
    emails = [f"u{number}@example.org" for number in range(40)]
    there = {email: await claim(shards, old, email) for email in emails}
    new = declared(THREE, known=(old,))
    await look_before(shards, old, new)
    await change(shards, new)
    assert await shards.fetch("c", "select epoch from pgfleet.placement") == [(2,)]
    assert {email: new.lookup("users", "email", email).shard for email in emails} == there
    # Said for the first time, as it is in force: the same map.
    assert declared(THREE, "{columns: [email], over: [a, b]}", known=(old,)) == new


@pytest.mark.parametrize("how", OTHERS)
async def test_a_lookup_that_has_entries_stays_where_it_is(shards: Shards, how: str) -> None:
    old = declared()
    await put(shards, old)
    new = declared(lookup=OTHERS[how], known=(old,))
    holding = await claim(shards, old, "ada@example.org")
    error = await refused(shards, old, new, LookupLosesEntries)
    assert f"lookup email has entries on {holding}" in error.seen[0]
    assert error.hint == "lookups: {email: {columns: [email], over: [a, b]}}"
    # The hint is what is in force.
    assert declared(lookup=error.hint.removeprefix("lookups: {email: ").removesuffix("}"), known=(old,)).lookups == old.lookups


async def test_buckets_of_ones_own_stand_in_the_hint(shards: Shards) -> None:
    old = declared(lookup="{columns: [email], over: [a, b], buckets: 16}")
    await put(shards, old)
    await claim(shards, old, "ada@example.org")
    error = await refused(shards, old, declared(known=(old,)), LookupLosesEntries)
    assert error.hint == "lookups: {email: {columns: [email], over: [a, b], buckets: 16}}"


async def test_a_lookup_that_is_called_otherwise_is_another(shards: Shards) -> None:
    old = declared()
    await put(shards, old)
    await claim(shards, old, "ada@example.org")
    renamed = replace(old, epoch=2, lookups={("users", "mail"): old.lookups["users", "email"]})
    error = await refused(shards, old, renamed, LookupLosesEntries)
    assert "no such lookup" in error.seen[0]
    await refused(shards, old, Placement({}, epoch=2), LookupLosesEntries)


async def test_entries_from_before_a_lookup_was_declared_are_told(shards: Shards) -> None:
    with_it = declared()
    old = replace(with_it, lookups={})
    await put(shards, old)
    await claim(shards, with_it, "ada@example.org")
    with pytest.raises(LookupLosesEntries) as caught:
        await look_before(shards, old, replace(with_it, epoch=2))
    assert caught.value.hint == "delete from pgfleet.lookup where table_name = 'users' and lookup = 'email'"


async def test_a_lookup_without_entries_may_change_and_old_clients_are_refused(shards: Shards) -> None:
    """Whoever still claims by the old map would do so elsewhere."""
    old = declared()
    await put(shards, old)
    new = declared(lookup=OTHERS["buckets"], known=(old,))
    await look_before(shards, old, new)
    await change(shards, new)
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as client:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await client.execute("insert into users (region, n) values ('us', 1)")
    assert caught.value.sqlstate == "PF001"


async def test_an_entry_that_is_being_made_is_waited_for(shards: Shards) -> None:
    old = declared()
    await put(shards, old)
    new = declared(lookup=OTHERS["over"], known=(old,))
    async with session(shards, "a") as client:
        transaction = client.transaction()
        await transaction.start()
        await client.execute(
            """insert into pgfleet.lookup (table_name, lookup, value, key, owner, reservation)
               values ('users', 'email', 'x', 'us', 'a', gen_random_uuid())"""
        )
        await look_before(shards, old, new)
        changing = asyncio.create_task(change(shards, new))
        await asyncio.sleep(0.5)
        assert not changing.done()
        await transaction.commit()
        with pytest.raises(LookupLosesEntries):
            await changing
    for name in shards.servers:
        assert await shards.fetch(name, "select epoch from pgfleet.placement") == [(1,)]


# -- many keys ---------------------------------------------------------------------------------------------------------------


def of_shard(at: int, count: int, name: str) -> list[str]:
    found = (name.format(number) for number in range(10 * count + 100))
    return [key for key in found if bucket(key, 64) % 2 == at][:count]


async def fill(shards: Shards, shard: str, keys: list[str]) -> None:
    async with session(shards, shard, "pgfleet_owner") as owner:
        await owner.copy_records_to_table("accounts", records=[(key, 1) for key in keys], columns=["account", "n"])


async def test_a_key_is_found_however_many_come_before_it(shards: Shards) -> None:
    rule = TablePlacement("account", {}, {}, HALVES)
    old = placed("accounts", rule, 1)
    await put(shards, old)
    [big] = of_shard(0, 1, "zz-big-{}")
    await fill(shards, "a", [*of_shard(0, 3 * PAGE, "acc{:07}"), big])
    error = await refused(shards, old, placed("accounts", replace(rule, listed={big: "b"}), 2), PlacementLosesRows)
    assert error.seen == (f"accounts: {big} has rows on a, the file wants them on b",)


async def test_a_key_that_is_listed_no_more_is_found_too(shards: Shards) -> None:
    [key] = of_shard(1, 1, "zz-{}")
    old = placed("accounts", TablePlacement("account", {key: "a"}, {}, HALVES), 1)
    await put(shards, old)
    await fill(shards, "a", [key])
    error = await refused(shards, old, placed("accounts", TablePlacement("account", {}, {}, HALVES), 2), PlacementLosesRows)
    assert error.seen == (f"accounts: {key} has rows on a, the file wants them on b",)


async def test_where_the_hash_changes_every_key_is_looked_at(shards: Shards) -> None:
    """The only one that moves comes after all pages but the last."""
    old = placed("accounts", TablePlacement("account", {}, {}, HALVES), 1)
    await put(shards, old)
    other = Hashed(63, ("a", "b"))
    stays = [key for key in of_shard(0, 6 * PAGE, "acc{:07}") if bucket(key, 63) % 2 == 0]
    assert len(stays) > 2 * PAGE
    moves = next(key for key in of_shard(0, 50, "zz{}") if bucket(key, 63) % 2)
    await fill(shards, "a", [*stays, moves])
    error = await refused(shards, old, placed("accounts", TablePlacement("account", {}, {}, other), 2), PlacementLosesRows)
    assert error.seen == (f"accounts: {moves} has rows on a, the file wants them on b",)


@pytest.mark.parametrize("prepared", ["", "alter table accounts drop constraint accounts_pkey"], ids=["index", "no index"])
async def test_with_and_without_an_index(shards: Shards, prepared: str) -> None:
    old = placed("accounts", TablePlacement("account", {"x": "a", "y": "b", "7": "a"}, {}, None), 1)
    await put(shards, old)
    if prepared:
        await shards.fetch("a", prepared)
    await fill(shards, "a", ["x", "7"])
    new = placed("accounts", TablePlacement("account", {"x": "b", "y": "b", "7": "b"}, {}, None), 2)
    error = await refused(shards, old, new, PlacementLosesRows)
    assert len(error.seen) == 2


async def test_whole_numbers_among_keys_that_are_none(shards: Shards) -> None:
    """Keys that could not be a number of the column's are asked of nobody."""
    listed = {"5": "a", "05": "a", "x": "a", "99999999999999999999": "a", "-0": "a"}
    old = placed("numbers", TablePlacement("id", listed, {}, None), 1)
    await put(shards, old)
    await shards.fetch("a", "insert into numbers values (5)")
    error = await refused(shards, old, placed("numbers", TablePlacement("id", {"1": "a"}, {}, None), 2), PlacementLosesRows)
    assert len(error.seen) == 1
    assert error.seen[0].startswith("numbers: 5 has rows on a, and no place in the file")


# -- another column ----------------------------------------------------------------------------------------------------------

LISTED = {"us": "a", "eu": "b"}
BY_REGION = placed("users", TablePlacement("region", LISTED, {}, None), 1)
BY_HOME = placed("users", TablePlacement("home", LISTED, {}, None), 2)


async def test_by_another_column_rows_are_looked_for_elsewhere(shards: Shards) -> None:
    await put(shards, BY_REGION)
    await shards.fetch("a", "insert into users (region, home, n) values ('us', 'us', 1), ('us', 'eu', 2)")
    error = await refused(shards, BY_REGION, BY_HOME, PlacementLosesRows)
    assert error.seen == ("users: eu has rows on a, the file wants them on b",)


async def test_rows_that_do_not_have_the_other_column(shards: Shards) -> None:
    await put(shards, BY_REGION)
    await shards.fetch("a", "insert into users (region, n) values ('us', 1)")
    error = await refused(shards, BY_REGION, BY_HOME, PlacementLosesRows)
    assert error.seen == ("users: rows on a have no home",)


@pytest.mark.parametrize(
    ("column", "why"), [("none", "has no column none"), ("born", "is of type date, which cannot place rows")]
)
async def test_a_column_that_cannot_place_rows_is_said_before_anything_is_changed(shards: Shards, column: str, why: str) -> None:
    """Also of a table that is empty: its guards could not be made, and its rows would have no owner until they are."""
    await put(shards, BY_REGION)
    await shards.fetch("a", "alter table users add column born date")
    with pytest.raises(PlacementLosesRows) as caught:
        await look_before(shards, BY_REGION, placed("users", TablePlacement(column, LISTED, {}, None), 2))
    assert why in caught.value.seen[0]


async def test_by_another_column_where_every_row_stays(shards: Shards) -> None:
    """The guards ask for the new column before anything is owned by it."""
    await put(shards, BY_REGION)
    await shards.fetch("a", "insert into users (region, home, n) values ('us', 'us', 1)")
    await look_before(shards, BY_REGION, BY_HOME)
    await change(shards, BY_HOME)
    await shards.fetch("a", "insert into users (region, home, n) values ('eu', 'us', 2)")
    async with session(shards, "a") as client:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await client.execute("insert into users (region, home, n) values ('us', 'eu', 3)")
    assert caught.value.sqlstate == "PF002"


async def test_a_key_that_is_spread_by_another_column(shards: Shards) -> None:
    old = placed("users", TablePlacement("region", {}, {"us": Hashed(4, ("a", "b"), "n")}, None), 1)
    await put(shards, old)
    there = old.shard("users", "us", 1).shard
    await shards.fetch(there, "insert into users (region, home, n) values ('us', 'eu', 1)")
    new = placed("users", TablePlacement("region", {}, {"us": Hashed(4, ("a", "b"), "home")}, None), 2)
    error = await refused(shards, old, new, PlacementLosesRows, there)
    assert error.seen == (f"users: us is spread otherwise, and has rows on {there}",)


# -- hidden rows -------------------------------------------------------------------------------------------------------------


async def test_rows_that_row_level_security_hides_are_rows(shards: Shards) -> None:
    await put(shards, BY_REGION)
    await shards.fetch("a", "insert into users (region, n) values ('us', 1)")
    await shards.fetch("a", "alter table users enable row level security")
    await shards.fetch("a", "alter table users force row level security")
    await shards.fetch("a", "create policy none on users using (false)")
    new = placed("users", TablePlacement("region", {"us": "b", "eu": "b"}, {}, None), 2)
    error = await refused(shards, BY_REGION, new, RowsUnseen)
    assert error.hint == 'alter table public."users" no force row level security'
    await shards.fetch("a", error.hint)
    await refused(shards, BY_REGION, new, PlacementLosesRows)
