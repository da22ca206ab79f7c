"""Looking at the inside of a node's namespace: is its Patroni stopped, is its postmaster alive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from pgfleet.providers.local.keeper.decide import NodeSeen
from pgfleet.providers.local.units import NodeUnit
from pgfleet.runtime.process import Held, children, descendants, look_at, namespace_pids

#: Which process, which second, which file: changed by every start of PostgreSQL and by nothing in between but its own
#: rewriting of the file while it starts.
_Signature = tuple[int, int, int]


class NodeLook:
    """One node, for as long as its first process lives; looked at once a second.

    :param init: outer pid of its first process: Patroni's launcher, whose child is the Patroni that works.
    :param killed: called when the postmaster ended but its postmaster.pid still names it.
    """

    def __init__(self, node: NodeUnit, init: int, killed: Callable[[], None]) -> None:
        self.node = node
        self._init = init
        self._pid_file = Path(node.data_dir) / "postmaster.pid"
        self._killed = killed
        self._signature: _Signature | None = None
        self._inner = 0
        self._postmaster: Held | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopped_since: dict[int, float] = {}
        self.postgres_killed = False

    @property
    def postmaster(self) -> int | None:
        """Its outer pid: postmaster.pid holds the inner one, which out here is a stranger's."""
        held = self._postmaster
        return held.pid if held is not None and not held.ended.is_set() else None

    def seen(self) -> NodeSeen:
        """What can be seen from here: not who leads."""
        self._follow_postmaster()
        now, stopped = time.monotonic(), {}
        for pid in {self._init, *children(self._init), *([self.postmaster] if self.postmaster else [])}:
            seen = look_at(pid)
            if seen is not None and seen.stopped:
                stopped[pid] = self._stopped_since.get(pid, now)
        self._stopped_since = stopped
        postgres = stopped.get(self.postmaster or 0, now)
        patroni = min((since for pid, since in stopped.items() if pid != self.postmaster), default=now)
        return NodeSeen(
            self.node.member,
            patroni_stopped=now - patroni,
            postgres_stopped=now - postgres,
            postgres_runs=self.postmaster is not None and self.postmaster not in stopped,
            postgres_killed=self.postgres_killed,
        )

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._postmaster is not None:
            self._postmaster.close()

    def _follow_postmaster(self) -> None:
        try:
            stat = self._pid_file.stat()
        except OSError:  # not running, or a folder that is not ours to read
            self._signature, self.postgres_killed = None, False
            return
        signature = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if signature == self._signature:
            return
        inner = self._named()
        if inner == self._inner and self.postmaster is not None:  # it rewrites its file while it starts
            self._signature = signature
            return
        outer = next((pid for pid in descendants(self._init) if namespace_pids(pid)[-1:] == (inner,)), None)
        held = Held.take(outer) if outer is not None else None
        if held is None:
            return  # the file of an earlier life, or the process is not there yet: look again in a second
        self.close()
        self._signature, self._inner, self._postmaster, self.postgres_killed = signature, inner, held, False
        self._watching = asyncio.create_task(self._wait_for_its_end(held, inner))

    async def _wait_for_its_end(self, held: Held, inner: int) -> None:
        await held.ended.wait()
        # Every orderly end removes the file first (PostgreSQL, UnlinkLockFiles runs in proc_exit; so do pg_ctl stop -m
        # immediate and Patroni's own stops). Killed, it stays.
        if self._named() == inner:
            self.postgres_killed = True
            self._killed()

    def _named(self) -> int:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return abs(int(self._pid_file.read_text().splitlines()[0]))
        return 0
