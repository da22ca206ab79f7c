"""Every code has a page, and the pages are what the sources say."""

from __future__ import annotations

from pathlib import Path

from pgfleet.cli.pages import pages, write

FOLDER = Path(__file__).parents[2] / "docs" / "errors"


def test_the_pages_are_what_the_sources_say() -> None:
    there = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    wanted = pages()
    different = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    assert different == [], "run: python -m pgfleet.cli.pages docs/errors"


def test_every_page_stands_in_the_index_once() -> None:
    wanted = pages()
    index = wanted.pop("README.md")
    assert [name for name in wanted if index.count(f"({name})") != 1] == []


def test_no_page_is_empty() -> None:
    assert [name for name, text in pages().items() if len(text.splitlines()) < 7] == []


def test_writing_twice_changes_nothing_and_removes_what_is_no_code_any_more(tmp_path: Path) -> None:
    (tmp_path / "PGF-X999.md").write_text("gone")
    assert "PGF-X999.md" in write(tmp_path)
    assert write(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == set(pages())
