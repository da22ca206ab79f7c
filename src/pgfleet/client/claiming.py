"""One write's claims and releases in lookups: reserved before its transaction, settled after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from pgfleet.client.lookup_entry import WRITE_OUTCOME, Entries, Row
from pgfleet.client.repair import Repair
from pgfleet.errors import AlreadyClaimed, ClaimVoided, DeadlineExceeded, NotTheirs, OutcomeUnknown, Unreachable
from pgfleet.routing.lookup import Address, Entry, Undecided
from pgfleet.runtime.clock import Deadline

#: Told of each shard on which this caller has marked a value as given up: what it reads there later, on replicas too, is the
#: mark or what came of it.
Wrote = Callable[[str, Deadline], Awaitable[None]]


async def write_outcome(connection: asyncpg.Connection[Any], write: UUID) -> None:
    """The first statement of a write with claims, in its transaction on the owner shard.

    First, because whoever needs an outcome then waits for the transaction, instead of declaring it void when its grace is over.

    :raises ClaimVoided: that was done already; roll back.
    """
    # The client's own connections are told that this leaves nothing behind. (asyncpg's metaclass calls every connection of its an
    # instance of every class of connections.)
    own = getattr(connection, "own", None)
    if await (own or connection.fetchrow)(WRITE_OUTCOME, write) is None:
        raise ClaimVoided("the values were reserved too long before the transaction began, and another write took them")


class Claiming:
    """Used once. ``id`` is for :func:`write_outcome`; it is known when :meth:`reserve` has returned, not before."""

    def __init__(
        self, entries: Entries, repair: Repair, row: Row, claims: tuple[Address, ...], releases: tuple[Address, ...],
        wrote: Wrote,
    ) -> None:  # fmt: skip
        self.row, self.claims, self.releases = row, claims, releases
        self._wrote = wrote
        self.id = uuid4()
        self._entries, self._repair = entries, repair
        self._begun: list[tuple[Address, bool]] = []
        self._abandoned: set[UUID] = set()
        self._waits_for = ""

    @asynccontextmanager
    async def held(self, deadline: Deadline) -> AsyncIterator[UUID]:
        """Around the transaction: reserved when it begins; confirmed when the block ends, withdrawn when it raises.

        The block's transaction begins with :func:`write_outcome`, and has ended when an error leaves the block. OutcomeUnknown
        and a cancellation leave the entries as they are, to be decided by the outcome.

        :raises AlreadyClaimed, NotTheirs: nothing is reserved any more.
        """
        await self.reserve(deadline)
        try:
            yield self.id
        except OutcomeUnknown:
            raise
        except Exception:
            await self._after_an_error(deadline)
            raise
        await self.settle(deadline, committed=True)

    async def reserve(self, deadline: Deadline) -> None:
        """Hold every claim, then mark every release.

        :raises AlreadyClaimed: a value has a row. :raises NotTheirs: a value to give up has a row with another key.
        :raises DeadlineExceeded: another write held one of them for so long.
        """
        while True:
            try:
                # In one order for all writes; and nobody who has marked a release waits for a claim: no two wait for
                # each other.
                for at in self.claims:
                    await self._claim(at, deadline)
                for at in self.releases:
                    await self._mark(at, deadline)
                for shard in dict.fromkeys(at.shard for at in self.releases):
                    await self._wrote(shard, deadline)
                return
            except (OutcomeUnknown, DeadlineExceeded) as error:
                await self.settle(deadline, committed=False)
                if isinstance(error, DeadlineExceeded) or deadline.left() <= self._repair.pause:
                    raise DeadlineExceeded(
                        f"whether {self._waits_for} was not decided within {deadline.allowed:g} s", seen=[error.message]
                    ) from error
                self._abandoned.add(self.id)
                self.id = uuid4()
            except Exception:
                await self.settle(deadline, committed=False)
                raise

    async def settle(self, deadline: Deadline, *, committed: bool) -> tuple[Address, ...]:
        """Confirm the claims and finish the releases; or, not committed, take both back.

        Only when that is certain. What does not succeed is done by the next who meets the entry, so it is no error.

        :returns: the entries that wait for that.
        """
        begun, self._begun = self._begun, []
        done = await asyncio.gather(*(self._settled(at, claimed, deadline, committed) for at, claimed in begun))
        return tuple(at for (at, _), settled in zip(begun, done, strict=True) if not settled)

    async def _after_an_error(self, deadline: Deadline) -> None:
        """An error can come after COMMIT was answered, too, so the outcome is looked at; it is not in flight any more."""
        write, owner = self.id, self.row.owner
        try:
            committed = await self._repair.surely(lambda: self._entries.outcome(write, owner, deadline), deadline)
        except (Unreachable, asyncpg.PostgresError):
            return  # whoever meets the entries will be told
        await self.settle(deadline, committed=committed is True)

    async def _settled(self, at: Address, claimed: bool, deadline: Deadline, committed: bool) -> bool:
        write = self.id
        try:
            await self._repair.surely(
                lambda: self._entries.settle(at, write, committed=committed, claimed=claimed, deadline=deadline), deadline
            )
        except (Unreachable, asyncpg.PostgresError):
            return False
        return True

    async def _claim(self, at: Address, deadline: Deadline) -> None:
        while True:
            self._begin(at, claimed=True, deadline=deadline)
            entry = await self._entries.claim(at, self.row, self.id, deadline)
            if entry is None:
                continue
            if entry.reservation == self.id and entry.claimed:
                return
            if (asked := entry.undecided) is None:
                raise AlreadyClaimed(f"the {at.lookup} given for {at.table} belongs to a row already", hint="fleet.locate")
            await self._others(at, entry, asked, deadline)

    async def _mark(self, at: Address, deadline: Deadline) -> None:
        while True:
            self._begin(at, claimed=False, deadline=deadline)
            entry = await self._entries.vacate(at, self.row, self.id, deadline)
            if entry is None:
                continue
            if entry.releasing == self.id:
                return
            if (asked := entry.undecided) is not None:
                await self._others(at, entry, asked, deadline)
                continue
            if entry.key != self.row.key or (None not in (entry.second, self.row.second) and entry.second != self.row.second):
                whose = f"belongs to a row with key {entry.key}"
                raise NotTheirs(f"the {at.lookup} given up by key {self.row.key} of {at.table} {whose}")
            if await self._entries.release(at, entry, self.row, self.id, deadline):
                return

    def _begin(self, at: Address, *, claimed: bool, deadline: Deadline) -> None:
        self._waits_for = _what(at, claimed=claimed)
        if deadline.left() <= 0:
            raise DeadlineExceeded("no time is left")
        if (at, claimed) not in self._begun:
            self._begun.append((at, claimed))

    async def _others(self, at: Address, entry: Entry, asked: Undecided, deadline: Deadline) -> None:
        """Wait until the write that holds an entry is decided, or its grace is over and we decide."""
        patience = max(0.001, deadline.left())
        if await self._repair.resolve(at, entry, deadline, patience=patience, abandoned=self._abandoned) is None:
            if deadline.left() <= self._repair.pause:
                raise DeadlineExceeded(f"write {asked.write} on {asked.shard} holds it, in flight or since a moment")
            await asyncio.sleep(self._repair.pause)


def _what(at: Address, *, claimed: bool) -> str:
    return f"the {at.lookup} given for {at.table} can be {'claimed' if claimed else 'given up'}"
