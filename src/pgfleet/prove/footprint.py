"""What a running fleet costs: memory and CPU of its processes, by engine. Linux' /proc; shared pages are counted once
(PSS), so that the sum is what the fleet takes from the machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

from pgfleet.providers.local.keeper.control import KeeperClient

_TICKS = os.sysconf("SC_CLK_TCK")


async def processes(folder: Path) -> dict[str, list[int]]:
    """The pids of the fleet in ``folder``, by engine.

    :raises KeeperUnreachable: it does not run.
    """
    seen = await KeeperClient(folder).status()
    found: dict[str, list[int]] = {"keeper": [pid for pid in (seen.keeper, seen.twin) if pid is not None]}
    for unit in seen.units:
        kind = unit.name.partition("/")[0]
        for pid in unit.pids:
            engine = kind if kind != "node" else "PostgreSQL" if _name(pid) == "postgres" else "Patroni"
            found.setdefault(engine, []).append(pid)
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def memory(pids: Iterable[int]) -> int:
    """Bytes (PSS) of all of them; one that has ended has none."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that they and their waited-for children have used."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2 :].split()
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


async def usage(folder: Path, seconds: float) -> dict[str, tuple[int, int, float]]:
    """By engine: processes, bytes, and the share of one core that they used during ``seconds`` seconds."""
    pids = await processes(folder)
    began, before = time.monotonic(), {engine: cpu_seconds(listed) for engine, listed in pids.items()}
    await asyncio.sleep(seconds)
    after = {engine: cpu_seconds(listed) for engine, listed in pids.items()}
    took = time.monotonic() - began
    return {
        engine: (len(listed), memory(listed), max(0.0, after[engine] - before[engine]) / took) for engine, listed in pids.items()
    }
