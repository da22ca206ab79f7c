"""The keeper itself: every unit of one fleet on this host, and what may be asked of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pgfleet
from pgfleet.errors import KeeperFailed
from pgfleet.providers.local.keeper.adopt import Found, find_units
from pgfleet.providers.local.keeper.decide import Act, Change, changes
from pgfleet.providers.local.keeper.fence import Leads
from pgfleet.providers.local.keeper.launch import Launcher
from pgfleet.providers.local.keeper.telling import Told
from pgfleet.providers.local.keeper.watchover import Around, Watchover
from pgfleet.providers.local.units import Unit, read_units

#: Seconds between two looks into the nodes (about 0.1 ms each).
LOOK_EVERY = 1.0


class Keeper:
    """Active from the moment it holds ``keeper.lock``; see twin.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = Told(folder)
        self.ready = asyncio.Event()
        self.since = time.time()
        self._leads = Leads(folder)
        self._launcher = Launcher(folder)
        self._around = Around(self._launcher, self._leads, self.told, self._down)
        self._watched: dict[str, Watchover] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[Any]] = set()
        self._syncing = asyncio.Lock()
        self._ending = False

    async def begin(self) -> None:
        """Adopt what runs, start what does not, stop what shall not."""
        began = time.monotonic()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        adopted = self._adopt()
        self.told.tell("", "is active", f"it holds the lock; {adopted} units run", took=time.monotonic() - began)
        if why := await self._leads.open():
            self.told.tell("", "cannot revoke leases", why)
        self._in_background(self._leads.keep_warm())
        self._in_background(self._look_often())
        await self._make_so()
        for watched in list(self._watched.values()):
            await watched.first_try.wait()
        self.ready.set()

    def _adopt(self) -> int:
        """Before anything is started: who runs decides who may be elected."""
        units = {unit.name: unit for unit in read_units(self.folder)}
        found = find_units(self.folder)
        for name, one in found.items():
            watched = Watchover(units.get(name) or _stray(one), self._around)
            if watched.adopt(one):
                self._watched[name] = watched
                self._running[name] = asyncio.create_task(watched.run())
        return len(self._watched)

    # -- what may be asked -------------------------------------------------------------------------------------------

    async def sync(self) -> list[dict[str, str]]:
        """Read units.json again; answers when everything that differs has begun, not when it is done.

        :raises KeeperFailed: the file cannot be read; nothing was changed.
        """
        if why := await self._leads.open():
            self.told.tell("", "cannot revoke leases", why)
        try:
            done = await self._make_so()
        except ValueError as error:
            raise KeeperFailed("units.json cannot be read", seen=[str(error)]) from error
        return [{"unit": c.unit, "act": c.act.value, "because": c.because} for c in done]

    async def restart(self, name: str, because: str) -> None:
        """:raises KeeperFailed: there is no such unit."""
        if name not in self._watched:
            raise KeeperFailed(f"there is no unit {name}", seen=[f"units: {', '.join(self._watched) or 'none'}"])
        self._in_background(self._watched[name].restart(because))

    async def stop_all(self, because: str) -> dict[str, list[str]]:
        """Poolers, then nodes, then etcd: nobody is cut off from what it still needs to end in good order."""
        ended: dict[str, list[str]] = {"stopped": [], "killed": []}
        async with self._syncing:
            self._ending = True
            for stage in (_is_pooler, _is_node, _is_etcd):
                names = [name for name, watched in self._watched.items() if stage(watched.unit)]
                well = await asyncio.gather(*(self._stop(name, because) for name in names))
                for name, in_order in zip(names, well, strict=True):
                    ended["stopped" if in_order else "killed"].append(name)
        return ended

    def status(self) -> dict[str, Any]:
        """A stable shape: see control.KeeperSeen."""
        return {
            "version": pgfleet.__version__,
            "since": self.since,
            "ready": self.ready.is_set(),
            "units": [
                {
                    "name": name, "state": watched.state, "pid": watched.pid, "pids": watched.pids,
                    "postmaster": watched.postmaster, "started": watched.started if watched.pid else None,
                    "restarts": watched.restarts, "short_lives": watched.short_lives,
                    "last_exit": watched.last_exit, "last_because": watched.last_because,
                }
                for name, watched in self._watched.items()
            ],
            "events": [asdict(event) for event in self.told.tail],
        }  # fmt: skip

    async def close(self) -> None:
        """Let go of everything; the units go on."""
        for task in [*self._others, *self._running.values()]:
            task.cancel()
        await asyncio.gather(*self._others, *self._running.values(), return_exceptions=True)
        await self._leads.aclose()

    # -- within ------------------------------------------------------------------------------------------------------

    async def _make_so(self) -> tuple[Change, ...]:
        async with self._syncing:
            if self._ending:
                return ()
            units = read_units(self.folder)
            for unit in units:
                if unit.name in self._watched:
                    self._watched[unit.name].unit = unit
            todo = changes(units, {name: watched.digest for name, watched in self._watched.items()})
            wanted = {unit.name: unit for unit in units}
            for change in todo:
                self._do(change, wanted)
            return todo

    def _do(self, change: Change, wanted: Mapping[str, Unit]) -> None:
        match change.act:
            case Act.START:
                watched = self._watched[change.unit] = Watchover(wanted[change.unit], self._around)
                self._running[change.unit] = asyncio.create_task(watched.run())
            case Act.STOP:
                self._in_background(self._stop_for_good(change.unit, change.because))
            case Act.RESTART:
                self._in_background(self._watched[change.unit].restart(change.because))
            case Act.RELOAD:
                self._watched[change.unit].reload(change.because)

    async def _stop_for_good(self, name: str, because: str) -> None:
        await self._stop(name, because)
        await self._make_so()  # it may have been asked for again meanwhile

    async def _stop(self, name: str, because: str) -> bool:
        watched, running = self._watched[name], self._running[name]
        in_order = await watched.stop(because)
        await asyncio.wait({running}, timeout=1.0)
        if self._watched.get(name) is watched and watched.pid is None:
            del self._watched[name], self._running[name]
        return in_order

    def _down(self, shard: str) -> frozenset[str]:
        nodes = (w for w in self._watched.values() if w.unit.node is not None and w.unit.node.shard == shard)
        return frozenset(w.unit.node.member for w in nodes if w.unit.node is not None and w.pid is None)

    def _reap(self) -> None:
        if exits := self._launcher.reap():
            for watched in self._watched.values():
                watched.reaped(exits)

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for watched in list(self._watched.values()):
                watched.look()

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.told.tell("", "mistaken", f"of an error in the keeper itself: {error!r}")


def _stray(found: Found) -> Unit:
    return Unit(found.name, (), "/", {}, "/dev/null", isolate=found.isolated, digest=found.digest)


_Stage = Callable[[Unit], bool]


def _is_etcd(unit: Unit) -> bool:
    return unit.name.startswith("etcd/")


def _is_node(unit: Unit) -> bool:
    return unit.isolate


def _is_pooler(unit: Unit) -> bool:
    return not (_is_etcd(unit) or _is_node(unit))
