"""What a measurement was made on: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pgfleet.providers.local.engines import Engines, find_engines
from pgfleet.units import format_size

#: Of :func:`yardstick`: about a second.
STEPS = 10_000_000


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def busy() -> float:
    """Seconds of CPU that were spent since the machine started, all cores together (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def yardstick() -> float:
    """Seconds for a loop of Python that is always the same. A rented machine's speed changes from hour to hour; figures of two
    hours compare only where this does."""
    began, total = time.perf_counter(), 0
    for number in range(STEPS):
        total += number
    return time.perf_counter() - began


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return "unknown"


def machine() -> dict[str, str]:
    """Cores, memory, processor, kernel, load."""
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024
    return {
        "machine": f"{cores()} cores ({_field('/proc/cpuinfo', 'model name')}), {format_size(memory)} RAM",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load before": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def versions(major: int = 15) -> dict[str, str]:
    """Of everything that took part."""
    engines: Engines = find_engines(major)
    asked = {
        "PostgreSQL": [str(engines.postgres.folder / "postgres"), "--version"],
        "Patroni": [engines.patroni, "--version"],
        "etcd": [engines.etcd, "--version"],
        "PgBouncer": [engines.pgbouncer, "--version"],
        "HAProxy": [engines.haproxy, "-v"],
    }
    found = {name: _first_version(argv) for name, argv in asked.items()}
    return found | {
        "Python": platform.python_version(), "asyncpg": version("asyncpg"), "psycopg": version("psycopg"),
        "pgfleet": version("pgfleet"),
    }  # fmt: skip


def _first_version(argv: list[str]) -> str:
    said = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    number = re.search(r"\d+(\.\d+)+", said.stdout or said.stderr)
    return number[0] if number else "unknown"
