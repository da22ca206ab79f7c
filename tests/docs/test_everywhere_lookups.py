"""docs/reference/everywhere-lookups.md: its examples are run, from top to bottom, against real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import CLONE, blocks
from tests.docs.test_how_to import RUN
from tests.engines.replicated import Replicated, replicated

from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

PAGE = CLONE / "docs" / "reference" / "everywhere-lookups.md"
TABLES = """
create table questions (subject text, id bigint, difficulty int, primary key (subject, id));
create table users (region text, id uuid default gen_random_uuid(), email text not null, primary key (region, id));
"""
FILE = "fleet: replicated\nregions: {us-east: {}}\nshards: {certification: {}, stem: {}}\n"


def insert(subject: str, rows: int) -> str:
    return f"insert into questions select '{subject}', n, nullif(n % 7, 0) from generate_series(1, {rows}) n"


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(("certification", "stem"), ("us-east",), TABLES) as made:
        tables = next(block.text for block in blocks(PAGE) if block.language == "yaml")
        made.placement = Placement.of(load("fleet.yaml", FILE + tables))
        made.write_state()
        made.shards["certification"].psql(insert("PMP", 100))
        made.shards["stem"].psql(insert("Mathematics", 40))
        made.shards["stem"].psql(insert("Physics", 40))
        yield made


def test_the_page_does_what_it_says(stage: Replicated, tmp_path: Path) -> None:
    program = "\n".join(block.text for block in blocks(PAGE) if block.language == "python")
    (tmp_path / "fleet.yaml").write_text(f"fleet: {stage.folder.name}\n")
    (tmp_path / "page.py").write_text(program)
    argv = [sys.executable, "-W", "error", "-c", RUN, "page.py"]
    state = os.environ | {"PGFLEET_STATE": str(stage.folder.parent)}
    done = subprocess.run(argv, cwd=tmp_path, env=state, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    difficulties = [int(line.split()[1]) for line in said[:20]]
    assert difficulties == sorted(difficulties, reverse=True)
    assert re.fullmatch(r"PMP 100 3\.\d{15,}", said[20])
    assert [line.split()[:2] for line in said[21:23]] == [["Mathematics", "40"], ["Physics", "40"]]
    assert said[23:] == ["Mathematics", "eu stem", "taken", "None"]
