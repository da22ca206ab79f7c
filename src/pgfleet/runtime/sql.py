"""Connections to PostgreSQL, opened with a deadline, and never a cause of what nobody asked for.

asyncpg, on a cancelled or timed-out call, asks the server to cancel the statement. If that statement is a COMMIT that
waits for the synchronous replicas, the server then *commits* without them and says so in a warning only. So a
connection that writes is cut off instead, and the warning, whoever caused it, is noticed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from pgfleet.errors import CannotConnect

#: Seconds for TCP, TLS and authentication together.
CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Login:
    """Who connects, to which database, and how.

    :param tls: None: in the clear, where the servers offer no TLS.
    """

    role: str
    database: str
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class Connection(asyncpg.Connection):
    """asyncpg's connection, which is cut off when a call on it is cancelled.

    ``unreplicated``: a COMMIT on it was answered without the synchronous replicas. ``last_status``: the command tag of
    the last statement sent without parameters (``COMMIT`` may be answered by ``ROLLBACK``).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unreplicated = False
        self.last_status = ""
        self.add_log_listener(_notice)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        self.last_status = await super().execute(query, *args, timeout=timeout)
        return self.last_status

    async def run(self, query: str, args: tuple[Any, ...]) -> str:
        """One statement, its plan kept; its command tag. (``execute`` without parameters takes several statements.)"""
        _, status, _ = await self._execute(query, args, 0, None, return_status=True)  # type: ignore[attr-defined]
        return str(status.decode())

    def _cancel_current_command(self, waiter: Any, *more: Any) -> None:
        # Not from in here: asyncpg is in the middle of changing its state.
        asyncio.get_running_loop().call_soon(self.terminate)


def _notice(connection: Any, message: asyncpg.PostgresLogMessage) -> None:
    # Messages are translated (lc_messages) and the code is a plain 01000 or 57P01: the function's name is neither
    # (src/backend/replication/syncrep.c).
    if isinstance(connection, Connection) and message.server_source_function == "SyncRepWaitForLSN":
        connection.unreplicated = True


async def connect(
    host: str, port: int, login: Login, *, settings: Mapping[str, str], seconds: float = CONNECT_SECONDS
) -> Connection:
    """Open a connection.

    :param settings: the session's parameters, sent with the start-up packet: ``RESET`` returns to them.
    :param seconds: for everything together.
    :raises CannotConnect: with the reason; nothing was sent that could have done anything.
    """
    try:
        connection: Connection = await asyncpg.connect(
            host=host,
            port=port,
            user=login.role,
            password=login.password,
            database=login.database,
            ssl=login.tls if login.tls is not None else False,
            timeout=seconds,
            server_settings=dict(settings),
            connection_class=Connection,
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # TimeoutError is an OSError
        said = str(error) or (f"silent for {seconds:.3g} s" if isinstance(error, TimeoutError) else type(error).__name__)
        raise CannotConnect(f"{host}:{port} cannot be connected to: {said}", state=sqlstate(error)) from error
    return connection


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code, also of an error after which the server hung up (asyncpg keeps it as the cause)."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.ConnectionDoesNotExistError):
            return str(error.sqlstate) if error.sqlstate else None
        error = error.__cause__
    return None
