"""Writes that can be asked what became of them: by a row that each makes inside its transaction.

Transaction ids do not decide (a new primary may use one again); the row does. Whoever asks tries to make the same row as void. If
that succeeds the write can never be committed any more; if the row is there it was; and where the transaction is still under
way the unique index has the question wait for it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from uuid import UUID

import asyncpg

from pgfleet.client.borrowing import PAUSE, Borrowing
from pgfleet.client.router import Router
from pgfleet.client.trouble import BROKEN, lost
from pgfleet.errors import Outcome, Unreachable
from pgfleet.runtime.clock import Deadline

#: Written again where it is there already, so that the answer is on the replicas before it is given.
_DECIDE = """
insert into pgfleet.outcome as o (id, void) values ($1, true)
on conflict (id) do update set at = o.at
returning void
"""
_CLEAN = """
delete from pgfleet.outcome where id in (
    select id from pgfleet.outcome where at < now() - make_interval(hours => $1) limit 1000
)
"""
#: Hours for which a row is kept: how late somebody may still ask.
KEPT_HOURS = 24
#: Marks after which one of a client's own writes cleans up behind itself.
CLEAN_EVERY = 500


class Needless(Protocol):
    """Whether nothing waits for an outcome that is older than so many seconds."""

    async def __call__(self, deadline: Deadline, *, older: float) -> bool: ...


async def _always(deadline: Deadline, *, older: float) -> bool:
    return True


class Outcomes:
    """The outcome rows of one fleet."""

    def __init__(self, router: Router, borrowing: Borrowing | None = None) -> None:
        self._router = router
        self._borrowing = borrowing or Borrowing(router)
        self.needless: Needless = _always
        self._marks: dict[str, int] = {}
        self._cleaning: set[asyncio.Task[int]] = set()

    def marked(self, shard: str) -> None:
        """A row was made on ``shard``: now and then, old ones are removed."""
        self._marks[shard] = self._marks.get(shard, 0) + 1
        if self._marks[shard] % CLEAN_EVERY == 0:
            task = asyncio.get_running_loop().create_task(self.clean(shard))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaned)

    def _cleaned(self, task: asyncio.Task[int]) -> None:
        self._cleaning.discard(task)
        error = None if task.cancelled() else task.exception()
        # A primary that is going away will be cleaned by a later write; anything else is a mistake of ours.
        if error is not None and not isinstance(error, (asyncpg.PostgresError, Unreachable, *BROKEN)):
            told = {"message": "pgfleet: removing old outcomes failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(told)

    async def clean(self, shard: str, *, hours: int = KEPT_HOURS, seconds: float = 5.0) -> int:
        """Remove rows that are older than ``hours``; how many. None while something waits for one of them (lookups)."""
        deadline = Deadline.after(seconds)
        removed = 0
        if not await self.needless(deadline, older=hours * 1800.0):
            return 0
        while deadline.left() > 0:
            async with self._borrowing.block(shard, "write", deadline) as (_, connection):
                status = await connection.run(_CLEAN, (hours,))
            count = int(status.rpartition(" ")[2])
            removed += count
            if count < 1000:
                break
        return removed

    async def resolve(self, shard: str, mark: UUID, *, answered: bool, seconds: float) -> Outcome:
        """What became of the write that made ``mark`` on ``shard``.

        :param answered: its COMMIT was answered, but not confirmed by the replicas.
        :raises DeadlineExceeded: nobody could be asked in time.
        """
        deadline = Deadline.after(seconds)
        waits_for = "a primary"
        while deadline.left() > 0:
            pool, connection = await self._borrowing.borrow(shard, "write", deadline)
            try:
                async with asyncio.timeout(max(0.0, deadline.left())):
                    row = await connection.own(_DECIDE, mark)
            except (asyncpg.PostgresError, *BROKEN) as error:
                # Sent again as often as it takes: it decides once, and then says the same.
                waits_for = str(error) or type(error).__name__
                if lost(error):
                    pool.discard(connection)
                    self._router.failed(pool.node.name, silent=False)
                else:
                    pool.release(connection)
                await self._router.change(deadline, PAUSE)
                continue
            except BaseException:
                pool.discard(connection)
                raise
            unreplicated = connection.unreplicated
            pool.release(connection)
            if unreplicated:
                continue  # the answer itself is not on the replicas
            if not row["void"]:
                return "committed"
            return "lost" if answered else "aborted"
        raise self._borrowing.late(shard, waits_for, deadline)

    async def aclose(self) -> None:
        for task in self._cleaning:
            task.cancel()
        await asyncio.gather(*self._cleaning, return_exceptions=True)
