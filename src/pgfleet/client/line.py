"""Borrowers that wait for a connection, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pgfleet.runtime.clock import Deadline
from pgfleet.runtime.sql import Connection


class Line:
    """A turn that comes brings a connection, or None: there is room for another.

    :param passed_by: told what a turn brought to somebody who had left.
    """

    def __init__(self, passed_by: Callable[[Connection | None], None]) -> None:
        self._passed_by = passed_by
        self._waiting: deque[tuple[float, asyncio.Future[Connection | None]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def since(self) -> float:
        """When whoever waits longest came, on the loop's clock; infinite: nobody waits."""
        return self._waiting[0][0] if self.stands() else float("inf")

    def stands(self) -> bool:
        """Whether anybody waits still: who has left stands in the line, and what is freed is not for them."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        return bool(self._waiting)

    async def turn(self, deadline: Deadline) -> Connection | None:
        """Wait for one's turn.

        :raises TimeoutError: it did not come before ``deadline``.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Connection | None] = loop.create_future()
        self._waiting.append((loop.time(), turn))
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._passed_by(turn.result())
            raise

    def next(self) -> asyncio.Future[Connection | None] | None:
        """The turn of whoever is first, who is no longer in the line; None: nobody waits."""
        return self._waiting.popleft()[1] if self.stands() else None
