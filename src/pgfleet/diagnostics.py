"""Diagnostics: what is wrong with the file, as values. All of them are told at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake (``error``) or doubt (``warning``) in the file.

    :param code: ``PGF-S…``; each has a page under docs/errors.
    :param hint: text that can be pasted; empty where there is nothing to paste.
    """

    code: str
    position: Position
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        lines = [f"{self.severity}[{self.code}]: {self.message}", f"  --> {self.position}"]
        if self.hint:
            lines.append(f"  HINT: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """A stable shape for ``--json``."""
        return asdict(self)
