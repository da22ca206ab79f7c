"""Unique across the fleet, on real servers: a write is stopped after every step, and between every two steps meets another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import asyncpg
import pytest
from tests.engines.lookup_stage import PLACEMENT, Died, Overtaken, Stage, Write, Writer, settled
from tests.engines.scratch import Shards, running

from pgfleet.errors import AlreadyClaimed, ClaimVoided, DeadlineExceeded, NotTheirs, OutcomeUnknown, PgfleetError
from pgfleet.runtime.clock import Deadline

pytestmark = pytest.mark.engines

SIGN_UP = Write("us", None, "a@x")
CHANGE = Write("us", "a@x", "b@x")
LEAVE = Write("us", "a@x", None)
#: What a write may meet while it is under way, or after it died.
OTHER = Write("eu", None, "a@x")
RIVALS = {SIGN_UP: [OTHER], CHANGE: [OTHER, Write("eu", None, "b@x"), CHANGE], LEAVE: [OTHER, LEAVE]}
How = Literal["dies before", "dies after", "lost before", "lost after"]
HOWS: list[How] = ["dies before", "dies after", "lost before", "lost after"]


@pytest.fixture(scope="module")
def shards() -> Iterator[Shards]:
    with running("lookups", "a", "b", "c") as started:
        yield started


@pytest.fixture
async def stage(shards: Shards) -> AsyncIterator[Stage]:
    made = Stage(shards)
    await made.set_up()
    yield made
    await made.close()


class Stop:
    """Stops its process, or loses an answer, at one of its gates. :param at: which; none counts the steps only."""

    def __init__(self, at: int | None = None, how: How = "dies before") -> None:
        self.at, self.how = at, how
        self.steps: list[str] = []

    async def __call__(self, step: str, done: bool) -> None:
        if not done:
            self.steps.append(step)
        if len(self.steps) - 1 == self.at and done == self.how.endswith("after"):
            if self.how.startswith("dies"):
                raise Died(step)
            self.at = None  # once
            raise OutcomeUnknown(f"{step}: no answer")


async def begin_with(stage: Stage, write: Write) -> None:
    """What must be there before ``write``: its user."""
    await stage.clear()
    if write.old is not None:
        await Writer(stage, "first").write(Write(write.region, None, write.old))


async def attempt(writer: Writer, write: Write) -> bool:
    """Whether it was committed; unless the outcome is unknown, or the process died, where that is not known."""
    try:
        await writer.write(write)
    except (AlreadyClaimed, NotTheirs, ClaimVoided, Overtaken, OutcomeUnknown, ConnectionResetError, DeadlineExceeded, Died):
        return False
    return True


async def steps_of(stage: Stage, write: Write) -> list[str]:
    await begin_with(stage, write)
    counting = Stop()
    assert await attempt(Writer(stage, "counting", counting), write)
    await settled(stage)
    return counting.steps


@pytest.mark.parametrize("write", [SIGN_UP, CHANGE, LEAVE], ids=["sign-up", "change", "leave"])
async def test_a_write_that_stops_anywhere_leaves_nothing_that_is_not_repaired(stage: Stage, write: Write) -> None:
    steps = await steps_of(stage, write)
    assert len(steps) >= 6, steps
    stories = 0
    for at in range(len(steps)):
        for how in HOWS:
            for rival in [None, *RIVALS[write]]:
                await begin_with(stage, write)
                stop = Stop(at, how)
                await attempt(Writer(stage, "stopped", stop), write)
                assert len(stop.steps) > at, f"never reached step {at}"
                if rival is not None:
                    await attempt(Writer(stage, "rival"), rival)
                try:
                    await settled(stage)
                except AssertionError as error:
                    raise AssertionError(f"{write} {how} {steps[at]} ({at}), then {rival}: {error}") from error
                stories += 1
    sys.stdout.write(f"{stories} stories of {len(steps)} steps: {', '.join(steps)}\n")


class Pause:
    """Holds its process before one step until it is let go."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, -1
        self.there, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, step: str, done: bool) -> None:
        if not done:
            self.count += 1
            if self.count == self.at:
                self.there.set()
                await self.go.wait()


@pytest.mark.parametrize("grace", [0.0, 0.15])
@pytest.mark.parametrize("write", [SIGN_UP, CHANGE, LEAVE], ids=["sign-up", "change", "leave"])
async def test_two_writes_at_once_met_at_every_step(stage: Stage, write: Write, grace: float) -> None:
    steps = await steps_of(stage, write)
    for at in range(len(steps)):
        for rival in RIVALS[write]:
            await begin_with(stage, write)
            pause = Pause(at)
            slow = asyncio.create_task(attempt(Writer(stage, "slow", pause, grace), write))
            await pause.there.wait()
            quick = asyncio.create_task(attempt(Writer(stage, "quick", grace=grace), rival))
            while not quick.done() and not await stage.blocked("quick"):
                await asyncio.sleep(0.005)
            pause.go.set()
            committed = [await slow, await quick]
            try:
                await settled(stage)
                wrote = [each for each, done in zip((write, rival), committed, strict=True) if done]
                assert {each.new for each in wrote if each.new} <= {email for _, email in await stage.rows()}
                # One is told no, and not both; unless a claim, after its grace, declares void what would have made room.
                assert sum(committed) >= 1 or rival.new == write.old, "both failed"
            except AssertionError as error:
                raise AssertionError(f"{write} paused before {steps[at]} ({at}), met by {rival}: {error}") from error


async def test_a_value_belongs_to_one_row(stage: Stage) -> None:
    writer = Writer(stage, "one")
    await writer.write(SIGN_UP)
    with pytest.raises(AlreadyClaimed):
        await writer.write(Write("eu", None, "a@x"))
    located = await writer.lookups.locate("users", {"email": "a@x"}, Deadline.after(5))
    assert located is not None
    assert (located.key, located.shard, located.second) == ("us", "a", None)
    assert await writer.lookups.locate("users", {"email": "b@x"}, Deadline.after(5)) is None
    assert await writer.lookups.locate("users", {"email": None}, Deadline.after(5)) is None


async def test_of_sixteen_at_once_one_wins(stage: Stage) -> None:
    writers = [Writer(stage, f"w{n % 2}", grace=2.0) for n in range(16)]
    for writer in writers[:2]:
        for shard in stage.shards.servers:
            await stage.pool(writer.name, shard)
    same = [SIGN_UP, OTHER] * 8
    won = await asyncio.gather(*(attempt(writer, write) for writer, write in zip(writers, same, strict=True)))
    assert sum(won) == 1
    await settled(stage)


async def test_null_is_not_claimed_and_many_rows_may_have_it(stage: Stage) -> None:
    lookups = Writer(stage, "one").lookups
    claiming = lookups.claiming("users", key="us", owner="a", claims={"email": None}, releases={"email": None})
    async with claiming.held(Deadline.after(5)):
        pass
    assert await stage.entries() == []


async def test_the_same_value_claimed_and_given_up_stays(stage: Stage) -> None:
    writer = Writer(stage, "one")
    await writer.write(SIGN_UP)
    claiming = writer.lookups.claiming("users", key="us", owner="a", claims={"email": "a@x"}, releases={"email": "a@x"})
    async with claiming.held(Deadline.after(5)):
        pass
    assert await stage.entries() == [("us", "a@x", True)]


async def test_a_value_that_has_no_entry_is_kept_from_others_while_it_is_given_up(stage: Stage) -> None:
    """Or a row could get it between our look and our transaction, and lose it to us with its entry left behind."""
    pause = Pause(1)  # held, not begun
    slow = asyncio.create_task(attempt(Writer(stage, "slow", pause), LEAVE))
    await pause.there.wait()
    assert await stage.entries() == [("us", "a@x", False)]
    assert await Writer(stage, "reader", grace=30.0).lookups.locate("users", {"email": "a@x"}, Deadline.after(5)) is None
    with pytest.raises(DeadlineExceeded):
        await Writer(stage, "quick", grace=30.0).write(SIGN_UP, seconds=0.3)
    pause.go.set()
    assert not await slow  # there was no such user
    assert await stage.entries() == []
    # A row from before the lookup was declared has no entry, and can go.
    pool = await stage.pool("stage", "a")
    await pool.execute("insert into users values ('us', gen_random_uuid(), 'a@x')")
    assert await attempt(Writer(stage, "slow"), LEAVE)
    assert await stage.rows() == []
    await settled(stage)


async def test_what_another_key_has_is_not_given_up(stage: Stage) -> None:
    writer = Writer(stage, "one")
    await writer.write(SIGN_UP)
    with pytest.raises(NotTheirs, match="key us"):
        await writer.write(Write("eu", "a@x", "b@x"))
    await settled(stage)
    assert await stage.entries() == [("us", "a@x", True)]


async def test_a_young_reservation_is_left_alone_and_an_old_one_is_taken_over(stage: Stage) -> None:
    await attempt(Writer(stage, "stopped", Stop(1, "dies before")), SIGN_UP)
    assert await stage.entries() == [("us", "a@x", False)]
    patient = Writer(stage, "patient", grace=30.0)
    with pytest.raises(DeadlineExceeded, match="whether the email given for users can be claimed was not decided within"):
        await patient.write(Write("eu", None, "a@x"), seconds=0.3)
    # Reading it does not declare it void either.
    assert await patient.lookups.locate("users", {"email": "a@x"}, Deadline.after(5)) is None
    assert await stage.ask("select id from pgfleet.outcome") == []
    await Writer(stage, "quick", grace=0.1).write(Write("eu", None, "a@x"))
    await settled(stage)


async def test_a_read_and_a_sweep_do_not_wait_for_a_write_in_flight(stage: Stage) -> None:
    pause = Pause(3)  # its outcome is written, its transaction open
    slow = asyncio.create_task(attempt(Writer(stage, "slow", pause), SIGN_UP))
    await pause.there.wait()
    reader = Writer(stage, "reader").lookups
    assert await reader.locate("users", {"email": "a@x"}, Deadline.after(5)) is None
    swept = [await reader.sweep(shard, Deadline.after(5), older=0.0) for shard in stage.shards.servers]
    assert sum(each.in_flight for each in swept) == 1
    pause.go.set()
    assert await slow
    assert await reader.locate("users", {"email": "a@x"}, Deadline.after(5)) is not None


async def test_a_write_in_flight_is_waited_for_until_the_deadline(stage: Stage) -> None:
    pause = Pause(3)
    slow = asyncio.create_task(attempt(Writer(stage, "slow", pause), SIGN_UP))
    await pause.there.wait()
    with pytest.raises(PgfleetError) as caught:
        await Writer(stage, "quick").write(Write("eu", None, "a@x"), seconds=0.3)
    assert isinstance(caught.value, DeadlineExceeded)
    pause.go.set()
    assert await slow
    await settled(stage)


async def test_a_write_that_was_declared_void_cannot_commit(stage: Stage) -> None:
    pause = Pause(1)  # reserved, not begun
    slow = asyncio.create_task(Writer(stage, "slow", pause).write(SIGN_UP))
    await pause.there.wait()
    await Writer(stage, "quick").write(Write("eu", None, "a@x"))
    pause.go.set()
    with pytest.raises(ClaimVoided):
        await slow
    assert await stage.rows() == [("eu", "a@x")]
    await settled(stage)


async def test_an_error_after_the_commit_confirms_all_the_same(stage: Stage) -> None:
    async def gate(step: str, done: bool) -> None:
        if step == "commit" and done:
            raise RuntimeError("after COMMIT was answered")

    with pytest.raises(RuntimeError):
        await Writer(stage, "one", gate).write(SIGN_UP)
    assert await stage.entries() == [("us", "a@x", True)]
    assert await stage.rows() == [("us", "a@x")]


async def test_outcomes_are_needed_while_an_entry_waits_for_one(stage: Stage) -> None:
    lookups = Writer(stage, "one").lookups
    assert await lookups.decided(Deadline.after(5), older=0.0)
    pause = Pause(3)  # in flight
    slow = asyncio.create_task(attempt(Writer(stage, "slow", pause), SIGN_UP))
    await pause.there.wait()
    assert not await lookups.decided(Deadline.after(5), older=0.0)
    assert await lookups.decided(Deadline.after(5), older=60.0)  # it is younger than the outcomes that would go
    pause.go.set()
    assert await slow
    assert await lookups.decided(Deadline.after(5), older=0.0)


async def test_a_sweep_takes_all_there_is(stage: Stage) -> None:
    pool = await stage.pool("stage", "c")
    await pool.execute(
        """insert into pgfleet.lookup (table_name, lookup, value, key, owner, reservation)
           select 'users', 'email', 'u' || n, 'us', 'a', gen_random_uuid() from generate_series(1, 1200) n"""
    )
    swept = await Writer(stage, "one").lookups.sweep("c", Deadline.after(60), older=0.0)
    assert (swept.removed, swept.confirmed, swept.in_flight, swept.undecided) == (1200, 0, 0, [])
    await settled(stage)


async def test_a_silent_owner_leaves_an_entry_undecided_and_nothing_is_decided(stage: Stage, shards: Shards) -> None:
    assert PLACEMENT.lookup("users", "email", "d@x").shard == "c"
    await attempt(Writer(stage, "stopped", Stop(4, "dies after")), Write("us", None, "d@x"))  # committed, not confirmed
    shards.servers["a"].stop()
    try:
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await Writer(stage, "rival").write(Write("eu", None, "d@x"), seconds=1.0)
        assert await stage.entries_on("c") == [("us", "d@x", False)]
    finally:
        shards.servers["a"].start()
    await settled(stage)
    assert await stage.rows() == [("us", "d@x")]
