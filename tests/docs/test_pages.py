"""README and the pages of docs/reference: their commands and programs are run as they stand, on real engines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest
from tests.docs.pages import CLONE, Reader, blocks

README = CLONE / "README.md"
REFERENCE = CLONE / "docs" / "reference"
WALK = "From a file to a fleet"
#: What cannot be run here, by page: the demonstration and the tests are run by tests of their own.
RUN_WHOLE = ["everywhere-lookups.md"]  # by test_everywhere_lookups.py
NOT_RUN = {"README.md": [("pgfleet", "sh")]}


@pytest.fixture
def reader(fleet_root: Path, tmp_path: Path) -> Iterator[Reader]:
    """In an empty folder, with a state root of their own; whatever they leave running is taken down."""
    made = Reader(tmp_path / "empty", fleet_root)
    made.folder.mkdir()
    yield made
    if (made.folder / "fleet.yaml").exists():
        made.run("pgfleet destroy --yes")


@pytest.mark.engines
@pytest.mark.timeout(600)
def test_readmes_walk_from_a_file_to_a_fleet(reader: Reader) -> None:
    walk = [block for block in blocks(README) if block.heading == WALK]
    assert [block.language for block in walk] == ["sh", "python", "sh"]
    made, program, used = (block.text for block in walk)
    assert "pgfleet destroy --yes" in used

    said = reader.run(made)
    assert (reader.folder / "fleet.yaml").read_text() == (CLONE / "examples" / "smallest.yaml").read_text()
    assert "smallest: 1 shard, 2 nodes" in said  # check
    assert "+ create node main/here-2" in said  # plan
    assert "the fleet is as the file says" in said  # apply
    assert "1 file applied, on 1 of 1 shard" in said  # migrate

    (reader.folder / "app.py").write_text(program)
    said = reader.run(used)
    assert re.search(r"^1 \[\('PMP', 1\)\]$", said, re.MULTILINE)  # the program
    assert "questions, key 'PMP': shard main, because" in said
    assert "everything is as it should be" in said  # status
    assert re.search(r"postgresql://pgfleet_app@127\.0\.0\.1:\d+/main_rw", said)
    assert re.search(r"^ *PMP *\| What is a charter\?$", said, re.MULTILINE)  # sql
    assert "main: here-2 is primary" in said  # switchover
    assert re.search(r"#\d+ switchover main ended", said)  # log
    assert said.rstrip().endswith("smallest: gone")
    assert not (reader.state / "smallest").exists()


@pytest.mark.engines
@pytest.mark.timeout(600)
def test_the_commands_of_the_reference_run(reader: Reader) -> None:
    reader.run("pgfleet init && pgfleet apply")
    said = "".join(reader.run(block.text) for block in blocks(REFERENCE / "migrate-sql-log.md") if block.language == "sh")
    assert "1 file applied, on 1 of 1 shard" in said
    assert "nothing to do: 2 files, 1 shard, as the folder says" in said
    assert '"count": 1' in said
    assert "each follows from the one before" in said
    for block in blocks(REFERENCE / "client.md"):
        if block.language == "python":
            program = f"async def main():\n{indent(block.text, '    ')}\n    print(rows)\n\nimport asyncio\nasyncio.run(main())\n"
            (reader.folder / "fragment.py").write_text(program)
            assert "What is a charter?" in reader.run("python fragment.py")


def test_every_block_of_commands_is_run_by_a_test() -> None:
    """A block that is added must be run, too, or be said to be none."""
    run = {("README.md", WALK)}
    run |= {(name, block.heading) for name in ("migrate-sql-log.md", "client.md") for block in blocks(REFERENCE / name)}
    run |= {(name, block.heading) for name in RUN_WHOLE for block in blocks(REFERENCE / name)}
    for page in (README, *sorted(REFERENCE.glob("*.md"))):
        for block in blocks(page):
            known = (page.name, block.heading) in run or (block.heading, block.language) in NOT_RUN.get(page.name, [])
            assert known or block.language not in ("sh", "bash", "python"), f"{page.name}, {block.heading}: {block.text}"


def test_commands_inside_sentences_are_there() -> None:
    """What stands in backticks as a command is one: `pgfleet NAME`, `script/NAME`."""
    from pgfleet.cli.main import COMMANDS

    pages = [README, CLONE / "CHANGELOG.md", *sorted((CLONE / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text()
        for name in re.findall(r"`pgfleet ([a-z]+)", text):
            assert name in COMMANDS, f"{page}: pgfleet {name}"
        for name in re.findall(r"\bscript/([a-z]+)\b", text):
            assert os.access(CLONE / "script" / name, os.X_OK), f"{page}: script/{name}"


def test_links_lead_somewhere() -> None:
    for page in (README, CLONE / "CHANGELOG.md", *sorted((CLONE / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_links_every_measurement() -> None:
    pages = sorted((CLONE / "docs" / "measured").glob("*.md"))
    assert pages
    assert [page.name for page in pages if f"(docs/measured/{page.name})" not in README.read_text()] == []


def test_every_measurement_says_on_what_and_how_often() -> None:
    for page in sorted((CLONE / "docs" / "measured").glob("*.md")):
        text = page.read_text()
        for fact in (f"| command | `script/prove {page.stem}` |", "| n | ", "| machine | ", "| date | 20", "| PostgreSQL | "):
            assert fact in text, f"{page.name}: {fact}"


def test_the_readme_is_a_short_page() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 140
    assert max(len(line) for line in lines if not line.startswith("|")) <= 200
