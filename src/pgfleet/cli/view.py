"""What a person reads, and what a program reads: every command prints through here.

A table is drawn for the terminal it is on; into a pipe it goes as plain text in full width, so that grep and awk can
read it. Colour is for terminals only, unless ``FORCE_COLOR`` asks for it; ``NO_COLOR`` always wins
(https://no-color.org).
"""

from __future__ import annotations

import json as json_text
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Self, TextIO, assert_never

from pgfleet.errors import Bug, PgfleetError
from pgfleet.events import Event
from pgfleet.units import format_duration

REPORT = "this is a mistake in pgfleet: please report it, with the command, its output and `pgfleet version`"

_COLOUR = re.compile(r"\033\[[\d;]*m")
_STYLES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


def coloured(stream: TextIO) -> bool:
    """Whether ``stream`` is to have colour."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """``text`` in ``style`` (red, green, yellow, cyan, bold, dim) if ``stream`` (stdout) has colour."""
    return f"\033[{_STYLES[style]}m{text}\033[0m" if coloured(stream or sys.stdout) else text


def line(text: str = "") -> None:
    """One line on stdout, at once: who reads it through a pipe is waiting for it."""
    print(text, flush=True)


def clear() -> None:
    """An empty screen, where there is one."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        line("\033[2J\033[H")


def note(text: str) -> None:
    """One line on stderr: said to the person, not part of the answer."""
    print(text, file=sys.stderr, flush=True)


def document(value: object) -> None:
    """``value`` as the one JSON document on stdout; keys in the order they have, dataclasses as objects."""
    print(json_text.dumps(value, indent=2, ensure_ascii=False, default=_plain), flush=True)


def _plain(value: object) -> object:
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def error(failure: PgfleetError, *, json: bool) -> None:
    """Tell ``failure``: for a person on stderr, or as the document ``{"error": {…}}`` on stdout."""
    if json:
        document({"error": failure.to_json() | {"exit_status": failure.exit_status}})
        return
    said = str(failure).split("\n")
    for number, text in enumerate(said):
        head, bracket, rest = text.partition("]: ")
        if bracket and "[PGF-" in head:
            colour = "yellow" if head.startswith(("warning", "refused", "unreachable")) else "red"
            text = paint(head + "]", colour, sys.stderr) + ": " + paint(rest, "bold", sys.stderr)
        elif text.lstrip().startswith("HINT: "):
            text = text.replace("HINT:", paint("HINT:", "cyan", sys.stderr), 1)
        said[number] = text
    note("\n".join(said))


def bug(failure: Exception, *, json: bool) -> None:
    """Tell an exception that nobody foresaw: its traceback on stderr, and how to report it."""
    note("".join(traceback.format_exception(failure)).rstrip())
    error(Bug(f"{type(failure).__name__}: {failure}", hint=REPORT), json=json)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; cells that are numbers stand right, None is empty. ``title`` may be empty."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[at], (int, float)) for row in rows) for at in range(len(columns))]
    if not sys.stdout.isatty():
        line(plain_table(title, columns, cells, right))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name, numeric in zip(columns, right, strict=True):
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        # Text, not str: what stands in brackets is a cell's text, never rich's markup; ANSI styles made by paint()
        # are kept.
        drawn.add_row(*(Text.from_ansi(cell) for cell in row))
    Console(no_color=not coloured(sys.stdout), highlight=False).print(drawn)


def plain_table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """The table as text: columns two spaces apart, as wide as their widest cell, no lines drawn."""
    widths = [max(_width(row[at]) for row in (columns, *cells)) for at in range(len(columns))]
    lines = [title] if title else []
    for row in [columns, *cells]:
        padded = []
        for cell, width, numeric in zip(row, widths, right, strict=True):
            room = " " * (width - _width(cell))
            padded.append(room + cell if numeric else cell + room)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width(cell: str) -> int:
    """Columns of a terminal that ``cell`` takes; what only changes its colour takes none."""
    return len(_COLOUR.sub("", cell))


def confirm(question: str) -> bool:
    """Ask on the terminal; no terminal means no."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Steps:
    """Progress of steps, a line as each ends: ``✔ node stem/us-east-1 streaming 3.2 s``.

    On a terminal the last line says what is still being done; into a pipe only what ended is written. Silent with
    ``--json``, whose stdout holds one document.
    """

    def __init__(self, *, silent: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._silent = silent
        self._live = not silent and self._stream.isatty()
        self._began: dict[str, float] = {}
        self._marks = ("✔", "✘", "·") if _speaks_unicode(self._stream) else ("ok", "FAILED", "-")

    def began(self, name: str) -> None:
        self._began[name] = time.monotonic()
        self._tell(None)

    def ended(self, name: str, result: str = "", *, took: float | None = None) -> None:
        """:param took: seconds; measured since :meth:`began` when not given."""
        self._close(self._mark(0, "green"), name, result, took)

    def failed(self, name: str, why: str, *, took: float | None = None) -> None:
        self._close(self._mark(1, "red"), name, why, took)

    def skipped(self, name: str, why: str) -> None:
        """Nothing had to be done for ``name``, or nothing but to look."""
        self._close(self._mark(2, "dim"), name, why, None)

    def event(self, event: Event) -> None:
        """Tell a row of the journal; the ``tell`` of :class:`pgfleet.control.journal.Journal`."""
        name = f"{event.what} {event.subject}"
        told = str(event.detail.get("told") or "")
        match event.outcome:
            case "began":
                self.began(name)
            case "ended":
                self.ended(name, told, took=event.took_seconds)
            case "failed":
                self.failed(name, told or str(event.detail.get("error") or ""), took=event.took_seconds)
            case "seen":
                self.skipped(name, told or event.because)
            case _:
                assert_never(event.outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._began.clear()
        self._tell(None)

    def _mark(self, which: int, style: str) -> str:
        return paint(self._marks[which], style, self._stream)

    def _close(self, mark: str, name: str, result: str, took: float | None) -> None:
        since = self._began.pop(name, None)
        if took is None and since is not None:
            took = time.monotonic() - since
        self._tell(" ".join(word for word in (mark, name, result, format_duration(took) if took else "") if word))

    def _tell(self, text: str | None) -> None:
        if self._silent:
            return
        out = "\r\033[K" if self._live else ""
        if text is not None:
            out += text + "\n"
        if self._live and self._began:
            width = os.get_terminal_size(self._stream.fileno()).columns or 80  # 0: nobody told it
            doing = f"… {len(self._began)} under way: {', '.join(self._began)}"
            out += doing if len(doing) < width else doing[: width - 2] + "…"
        if out:
            self._stream.write(out)
            self._stream.flush()


def _speaks_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") in ("utf8", "utf16")


def mapping(pairs: Mapping[str, Any]) -> None:
    """Name and value, a line each, the values in one column."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        line(f"{name.ljust(width)}  {value}")
