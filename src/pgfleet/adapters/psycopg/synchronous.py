"""psycopg's synchronous connections, lent by route. The routing itself lives in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypedDict, Unpack, assert_never

import pgfleet.client.fleet
from pgfleet.adapters.psycopg.background import Background
from pgfleet.adapters.psycopg.block import Ask, Block, Find, Mark, Pause, Say, Steps, Take
from pgfleet.adapters.psycopg.connection import Connection
from pgfleet.adapters.psycopg.pools import Pool
from pgfleet.adapters.psycopg.words import exchange
from pgfleet.client.carrying import After
from pgfleet.client.guide import Aim, Guide, to_nodes
from pgfleet.client.observing import Observer
from pgfleet.errors import FleetClosed, Outcome, OutcomeUnknown
from pgfleet.facts.addresses import Through
from pgfleet.names import NodeName
from pgfleet.routing.hashing import Key
from pgfleet.routing.route import Role, Route
from pgfleet.routing.token import Token


class Opening(TypedDict, total=False):
    """What :func:`pgfleet.connect` may be told besides."""

    region: str | None
    state: str | None
    role: str
    deadline: float
    through: Through | None
    pool_size: int | None
    observers: Sequence[Observer]


class _Elsewhere(Guide):
    """A guide that is asked from other threads than the fleet's own: what changes the router is said on its loop."""

    def __init__(self, fleet: pgfleet.client.fleet.Fleet, background: Background) -> None:
        super().__init__(fleet)
        self._background = background

    def failed(self, node: NodeName, *, silent: bool) -> None:
        self._background.say(partial(Guide.failed, self, node, silent=silent))

    def marked(self, aim: Aim) -> None:
        self._background.say(partial(Guide.marked, self, aim))


class Fleet:
    """A fleet for code without an event loop; used in ``with``, by any number of threads at once.

    :param where: the fleet's file, or its state folder.
    :param size: connections to one node at most, for reads and for writes each; None: half of the file's ``per_process``, so that
        both together are what ``pgfleet check`` counts.
    :param how: as :func:`pgfleet.connect` takes them.
    """

    def __init__(self, where: str | Path = "fleet.yaml", *, size: int | None = None, **how: Unpack[Opening]) -> None:
        self._where, self._how, self._given = where, how, size
        self._guide: _Elsewhere | None = None
        self._background: Background | None = None
        self._fleet: pgfleet.client.fleet.Fleet | None = None
        self._pools: dict[tuple[NodeName, Role], Pool] = {}
        self._pools_lock = Lock()

    def __enter__(self) -> Self:
        fleet = pgfleet.client.fleet.connect(self._where, **self._how)
        background = Background(fleet)
        background.open()
        try:
            guide = _Elsewhere(to_nodes(fleet), background)
            self._size = guide.size(self._given)
        except BaseException:
            background.close()
            raise
        self._guide, self._background, self._fleet = guide, background, fleet
        background.spawn(self._follow(guide))
        return self

    def __exit__(self, *_: object) -> None:
        background, self._background, self._guide, self._fleet = self._background, None, None, None
        for pool in self._pools.values():
            pool.close()
        if background is not None:
            background.close()

    def route(self, table: str, *, key: Key, second: Key | None = None, write: bool = False) -> Route:
        """Where a read, or a write, of ``key`` goes now; nothing is sent.

        :raises NoSuchNode: nowhere, right now.
        """
        guide = self._live
        return guide.route_now(guide.aim(table, key=key, second=second, role="write" if write else "read"))

    def token(self) -> Token:
        """Where this caller's writes are; a caller is a thread, or a context that was copied into it."""
        return self._known.token()

    def after(self, token: Token | str | None, *, alone: bool = False) -> After:
        """From now on (to the end of a ``with``) this caller's reads see the writes that ``token`` speaks of.

        :param alone: what this caller wrote before, its reads need not see.
        :raises TokenUnreadable: it is no token.
        """
        return self._known.after(token, alone=alone)

    def resolve(self, error: OutcomeUnknown, deadline: float = 30.0) -> Outcome:
        """What became of a write that was ``resolvable``: ``committed``, ``aborted`` (it will never happen now) or ``lost``.

        :raises NotResolvable: it was not.
        :raises DeadlineExceeded: nobody could be asked in time; ask again.
        """
        return self._running.run(error.resolve(deadline))

    @contextmanager
    def read(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None,
        max_staleness: float | str | None = None,
    ) -> Iterator[Connection]:  # fmt: skip
        """A READ ONLY transaction on a near replica of the key's shard. Every call on ``conn`` ends within ``deadline``
        seconds after the block began.

        :param max_staleness: seconds (or ``2 s``) that the replica may be behind; None: any, if it has this caller's writes.
        :raises DeadlineExceeded: it did not.
        :raises WriteInRead: a statement writes.
        :raises PlacementError: the table, or the key, has no place.
        """
        aim = self._live.aim(table, key=key, second=second, max_staleness=max_staleness)
        with self._lent(aim, deadline) as lent:
            yield lent

    @contextmanager
    def write(
        self, table: str, *, key: Key, second: Key | None = None, deadline: float | None = None, resolvable: bool = False
    ) -> Iterator[Connection]:
        """A transaction on the primary of the key's shard, committed when the block ends, rolled back when it raises.

        :param resolvable: it leaves a row, by which :meth:`resolve` can tell what became of it.
        :raises DeadlineExceeded: no answer in time; nothing was written.
        :raises OutcomeUnknown: COMMIT was sent, and never answered, or answered without the replicas.
        :raises BlockRolledBack: an error was caught inside the block, so PostgreSQL did not commit.
        :raises PlacementMoved: the key moved to another shard meanwhile: run the block again.
        """
        with self._lent(self._live.aim(table, key=key, second=second, role="write", resolvable=resolvable), deadline) as lent:
            yield lent

    @contextmanager
    def _lent(self, aim: Aim, seconds: float | None) -> Iterator[Connection]:
        guide = self._live
        with guide.observing.call(aim.role, aim.table, aim.shard) as call:
            block = Block[Connection](guide, aim, guide.deadline(seconds), call, self._size)
            self._drive(block, block.begin())
            try:
                yield block.connection
            except BaseException as error:
                self._drive(block, block.fail(error))
                raise
            self._drive(block, block.commit() if aim.role == "write" else block.undo())

    def _drive(self, block: Block[Connection], steps: Steps) -> None:
        try:
            step = next(steps)
            while True:
                answer: Any = None
                try:
                    match step:
                        case Find(avoid):
                            answer = self._find(block, avoid)
                        case Take(route):
                            block.pool = pool = self._pool(route.name, route.role)
                            answer = pool.take(block.words, block.deadline)
                        case Say(message):
                            answer = block.connection.wait(exchange(block.connection.pgconn, message))
                        case Mark(since):
                            answer = self._running.run(block.guide.position(block.route.name, since))
                        case Ask(refusal):
                            answer = self._running.run(block.guide.refused(block.aim, refusal, block.deadline))
                        case Pause(seconds):
                            time.sleep(seconds)
                        case _:
                            assert_never(step)
                except BaseException as error:  # noqa: BLE001 - the steps decide about every one
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration:
            return

    def _find(self, block: Block[Connection], avoid: set[NodeName]) -> Route:
        self._running.alive()
        # The table is a value that is swapped whole: looking at it needs no turn on the loop, only waiting does.
        route = block.guide.route(block.aim, avoid) if not block.aim.fresh else None
        return route or self._running.run(block.guide.find(block.aim, block.deadline, block.call, avoid))

    def _pool(self, node: NodeName, role: Role) -> Pool:
        with self._pools_lock:
            pool = self._pools.get((node, role))
            if pool is None:
                pool = self._pools[node, role] = Pool(node, role, self._live.observing, self._size)
            return pool

    async def _follow(self, guide: Guide) -> None:
        """Hang up on a node that is no primary any more: it may be writable still, in its own opinion."""
        while True:
            await guide.changed()
            with self._pools_lock:
                pools = list(self._pools.items())
            for (node, role), pool in pools:
                if role == "write" and guide.primary(node.shard) != node:
                    pool.cut()

    @property
    def _live(self) -> Guide:
        if self._guide is None:
            raise FleetClosed("this fleet is not open", hint="with Fleet(...) as fleet:")
        return self._guide

    @property
    def _known(self) -> pgfleet.client.fleet.Fleet:
        if self._fleet is None:
            raise FleetClosed("this fleet is not open", hint="with Fleet(...) as fleet:")
        return self._fleet

    @property
    def _running(self) -> Background:
        if self._background is None:
            raise FleetClosed("this fleet is not open", hint="with Fleet(...) as fleet:")
        return self._background
