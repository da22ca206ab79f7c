"""Pages under docs/measured: what was measured, on what, with which versions, when, how often, and"
" by which command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.prove.show import cell_text


@dataclass(frozen=True, slots=True)
class Part:
    """A table. :param text: said before it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """:param seen: what was measured; kept when it is at most ``limit`` (``least``: at least)."""

    what: str
    seen: float
    limit: float
    unit: str = "s"
    least: bool = False

    @property
    def kept(self) -> bool:
        return self.seen >= self.limit if self.least else self.seen <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        seen, limit = (f"{value:.3g} {self.unit}".rstrip() for value in (self.seen, self.limit))
        return f"{self.what}: {seen} (asked for: {sign} {limit}) {'kept' if self.kept else 'NOT KEPT'}"


@dataclass(frozen=True, slots=True)
class Page:
    """:param name: of the run, and so of the page. :param n: how often it was measured.
    :param broken: what was not as promised, beside the limits, a sentence each."""

    name: str
    title: str
    text: str
    n: int
    parts: tuple[Part, ...]
    limits: tuple[Limit, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return not self.broken and all(limit.kept for limit in self.limits)


def render(page: Page, circumstances: Mapping[str, str]) -> str:
    """The page as Markdown."""
    lines = [f"# {page.title}", "", page.text, ""]
    if page.limits or page.broken:
        lines += [f"* {limit}" for limit in page.limits] + [f"* NOT KEPT: {text}" for text in page.broken] + [""]
    for part in page.parts:
        lines += [part.text, ""] if part.text else []
        lines += [*_table(part.columns, part.rows), ""]
    lines += ["## On what", ""]
    facts = {"command": f"`script/prove {page.name}`", "n": str(page.n), **circumstances}
    lines += _table(("", ""), list(facts.items()))
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(cell_text(cell).replace("|", "\\|") for cell in cells) + " |"

    numeric = [bool(rows) and all(isinstance(row[at], int | float) for row in rows) for at in range(len(columns))]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return [line(columns), rule, *map(line, rows)]


def write(page: Page, circumstances: Mapping[str, str], folder: Path) -> Path:
    """Write the page into ``folder``; where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{page.name}.md"
    path.write_text(render(page, circumstances), encoding="utf-8")
    return path
