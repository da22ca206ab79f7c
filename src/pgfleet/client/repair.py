"""An entry of a lookup that was left between two steps: ask how its write came out, and do the step that is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import asyncpg

from pgfleet.client.lookup_entry import Entries
from pgfleet.errors import DeadlineExceeded, OutcomeUnknown
from pgfleet.routing.lookup import Address, Entry
from pgfleet.runtime.clock import Deadline

T = TypeVar("T")

#: Seconds in which an undecided entry is left to the write that made it so; then others decide about it.
GRACE = 2.0
#: Seconds between two attempts.
PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Repair:
    """:param grace: as :data:`GRACE`. :param pause: as :data:`PAUSE`."""

    entries: Entries
    grace: float = GRACE
    pause: float = PAUSE

    async def resolve(
        self, at: Address, entry: Entry, deadline: Deadline, *, patience: float, abandoned: Collection[UUID] = ()
    ) -> bool | None:
        """Whether the write that an undecided entry waits for was committed; that is then written down in the entry. None:
        it is left alone still, or in flight.

        :param patience: seconds to wait for a write in flight.
        :param abandoned: writes that are known to be given up: they need no grace.
        """
        asked = entry.undecided
        if asked is None:
            raise ValueError(f"the entry of {at.table}.{at.lookup} is decided")
        write, shard, entries = asked.write, asked.shard, self.entries
        young = entry.age < self.grace and write not in abandoned
        if young and await self.surely(lambda: entries.outcome(write, shard, deadline), deadline) is None:
            return None
        try:
            committed = await self.surely(
                lambda: entries.decide(write, shard, min(patience, deadline.left()), deadline), deadline
            )
        except asyncpg.LockNotAvailableError:
            return None
        await self.surely(
            lambda: entries.settle(at, write, committed=committed, claimed=entry.claimed, deadline=deadline), deadline
        )
        return committed

    async def surely(self, deed: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """A deed that does no harm when it is done twice: again, where nobody knows whether it was done."""
        while True:
            try:
                return await deed()
            except OutcomeUnknown as error:
                if deadline.left() <= self.pause:
                    raise DeadlineExceeded(f"no answer within {deadline.allowed:g} s", seen=[error.message]) from error
            await asyncio.sleep(self.pause)
