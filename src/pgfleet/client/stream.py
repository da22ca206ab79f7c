"""Results that are too large to hold: rows of all shards one by one, in order, from cursors that are read as needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from heapq import heapify, heappop, heapreplace
from typing import Any, Self

from pgfleet.client.gather import misordered
from pgfleet.client.order import Order
from pgfleet.client.scatter import Question, silent
from pgfleet.client.source import BATCHES, Borrow, Silent, Source
from pgfleet.errors import CannotCombine, CannotMerge

#: Rows that a cursor can be asked for at once (PostgreSQL docs, 55.7, Execute).
MOST_AT_ONCE = 2**31 - 1
#: Rows of one shard in memory at most, where the caller says nothing.
PREFETCH = 3000


@asynccontextmanager
async def stream(
    shards: Sequence[str], borrow: Borrow, question: Question, *, what: str, patience: float,
    prefetch: int = PREFETCH, partial: bool = False,
) -> AsyncIterator[Stream]:  # fmt: skip
    """All rows of ``question``; leaving the block ends every cursor, whatever was read.

    Each shard's rows are those of one instant, not all shards' of the same.

    :param borrow: lends a transaction to read in.
    :param what: of what the shards are, for messages: the table.
    :param patience: seconds that one more row may take to come.
    :param prefetch: rows of one shard in memory at most.
    :param partial: a shard that falls silent, in the middle too, is named in ``missing`` instead of raising.
    :raises CannotCombine, CannotMerge: the question cannot be streamed; nothing was sent.
    """
    if question.combination is not None:
        raise CannotCombine("what is combined cannot be streamed: its first row depends on the last", hint="fleet.everywhere")
    if not isinstance(prefetch, int) or isinstance(prefetch, bool) or prefetch < BATCHES:
        raise CannotMerge(f"prefetch is a whole number, {BATCHES} rows at least, not {prefetch!r}")
    if prefetch // BATCHES > MOST_AT_ONCE:
        raise CannotMerge(f"prefetch is {BATCHES * MOST_AT_ONCE} rows at most, not {prefetch}")
    sources = [
        Source(shard, borrow, question.sql, question.args, question.order, prefetch // BATCHES) for shard in shards
    ]  # fmt: skip
    rows = Stream(sources, question, what=what, patience=patience, partial=partial)
    try:
        yield rows
    finally:
        await rows.aclose()


class Stream:
    """Rows one by one: ``async for row in stream``. ``missing``: the shards that fell silent, each with the reason."""

    def __init__(self, sources: Sequence[Source], question: Question, *, what: str, patience: float, partial: bool) -> None:
        self.missing: dict[str, str] = {}
        self._sources, self._question = sources, question
        self._what, self._patience, self._partial = what, patience, partial
        self._rows = self._ordered() if question.order else self._unordered()
        self._skip, self._left = question.offset, question.limit

    async def aclose(self) -> None:
        """End every cursor."""
        await self._rows.aclose()
        await asyncio.gather(*(source.end() for source in self._sources))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """:raises ShardsSilent: no row came within the patience, or a shard's connection broke."""
        if self._left == 0:
            raise StopAsyncIteration
        while self._skip:
            await anext(self._rows)
            self._skip -= 1
        row = await anext(self._rows)
        if self._left is not None:
            self._left -= 1
        return row

    async def _ordered(self) -> AsyncGenerator[Any]:
        order = self._question.order
        heads = [_Head(source, rows, order) for source, rows in await self._first_batches()]
        try:
            heap = [(head.key, n) for n, head in enumerate(heads)]
            heapify(heap)
            while heap:
                n = heap[0][1]
                head = heads[n]
                yield head.row
                if head.used_up and not head.refill(await self._more(head.source)):
                    heappop(heap)
                    continue
                head.step()
                heapreplace(heap, (head.key, n))
        except (TypeError, ArithmeticError) as error:
            raise order.incomparable(head.row for head in heads) from error

    async def _unordered(self) -> AsyncGenerator[Any]:
        loop = asyncio.get_running_loop()
        waiting = {loop.create_task(source.more()): source for source in self._sources}
        try:
            while waiting:
                done, late = await asyncio.wait(waiting, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done or late:
                    source = waiting.pop(task)
                    rows = await self._take(task, source)
                    if rows:
                        waiting[loop.create_task(source.more())] = source
                    for row in rows:
                        yield row
        finally:
            await _cancelled(waiting)

    async def _first_batches(self) -> list[tuple[Source, Sequence[Any]]]:
        """Of every shard that has rows, at once: nothing can be given before each has shown its first."""
        loop = asyncio.get_running_loop()
        waiting = {source: loop.create_task(source.more()) for source in self._sources}
        try:
            await asyncio.wait(waiting.values(), timeout=self._patience)
            taken = [(source, await self._take(task, source)) for source, task in waiting.items()]
        finally:
            await _cancelled(waiting.values())
        return [(source, rows) for source, rows in taken if rows]

    async def _more(self, source: Source) -> Sequence[Any]:
        task = asyncio.get_running_loop().create_task(source.more())
        try:
            await asyncio.wait([task], timeout=self._patience)
            return await self._take(task, source)
        finally:
            await _cancelled([task])

    async def _take(self, task: asyncio.Task[Sequence[Any]], source: Source) -> Sequence[Any]:
        """What ``task`` brought; nothing more, where the shard is silent and that is allowed."""
        try:
            if task.done():
                return task.result()
            await _cancelled([task])
            raise Silent(f"no row for {self._patience:g} s")
        except Silent as error:
            why = f"{error}, after {source.given:,} rows" if source.given else str(error)
            if not self._partial:
                raise silent({source.shard: why}, len(self._sources), self._what) from error
            self.missing[source.shard] = why
            await source.end()
            return ()


class _Head:
    """Where one shard's rows are read; ``row`` is the next, ``key`` what it is ordered by."""

    __slots__ = ("at", "key", "key_of", "order", "row", "rows", "source")

    def __init__(self, source: Source, rows: Sequence[Any], order: Order) -> None:
        self.source, self.rows, self.order = source, rows, order
        self.key_of = order.key(list(rows[0].keys()))
        self.row = rows[0]
        self.key = self.key_of(self.row)
        self.at = 1

    @property
    def used_up(self) -> bool:
        return self.at == len(self.rows)

    def refill(self, rows: Sequence[Any]) -> bool:
        """With the next batch; false: there is none."""
        self.rows, self.at = rows, 0
        return bool(rows)

    def step(self) -> None:
        """To the next row.

        :raises CannotMerge: which belongs before this one.
        """
        row = self.rows[self.at]
        key = self.key_of(row)
        if key < self.key:
            raise misordered(self.source.shard, self.order, self.row, row)
        self.row, self.key = row, key
        self.at += 1


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
