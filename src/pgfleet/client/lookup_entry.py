"""The statements of lookups, each a transaction of its own; what they are for stands in ``client/lookups.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pgfleet.routing.lookup import Address, Entry
from pgfleet.runtime.clock import Deadline

#: No row comes back when the write was voided.
WRITE_OUTCOME = "insert into pgfleet.outcome (id, void) values ($1, false) on conflict (id) do nothing returning id"

_COLUMNS = "key, second, owner, reservation, confirmed, releasing, releasing_on"
_AGE = "extract(epoch from clock_timestamp() - at)::float8 as age"
_HERE = "table_name = $1 and lookup = $2 and value = $3"

# Either way one row, in one round trip; none, when an entry was made or removed meanwhile: try again.
_TAKE = f"""
with made as (
    insert into pgfleet.lookup (table_name, lookup, value, key, second, owner, reservation, releasing, releasing_on)
    values ($1, $2, $3, $4, $5, $6, $7, {{}})
    on conflict do nothing
    returning {_COLUMNS}, 0::float8 as age
)
select * from made
union all
select {_COLUMNS}, {_AGE} from pgfleet.lookup where {_HERE}
"""
_CLAIM = _TAKE.format("null, null")
# Of a value that has no entry: held so that nobody gets it, and its row, between our look and our transaction.
_VACATE = _TAKE.format("$7, $6")
_READ = f"select {_COLUMNS}, {_AGE} from pgfleet.lookup where {_HERE}"
# On the claim that was seen, not on the value alone: a message that arrives late finds another one's, and leaves it alone.
_RELEASE = f"""
update pgfleet.lookup set releasing = $4, releasing_on = $5, at = clock_timestamp()
where {_HERE} and reservation = $6 and confirmed and releasing is null
returning true
"""
_CONFIRM = (
    f"update pgfleet.lookup set confirmed = true where {_HERE} and reservation = $4 and not confirmed and releasing is null"
)
_WITHDRAW = f"delete from pgfleet.lookup where {_HERE} and reservation = $4 and not confirmed"
_VACANT = f"delete from pgfleet.lookup where {_HERE} and releasing = $4"
_KEEP = f"""
with vacant as (delete from pgfleet.lookup where {_HERE} and releasing = $4 and not confirmed)
update pgfleet.lookup set releasing = null, releasing_on = null where {_HERE} and releasing = $4 and confirmed
"""
_PEEK = "select not void from pgfleet.outcome where id = $1"
# Waits for a transaction in flight (by the unique index), and for the replicas (it writes in every case).
_DECIDE = """
insert into pgfleet.outcome (id, void)
select $1::uuid, true from set_config('lock_timeout', $2, true)
on conflict (id) do update set at = pgfleet.outcome.at
returning not void
"""
_OLD = f"""
select table_name, lookup, value, {_COLUMNS}, {_AGE} from pgfleet.lookup
where (not confirmed or releasing is not null) and at < clock_timestamp() - make_interval(secs => $1)
order by at limit $2
"""


class On(Protocol):
    """Runs one statement in a transaction of its own on the primary of ``shard``; its rows, once it is committed and the
    replicas have it.

    :raises OutcomeUnknown: it was sent, and whether it happened is not known.
    :raises Unreachable: it did not happen, in time.
    """

    async def __call__(self, shard: str, sql: str, *args: Any, deadline: Deadline) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """Whose values these are: the texts of its key and second column, and the shard on which it is written."""

    key: str
    second: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class Entries:
    """:param on: runs them."""

    on: On

    async def claim(self, at: Address, row: Row, write: UUID, deadline: Deadline) -> Entry | None:
        """The entry that is there now, ours if it was free; None: try again."""
        return _entry(await self.on(at.shard, _CLAIM, *_of(at), row.key, row.second, row.owner, write, deadline=deadline))

    async def vacate(self, at: Address, row: Row, write: UUID, deadline: Deadline) -> Entry | None:
        """The entry that is there now, or a vacant one of ours that keeps others away; None: try again."""
        return _entry(await self.on(at.shard, _VACATE, *_of(at), row.key, row.second, row.owner, write, deadline=deadline))

    async def read(self, at: Address, deadline: Deadline) -> Entry | None:
        return _entry(await self.on(at.shard, _READ, *_of(at), deadline=deadline))

    async def release(self, at: Address, seen: Entry, row: Row, write: UUID, deadline: Deadline) -> bool:
        """Mark the entry that was ``seen`` as given up by ``write``; false: it is another one by now."""
        return bool(await self.on(at.shard, _RELEASE, *_of(at), write, row.owner, seen.reservation, deadline=deadline))

    async def settle(self, at: Address, write: UUID, *, committed: bool, claimed: bool, deadline: Deadline) -> None:
        """Write down how ``write`` came out.

        :param claimed: what it did with the entry: claim it, or release it.
        """
        statement = (_CONFIRM if claimed else _VACANT) if committed else (_WITHDRAW if claimed else _KEEP)
        await self.on(at.shard, statement, *_of(at), write, deadline=deadline)

    async def outcome(self, write: UUID, shard: str, deadline: Deadline) -> bool | None:
        """How a write came out, as far as can be seen; None: it may be in flight, or never begin."""
        rows = await self.on(shard, _PEEK, write, deadline=deadline)
        return bool(rows[0][0]) if rows else None

    async def decide(self, write: UUID, shard: str, patience: float, deadline: Deadline) -> bool:
        """How a write came out, for good: if it did not commit until now, it never will.

        :param patience: seconds to wait for it while it is in flight.
        :raises asyncpg.LockNotAvailableError: it still is.
        """
        rows = await self.on(shard, _DECIDE, write, f"{max(1, int(patience * 1000))}ms", deadline=deadline)
        return bool(rows[0][0])

    async def old(self, shard: str, older: float, limit: int, deadline: Deadline) -> list[tuple[Address, Entry]]:
        """Undecided entries on ``shard`` that have been so for ``older`` seconds, the oldest first."""
        rows = await self.on(shard, _OLD, older, limit, deadline=deadline)
        return [(Address(row[0], row[1], row[2], shard), Entry(*list(row)[3:])) for row in rows]


def _of(at: Address) -> tuple[str, str, str]:
    return at.table, at.lookup, at.value


def _entry(rows: Sequence[Any]) -> Entry | None:
    return Entry(*rows[0]) if rows else None
