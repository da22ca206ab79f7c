"""Of the client's calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from pgfleet.errors.tree import Refused, Unproven, Unreachable


class CannotConnect(Unreachable):
    """A node could not be connected to: refused, silent for a second, not ready yet, or it has no connection left.

    Nothing was sent that could have done anything, so the client goes to another node, or tries again, by itself; this
    is seen only where one node in particular was asked for.
    """

    code = "PGF-U130"

    def __init__(self, message: str, *, state: str | None = None) -> None:
        super().__init__(message)
        self.state = state  # SQLSTATE, where it was PostgreSQL that said no


class DeadlineExceeded(Unreachable):
    """A call of the client was not answered within its deadline; the message says for what it waited.

    A write that was sent is told as ``OutcomeUnknown`` instead: so here nothing was changed. During a failover of a
    dead primary writes wait for about half a second, of a silent one for about 21 s: a longer ``deadline=`` waits
    through it. Where it waited for a free connection, the pool is too small for the load (``pool_size=``) or statements
    are slow.
    """

    code = "PGF-U131"


Outcome = Literal["committed", "aborted", "lost"]


class OutcomeUnknown(Unreachable):
    """A write was sent, and whether it was committed is not known: the answer never came, or the server said that the
    replicas had not confirmed it.

    It may have happened. It is never repeated silently. A write that was opened with ``resolvable=True`` can be asked:
    ``await error.resolve()`` says ``committed``, ``aborted`` (it will never happen now) or ``lost`` (it was committed by a
    primary that no longer counts). For others look for the row (an id made by the application shows it), or write so that a
    repetition does no harm (``insert ... on conflict do nothing``).
    """

    code = "PGF-U132"

    def __init__(
        self,
        message: str,
        *,
        seen: Sequence[str] = (),
        hint: str = "",
        resolver: Callable[[float], Awaitable[Outcome]] | None = None,
    ) -> None:
        super().__init__(message, seen=seen, hint=hint)
        self._resolver = resolver

    @property
    def resolvable(self) -> bool:
        return self._resolver is not None

    async def resolve(self, deadline: float = 30.0) -> Outcome:
        """What became of the write, decided by its row; waits for a primary, and for the transaction if it is still under way.

        :param deadline: seconds.
        :raises NotResolvable: it left no row.
        :raises DeadlineExceeded: nobody could be asked in time; ask again.
        """
        if self._resolver is None:
            raise NotResolvable("this write left no row to decide by", hint="resolvable=True")
        return await self._resolver(deadline)


class ShardsSilent(Unreachable):
    """``everywhere`` asked every shard, and some did not answer; they are named, with what each waited for.

    ``partial=True`` gives the rows of those that did; ``missing`` of that result names the others.
    """

    code = "PGF-U133"


class WriteInRead(Refused):
    """A statement that writes was sent where only reads go: ``fetch``, ``everywhere`` or a ``read`` block.

    Nothing was written. Use ``execute``, or a ``write`` block where rows come back (``insert ... returning``).
    """

    code = "PGF-F201"


class BlockRolledBack(Refused):
    """A ``write`` block ended without an error, but a statement in it had failed and the error was caught: PostgreSQL
    answered COMMIT by a rollback, so nothing of the block was written.

    Let errors leave the block, or put what may fail into ``async with conn.transaction():`` inside it (a savepoint).
    """

    code = "PGF-F202"


class BlockEnded(Refused):
    """The SQL of a ``write`` block ended the block's transaction itself: COMMIT, ROLLBACK or the like. What it committed is
    committed, what it rolled back is not, and what it sent after that stood alone.

    The block commits when it ends, and rolls back when an exception leaves it. Two transactions are two blocks; what begins and
    ends its own takes ``session=True``.
    """

    code = "PGF-F209"


class FleetClosed(Refused):
    """The fleet was used before ``async with`` began or after it ended."""

    code = "PGF-F203"


class TokenUnreadable(Refused):
    """What was given as a token (`fleet.after`) is none: cut or changed on its way, or of another version.

    Read without it where stale data does no harm, or do the write again; a token is carried whole, as text.
    """

    code = "PGF-F204"


class WriteLost(Unproven):
    """A token says that a write was acknowledged, and the shard's history does not contain it: it was lost in a failover, or
    another database stands in its place.

    With quorum commit this takes the loss of more nodes than the file allows for, or a promotion that accepted a loss. The
    write has to be done again; what the old primary held is in its data folder until it is rewound. It is said at every read of
    that shard until the caller goes on without: `fleet.after(None, alone=True)`.

    A position is read after COMMIT, so it may lie behind the write, where others wrote meanwhile. Where the replicas tell how
    far they had confirmed it, what others lost does not count. Provider existing does not tell, nor does a shard of which a
    replica is missing or has just come back, nor a transaction that may have set `synchronous_commit`: there the write itself
    may be there, and only its key can tell.
    """

    code = "PGF-P102"


class SessionState(Refused):
    """A statement that leaves state in its session (SET, LISTEN, PREPARE, a temporary table, an advisory lock …) was sent through
    a pooler, where the next statement may run in another session.

    Use SET LOCAL or the `_xact_` advisory locks inside a block, or connect with `through="direct"` and `session=True`.
    """

    code = "PGF-F206"


class NotResolvable(Refused):
    """`resolve()` was called for a write that was not opened with `resolvable=True`: it left no row to decide by.

    Look for what it wrote, and open the next one with `resolvable=True`.
    """

    code = "PGF-F207"


class CannotMerge(Refused):
    """The answers of several shards cannot be put into one order, so no order was made up.

    What is ordered by is not a column of the answer; or it stands there twice; or its values have no common order; or they
    have one that only PostgreSQL knows (enum, money, json, citext, ranges, intervals of a year or more); or a shard sorts
    text by another collation than by code point, and was asked for its first rows only. Order by columns that the query
    selects, of simple types, and write ``name collate "C"`` where a database has another collation. Where the arguments
    themselves are wrong, nothing was sent.
    """

    code = "PGF-F260"


class CannotCombine(Refused):
    """The partial results of several shards cannot be combined as was asked; the column is named.

    A column is neither combined nor grouped by, or not in the answer; or its values cannot be added, or not be compared
    as PostgreSQL compares them (enum, money, text by another collation: ``min(name collate "C")``); or an
    average is weighted by a column that did not count what was averaged: ``count(x)`` counts the values of ``avg(x)``,
    ``count(*)`` counts NULLs too. Where the arguments themselves are wrong, nothing was sent.
    """

    code = "PGF-F261"


class DirectOnly(Refused):
    """An adapter for another driver was given a fleet that goes through its poolers: an adapter lends connections to nodes, which
    `pgfleet check` did not count on.

    Open the fleet for it with `through="direct"`, where the nodes accept that many connections.
    """

    code = "PGF-F291"


class NoPooler(Refused):
    """`through="pooler"` was asked for, and the fleet has no pooler: its servers are given by DSNs, or it was applied before
    poolers were.

    Connect with `through="direct"`, or give a DSN that leads to a pooler of your own.
    """

    code = "PGF-F290"
