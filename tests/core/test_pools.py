"""Waiting in line: a connection that goes makes room for whoever still waits, however others have left the line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgfleet.client import pools
from pgfleet.client.budget import Budget
from pgfleet.client.pools import NodePool
from pgfleet.errors import FleetClosed
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Login

NODE = NodeAddress(NodeName("stem", "west", 1), "voter", "127.0.0.1", 1, 0)


class Connected:
    """A connection; ``control`` waits for ever where it is told to."""

    def __init__(self) -> None:
        self.open, self.touched, self.hangs = True, False, False
        self.unreplicated = self.altered = self.watched = self.taken_over = False
        self.opened_with: Any = None

    def is_closed(self) -> bool:
        return not self.open

    def is_in_transaction(self) -> bool:
        return False

    def terminate(self) -> None:
        self.open = False

    def lend(self, touches: Any) -> None:
        return

    def forget(self) -> None:
        return

    async def control(self, sql: str) -> None:
        await asyncio.sleep(60 if self.hangs else 0)


class Catalogue:
    due = False

    def touches(self, sql: str) -> bool:
        return False


async def connected(*_: Any, **__: Any) -> Connected:
    await asyncio.sleep(0)
    return Connected()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[NodePool, NodePool]:
    """Two pools of one node that may have one connection between them."""

    monkeypatch.setattr(pools, "connect", connected)
    budget, catalogue = Budget(1), Catalogue()
    login = Login("a", "b")
    return (
        NodePool(NODE, login, {}, budget, catalogue),  # type: ignore[arg-type]
        NodePool(NODE, login, {}, budget, catalogue),  # type: ignore[arg-type]
    )


def borrows(pool: NodePool, **more: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(pool.acquire(Deadline.after(2.0), **more))


async def test_who_left_the_line_does_not_take_what_is_freed(two: tuple[NodePool, NodePool]) -> None:
    reads, writes = two
    held = await borrows(reads)
    leaves = borrows(reads)
    await asyncio.sleep(0.01)
    stays = borrows(writes)
    await asyncio.sleep(0.01)
    leaves.cancel()
    await asyncio.wait([leaves])
    reads.discard(held)
    async with asyncio.timeout(0.5):
        assert (await stays).is_closed() is False
    assert (reads.open, writes.open) == (0, 1)


async def test_who_left_the_line_does_not_keep_the_next_one_waiting(two: tuple[NodePool, NodePool]) -> None:
    """There is no connection left, so nobody would ever give one back: the pool was dead for good."""
    pool, _ = two
    held = await borrows(pool)
    leaves = borrows(pool)
    await asyncio.sleep(0.01)
    leaves.cancel()
    await asyncio.wait([leaves])
    pool.discard(held)
    assert pool.open == 0
    async with asyncio.timeout(0.5):
        assert (await borrows(pool)).is_closed() is False


async def test_a_session_that_is_given_up_while_it_is_made_clean_makes_room(two: tuple[NodePool, NodePool]) -> None:
    reads, writes = two
    connection = await borrows(reads)
    connection.hangs = True
    reads.release(connection)
    fresh = borrows(reads, fresh=True)
    await asyncio.sleep(0.01)
    waits = borrows(writes)
    await asyncio.sleep(0.01)
    fresh.cancel()
    await asyncio.wait([fresh])
    assert connection.is_closed()
    async with asyncio.timeout(0.5):
        assert (await waits).is_closed() is False
    assert (reads.open, writes.open) == (0, 1)


async def test_who_leaves_before_a_connection_is_made_leaves_it_to_the_next(
    two: tuple[NodePool, NodePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = two
    go, made = asyncio.Event(), 0

    async def connect(*_: Any, **__: Any) -> Connected:
        nonlocal made
        made += 1
        await go.wait()
        return Connected()

    monkeypatch.setattr(pools, "connect", connect)
    leaves = borrows(reads)
    with pytest.raises(TimeoutError):
        await reads.acquire(Deadline.after(0.01))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    assert (made, reads.open) == (1, 1), "it is still being made"
    elsewhere = borrows(writes)
    stays = borrows(reads)
    await asyncio.sleep(0.01)
    go.set()
    async with asyncio.timeout(0.5):
        reads.release(await stays)
        assert (await elsewhere).is_closed() is False
    assert made == 2, "the first one made way for the other pool's"


async def test_a_session_that_was_overtaken_while_it_was_made_ends_with_its_first_borrower(
    two: tuple[NodePool, NodePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims an epoch that is not in force any more; the shard would refuse whoever borrows it."""
    pool, _ = two

    async def connect(*_: Any, **__: Any) -> Connected:
        asyncio.get_running_loop().call_soon(pool.reopen, {"pgfleet.epoch": "2"})  # made, and nobody has heard of it yet
        return Connected()

    monkeypatch.setattr(pools, "connect", connect)
    connection = await borrows(pool)
    assert connection.opened_with is not pool.settings
    pool.release(connection)
    assert connection.is_closed()
    assert pool.open == 0


async def test_a_session_that_is_overtaken_while_it_is_made_clean_ends(two: tuple[NodePool, NodePool]) -> None:
    pool, _ = two
    connection = await borrows(pool)
    connection.touched = True
    pool.release(connection)
    pool.reopen({"pgfleet.epoch": "2"})
    await asyncio.sleep(0.01)
    assert connection.is_closed()
    assert (await borrows(pool)) is not connection


async def test_one_that_is_made_clean_is_cut_off_with_the_others(two: tuple[NodePool, NodePool]) -> None:
    pool, _ = two
    connection = await borrows(pool)
    connection.touched = connection.hangs = True
    pool.release(connection)
    pool.drop()
    assert connection.is_closed()


async def test_writers_and_readers_of_one_node_do_not_starve_each_other(two: tuple[NodePool, NodePool]) -> None:
    reads, writes = two
    served = 0

    async def reader() -> None:
        nonlocal served
        while True:
            connection = await reads.acquire(Deadline.after(5.0))
            await asyncio.sleep(0.001)
            reads.release(connection)
            served += 1

    readers = [asyncio.create_task(reader()) for _ in range(6)]
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1.0):
        connection = await borrows(writes)
    before = served
    assert before > 20, "not at once: it costs a connection"
    writes.release(connection)
    await asyncio.sleep(0.05)
    assert served > before
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_warming_that_is_cancelled_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    async def connect(*_: Any, **__: Any) -> Connected:
        nonlocal made
        made += 1
        await asyncio.sleep(60 if made > 2 else 0)
        return Connected()

    monkeypatch.setattr(pools, "connect", connect)
    pool = NodePool(NODE, Login("a", "b"), {}, Budget(4), Catalogue())  # type: ignore[arg-type]
    task = asyncio.create_task(pool.warm(4))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert (pool.lent, made) == (0, 3)
    await pool.aclose()


async def test_who_closes_tells_those_who_wait_for_a_connection(
    two: tuple[NodePool, NodePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: Any, **__: Any) -> Connected:
        await asyncio.sleep(60)
        return Connected()

    monkeypatch.setattr(pools, "connect", connect)
    pool, _ = two
    waits = borrows(pool)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(0.5):
        await pool.aclose()
        with pytest.raises(FleetClosed):
            await waits
    assert pool.open == 0


DEEDS = ("borrow", "borrow fresh", "leave", "give back", "cut off", "server cuts", "drop", "turn")


@given(st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 1), st.integers(0, 9)), max_size=40), st.integers(1, 3))
@settings(deadline=None)
def test_whoever_waits_is_served_once_everything_is_given_back(story: list[tuple[str, int, int]], size: int) -> None:
    """Two pools of one node; borrowers come, leave, and are cut off in any turn of the loop."""

    async def told() -> None:
        budget, catalogue = Budget(size), Catalogue()
        both = [NodePool(NODE, Login("a", "b"), {}, budget, catalogue) for _ in range(2)]  # type: ignore[arg-type]
        asking: list[tuple[NodePool, asyncio.Task[Any]]] = []
        for deed, which, number in story:
            pool = both[which]
            mine = [task for owner, task in asking if owner is pool]
            served = [task for task in mine if task.done() and not task.cancelled()]
            picked = served[number % len(served)] if served else None
            match deed:
                case "borrow" | "borrow fresh":
                    asking.append((pool, borrows(pool, fresh=deed == "borrow fresh")))
                case "leave":
                    waiting = [task for task in mine if not task.done()]
                    if waiting:
                        waiting[number % len(waiting)].cancel()
                case "give back" | "cut off" if picked is not None:
                    connection = picked.result()
                    connection.touched = number % 2 == 0
                    pool.release(connection) if deed == "give back" else pool.discard(connection)
                    asking.remove((pool, picked))
                case "server cuts" if picked is not None:
                    picked.result().terminate()
                case "drop":
                    pool.drop()
                case _:
                    await asyncio.sleep(0)
            assert budget.used <= size
        async with asyncio.timeout(1.5):
            while asking:
                await asyncio.wait([task for _, task in asking], return_when=asyncio.FIRST_COMPLETED)
                for pool, task in [one for one in asking if one[1].done()]:
                    asking.remove((pool, task))
                    if not task.cancelled():
                        pool.release(task.result())
            for pool in both:
                pool.release(await pool.acquire(Deadline.after(1.0)))
        assert all(pool.lent == 0 and pool.waiting == 0 for pool in both)
        await asyncio.gather(*(pool.aclose() for pool in both))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "connect", connected)
        asyncio.run(told())
