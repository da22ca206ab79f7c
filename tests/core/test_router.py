"""What a router believes of a shard's history, and what a read is judged by, while another node is promoted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pgfleet.client.carrying import Carrying
from pgfleet.client.freshness import Wanted
from pgfleet.client.reading import Read, Reader
from pgfleet.client.router import Router
from pgfleet.errors import WriteLost
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.topology import MemberSeen, Role, ShardTopology
from pgfleet.names import NodeName
from pgfleet.routing.lineage import Lost, judge
from pgfleet.routing.token import Position
from pgfleet.runtime.sql import Login
from pgfleet.topology.watch import ShardView

A, B = NodeName("one", "us-east", 1), NodeName("one", "us-east", 2)
#: Acknowledged on A, beyond where timeline 1 will have ended.
LOST = Position(1, 2000, 0, 7)


def member(node: NodeName, role: Role, timeline: int) -> MemberSeen:
    return MemberSeen(node, role, "running" if role == "primary" else "streaming", 100, timeline)


BEFORE = ShardTopology("one", A, {A: member(A, "primary", 1), B: member(B, "replica", 1)}, system=7, revision=1)


class Pool:
    """Answers with the name of its node."""

    def __init__(self, node: NodeName) -> None:
        self.node, self.waiting, self.open, self.kin = SimpleNamespace(name=node), 0, 0, None

    def take(self) -> None:
        return None

    async def acquire(self, *_: Any, **__: Any) -> Any:
        return self

    async def ask(self, *_: Any) -> list[str]:
        return [self.node.name.member]

    async def warm(self, _: int) -> int:
        return 0

    def release(self, _: Any) -> None: ...

    def drop(self) -> None: ...


class Stage:
    """A router that is shown what its watch would show it."""

    def __init__(self) -> None:
        nodes = [NodeAddress(name, "voter", "127.0.0.1", 1, 0) for name in (A, B)]
        book = SimpleNamespace(nodes=nodes)
        opened: Any = SimpleNamespace(book=book, login_of=lambda _: Login("a", "b"), etcd=lambda: None)
        self.router = Router(opened, region=None, size=2)
        self.watch = SimpleNamespace(views={}, doubt=lambda _: None)
        pools: dict[Any, Pool] = {}
        hidden: Any = self.router
        hidden._watch = self.watch
        hidden.pool = lambda node, mode: pools.setdefault((node, mode), Pool(node))

    def shows(self, view: ShardView) -> None:
        self.watch.views = {"one": view}
        self.router._seen(view)


@pytest.fixture
async def stage() -> Any:
    made = Stage()
    yield made
    for task in made.router._background:
        task.cancel()
    await asyncio.gather(*made.router._background, return_exceptions=True)


async def test_a_timeline_that_ended_is_not_believed_again(stage: Stage) -> None:
    """Patroni's note of a new primary's timeline is a replica's still, for a second or two."""
    stage.shows(ShardView(BEFORE, A))
    moved = replace(BEFORE, primary=B, revision=2)
    stage.shows(ShardView(moved, None))
    stage.shows(ShardView(moved, B))
    stage.shows(ShardView(moved, B, ends={1: 1000}))
    stage.shows(ShardView(replace(moved, revision=3), B, ends={1: 1000}))
    assert stage.router.lineage("one").timeline == 0, "it has not said which it is on"
    noted = replace(moved, members={A: member(A, "replica", 1), B: member(B, "primary", 2)}, revision=4)
    stage.shows(ShardView(noted, B, ends={1: 1000}))
    assert stage.router.lineage("one").timeline == 2
    assert isinstance(judge(LOST, stage.router.lineage("one")), Lost)


async def test_a_read_that_waited_through_a_promotion_is_judged_by_what_came_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: Any) -> None: ...

    monkeypatch.setattr(stage.router.positions, "ask", silent)
    stage.shows(ShardView(BEFORE, A))
    gone = replace(BEFORE, primary=None, revision=2)
    stage.shows(ShardView(gone, None))
    reader = Reader(stage.router, Carrying())
    lost = asyncio.create_task(reader.fetch(Read("t", "one", Wanted((LOST,))), "select", (), 5.0))
    held = asyncio.create_task(reader.fetch(Read("t", "one", Wanted((replace(LOST, lsn=900),))), "select", (), 5.0))
    await asyncio.sleep(0.2)
    members = {A: member(A, "replica", 1), B: member(B, "primary", 2)}
    stage.shows(ShardView(replace(gone, primary=B, members=members, revision=3), B, ends={1: 1000}))
    with pytest.raises(WriteLost):
        await lost
    answer: list[Any] = await held
    assert answer == [B.member]
