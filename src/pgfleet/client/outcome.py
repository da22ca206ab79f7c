"""What an error means for the statement that met it: was it done, was it not, or is that unknown?"""

from __future__ import annotations

from typing import Literal

import asyncpg

from pgfleet.client.pools import NodeGone
from pgfleet.errors import CannotConnect
from pgfleet.runtime.sql import sqlstate

#: ``not done, again``: certainly not done, and worth another try; ``not done``: the statement's own fault; ``unknown``: it
#: was sent and no answer came.
Meaning = Literal["not done, again", "not done", "unknown"]

# The server said no, and the statement's transaction was rolled back:
_AGAIN = {
    "25006": "the node is read only: it is no primary (any more)",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "57P03": "the node is starting or stopping",
    "53300": "the node has no connection left",
    # As an error (not a warning) it is sent while interrupts are looked for, and none are between the commit record and
    # the answer (postgres.c, finish_xact_command and EndCommand; xact.c holds them; syncrep.c turns the output off and
    # warns). Its brothers 57P02 and an immediate shutdown's 57P01 are warnings: those end as a lost connection.
    "57P01": "the node is being shut down",
}


def meaning(error: BaseException) -> Meaning:
    """What ``error`` of a statement in autocommit, or of COMMIT, says about it."""
    if isinstance(error, CannotConnect | NodeGone):
        return "not done, again"
    state = sqlstate(error)
    if state is not None and not state.startswith("08"):  # 08: a pooler lost the server
        return "not done, again" if state in _AGAIN else "not done"
    if isinstance(error, asyncpg.ConnectionDoesNotExistError | OSError) or state is not None:
        return "unknown"
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg found the mistake, or the closed connection, before it sent anything.
        return "not done, again" if "connection is closed" in str(error) else "not done"
    return "unknown" if isinstance(error, asyncpg.PostgresError | asyncpg.InternalClientError) else "not done"


def lost(error: BaseException) -> bool:
    """Whether the connection was lost, and not the statement refused."""
    state = sqlstate(error)
    if state is not None:
        return state.startswith("08") or state in ("57P01", "57P02", "57P03")
    return isinstance(error, asyncpg.ConnectionDoesNotExistError | OSError | CannotConnect | NodeGone) or (
        isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)
    )


def reason(error: BaseException) -> str:
    """One line for people."""
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return _AGAIN.get(sqlstate(error) or "", said)
