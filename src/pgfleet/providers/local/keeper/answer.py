"""The keeper's socket: one JSON document a line, asked and answered. 0600: who may write to it owns the fleet here."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pgfleet.errors import KeeperFailed, PgfleetError
from pgfleet.providers.local.keeper.keeper import Keeper
from pgfleet.providers.local.keeper.twin import Twin

#: Seconds that a caller may be silent, and that it may take to read its answer.
_PATIENCE = 30.0


@asynccontextmanager
async def answering(keeper: Keeper, twin: Twin, leave: asyncio.Event) -> AsyncIterator[None]:
    """Answer while the block runs.

    :param leave: set when the keeper shall go: after ``stop-all`` and ``leave``.
    """

    async def do(request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                return keeper.status() | {"keeper": os.getpid(), "twin": twin.pid}
            case "sync":
                return {"actions": await keeper.sync()}
            case "restart":
                await keeper.restart(str(request.get("unit")), str(request.get("because") or "somebody asked for it"))
                return {}
            case "stop-all":
                await twin.end()
                return await keeper.stop_all("everything was told to stop")
            case "leave":
                return {}
            case other:
                raise KeeperFailed(f"the keeper does not know how to {other!r}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            while line := await asyncio.wait_for(reader.readline(), _PATIENCE):
                request = json.loads(line)
                try:
                    answer = {"ok": True} | await do(request)
                except PgfleetError as error:
                    answer = {"ok": False, "message": error.message, "seen": list(error.seen)}
                except Exception as error:  # noqa: BLE001 - whoever asks hears of it; the keeper goes on
                    answer = {"ok": False, "message": f"a mistake in the keeper: {error!r}", "seen": []}
                writer.write(json.dumps(answer).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), _PATIENCE)
                if answer["ok"] and request.get("do") in ("stop-all", "leave"):
                    leave.set()
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=_bind(keeper.folder / "run"))
    try:
        yield
    finally:
        server.close()
        (keeper.folder / "run" / "keeper.sock").unlink(missing_ok=True)


def _bind(run: Path) -> socket.socket:
    """A socket's path may have 107 bytes (unix(7)) and a folder's more: it is reached through its descriptor."""
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (run / "keeper.sock").unlink(missing_ok=True)  # its keeper is dead: we hold the lock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"/proc/self/fd/{folder}/keeper.sock")
        (run / "keeper.sock").chmod(0o600)  # nobody can connect before listen(2)
        return sock
    finally:
        os.close(folder)
