"""A page's fenced blocks, and the folder in which a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """:param heading: the last one above it. :param language: ``sh``, ``python``, …; empty where none is said."""

    heading: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block of ``page``, in order."""
    text = page.read_text()
    found = []
    for block in _BLOCK.finditer(text):
        above = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text[: block.start()]), re.MULTILINE)
        found.append(Block(above[-1] if above else "", block[1], block[2]))
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who types what a page says.

    :param folder: where they work. :param state: where their fleets' state goes.
    """

    folder: Path
    state: Path

    def run(self, script: str, *, seconds: float = 240) -> str:
        """What the commands of ``script`` wrote, all of it; the first that fails ends it."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, timeout=seconds, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": path, "PGFLEET_STATE": str(self.state), "PSQLRC": os.devnull},
        )  # fmt: skip
        assert done.returncode == 0, f"exit {done.returncode}\n{script}\n{done.stdout}"
        return done.stdout
