"""Three writes and a reader at once, in any order, answers lost, messages late, processes dead: what must hold, holds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.core.lookup_world import OWNERS, Died, Transaction, World

from pgfleet.client.lookups import Located
from pgfleet.errors import OutcomeUnknown
from pgfleet.runtime.clock import Deadline

EMAILS = ("a@x", "b@x")
Write = tuple[str, str | None, str | None]
OLD_AND_NEW = [(old, new) for old in (None, *EMAILS) for new in (None, *EMAILS) if old != new]
writes = st.builds(lambda region, both: (region, *both), st.sampled_from(["us", "eu"]), st.sampled_from(OLD_AND_NEW))
#: What happens next, and to which of the statements on their way.
events = st.tuples(st.sampled_from(["done"] * 6 + ["answer lost", "lost", "dies", "late", "never"]), st.integers(0, 3))


async def quiet(world: World, tasks: dict[str, asyncio.Task[Any]]) -> None:
    """Until every process waits for an answer, or has ended."""
    calm = 0
    while calm < 3:
        before = len(world.sent)
        await asyncio.sleep(0)
        waiting = {sent.who for sent in world.sent}
        calm = calm + 1 if len(world.sent) == before and all(t.done() or who in waiting for who, t in tasks.items()) else 0


async def happens(world: World, tasks: dict[str, asyncio.Task[Any]], how: str, which: int) -> None:
    await quiet(world, tasks)
    world.now += 1
    if how in ("late", "never"):
        if world.late:
            world.arrive(which % len(world.late), at_all=how == "late")
        return
    if not world.sent:
        return
    sent = world.sent[which % len(world.sent)]
    if how == "lost":
        world.lose(sent)
    elif how == "dies" and sent.who != "reader":
        world.die(sent.who)
    else:
        world.deliver(sent, answered=how != "answer lost")


async def to_the_end(world: World, tasks: dict[str, asyncio.Task[Any]]) -> None:
    """Everything that can go on goes on, until every process has ended."""
    while True:
        await quiet(world, tasks)
        if all(task.done() for task in tasks.values()):
            return
        world.now += 1
        delivered = [world.deliver(sent) for sent in list(world.sent)]
        if not any(delivered):
            assert world.late, f"they wait for each other: {world.sent}"
            world.arrive(0)


async def alone(world: World, deed: Coroutine[Any, Any, Any]) -> Any:
    """One process, undisturbed."""
    task = asyncio.ensure_future(deed)
    await to_the_end(world, {"alone": task})
    return await task


async def holds(world: World) -> None:
    """After a repair: an entry for each row, and no other; every row is found."""
    lookups = world.lookups("alone", 0.0)
    swept = await alone(world, lookups.sweep("c", Deadline.after(3600), older=0.0))
    assert swept.undecided == []
    if not world.open:
        assert swept.in_flight == 0
        found = sorted((entry["key"], at[2]) for at, entry in world.entries.items())
        assert found == sorted(world.rows)
        assert all(entry["confirmed"] and entry["releasing"] is None for entry in world.entries.values())
    for email in EMAILS:
        located = await alone(world, lookups.locate("users", {"email": email}, Deadline.after(3600)))
        assert located == owner(world.rows, email)


def owner(rows: Sequence[tuple[str, str]], email: str) -> Located | None:
    return next((Located(region, OWNERS[region]) for region, held in rows if held == email), None)


async def story(first: dict[str, str | None], said: list[Write], script: list[tuple[str, int]], grace: float) -> int:
    world = World()
    for email, region in first.items():
        if region is not None:
            await alone(world, world.write("alone", region, None, email, 0.0))
    assert len(world.rows) == sum(region is not None for region in first.values())
    history = [owner(world.rows, EMAILS[0])]

    tasks: dict[str, asyncio.Task[Any]] = {
        f"w{n}": asyncio.ensure_future(world.write(f"w{n}", *write, grace)) for n, write in enumerate(said)
    }
    reader = world.lookups("reader", grace).locate("users", {"email": EMAILS[0]}, Deadline.after(3600))
    tasks["reader"] = asyncio.ensure_future(reader)
    for how, which in script:
        await happens(world, tasks, how, which)
        if not tasks["reader"].done():
            history.append(owner(world.rows, EMAILS[0]))
    reader_was_done = tasks["reader"].done()
    await to_the_end(world, tasks)
    results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, (Died, OutcomeUnknown)):
            raise result
    if reader_was_done:
        assert results[-1] in history, (results[-1], history)
    await holds(world)
    # Messages that arrive after all that, and after the repair.
    while world.late:
        world.arrive(0)
        await holds(world)
    await holds(world)
    assert not world.open
    return sum(result is True for result in results[:-1])


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries({email: st.none() | st.sampled_from(["us", "eu"]) for email in EMAILS}),
    st.lists(writes, min_size=1, max_size=3), st.lists(events, max_size=60), st.sampled_from([0.0, 6.0]),
)  # fmt: skip
def test_whatever_happens(first: dict[str, str | None], said: list[Write], script: list[tuple[str, int]], grace: float) -> None:
    committed = asyncio.run(story(first, said, script, grace))
    event(f"{committed} of {len(said)} committed")


async def test_the_world_would_notice_two_owners() -> None:
    """The story that the outcome row is there to prevent, played in a world that forgets to look at it."""
    world = World()

    def begin(doing: Transaction, write: UUID) -> None:
        doing.write = write
        world.open.append(doing)

    tasks = {"slow": asyncio.ensure_future(world.write("slow", "us", None, "a@x", 0.0))}
    await quiet(world, tasks)
    world.deliver(world.sent[0])  # reserved
    await quiet(world, tasks)
    waiting = world.sent.pop()
    assert await alone(world, world.write("alone", "eu", None, "a@x", 0.0))  # declares it void
    world.sent.append(waiting)
    world.begin = begin  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="two owners"):
        await to_the_end(world, tasks)
    tasks["slow"].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
