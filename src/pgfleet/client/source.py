"""One shard's rows, as they come: a server-side cursor in the transaction that it is lent, and never many rows at a time.

Three batches can be in memory at once: the one that is read from, one that waits, and one that is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from pgfleet.client.comparing import refusal
from pgfleet.client.order import Order
from pgfleet.client.scatter import reason
from pgfleet.client.trouble import BROKEN, lost, read_again
from pgfleet.errors import Unreachable

#: Lends a READ ONLY transaction on a node of a shard that can be read; it ends with the block.
Borrow = Callable[[str], AbstractAsyncContextManager["asyncpg.Connection[Any]"]]

BATCHES = 3
#: Seconds for the end of its transaction, before it is cut off: nothing was written that could be lost.
_LEAVING_SECONDS = 1.0
_END: Sequence[Any] = ()


class Silent(Exception):
    """This shard has no more to say, though it had not ended. The message says why."""


class Source:
    """The rows of one shard; ``rows`` is what is here, :meth:`more` waits for the next.

    :param batch: rows that are fetched at once.
    """

    def __init__(self, shard: str, borrow: Borrow, sql: str, args: Sequence[Any], order: Order, batch: int) -> None:
        self.shard, self.given = shard, 0
        self._borrow, self._sql, self._args, self._order, self._batch = borrow, sql, args, order, batch
        self._ready: asyncio.Queue[Sequence[Any] | BaseException] = asyncio.Queue(1)
        self._over = False
        self._task = asyncio.get_running_loop().create_task(self._fetch())

    async def more(self) -> Sequence[Any]:
        """The next batch; empty: there are no more.

        :raises Silent: the shard did not answer, or its connection is gone.
        :raises asyncpg.PostgresError: the server refused the statement.
        :raises CannotMerge: its columns have an order that is not known here.
        """
        rows = await self._ready.get()
        if isinstance(rows, BaseException):
            raise rows
        self.given += len(rows)
        return rows

    async def end(self) -> None:
        """Let the connection go; what is on its way is cut off."""
        self._over = True
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_LEAVING_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _fetch(self) -> None:
        try:
            async with self._borrow(self.shard) as connection:
                await self._cursor(connection)
        except Unreachable as error:
            await self._tell(Silent(reason(error)))
        except (asyncpg.PostgresError, *BROKEN) as error:
            if isinstance(error, TimeoutError) or (lost(error) and read_again(error)):
                await self._tell(Silent(str(error) or type(error).__name__))
            elif (refused := refusal(error, self.shard)) is not None:
                await self._tell(refused)
            else:
                error.add_note(f"said by shard {self.shard}")
                await self._tell(error)
        except Exception as error:  # noqa: BLE001  # told to whoever reads the rows
            await self._tell(error)

    async def _tell(self, told: Sequence[Any] | BaseException) -> None:
        # After the end nobody reads: where something waits to be read already, this would wait for ever.
        if not self._over:
            await self._ready.put(told)

    async def _cursor(self, connection: asyncpg.Connection[Any]) -> None:
        cursor = await connection.cursor(self._sql, *self._args)
        while not self._over:
            rows = await cursor.fetch(self._batch)
            try:
                if rows:
                    await self._tell(rows)
                if len(rows) < self._batch:
                    await self._tell(_END)
                    return
            except asyncio.CancelledError:
                # Nobody wants more, and nothing is on the wire: the connection is as good as before.
                return
