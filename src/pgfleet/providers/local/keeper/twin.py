"""Two processes, one keeper: the active one holds ``keeper.lock``; its twin has everything imported and waits for it.

The kernel gives the lock to the twin the moment the active one ends, however it ends, so the twin needs no detector and
cannot be wrong. Nothing it adopts was interrupted. A third finds ``twin.lock`` held and goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from pgfleet.providers.local.keeper.keeper import Keeper
from pgfleet.runtime.process import Held

#: Seconds between two attempts to have a twin: the first and the longest.
_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


def command(folder: Path) -> list[str]:
    """-P: what stands in the working directory is never imported."""
    return [sys.executable, "-P", "-m", "pgfleet.providers.local.keeper", "--folder", str(folder)]


class Twin:
    """The active keeper's care for its twin."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = keeper.folder / "run" / "twin.lock"
        self._child: subprocess.Popen[bytes] | None = None
        self._held: Held | None = None
        self._ending = False

    async def tend(self) -> None:
        """See that there is one, for ever."""
        await self._keeper.ready.wait()  # the units need the processors more
        pause = _PAUSE
        while not self._ending:
            if (pid := self._waiting()) is not None and (held := Held.take(pid)) is not None:
                self._held, pause = held, _PAUSE
                await held.ended.wait()
                self._held = None
                if not self._ending:
                    self._keeper.told.tell("", "lost its twin", f"process {pid} ended; another is started")
            elif self._child is None or self._child.poll() is not None:
                self._spawn()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                await asyncio.sleep(0.1)  # it is importing

    @property
    def pid(self) -> int | None:
        return self._held.pid if self._held is not None else None

    async def end(self) -> None:
        """No twin takes over what shall end."""
        self._ending = True
        while (pid := self._waiting()) is not None and (held := self._held or Held.take(pid)) is not None:
            held.send(signal.SIGKILL)
            await held.ends_within(5.0)
            self._held = None
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(5.0)

    def _spawn(self) -> None:
        self._child = subprocess.Popen(command(self._keeper.folder), cwd="/", stdin=subprocess.DEVNULL, start_new_session=True)

    def _waiting(self) -> int | None:
        """Who holds twin.lock: ours, or one that somebody else started."""
        fd = open_lock(self._lock)
        try:
            if take(fd):
                return None
            with contextlib.suppress(ValueError):
                return int(os.pread(fd, 32, 0))
            return None
        finally:
            os.close(fd)


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def take(fd: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
