"""Undoing what a borrower left in a session."""

from __future__ import annotations

import asyncio

import asyncpg

from pgfleet.client.trouble import BROKEN
from pgfleet.runtime.sql import Connection

#: Seconds for discarding a session; a server that cannot do this quickly is not one to keep a connection to.
RESET_SECONDS = 2.0


async def clean(connection: Connection, *, ours: bool) -> bool:
    """Undo what is left: a transaction, and everything else in the session where there may be anything else (what a transaction
    sets, its rollback takes back). Whether that could be done.

    :param ours: whether the session is; a pooler's is the next client's too, and not to be discarded.
    """
    try:
        async with asyncio.timeout(RESET_SECONDS):
            if connection.is_in_transaction():
                await connection.control("rollback")
            if connection.touched and (connection.taken_over or not ours):
                return False  # one that was taken over would have its old settings again
            if connection.touched:
                await connection.control("discard all")
                connection.forget()
        return not connection.watched
    except (asyncpg.PostgresError, *BROKEN):
        return False
    except BaseException:
        connection.terminate()
        raise
