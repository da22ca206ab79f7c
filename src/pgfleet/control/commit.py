"""COMMIT, so that its answer can be believed.

With synchronous replication COMMIT waits for the replicas, and a wait that is *cancelled* answers COMMIT all the
same, with a warning: the row is then on the primary alone and dies with it (PostgreSQL docs, 20.6.1 and
``syncrep.c``). asyncpg cancels what it was waiting for when its task is cancelled or times out, and
``statement_timeout`` cancels on the server. So: no timeout of either kind around COMMIT. Whoever cannot wait any
longer hangs up, and says that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from pgfleet.errors import CommitUnanswered


async def commit(connection: asyncpg.Connection[Any], seconds: float) -> None:
    """End the transaction; its statement_timeout must be 0 by now.

    :raises CommitUnanswered: no answer in ``seconds``, the connection ended, or the replicas did not confirm.
    """
    warnings: list[str] = []

    def heard(_: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            warnings.append(message.message)

    connection.add_log_listener(heard)
    answer = asyncio.ensure_future(connection.execute("commit"))
    try:
        done, _ = await asyncio.wait({answer}, timeout=seconds)
        if not done:
            raise CommitUnanswered(f"COMMIT was not answered in {seconds:g} s; whether it happened is not known")
        await _settled(answer)
        await asyncio.sleep(0)  # asyncpg tells listeners in the loop's next round
    finally:
        if not answer.done():
            # Hanging up is not cancelling: the server goes on waiting for its replicas, and the transaction stands.
            connection.terminate()
            await asyncio.gather(answer, return_exceptions=True)
        connection.remove_log_listener(heard)
    if warnings:
        raise CommitUnanswered("COMMIT came with a warning: the replicas may not have it", seen=warnings)


async def _settled(answer: asyncio.Future[str]) -> None:
    try:
        await answer
    except asyncpg.PostgresError as error:
        # Class 08 or 57P: the server ended the connection, before or after it committed. Anything else (a deferred
        # constraint) is a plain no, and the transaction is gone.
        if (error.sqlstate or "").startswith(("08", "57P")):
            raise CommitUnanswered(f"COMMIT was not answered: {error}; whether it happened is not known") from error
        raise
    except (OSError, asyncpg.InterfaceError) as error:
        raise CommitUnanswered(f"COMMIT was not answered: {error}; whether it happened is not known") from error
