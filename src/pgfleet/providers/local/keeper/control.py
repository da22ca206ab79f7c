"""Talking to the keeper, and starting it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.errors import KeeperFailed, KeeperUnreachable
from pgfleet.runtime.process import last_lines

#: What the keeper inherits of our environment; nothing else, so no secret of a shell lives on in it.
_INHERITED = ("PATH", "LANG", "LC_ALL", "HOME", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

#: Keepers that this process started: kept, since a Popen that is thrown away complains that its child lives on.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class UnitSeen:
    """:param state: ``running``, ``starting``, ``backoff`` (a pause after short lives), ``stopped``.
    :param pid: of its first process, as seen on this host; of a node, all others end with it.
    :param pids: that and every process below it.
    :param postmaster: of a node, as seen on this host (postmaster.pid holds another number); None: not running.
    :param started: seconds since the epoch.
    :param short_lives: ends soon after a start, one after another; a long life forgets them. restarts: of all its time.
    :param last_exit: status of its last end, negative: the signal; None: unknown, or it never ended.
    """

    name: str
    state: str
    pid: int | None
    pids: tuple[int, ...]
    postmaster: int | None
    started: float | None
    restarts: int
    last_exit: int | None
    last_because: str
    short_lives: int = 0


@dataclass(frozen=True, slots=True)
class KeeperSeen:
    """:param ready: everything in units.json was tried once.
    :param events: the last 50, oldest first: ``at``, ``unit``, ``what``, ``because``, ``took`` (seconds).
    """

    keeper: int
    twin: int | None
    version: str
    since: float
    ready: bool
    units: tuple[UnitSeen, ...]
    events: tuple[dict[str, Any], ...]

    def unit(self, name: str) -> UnitSeen | None:
        return next((unit for unit in self.units if unit.name == name), None)


@dataclass(frozen=True, slots=True)
class Action:
    """What ``sync`` began. :param act: start, stop, restart or reload."""

    unit: str
    act: str
    because: str


class KeeperClient:
    """One question, one connection. Every method raises:

    :raises KeeperUnreachable: nobody answers.
    :raises KeeperFailed: the keeper says no.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    async def status(self) -> KeeperSeen:
        answer = await self._ask({"do": "status"}, 5.0)
        del answer["ok"]
        units = tuple(UnitSeen(**{**unit, "pids": tuple(unit["pids"])}) for unit in answer.pop("units"))
        return KeeperSeen(units=units, events=tuple(answer.pop("events")), **answer)

    async def sync(self) -> tuple[Action, ...]:
        """Make it read units.json (and where etcd is) again; the actions have begun, not ended."""
        answer = await self._ask({"do": "sync"}, 30.0)
        return tuple(Action(**action) for action in answer["actions"])

    async def restart(self, unit: str, because: str = "") -> None:
        """Begin to."""
        await self._ask({"do": "restart", "unit": unit, "because": because}, 5.0)

    async def stop_all(self) -> tuple[list[str], list[str]]:
        """End every unit, then the keeper pair. Names of those that ended by themselves, and that had to be killed."""
        answer = await self._ask({"do": "stop-all"}, 120.0)
        await self._is_gone()
        return answer["stopped"], answer["killed"]

    async def leave(self) -> None:
        """End the keeper pair alone; the units go on, unwatched. For replacing it by another version."""
        await self._ask({"do": "leave"}, 10.0)
        await self._is_gone()

    async def _ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
        path = self.folder / "run" / "keeper.sock"
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_unix_connection(sock=await _connect(path.parent), limit=2**24)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            if not line:
                raise ConnectionResetError("it ended before it answered")
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError, TimeoutError) as error:
            said = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise KeeperUnreachable(
                f"the keeper of {self.folder.name} does not answer", seen=[f"{path}: {said}"], hint="pgfleet apply"
            ) from None
        if not answer["ok"]:
            raise KeeperFailed(answer["message"], seen=answer["seen"])
        return answer

    async def _is_gone(self) -> None:
        async with asyncio.timeout(10.0):
            while (self.folder / "run" / "keeper.sock").exists():
                await asyncio.sleep(0.01)


async def _connect(run: Path) -> socket.socket:
    # Through the folder's descriptor, since a socket's path may have 107 bytes only (see answer.py).
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{folder}/keeper.sock")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


async def start_keeper(folder: Path, *, patience: float = 15.0) -> None:
    """See that the fleet's keeper pair runs: returns when it answers. It outlives us; one that runs is left as it is.

    What is in units.json is being started then (``status().ready`` says when all was tried), and what ran is adopted.

    :raises KeeperUnreachable: it does not come up; its last words are told.
    """
    client = KeeperClient(folder)
    with contextlib.suppress(KeeperUnreachable):
        await client.status()
        return
    child = _spawn(client.folder)
    _started.append(child)
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    await client.status()
                    return
                except KeeperUnreachable:
                    # Status 0: a pair is there, and one of it is just taking over.
                    if child.poll():
                        break
                    await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    raise KeeperUnreachable(
        f"the keeper of {folder.name} does not start",
        seen=last_lines(folder / "logs" / "keeper.log"),
        hint="pgfleet log",
    )


def _spawn(folder: Path) -> subprocess.Popen[bytes]:
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    log = os.open(logs / "keeper.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pgfleet.providers.local.keeper", "--folder", str(folder)],
            cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        )  # fmt: skip
    finally:
        os.close(log)
