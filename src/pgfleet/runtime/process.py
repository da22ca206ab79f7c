"""Processes of this host: what /proc says of them, and a hold on one that cannot slip to another (pidfd).

Linux only. Reading /proc costs some 15 µs a file; a process that is gone reads as None, never as an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    """:param state: proc(5)'s letter: R, S, D, Z (dead, not reaped), T (stopped), t (traced), X.
    :param started: seconds since the epoch."""

    pid: int
    state: str
    parent: int
    started: float

    @property
    def stopped(self) -> bool:
        """Stopped by a signal. ``t``, held by a debugger, is somebody's wish and does not count."""
        return self.state == "T"


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # ESRCH: it ended between open and read
        return None
    finally:
        os.close(fd)


def _boot() -> float:
    stat = _read("/proc/stat") or b""
    return next((float(line.split()[1]) for line in stat.splitlines() if line.startswith(b"btime")), 0.0)


_BOOT = _boot()


def look_at(pid: int) -> ProcessSeen | None:
    """One process, or None when there is none of that number."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses (proc(5)).
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessSeen(pid, fields[0].decode(), int(fields[1]), _BOOT + int(fields[19]) / _TICKS)


def environment(pid: int) -> dict[str, str] | None:
    """What it was started with; None when it is gone or not ours to read."""
    text = _read(f"/proc/{pid}/environ")
    if text is None:
        return None
    pairs = (entry.partition(b"=") for entry in text.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def namespace_pids(pid: int) -> tuple[int, ...]:
    """Its number in this pid namespace, then in each namespace within, the innermost last; empty when it is gone."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"NSpid:"):
            return tuple(int(number) for number in line.split()[1:])
    return ()


def is_namespace_init(pid: int) -> bool:
    """Whether it is the first process of a pid namespace below this one."""
    pids = namespace_pids(pid)
    return len(pids) > 1 and pids[-1] == 1


def every_pid() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - a Path each, for nothing


def children(pid: int) -> tuple[int, ...]:
    """The pids whose parent it is (all its threads')."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return ()
    lists = [_read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    if all(found is None for found in lists):  # a kernel without CONFIG_PROC_CHILDREN
        return tuple(p for p in every_pid() if (seen := look_at(p)) is not None and seen.parent == pid)
    return tuple(int(child) for found in lists if found for child in found.split())


def descendants(pid: int) -> Iterator[int]:
    """Its children, theirs, and so on; not itself."""
    waiting = list(children(pid))
    while waiting:
        child = waiting.pop()
        yield child
        waiting += children(child)


class Held:
    """A running process, held by its pidfd: a signal can reach no other, and its end is an event, not a guess.

    :raises ProcessLookupError: it has ended already.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        #: Set when it has ended. For the first process of a pid namespace this says more: every process of the
        #: namespace is gone. The kernel kills and reaps them all (kernel/pid_namespace.c, zap_pid_ns_processes, from
        #: forget_original_parent in kernel/exit.c) *before* exit_notify makes the end of that process known. Nothing
        #: has to be looked for: this event is the confirmed fence.
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._has_ended)

    def _has_ended(self) -> None:
        self.ended.set()
        self.close()

    def send(self, number: signal.Signals) -> bool:
        """False: it had ended."""
        if self.ended.is_set() or self._fd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    async def ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        return self.ended.is_set()

    def close(self) -> None:
        """Let go; the process goes on."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    @classmethod
    def take(cls, pid: int) -> Self | None:
        """Hold it, or None when it has ended already."""
        try:
            return cls(pid)
        except ProcessLookupError:
            return None


def last_lines(path: Path, count: int = 5) -> list[str]:
    """The end of a log, for a message; empty when it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            return log.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
