"""Typed from a user's side: mypy and pyright, both strict, read a user's program as an editor would."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "src"

pytestmark = pytest.mark.timeout(300)


def mistakes() -> set[tuple[str, int]]:
    """The lines of ``wrong.py`` that say that they are wrong."""
    lines = (HERE / "wrong.py").read_text().splitlines()
    return {("wrong.py", number) for number, line in enumerate(lines, 1) if "# mistake" in line}


def test_mypy_finds_every_mistake_and_no_other(tmp_path: Path) -> None:
    # No configuration: a user has none of ours, and none of our plugins.
    argv = [
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context",
        f"--cache-dir={tmp_path}", "program.py", "wrong.py",
    ]  # fmt: skip
    done = subprocess.run(
        argv, cwd=HERE, env=os.environ | {"MYPYPATH": str(SOURCES)}, capture_output=True, text=True, check=False
    )
    told = re.findall(r"^([\w./]+):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert {(name, int(line)) for name, line, _ in told} == mistakes(), done.stdout + done.stderr


def test_pyright_finds_every_mistake_and_no_other() -> None:
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed (it has no wheel for this machine)")
    argv = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", "pyrightconfig.json"]
    done = subprocess.run(argv, cwd=HERE, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in told if one["severity"] == "error"}
    assert found == mistakes(), "\n".join(
        f"{Path(o['file']).name}:{o['range']['start']['line'] + 1} {o['message']}" for o in told
    )
