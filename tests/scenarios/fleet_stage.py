"""A fleet of the tests' own: its file, its state, and the command line as a person types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = """
fleet: {name}
regions: {{east: {{provider: local}}, west: {{provider: local}}}}
shards:
  one: {{home: east, voters: {{east: 2, west: 1}}, sync: 1, promises: {{region: none}}}}
  two: {{home: west, voters: {{west: 1, east: 1}}, sync: 1, promises: {{region: none}}}}
tables:
  questions:
    key: subject
    place: {{one: [AWS, PMP], two: [GRE]}}
    elsewhere: {{hash: 16, over: [one, two]}}
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """:param root: the state root; :param file: the fleet's file."""

    root: Path
    file: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pgfleet", "-f", str(self.file), "--state", str(self.root), *words]

    def run(self, *words: str, expect: int = 0, seconds: float = 240) -> str:
        """What it wrote to stdout; its exit status must be ``expect``."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == expect, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if expect else "")

    def json(self, *words: str) -> Any:
        return json.loads(self.run("--json", *words))

    def status(self) -> Any:
        return self.json("status")

    def shard(self, name: str) -> Any:
        return next(shard for shard in self.status()["shards"] if shard["name"] == name)

    def whole(self, within: float = 90) -> None:
        """Wait until nothing is wrong but that a primary is away from home."""
        until = time.monotonic() + within
        while problems := [problem for problem in self.status()["problems"] if "away from home" not in problem]:
            assert time.monotonic() < until, problems
            time.sleep(0.5)

    def bring_home(self, primaries: Mapping[str, str]) -> None:
        """Whole, and of each shard this node the primary."""
        self.whole()
        for shard in self.status()["shards"]:
            node = primaries[shard["name"]]
            if shard["primary"]["node"] != node:
                self.run("switchover", shard["name"], "--to", node)
        self.whole()

    def processes(self) -> list[int]:
        """Every process that bears the mark of this fleet, and its keepers; found by looking, not by name."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                marked = f"PGFLEET_UNIT={self.folder}:".encode() in (entry / "environ").read_bytes()
                keeper = str(self.folder).encode() in (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked or keeper:
                found.append(int(entry.name))
        return found

    def kill_everything(self) -> None:
        """The keepers first, so that nothing is started again, then all the rest."""
        for _ in range(20):
            left = self.processes()
            if not left:
                return
            for pid in sorted(left, key=lambda pid: b"keeper" not in _cmdline(pid)):
                kill(pid)


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; one that has ended already is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
