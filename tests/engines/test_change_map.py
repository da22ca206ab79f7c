"""Changing the map on real servers: drained, refused, stopped everywhere and finished, under writers that count."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.engines.owning import QUICK, prepare, put, reach_of, session
from tests.engines.scratch import Shards, running

from pgfleet.errors import NotDrained, PgfleetError, PlacementLosesRows, PlacementSuperseded
from pgfleet.plan.ownership import Held
from pgfleet.providers.misplaced import nothing_is_left
from pgfleet.providers.ownership import Patience, change_map, look
from pgfleet.routing.ownership import ownership
from pgfleet.routing.placement import Hashed, Placement, TablePlacement

pytestmark = pytest.mark.engines

NAMES = ("a", "b", "c")
KEYS = tuple(f"k{number}" for number in range(9))
INSERT = "insert into q (subject, id) values ($1, $2)"


def mapped(epoch: int, **listed: str) -> Placement:
    rule = TablePlacement("subject", listed, {}, Hashed(16, NAMES))
    return Placement({"q": rule}, {"answers": "q"}, {"answers": "topic"}, epoch=epoch)


#: Everybody loses and gains: k0 goes round in one direction, k1 in the other.
ONE = mapped(1, k0="a", k1="b", k2="c", k3="a")
TWO = mapped(2, k0="b", k1="a", k2="a", k3="c")


@pytest.fixture(scope="module")
def servers() -> Iterator[Shards]:
    with running("turning", *NAMES) as started:
        yield started


@pytest_asyncio.fixture
async def shards(servers: Shards) -> AsyncIterator[Shards]:
    await prepare(servers)
    await put(servers, ONE)
    yield servers


async def owners(shards: Shards) -> dict[str, list[str]]:
    """Which shards own each key now, by their own functions."""
    found: dict[str, list[str]] = {key: [] for key in KEYS}
    for name in shards.servers:
        for key, owned in await shards.fetch(
            name, "select k, coalesce(pgfleet.owns_q(k, null), false) from unnest($1::text[]) k", list(KEYS)
        ):
            found[key] += [name] if owned else []
    return found


def wanted_owners(placement: Placement) -> dict[str, list[str]]:
    return {key: [placement.shard("q", key).shard] for key in KEYS}


# -- stopped anywhere --------------------------------------------------------------------------------------------------------


class Stopped(PgfleetError):
    """As if the process had been killed."""


class Counting:
    """A session that is cut off before, or just after, the statement with a given number."""

    def __init__(self, connection: Any, count: Iterator[int], at: int, *, after: bool) -> None:
        self._connection = connection
        self._count = count
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if name not in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            return found

        async def counted(*args: Any, **kwargs: Any) -> Any:
            number = next(self._count)
            if number >= self._at and not (self._after and number == self._at):
                self._connection.terminate()
                raise Stopped(f"before statement {number}")
            answer = await found(*args, **kwargs)
            if number >= self._at:
                self._connection.terminate()
                raise Stopped(f"after statement {number}")
            return answer

        return counted


async def change(shards: Shards, placement: Placement, at: int, *, after: bool) -> int | None:
    """Stopped at a statement: its number. Finished before it: None."""
    count = itertools.count()
    reach = reach_of(shards, lambda connection: Counting(connection, count, at, after=after))  # type: ignore[arg-type,return-value]
    try:
        await change_map(reach, shards.servers, placement, patience=QUICK)
    except Stopped:
        return at
    return None


@pytest.mark.slow
async def test_stopped_anywhere_no_key_has_two_owners_and_the_next_run_finishes(shards: Shards) -> None:
    """Just after each statement, which is just before the next; a COMMIT among them."""
    placement = ONE
    for at in itertools.count():
        goal = replace(TWO if placement.tables == ONE.tables else ONE, epoch=placement.epoch + 1)
        stopped = await change(shards, goal, at, after=True)
        found = await owners(shards)
        assert all(len(each) <= 1 for each in found.values()), (at, found)
        if stopped is None:
            assert found == wanted_owners(goal)
            break
        await put(shards, goal)
        assert await owners(shards) == wanted_owners(goal)
        placement = goal
    assert at > 40, "it was stopped at every statement"
    for name in shards.servers:
        assert await shards.fetch(name, "select pgfleet.unguarded()") == []


async def test_stopped_and_then_changed_otherwise(shards: Shards) -> None:
    """A map that was half given out is followed by a third one, and by the first again."""
    epoch = 1
    for at in range(10, 60, 7):
        await change(shards, replace(TWO, epoch=epoch + 1), at, after=True)
        await change(shards, replace(mapped(1, k0="c", k1="c", k5="a"), epoch=epoch + 2), at - 5, after=False)
        assert all(len(each) <= 1 for each in (await owners(shards)).values())
        epoch += 3
        await put(shards, replace(ONE, epoch=epoch))
        assert await owners(shards) == wanted_owners(ONE)


async def test_stopped_while_rows_come_to_be_placed_by_another_column(shards: Shards) -> None:
    """No row is taken by two shards, as their guards judge it: they may ask for either column, but then none owns any."""
    epoch, by_note = 1, {"q": replace(TWO.tables["q"], key="note")}
    for at in itertools.count(4, 21):
        stopped = await change(shards, replace(TWO, epoch=epoch + 1, tables=by_note), at, after=True)
        assert len(await takers(shards)) <= 1, at
        await put(shards, replace(TWO, epoch=epoch + 1, tables=by_note))
        assert await takers(shards) == ["b"], "by its note"
        epoch += 2
        await put(shards, replace(ONE, epoch=epoch))
        assert await takers(shards) == ["a"], "by its subject"
        if stopped is None:
            break


async def takers(shards: Shards) -> list[str]:
    """The shards that take a row that both maps place, elsewhere."""
    found = []
    for name in shards.servers:
        async with session(shards, name) as client:
            transaction = client.transaction()
            await transaction.start()
            with contextlib.suppress(asyncpg.PostgresError):
                await client.execute("insert into q (subject, id, note) values ('k0', 1, 'k0')")
                found.append(name)
            await transaction.rollback()
    return found


async def test_a_change_under_way_is_told_and_writers_know_it(shards: Shards) -> None:
    """Between the turns the others own what both maps say, and a refusal says that it is not settled."""
    await change(shards, TWO, 60, after=False)
    states = [held for name in NAMES if (held := await held_by(shards, name)) is not None and len(held.maps) > 1]
    assert states, "somebody has let go of keys and waits"
    assert all(held.newest == TWO and held.since == 2 for held in states)
    await put(shards, TWO)
    assert [(await held_by(shards, name)).maps for name in NAMES] == [(TWO,)] * 3  # type: ignore[union-attr]


async def held_by(shards: Shards, name: str) -> Held | None:
    async with reach_of(shards)(name) as connection:
        return await look(connection)


async def test_the_same_map_again_changes_nothing(shards: Shards) -> None:
    query = "select (select xmin::text from pgfleet.placement), (select xmin::text from pgfleet.gate)"
    before = [await shards.fetch(name, query) for name in NAMES]
    await put(shards, ONE)
    assert [await shards.fetch(name, query) for name in NAMES] == before


async def test_a_newer_map_and_another_of_the_same_epoch_are_refused(shards: Shards) -> None:
    await put(shards, TWO)
    for wrong in (ONE, replace(ONE, epoch=2)):
        with pytest.raises(PlacementSuperseded):
            await put(shards, wrong)
    assert await owners(shards) == wanted_owners(TWO)


async def test_two_that_change_it_at_once(shards: Shards) -> None:
    """One map comes out whole; the other is refused."""
    for epoch in range(2, 8, 2):
        goals = [replace(TWO, epoch=epoch), mapped(epoch, k0="c", k1="c")]
        answers = await asyncio.gather(*(put(shards, goal) for goal in goals), return_exceptions=True)
        assert all(isinstance(answer, PlacementSuperseded) for answer in answers if answer is not None)
        assert all(len(each) <= 1 for each in (await owners(shards)).values())
        await put(shards, replace(ONE, epoch=epoch + 1))


async def test_a_key_that_is_listed_where_it_was_holds_nobody_up(shards: Shards) -> None:
    """The functions are others, what is owned is not: no writer is waited for, and none is refused."""
    key = next(key for key in KEYS[4:] if ONE.shard("q", key).shard == "a")
    query = "select (select functions from pgfleet.placement), (select turn from pgfleet.gate)"
    [(functions, turn)] = await shards.fetch("a", query)
    async with session(shards, "a", settings={"pgfleet.epoch": "1"}) as writer, writer.transaction():
        await writer.execute(INSERT, key, 1)
        await put(shards, mapped(2, k0="a", k1="b", k2="c", k3="a", **{key: "a"}))
        await writer.execute(INSERT, key, 2)
    [now] = await shards.fetch("a", query)
    assert now[0] != functions
    assert now[1] == turn


# -- draining ----------------------------------------------------------------------------------------------------------------


async def test_a_change_waits_for_a_transaction_that_has_written(shards: Shards) -> None:
    async with session(shards, "a") as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(INSERT, "k0", 1)
        changing = asyncio.create_task(put(shards, TWO, Patience(lock=0.2, pause=0.1, whole=20.0)))
        await asyncio.sleep(0.5)
        assert not changing.done()
        assert (await owners(shards))["k0"] == ["a"]
        await writer.execute(INSERT, "k0", 2)  # it is not held up by who waits for it
        await transaction.commit()
        await changing
    assert await owners(shards) == wanted_owners(TWO)


async def test_a_change_gives_up_and_says_whom_it_waited_for(shards: Shards) -> None:
    async with session(shards, "a", settings={"application_name": "slow job"}) as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(INSERT, "k0", 1)
        with pytest.raises(NotDrained) as caught:
            await put(shards, TWO, Patience(lock=0.1, pause=0.1, whole=0.5))
        assert any("slow job" in line for line in caught.value.seen)
        found = await owners(shards)
        assert found["k0"] == ["a"]
        assert all(len(each) <= 1 for each in found.values())
        async with session(shards, "a") as other:
            await asyncio.wait_for(other.execute(INSERT, "k3", 1), 5)
        await transaction.commit()
    await put(shards, TWO)
    assert await owners(shards) == wanted_owners(TWO)


async def test_nobody_who_reads_is_waited_for_or_waits(shards: Shards) -> None:
    async with session(shards, "a") as reader, reader.transaction(isolation="repeatable_read"):
        await reader.fetch("select * from q")
        await reader.fetch("select map from pgfleet.placement")
        await put(shards, TWO)
        assert await reader.fetchval("select count(*) from q") == 0


async def test_a_writer_that_read_the_map_first_is_judged_by_the_new_one(shards: Shards) -> None:
    """Its locks on the map's table are older than the change: it must learn of the new functions all the same."""
    async with session(shards, "a") as blocker, session(shards, "a") as writer:
        held = blocker.transaction()
        await held.start()
        await blocker.execute("select pg_advisory_xact_lock_shared(1885824512, 1)")
        await writer.execute(INSERT, "k0", 1)  # plans and functions are kept from here on
        await writer.execute("begin")
        await writer.fetch("select map from pgfleet.placement")
        await writer.fetch("select * from q")
        changing = asyncio.create_task(put(shards, TWO, Patience(lock=3.0, pause=0.1, whole=20.0)))
        await until_waiting(shards, "a", 1)
        writing = asyncio.create_task(writer.execute(INSERT, "k0", 2))
        await until_waiting(shards, "a", 2)
        await held.rollback()
        with pytest.raises(asyncpg.PostgresError) as caught:
            await writing
        assert caught.value.sqlstate == "PF001"
        await changing
        await writer.execute("rollback")


async def until_waiting(shards: Shards, shard: str, count: int) -> None:
    query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    async with asyncio.timeout(10):
        while (await shards.fetch(shard, query)) != [(count,)]:
            await asyncio.sleep(0.02)


async def test_rows_that_came_meanwhile_stop_the_change(shards: Shards) -> None:
    await shards.fetch("a", INSERT, "k0", 1)
    with pytest.raises(PlacementLosesRows) as caught:
        await change_map(reach_of(shards), shards.servers, TWO, vacated=nothing_is_left, patience=QUICK)
    assert caught.value.seen == ("q: k0 has rows on a, the file wants them on b",)
    found = await owners(shards)
    assert found["k0"] == ["a"]
    assert all(len(each) <= 1 for each in found.values())
    await put(shards, replace(ONE, epoch=3))
    assert await owners(shards) == wanted_owners(ONE)


async def test_a_key_that_is_spread_otherwise_over_the_same_shards_is_no_other_place(shards: Shards) -> None:
    rule = replace(ONE.tables["q"], spread={"big": Hashed(64, ("a", "b"), "id")})
    spread = replace(ONE, epoch=2, tables={"q": rule})
    await put(shards, spread)
    there = "a" if spread.shard("q", "big", 1).shard == "a" else "b"
    await shards.fetch(there, INSERT, "big", 1)
    otherwise = replace(spread, epoch=3, tables={"q": replace(rule, spread={"big": Hashed(32, ("b", "a"), "id")})})
    with pytest.raises(PlacementLosesRows) as caught:
        await change_map(reach_of(shards), shards.servers, otherwise, vacated=nothing_is_left, patience=QUICK)
    assert caught.value.seen == (f"q: big is spread otherwise, and has rows on {there}",)


# -- writers that count ------------------------------------------------------------------------------------------------------

SET_UP = """
create table gone (subject text, id bigint, primary key (subject, id));
grant insert on gone to pgfleet_app;
create table history (map text, narrowed text[]);
create function remember() returns trigger language plpgsql as
    'begin insert into history values (new.map, new.narrowed); return null; end';
create trigger remember after insert or update on pgfleet.placement for each row execute function remember();
insert into history select map, narrowed from pgfleet.placement;
"""


class Writers:
    """Eight clients. Each believes some map, an old one now and then, and counts what was acknowledged."""

    def __init__(self, shards: Shards, placements: list[Placement]) -> None:
        self.shards = shards
        self.placements = placements
        self.ids = itertools.count(1)
        self.inserted: dict[tuple[str, int], str] = {}
        self.deleted: dict[tuple[str, int], str] = {}
        self.counts: Counter[str] = Counter()
        self.stop = False

    async def run(self, seed: int) -> None:
        chance = random.Random(seed)
        sessions: dict[str, asyncpg.Connection[Any]] = {}
        while not self.stop:
            known = self.placements if seed % 4 else self.placements[:1]  # every fourth never learns anything new
            believed = known[-1] if chance.random() < 0.6 else chance.choice(known[-3:])
            key = chance.choice(KEYS)
            shard = believed.shard("q", key).shard
            if shard not in sessions:
                sessions[shard] = await asyncpg.connect(**self.login(shard))
            await self.write(sessions[shard], chance, key, shard, believed)
        for connection in sessions.values():
            await connection.close()

    def login(self, shard: str) -> dict[str, Any]:
        port = self.shards.servers[shard].port
        return {
            "host": "127.0.0.1", "port": port, "user": "pgfleet_app", "password": "pgfleet_app", "database": "app",
            "command_timeout": 30,
        }  # fmt: skip

    async def write(
        self, connection: asyncpg.Connection[Any], chance: random.Random, key: str, shard: str, believed: Placement
    ) -> None:
        """One transaction of one of three verbs, with an epoch, a claim, both or neither."""
        verb = chance.choice(["insert", "insert", "update", "delete"])
        there = [number for (subject, number), place in self.inserted.items() if subject == key and place == shard]
        row = next(self.ids) if verb == "insert" or not there else chance.choice(there)
        try:
            async with connection.transaction():
                claims = chance.random()
                await connection.execute(
                    "select set_config('pgfleet.epoch', $1, true), set_config('pgfleet.key', $2, true)",
                    str(believed.epoch) if claims < 0.6 else "", f"q:{key}" if 0.4 < claims < 0.8 else "",
                )  # fmt: skip
                if verb == "insert":
                    done = await connection.execute(INSERT, key, row)
                elif verb == "update":
                    done = await connection.execute("update q set note = note || '.' where subject = $1 and id = $2", key, row)
                else:
                    done = await connection.execute("delete from q where subject = $1 and id = $2", key, row)
                    if done == "DELETE 1":
                        await connection.execute("insert into gone values ($1, $2)", key, row)
                await asyncio.sleep(chance.random() * 0.004)
        except asyncpg.PostgresError as error:
            self.counts[str(error.sqlstate)] += 1
            if error.sqlstate not in ("PF001", "PF002", "40P01"):
                raise
            return
        self.counts[done.rpartition(" ")[0]] += 1
        if verb == "insert":
            self.inserted[key, row] = shard
        elif done == "DELETE 1":
            self.deleted[key, row] = shard


async def test_eight_writers_and_changes_of_the_map(servers: Shards) -> None:
    """What was acknowledged was written where its key was owned when it was committed, by the servers' own clocks.

    Independent of the guards: each shard keeps a history of its maps, and PostgreSQL the time of every commit.
    """
    await prepare(servers)
    for server in servers.servers.values():
        server.psql("alter system set track_commit_timestamp = on")
        server.stop()
        server.start()
    try:
        await put(servers, ONE)
        for server in servers.servers.values():
            server.psql(f"set role pgfleet_owner; {SET_UP}", "app")
        placements = [ONE]
        writers = Writers(servers, placements)
        running_writers = [asyncio.create_task(writers.run(seed)) for seed in range(8)]
        chance = random.Random(4)
        until = time.monotonic() + 12
        while time.monotonic() < until:
            listed = {key: chance.choice(NAMES) for key in KEYS[:6]}
            goal = mapped(placements[-1].epoch + 1, **listed)
            if chance.random() < 0.3:  # stopped somewhere, with the fleet left as it is for a while
                await change(servers, goal, chance.randrange(20, 70), after=chance.random() < 0.5)
                await asyncio.sleep(0.1)
            await put(servers, goal, Patience(lock=0.3, pause=0.05, whole=20.0))
            placements.append(goal)
            await asyncio.sleep(0.05)
        writers.stop = True
        await asyncio.gather(*running_writers)
        said = f"{len(placements)} maps, {dict(writers.counts)}"
        assert len(placements) > 10, said
        assert writers.counts["INSERT 0"] > 200, said
        assert writers.counts["PF001"] > 20
        assert writers.counts["PF002"] > 20
        assert writers.counts["UPDATE"] > 0
        assert writers.deleted, said
        await judge(servers, writers)
    finally:
        for server in servers.servers.values():
            server.psql("alter system reset track_commit_timestamp")
            server.stop()
            server.start()


async def judge(shards: Shards, writers: Writers) -> None:
    seen: dict[tuple[str, int], str] = {}
    for name in NAMES:
        history = await shards.fetch(
            name, "select pg_xact_commit_timestamp(xmin), map, narrowed from history order by 1", role="postgres"
        )
        rows = await shards.fetch(name, "select subject, id, pg_xact_commit_timestamp(xmin) from q", role="postgres")
        gone = await shards.fetch(name, "select subject, id, pg_xact_commit_timestamp(xmin) from gone", role="postgres")
        for key, number, at in rows + gone:
            _, text, narrowed = next(entry for entry in reversed(history) if entry[0] < at)
            for each in (*narrowed, text):
                share = ownership(Placement.from_json(each), name)["q"].share(key)
                assert share is not None, (name, key, number, at)
        for key, number, _ in rows:
            assert (key, number) not in seen
            seen[key, number] = name
        for key, number, _ in gone:
            assert writers.deleted[key, number] == name
    lost = [row for row in writers.inserted if row not in seen and row not in writers.deleted]
    assert not lost
