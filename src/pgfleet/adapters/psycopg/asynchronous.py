"""psycopg's asynchronous connections, lent by route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, assert_never

from pgfleet.adapters.psycopg.block import Ask, Block, Find, Mark, Pause, Say, Steps, Take
from pgfleet.adapters.psycopg.connection import AsyncConnection
from pgfleet.adapters.psycopg.pools import AsyncPool
from pgfleet.adapters.psycopg.words import exchange
from pgfleet.client.fleet import Fleet
from pgfleet.client.guide import Aim, Guide, to_nodes
from pgfleet.errors import FleetClosed
from pgfleet.names import NodeName
from pgfleet.routing.hashing import Key
from pgfleet.routing.route import Role


class AsyncFleet:
    """Lends psycopg connections of a fleet that is open. It is used in ``async with``, and closes what it opened.

    :param fleet: made by :func:`pgfleet.connect`; it outlives this.
    :param size: connections to one node at most, for reads and for writes each; None: half of the file's ``per_process``, so that
        both together are what ``pgfleet check`` counts.
    """

    def __init__(self, fleet: Fleet, *, size: int | None = None) -> None:
        self._fleet, self._given = fleet, size
        self._guide: Guide | None = None
        self._pools: dict[tuple[NodeName, Role], AsyncPool] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._guide = guide = Guide(to_nodes(self._fleet))
        self._size = guide.size(self._given)
        self._later(self._follow(guide))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._guide = None
        for pool in self._pools.values():
            pool.close()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for pool in self._pools.values():
            pool.end()

    @asynccontextmanager
    async def read(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None,
        max_staleness: float | str | None = None,
    ) -> AsyncIterator[AsyncConnection]:  # fmt: skip
        """A READ ONLY transaction on a near replica of the key's shard. Every call on ``conn`` ends within ``deadline``
        seconds after the block began.

        :param max_staleness: seconds (or ``2 s``) that the replica may be behind; None: any, if it has this caller's writes.
        :raises DeadlineExceeded: it did not.
        :raises WriteInRead: a statement writes.
        :raises PlacementError: the table, or the key, has no place.
        """
        aim = self._live.aim(table, key=key, second=second, max_staleness=max_staleness)
        async with self._lent(aim, deadline) as lent:
            yield lent

    @asynccontextmanager
    async def write(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None, resolvable: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction on the primary of the key's shard, committed when the block ends, rolled back when it raises.

        :param resolvable: it leaves a row, by which ``await error.resolve()`` can tell what became of it.
        :raises DeadlineExceeded: no answer in time; nothing was written.
        :raises OutcomeUnknown: COMMIT was sent, and never answered, or answered without the replicas.
        :raises BlockRolledBack: an error was caught inside the block, so PostgreSQL did not commit.
        :raises PlacementMoved: the key moved to another shard meanwhile: run the block again.
        """
        async with self._lent(
            self._live.aim(table, key=key, second=second, role="write", resolvable=resolvable), deadline
        ) as lent:
            yield lent

    @asynccontextmanager
    async def _lent(self, aim: Aim, seconds: float | None) -> AsyncIterator[AsyncConnection]:
        guide = self._live
        with guide.observing.call(aim.role, aim.table, aim.shard) as call:
            block = Block[AsyncConnection](guide, aim, guide.deadline(seconds), call, self._size)
            await self._drive(block, block.begin())
            try:
                yield block.connection
            except BaseException as error:
                await self._drive(block, block.fail(error))
                raise
            if aim.role == "write":
                await self._drive(block, block.commit())
            else:
                self._later(self._drive(block, block.undo()))  # behind the caller's back

    async def _drive(self, block: Block[AsyncConnection], steps: Steps) -> None:
        try:
            step = next(steps)
            while True:
                answer: Any = None
                try:
                    match step:
                        case Find(avoid):
                            answer = await block.guide.find(block.aim, block.deadline, block.call, avoid)
                        case Take(route):
                            block.pool = pool = self._pool(route.name, route.role)
                            answer = await pool.take(block.words, block.deadline)
                        case Say(message):
                            answer = await block.connection.wait(exchange(block.connection.pgconn, message))
                        case Mark(since):
                            answer = await block.guide.position(block.route.name, since)
                        case Ask(refusal):
                            answer = await block.guide.refused(block.aim, refusal, block.deadline)
                        case Pause(seconds):
                            await asyncio.sleep(seconds)
                        case _:
                            assert_never(step)
                except BaseException as error:  # noqa: BLE001 - the steps decide about every one
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration:
            return

    def _pool(self, node: NodeName, role: Role) -> AsyncPool:
        pool = self._pools.get((node, role))
        if pool is None:
            pool = self._pools[node, role] = AsyncPool(node, role, self._live.observing, self._size)
        return pool

    async def _follow(self, guide: Guide) -> None:
        """Hang up on a node that is no primary any more: it may be writable still, in its own opinion."""
        while True:
            await guide.changed()
            for (node, role), pool in self._pools.items():
                if role == "write" and guide.primary(node.shard) != node:
                    pool.cut()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @property
    def _live(self) -> Guide:
        if self._guide is None:
            raise FleetClosed("this fleet is not open", hint="async with AsyncFleet(fleet) as people:")
        return self._guide
