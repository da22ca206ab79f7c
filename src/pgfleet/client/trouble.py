"""What an error of a statement means: done or not, again or not."""

from __future__ import annotations

import asyncpg

from pgfleet.runtime.sql import Connection, sqlstate

#: The server says, in answer to the statement itself, that it did not happen: 25006 a replica was written to; 40001 and 40P01
#: serialization and deadlock; 57P03 starting up; 53300 no connection left; 57P01 ended by the administrator before its
#: commit (after a commit record the backend answers or hangs up, it does not report this error: xact.c holds interrupts off).
NOT_DONE = frozenset({"25006", "40001", "40P01", "57P03", "53300", "57P01"})
#: A read may go elsewhere for these too: 57P02 and 57P05 the server ends, 08xxx the connection failed, 57014 of a recovery
#: conflict comes as 40001.
_READ_AGAIN = NOT_DONE | {"57P02", "57P05"}


#: What a call on a connection raises besides the server's own word.
BROKEN = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Unsent(asyncpg.ConnectionDoesNotExistError):
    """A connection had ended before what this is said of was sent on it."""


def confused(error: BaseException) -> bool:
    """Whether asyncpg has read the server's last word and not yet that it hung up: it sends nothing then, and says something of
    its own state."""
    return isinstance(error, asyncpg.InternalClientError) and "cannot switch" in str(error)


def unsent(error: BaseException) -> bool:
    """Whether it says that the connection had ended before anything was sent. (asyncpg's InterfaceErrors are all said before:
    asyncpg 0.31, protocol.pyx and prepared_stmt.pyx.)"""
    return isinstance(error, Unsent) or confused(error) or (isinstance(error, asyncpg.InterfaceError) and "closed" in str(error))


def _answered(error: BaseException) -> bool:
    """Whether a server that lives on said it: who ends says FATAL or PANIC, and what asyncpg makes up has no severity."""
    return isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", None) == "ERROR"


def lost(error: BaseException, connection: Connection | None = None) -> bool:
    """Whether the connection is gone, or nobody knows what is on its wire.

    :param connection: where somebody's own code ran on it: an error of that code's (a file that is not there) says nothing
        about the connection.
    """
    if isinstance(error, asyncpg.InterfaceError):
        # Else it is the caller's mistake: a wrong number of arguments, or one of another type.
        return unsent(error) and (connection is None or connection.is_closed())
    if connection is not None and isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return connection.is_closed()
    if _answered(error):
        return False  # whatever its code: an application's own function may raise any
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError):
        return (sqlstate(error) or "").startswith("57P")
    return isinstance(error, (*BROKEN, asyncpg.PostgresConnectionError))


def not_done(error: BaseException) -> bool:
    """Whether the server itself said that the statement did not happen, and that it may if sent again."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True  # a column was added: the plan was refused, and the next one is made anew
    state = sqlstate(error)
    return unsent(error) or (state in NOT_DONE and not (_answered(error) and (state or "").startswith("57P")))


def read_again(error: BaseException) -> bool:
    """Whether a read that ended so is worth sending again, elsewhere or later."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return unsent(error)
    state = sqlstate(error)
    if _answered(error) and (state or "").startswith(("08", "57P")):
        return False
    return state in _READ_AGAIN or (state or "").startswith("08") or (lost(error) and state is None)
