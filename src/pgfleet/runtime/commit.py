"""COMMIT, so that its answer can be believed.

With synchronous replication COMMIT waits for the replicas, and a wait that is *cancelled* answers COMMIT all the
same, with a warning: the row is then on the primary alone and dies with it. Our connections hang up instead of
cancelling (runtime/sql.py); what is left is the server's own ``statement_timeout``, which has to be 0 by now, and
somebody else's ``pg_cancel_backend``, which the warning tells of.
"""

from __future__ import annotations

import asyncio

import asyncpg

from pgfleet.errors import CommitUnanswered
from pgfleet.runtime.sql import Connection


async def commit(connection: Connection, seconds: float) -> None:
    """End the transaction.

    :raises CommitUnanswered: no answer in ``seconds``, the connection ended, or the replicas did not confirm.
    :raises asyncpg.PostgresError: the server said no (a deferred constraint), and the transaction is gone.
    """
    try:
        async with asyncio.timeout(seconds):
            await connection.execute("commit")
        await asyncio.sleep(0)  # asyncpg tells its listeners in the loop's next round
    except TimeoutError:
        raise CommitUnanswered(f"COMMIT was not answered in {seconds:g} s; whether it happened is not known") from None
    except asyncpg.PostgresError as error:
        # Class 08 or 57P: the server ended the connection, before or after it committed.
        if (error.sqlstate or "").startswith(("08", "57P")):
            raise CommitUnanswered(f"COMMIT was not answered: {error}; whether it happened is not known") from error
        raise
    except (OSError, asyncpg.InterfaceError) as error:
        raise CommitUnanswered(f"COMMIT was not answered: {error}; whether it happened is not known") from error
    if connection.unreplicated:
        raise CommitUnanswered("COMMIT was answered although its wait for the replicas had been cancelled")
