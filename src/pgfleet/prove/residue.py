"""What a process holds at an instant: memory, CPU time, tasks, timers, sockets. From /proc, and the running loop's own lists."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Seconds for what was stopped to end: resets, questions to silent nodes, connections that close.
SETTLED_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Residue:
    """:param rss: bytes of memory. :param cpu: seconds used since the process began. :param at: when, on the monotonic clock.
    :param timers: that will still fire. :param sockets: of every kind. :param objects: that Python's collector knows."""

    rss: int
    cpu: float
    at: float
    tasks: int
    timers: int
    sockets: int
    objects: int

    def share(self, since: Residue) -> float:
        """Of one core, used since then."""
        return (self.cpu - since.cpu) / max(1e-9, self.at - since.at)


def look() -> Residue:
    """This process, now. What is garbage is collected before, and what the allocator keeps for later is given back."""
    gc.collect()
    _trim()
    loop: Any = asyncio.get_running_loop()
    return Residue(
        rss=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        cpu=time.process_time(),
        at=time.monotonic(),
        tasks=len(asyncio.all_tasks()),
        timers=sum(not handle.cancelled() for handle in getattr(loop, "_scheduled", ())),
        sockets=_sockets(),
        objects=len(gc.get_objects()),
    )


def _trim() -> None:
    with contextlib.suppress(AttributeError):  # another C library than glibc has no such call
        ctypes.CDLL(None).malloc_trim(0)


def _sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except OSError:
            continue  # it was closed meanwhile
    return found


def left_over(before: Residue, after: Residue) -> dict[str, int]:
    """Tasks, timers and sockets that there are more of, and how many. Pure."""
    names = ("tasks", "timers", "sockets")
    more = {name: getattr(after, name) - getattr(before, name) for name in names}
    return {name: count for name, count in more.items() if count > 0}


async def settled(
    before: Residue | None, *, within: float = SETTLED_WITHIN, now: Callable[[], Residue] = look,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Residue:  # fmt: skip
    """What is left once nothing of it ends any more: no more than ``before``, or, without it, twice the same.

    Where that does not come, it is what is left after ``within`` seconds.
    """
    seen = now()
    until = seen.at + within
    while True:
        await pause(0.5)
        last, seen = seen, now()
        if before is not None and not left_over(before, seen):
            return seen
        if before is None and not (left_over(last, seen) or left_over(seen, last)):
            return seen
        if seen.at >= until:
            return seen
