"""Faults, injected on purpose. Every process is one that the fleet's own keeper names, held by its pidfd: a signal
cannot reach anything else."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pgfleet.errors import Unreachable
from pgfleet.names import NodeName
from pgfleet.providers.local.keeper.control import KeeperClient, KeeperSeen, UnitSeen
from pgfleet.runtime.process import Held, descendants, look_at

#: Seconds that a stopped node stays stopped: longer than Patroni's ttl (20 s), so that another has been elected.
STOPPED_FOR = 30.0


@dataclass(slots=True)
class Struck:
    """What was done.

    :param at: on the monotonic clock, before the first signal. :param stopped: processes that can be continued.
    """

    at: float
    told: str
    stopped: list[Held] = field(default_factory=list)

    def resume(self) -> int:
        """Continue what is stopped and still exists; how many processes did."""
        went_on = 0
        # The first process of the namespace last: the others shall not be alone with what it will do.
        for held in reversed(self.stopped):
            went_on += held.send(signal.SIGCONT)
            held.close()
        self.stopped.clear()
        return went_on


Fault = Callable[[Path, NodeName, tuple[NodeName, ...]], Awaitable[Struck]]


async def _look(folder: Path, *, twin: bool = False) -> KeeperSeen:
    """What the keeper says now; one that was just killed has a successor within moments.

    :param twin: wait until it has a twin, too: a keeper is killed only where another can take over.
    :raises Unreachable: there is none.
    """
    until = time.monotonic() + 15.0
    while True:
        try:
            seen = await KeeperClient(folder).status()
            if seen.twin is not None or not twin or time.monotonic() > until:
                return seen
        except Unreachable:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.1)


def _unit(seen: KeeperSeen, node: NodeName) -> tuple[UnitSeen, int, int]:
    """The node's unit, its Patroni and its postmaster."""
    unit = seen.unit(f"node/{node}")
    if unit is None or unit.pid is None or unit.postmaster is None:
        raise Unreachable(f"{node} does not run, so no fault can be injected", hint="pgfleet status")
    return unit, unit.pid, unit.postmaster


def _strike(number: signal.Signals, pids: Iterable[int], told: str) -> Struck:
    holds = [held for pid in pids if (held := Held.take(pid)) is not None]
    at = time.monotonic()
    for held in holds:
        held.send(number)
    return Struck(at, told)


async def crash(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of the postmaster and of Patroni."""
    _, patroni, postmaster = _unit(await _look(folder), primary)
    return _strike(signal.SIGKILL, (postmaster, patroni), f"killed postmaster {postmaster} and Patroni {patroni}")


async def patroni_only(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of Patroni; the kernel ends PostgreSQL with it."""
    _, patroni, _ = _unit(await _look(folder), primary)
    return _strike(signal.SIGKILL, (patroni,), f"killed Patroni {patroni}")


async def postmaster_only(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of the postmaster; its backends notice, Patroni lives."""
    _, _, postmaster = _unit(await _look(folder), primary)
    return _strike(signal.SIGKILL, (postmaster,), f"killed postmaster {postmaster}")


async def keeper(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of the keeper that acts; its twin takes over, and no database shall notice."""
    seen = await _look(folder, twin=True)
    return _strike(signal.SIGKILL, (seen.keeper,), f"killed keeper {seen.keeper}")


async def keeper_then_patroni(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of the keeper, then of the primary's Patroni, without a pause between."""
    seen = await _look(folder, twin=True)
    _, patroni, _ = _unit(seen, primary)
    told = f"killed keeper {seen.keeper}, then Patroni {patroni}"
    return _strike(signal.SIGKILL, (seen.keeper, patroni), told)


async def primary_and_voter(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGKILL of postmaster and Patroni of the primary and of one of its voters, in the same instant."""
    seen = await _look(folder)
    _, patroni, postmaster = _unit(seen, primary)
    _, other_patroni, other_postmaster = _unit(seen, others[0])
    pids = (postmaster, patroni, other_postmaster, other_patroni)
    return _strike(signal.SIGKILL, pids, f"killed {primary.member} and {others[0].member}")


async def stop(folder: Path, primary: NodeName, others: tuple[NodeName, ...]) -> Struck:
    """SIGSTOP of every process of the node, as when its machine hangs."""
    _, patroni, postmaster = _unit(await _look(folder), primary)
    struck = Struck(time.monotonic(), "")
    stopped: set[int] = set()
    while True:  # until a round finds nothing new: what was not stopped yet may have forked meanwhile
        found = [pid for pid in (postmaster, patroni, *descendants(patroni)) if pid not in stopped]
        if not found:
            break
        for pid in found:
            stopped.add(pid)
            held = Held.take(pid)
            if held is not None and held.send(signal.SIGSTOP):
                struck.stopped.append(held)
    struck.told = f"stopped {len(struck.stopped)} processes of {primary.member}"
    return struck


async def everything(folder: Path) -> Struck:
    """SIGKILL of every process of the fleet, and its sockets and shared memory removed: what a reboot leaves."""
    seen = await _look(folder)
    pids = [pid for pid in (seen.twin, seen.keeper) if pid is not None]
    pids += [pid for unit in seen.units for pid in unit.pids]
    memory = {path for unit in seen.units if unit.postmaster for path in shared_memory(unit.postmaster)}
    holds = [held for pid in pids if (held := Held.take(pid)) is not None]
    at = time.monotonic()
    for held in holds:
        held.send(signal.SIGKILL)
    await asyncio.gather(*(held.ends_within(10.0) for held in holds))
    for path in [folder / "run" / "keeper.sock", *memory]:
        path.unlink(missing_ok=True)
    alive = [pid for pid in pids if (process := look_at(pid)) is not None and process.state != "Z"]
    return Struck(at, f"killed {len(holds)} processes, {len(alive)} of them left; {len(memory)} segments removed")


def shared_memory(pid: int) -> set[Path]:
    """The POSIX shared memory that ``pid`` has mapped, as files of this host."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    names = {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/PostgreSQL." in line}  # noqa: S108
    return {Path(name) for name in names if not name.endswith("(deleted)")}


#: What ``script/prove kills`` does, by name.
KILLS: dict[str, Fault] = {
    "crash": crash,
    "postmaster": postmaster_only,
    "patroni": patroni_only,
    "keeper": keeper,
    "keeper, then patroni": keeper_then_patroni,
    "primary and voter": primary_and_voter,
}
