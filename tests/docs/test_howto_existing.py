"""docs/how-to/existing.md, executed: its commands and its program, in order, against servers that pgfleet did not start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import CLONE, blocks
from tests.engines.outside import Outside, dsn, outside, value
from tests.engines.scratch import binaries

pytestmark = pytest.mark.engines

PAGE = CLONE / "docs" / "how-to" / "existing.md"


@pytest.fixture
def pair() -> Iterator[Outside]:
    with outside() as made:
        yield made


def test_the_page_does_what_it_says(pair: Outside, tmp_path: Path) -> None:
    database = pair.database()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pgfleet").write_text(f'#!/bin/sh\nexec {sys.executable} -m pgfleet "$@"\n')
    (programs / "pgfleet").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{binaries()}:{os.environ['PATH']}", "PGFLEET_STATE": str(tmp_path / "state"),
        "MAIN_DSN": dsn(pair.primary, database), "MAIN_REPLICA_DSN": dsn(pair.replica, database),
    }  # fmt: skip
    said = []
    run = [(block.language, block.text) for block in blocks(PAGE) if block.language in ("sh", "python")]
    assert [language for language, _ in run] == ["sh", "sh", "sh", "python", "sh"]
    for language, text in run:
        if all(line.startswith("export ") for line in text.splitlines()):
            assert {line.split("=")[0] for line in text.splitlines()} == {"export MAIN_DSN", "export MAIN_REPLICA_DSN"}
            continue
        argv = ["bash", "-eux", "-c", text] if language == "sh" else [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert "everything is as it should be" in said[0]
    assert '"pg_is_in_recovery": true' in said[1]
    assert "near" not in said[2]
    assert "reads:  cloud-2" in said[2]
    assert "writes: cloud-1" in said[2]
    assert value(pair.primary, "select count(*) from questions", database) == "2"
    assert value(pair.primary, "select to_regnamespace('pgfleet') is null", database) == "t"
