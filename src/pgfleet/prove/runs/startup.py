"""How long the command line takes: ``--help`` and ``check`` of the example."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from pgfleet.prove.evidence import quantile
from pgfleet.prove.fleets import CLONE
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.show import Show

EXAMPLE = str(CLONE / "examples" / "question-bank.yaml")
COMMANDS: dict[str, tuple[str, ...]] = {"pgfleet --help": ("--help",), "pgfleet check": ("-f", EXAMPLE, "check")}
WITHIN = 0.3


def timed(words: Sequence[str]) -> float:
    """Seconds of one ``pgfleet`` process from its start to its end.

    :raises subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pgfleet", *words], check=True, capture_output=True, timeout=30)
    return time.perf_counter() - began


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each of :data:`COMMANDS`, turn by turn after one that warms the disk's cache."""
    for words in COMMANDS.values():
        timed(words)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            times[name].append(timed(words))
    return times


async def run(show: Show, rounds: int | None) -> Page:
    n = rounds or 10
    times = measure(n)
    rows = tuple(
        (name, round(min(all_) * 1000), round(quantile(all_, 0.5) * 1000), round(max(all_) * 1000))
        for name, all_ in times.items()
    )
    limits = tuple(Limit(f"{name}, median", quantile(all_, 0.5) * 1000, WITHIN * 1000, "ms") for name, all_ in times.items())
    text = "A process of its own each time, from its start to its end, after one run that warmed the disk's cache."
    return Page(
        "startup",
        "How long the command line takes",
        text,
        n,
        (Part(("command", "min ms", "median ms", "max ms"), rows),),
        limits,
    )
