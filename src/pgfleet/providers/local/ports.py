"""Ports for everything that listens on this host: free now, and promised to no other fleet of ours."""

from __future__ import annotations

import fcntl
import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgfleet.errors import NoFreePort
from pgfleet.runtime.files import write_atomically

#: Below Linux' ephemeral range (32768 upwards), whose ports any outgoing connection may hold when an engine starts.
FIRST, LAST = 15000, 32000


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class Ports:
    """Gives out ports; see :func:`reserving`."""

    def __init__(self, host: str, promised: dict[str, str], owner: str) -> None:
        self._host = host
        self._promised = promised
        self._owner = owner
        # Somewhere by chance: users whose registers are apart seldom meet, and what does collide fails the test by binding.
        self._at = random.randrange(FIRST, LAST)  # noqa: S311 - spread, not secrecy

    def take(self) -> int:
        """One more port.

        :raises NoFreePort: every port of the range is in use or promised.
        """
        for _ in range(LAST - FIRST):
            self._at = self._at + 1 if self._at + 1 < LAST else FIRST
            if str(self._at) not in self._promised and _is_free(self._host, self._at):
                self._promised[str(self._at)] = self._owner
                return self._at
        raise NoFreePort(f"no free port from {FIRST} to {LAST} on {self._host}")

    def give_back(self, keep: set[int]) -> None:
        """Forget every port of this fleet except ``keep``."""
        for port, owner in list(self._promised.items()):
            if owner == self._owner and int(port) not in keep:
                del self._promised[port]


@contextmanager
def reserving(register: Path, host: str, folder: Path) -> Iterator[Ports]:
    """Take ports for the fleet in ``folder`` while nobody else does.

    :param register: a file of this user, replaced as a whole, with a lock beside it; promises to fleets whose folder is gone are
        forgotten.
    """
    register.parent.mkdir(parents=True, exist_ok=True)
    with register.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for milliseconds; the kernel drops it if we die
        promised: dict[str, str] = json.loads(register.read_text() or "{}") if register.exists() else {}
        promised = {port: owner for port, owner in promised.items() if Path(owner).is_dir()}
        yield Ports(host, promised, str(folder))
        write_atomically(register, json.dumps(promised))
