"""What a demonstration and a measurement say: lines as they happen, a bar, tables at the end.

On stdout for a person; with ``--json`` everything of this goes to stderr, and stdout holds the one document.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pgfleet.units import format_duration


class Show:
    """:param as_json: keep stdout free for :meth:`document`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._console = Console(stderr=as_json, highlight=False, soft_wrap=True)
        self._began: dict[str, float] = {}
        self._start = time.monotonic()
        self.documented = False  # whether stdout has its one document

    # -- progress of steps (control.apply.Teller) --

    def began(self, name: str) -> None:
        self._began[name] = time.monotonic()

    def ended(self, name: str, result: str = "") -> None:
        self._line("✔", "green", name, result)

    def failed(self, name: str, why: str) -> None:
        self._line("✘", "red", name, why)

    def _line(self, mark: str, style: str, name: str, result: str) -> None:
        took = time.monotonic() - self._began.pop(name, time.monotonic())
        text = " ".join(word for word in (name, result, format_duration(took) if took > 0.001 else "") if word)
        self._console.print(Text.assemble("  ", (mark, style), " ", text))

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """A line when the block ends; what is put into the list is told with it."""
        self.began(name)
        told: list[str] = []
        try:
            yield told
        except BaseException as error:
            self.failed(name, str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise
        self.ended(name, " ".join(told))

    # -- words --

    def heading(self, text: str) -> None:
        passed = time.monotonic() - self._start
        self._console.print(Text.assemble("\n", (text, "bold"), (f"  ({passed:.0f} s)", "dim")))

    def say(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def document(self, value: object) -> None:
        self.documented = True
        print(json.dumps(value, indent=2, ensure_ascii=False, default=str), flush=True)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on a terminal; the function advances it."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as progress:
            task = progress.add_task(what, total=total)
            yield lambda count: progress.advance(task, count)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Drawn on a terminal; into a pipe plain text in columns."""
        cells = [[cell_text(cell) for cell in row] for row in rows]
        if not self._console.is_terminal:
            self._console.print(Text(plain(columns, cells)))
            return
        drawn = Table(box=None, pad_edge=False)
        for name in columns:
            drawn.add_column(name, overflow="fold")
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))
        self._console.print(drawn)


def cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, as wide as their widest cell."""
    widths = [max(len(row[at]) for row in [columns, *cells]) for at in range(len(columns))]
    rows = [columns, *cells] if any(columns) else cells
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join("  " + line for line in lines)
