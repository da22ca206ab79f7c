"""What is left over, and waiting until nothing of it ends any more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.prove.residue import Residue, left_over, look, settled

NOTHING = Residue(rss=1000, cpu=1.0, at=10.0, tasks=4, timers=10, sockets=20, objects=5000)


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_only_more_is_left_over(tasks: int, timers: int, sockets: int) -> None:
    after = replace(
        NOTHING, tasks=NOTHING.tasks + tasks, timers=NOTHING.timers + timers, sockets=NOTHING.sockets + sockets, rss=99
    )
    more = {"tasks": tasks, "timers": timers, "sockets": sockets}
    assert left_over(NOTHING, after) == {name: count for name, count in more.items() if count > 0}


def test_cpu_is_a_share_of_a_core() -> None:
    assert replace(NOTHING, cpu=6.0, at=20.0).share(NOTHING) == pytest.approx(0.5)


class Watched:
    """What is seen at each look: ``seen``, then the last of it for ever; half a second apart."""

    def __init__(self, *tasks: int) -> None:
        self.tasks = list(tasks)
        self.at = 0.0

    def now(self) -> Residue:
        tasks = self.tasks.pop(0) if len(self.tasks) > 1 else self.tasks[0]
        return replace(NOTHING, tasks=tasks, at=self.at)

    async def pause(self, seconds: float) -> None:
        self.at += seconds


async def test_it_is_waited_until_no_more_is_left_than_before() -> None:
    watched = Watched(9, 8, 6, 4, 3)
    assert (await settled(NOTHING, now=watched.now, pause=watched.pause)).tasks == 4
    assert watched.at == pytest.approx(1.5)


async def test_what_does_not_end_is_told_after_a_while() -> None:
    watched = Watched(9, 8, 7)
    seen = await settled(NOTHING, within=5.0, now=watched.now, pause=watched.pause)
    assert left_over(NOTHING, seen) == {"tasks": 3}
    assert watched.at == pytest.approx(5.0)


async def test_without_a_before_it_is_waited_until_two_looks_are_the_same() -> None:
    watched = Watched(9, 5, 7, 7)
    assert (await settled(None, now=watched.now, pause=watched.pause)).tasks == 7
    assert watched.at == pytest.approx(1.5)


async def test_this_process_is_seen() -> None:
    before = look()
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    after = look()
    assert left_over(before, after) == {"tasks": 1, "timers": 1}
    assert after.rss > 2**20
    assert after.cpu >= before.cpu
    task.cancel()
    await asyncio.wait([task])
    assert left_over(before, look()) == {}, "a timer that was cancelled will not fire"
