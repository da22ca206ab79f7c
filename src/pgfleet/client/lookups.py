"""Values that are unique across the fleet: reserve, commit, confirm; right again after a crash at any point.

A write that claims an e-mail address (1) makes an entry for it on the lookup's shard, unconfirmed, with an id of its own;
(2) runs its transaction on the owner shard, whose first statement writes that id into ``pgfleet.outcome``; (3) confirms the
entry. A value is given up likewise: marked, committed, deleted. Whoever meets an entry that is neither looks at the outcome:

- it is there: the write was committed, so the step that is missing is done for it;
- it is not, and the entry is young: its write is left alone, for :data:`~pgfleet.client.repair.GRACE`;
- it is not, and the entry is old: a void outcome is written. If the transaction is in flight this waits for its end; if it
  has not begun, it can never commit. Then what the write had begun is undone.

What holds because of it. *Never two owners*: an entry changes hands only after the outcome of its write is void for good, and
both outcomes are one row of one table. *Never a confirmed entry without its row, never a lost value*: whatever is undecided
is decided by that same row, by the next who comes, or by :meth:`Lookups.sweep`.

Outcomes may be removed once nothing waits for them (:meth:`Lookups.decided`): an outcome that is not there was not committed.

An id is sent to a lookup once. Where it is not known whether that arrived, the write goes on under another id, so that a
message that arrives late can only make an entry whose outcome is void. The outcome row is written again by whoever asks:
that waits for the replicas, so nothing is decided by a commit that a failover could still undo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pgfleet.client.claiming import Claiming, Wrote
from pgfleet.client.lookup_entry import Entries, On, Row
from pgfleet.client.repair import GRACE, PAUSE, Repair
from pgfleet.errors import Unreachable
from pgfleet.routing.hashing import Key, key_text
from pgfleet.routing.lookup import Address, Entry, Value, address, addresses, by_columns
from pgfleet.routing.placement import Placement
from pgfleet.runtime.clock import Deadline

#: Entries that a sweep asks for at once.
_AT_ONCE = 500
#: Seconds that a read, or a sweep, waits for a write in flight.
_GLIMPSE = 0.05


@dataclass(frozen=True, slots=True)
class Located:
    """Where the row with a value is: its key and second column's value as text, and the shard they are placed on."""

    key: str
    shard: str
    second: str | None = None


@dataclass(slots=True)
class Swept:
    """What a repair found.

    :param removed: entries whose value nobody has. :param in_flight: whose write has not ended.
    :param undecided: what could not be decided, since a shard is silent, each with the reason.
    """

    confirmed: int = 0
    removed: int = 0
    in_flight: int = 0
    undecided: list[str] = field(default_factory=list)


async def _nobody(shard: str, deadline: Deadline) -> None:
    """Told, and not remembered."""


class Lookups:
    """:param placement: the newest that is known.
    :param on: runs statements on primaries.
    :param glance: the same on a near replica, for :meth:`locate`: what it finds is taken, what it does not find is asked
        of the primary.
    :param wrote: told of each shard on which a caller marked a value as given up: its glances must see as far.
    """

    def __init__(
        self, placement: Callable[[], Placement], on: On, *, glance: On | None = None, grace: float = GRACE,
        pause: float = PAUSE, wrote: Wrote = _nobody,
    ) -> None:  # fmt: skip
        self._placement, self._wrote = placement, wrote
        self._entries = Entries(on)
        self._repair = Repair(self._entries, grace, pause)
        self._glance = Entries(glance) if glance is not None else None

    def claiming(
        self, table: str, *, key: Key, second: Key | None = None, owner: str, claims: Mapping[str, Value] | None = None,
        releases: Mapping[str, Value] | None = None,
    ) -> Claiming:  # fmt: skip
        """What one write of the row with ``key`` claims and gives up; nothing is sent yet.

        :param owner: the shard on which its transaction will run. On another shard it takes another claiming.
        :raises PlacementError: no such lookup, or a value that is no key.
        """
        placement = self._placement()
        claimed = addresses(placement, table, claims or {})
        released = addresses(placement, table, releases or {})
        both = {*claimed} & {*released}  # a value that stays: nothing changes hands
        row = Row(key_text(key), None if second is None else key_text(second), owner)
        return Claiming(
            self._entries, self._repair, row, tuple(each for each in claimed if each not in both),
            tuple(each for each in released if each not in both), self._wrote,
        )  # fmt: skip

    async def locate(self, table: str, given: Mapping[str, Value], deadline: Deadline) -> Located | None:
        """Where the row with a value is; None: nobody has it.

        :param given: the lookup's name and its value or values, or its columns and theirs.
        """
        placement = self._placement()
        at = address(placement, table, *by_columns(placement, table, given))
        if at is None:
            return None
        if self._glance is not None and (near := await self._glance.read(at, deadline)) and near.undecided is None:
            return _located(placement, at, near)
        entry = await self._repair.surely(lambda: self._entries.read(at, deadline), deadline)
        if entry is None:
            return None
        outcome = None if entry.undecided is None else await self._repair.resolve(at, entry, deadline, patience=_GLIMPSE)
        return _located(placement, at, entry) if entry.holds(outcome) else None

    async def sweep(self, shard: str, deadline: Deadline, *, older: float) -> Swept:
        """Repair the entries on ``shard`` that have been undecided for ``older`` seconds.

        :raises Unreachable: the shard is silent.
        """
        swept, seen = Swept(), set[Address]()
        while True:
            old = await self._repair.surely(lambda: self._entries.old(shard, older, _AT_ONCE, deadline), deadline)
            new = [(at, entry) for at, entry in old if at not in seen]
            for at, entry in new:
                seen.add(at)
                await self._repaired(at, entry, swept, deadline)
            if len(old) < _AT_ONCE or not new:
                return swept

    async def _repaired(self, at: Address, entry: Entry, swept: Swept, deadline: Deadline) -> None:
        try:
            outcome = await self._repair.resolve(at, entry, deadline, patience=_GLIMPSE)
        except Unreachable as error:
            swept.undecided.append(f"{at.table}.{at.lookup}, by {entry.undecided}: {error.message}")
        else:
            if outcome is None:
                swept.in_flight += 1
            elif entry.holds(outcome):
                swept.confirmed += 1
            else:
                swept.removed += 1

    async def sweep_all(self, deadline: Deadline, *, older: float) -> dict[str, Swept]:
        """:meth:`sweep` every shard that holds entries."""

        async def one(shard: str) -> Swept:
            try:
                return await self.sweep(shard, deadline, older=older)
            except Unreachable as error:
                return Swept(undecided=[error.message])

        shards = dict.fromkeys(shard for hashed in self._placement().lookups.values() for shard in hashed.over)
        return dict(zip(shards, await asyncio.gather(*map(one, shards)), strict=True))

    async def decided(self, deadline: Deadline, *, older: float) -> bool:
        """Whether no entry waits for an outcome that is older than ``older`` seconds: then those may be removed."""
        swept = await self.sweep_all(deadline, older=older)
        return not any(each.in_flight or each.undecided for each in swept.values())


def _located(placement: Placement, at: Address, entry: Entry) -> Located:
    # Not on the entry's owner: the key may have moved since.
    return Located(entry.key, placement.shard(at.table, entry.key, entry.second).shard, entry.second)
