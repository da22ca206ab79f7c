"""Adoption by looking: which processes of this host are units of a fleet, whoever started them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pgfleet.providers.local.keeper.launch import DIGEST, UNIT
from pgfleet.runtime.process import environment, every_pid, is_namespace_init, look_at


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that runs.

    :param pid: of its first process.
    :param digest: of the configuration it was started with.
    :param isolated: whether that is the first process of a pid namespace.
    """

    name: str
    pid: int
    digest: str
    isolated: bool


def find_units(folder: Path) -> dict[str, Found]:
    """Every unit of the fleet in ``folder`` that runs, by name. About 10 ms for 300 processes."""
    prefix = f"{folder}:"
    marked: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for pid in every_pid():
        env = environment(pid)
        if env and (mark := env.get(UNIT, "")).startswith(prefix):
            marked[mark.removeprefix(prefix)][pid] = env.get(DIGEST, "")
    return {name: found for name, pids in marked.items() if (found := _first(name, pids)) is not None}


def _first(name: str, pids: dict[int, str]) -> Found | None:
    for pid, digest in pids.items():
        if is_namespace_init(pid):
            return Found(name, pid, digest, isolated=True)
    for pid, digest in pids.items():
        seen = look_at(pid)
        if seen is not None and seen.state not in "ZX" and seen.parent not in pids:
            return Found(name, pid, digest, isolated=False)
    return None
