"""A stage for the keeper: a fleet's folder with stand-ins for engines, and no process left when the curtain falls."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pgfleet.errors import KeeperUnreachable
from pgfleet.providers.local.keeper.adopt import find_units
from pgfleet.providers.local.keeper.control import KeeperClient, KeeperSeen, UnitSeen, start_keeper
from pgfleet.providers.local.units import NodeUnit, Unit, write_units
from pgfleet.runtime.process import environment, every_pid, look_at

#: A first process that ends when it is told to, whose child leaves its session as PostgreSQL does. The child is a
#: postmaster in so far as it names itself in postmaster.pid ($1, when given), by its number in its own namespace.
NODE = """
trap 'rm -f "$1"; exit 0' TERM
trap 'echo reloaded' HUP
echo listening
setsid sh -c 'test -z "$1" || echo $$ > "$1"; exec sleep 1000' - "$1" &
while :; do sleep 1000 & wait $!; done
"""


def sleeper(folder: Path, name: str = "haproxy/us-east", **more: object) -> Unit:
    unit = {"argv": ("sleep", "1000"), "cwd": "/", "env": {"PATH": os.environ["PATH"]}, "nofile": 512}
    return Unit(name=name, log=str(folder / "logs" / f"{name.replace('/', '.')}.log"), **{**unit, **more})  # type: ignore[arg-type]


def node(folder: Path, member: str = "us-east-1", **more: object) -> Unit:
    """A stand-in for Patroni and its PostgreSQL, in namespaces of its own."""
    data = folder / "nodes" / member
    data.mkdir(parents=True, exist_ok=True)
    argv = ("sh", "-c", NODE, "patroni", str(data / "postmaster.pid"))
    seen = NodeUnit("stem", member, str(data))
    return sleeper(folder, f"node/stem/{member}", **{"argv": argv, "isolate": True, "node": seen, **more})


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = KeeperClient(folder)
        (folder / "logs").mkdir()

    async def begin(self, *units: Unit) -> KeeperSeen:
        self.write(*units)
        await start_keeper(self.folder)
        return await self.until(lambda seen: seen.ready)

    def write(self, *units: Unit) -> None:
        write_units(self.folder, self.folder.name, units)

    async def until(self, holds: Callable[[KeeperSeen], object], within: float = 15.0) -> KeeperSeen:
        ends, seen = time.monotonic() + within, None
        while time.monotonic() < ends:
            with suppress(KeeperUnreachable):
                seen = await self.client.status()
                if holds(seen):
                    return seen
            await asyncio.sleep(0.01)
        log = (self.folder / "logs" / "keeper.log").read_text()
        raise AssertionError(f"not within {within:g} s; last seen: {seen}\n{log}")

    async def running(self, name: str, *, but: int | None = None) -> UnitSeen:
        """The unit when it runs, as another process than ``but``."""
        seen = await self.until(lambda k: (u := k.unit(name)) and u.state == "running" and u.pid not in (None, but))
        unit = seen.unit(name)
        assert unit is not None
        return unit

    async def twin(self, *, but: int | None = None) -> KeeperSeen:
        return await self.until(lambda seen: seen.twin not in (None, but))

    def told(self, what: str) -> list[str]:
        """Reasons of the events of that kind, from the file."""
        lines = (self.folder / "keeper-events.jsonl").read_text().splitlines()
        return [line for line in lines if f'"what": "{what}"' in line]


def pid(unit: UnitSeen | None) -> int:
    assert unit is not None
    assert unit.pid is not None
    return unit.pid


def alive(number: int) -> bool:
    seen = look_at(number)
    return seen is not None and seen.state not in "ZX"


def kill(number: int | None, with_signal: signal.Signals = signal.SIGKILL) -> None:
    assert number is not None
    assert number > 1
    os.kill(number, with_signal)


def keepers(folder: Path) -> list[int]:
    """The processes that are a keeper of this folder, by their command line."""
    found = []
    for number in every_pid():
        with suppress(OSError):
            argv = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            if b"pgfleet.providers.local.keeper" in argv and os.fsencode(folder) in argv:
                found.append(number)
    return found


def units_of(folder: Path) -> list[int]:
    """Every process that is, or descends from, a unit of this folder, as far as its environment tells."""
    mark = f"{folder}:"
    return [n for n in every_pid() if (environment(n) or {}).get("PGFLEET_UNIT", "").startswith(mark) and alive(n)]


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """Everything that was started in ``folder`` is killed at the end: keepers first, lest they start it again."""
    here = Stage(folder)
    try:
        yield here
    finally:
        while left := [n for n in keepers(folder) if alive(n)]:
            for number in left:
                with suppress(ProcessLookupError):
                    kill(number)
            await asyncio.sleep(0.02)
        for found in find_units(folder).values():
            with suppress(ProcessLookupError):
                kill(found.pid, signal.SIGCONT)
                kill(found.pid)
        for _ in range(500):
            if not units_of(folder):
                break
            await asyncio.sleep(0.01)
        assert not units_of(folder)
