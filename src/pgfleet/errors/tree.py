"""Errors are cut by what the reader can do: the root, and one class for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pgfleet.diagnostics import Diagnostic


class PgfleetError(Exception):
    """The root of the tree; never raised itself.

    :param message: one sentence: what, and what was seen.
    :param seen: facts, a line each.
    :param hint: what to type now; can be pasted.
    """

    code: ClassVar[str] = "PGF-0000"
    kind: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, *, seen: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.seen = tuple(seen)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.kind}[{self.code}]: {self.message}"]
        lines += [f"  seen: {fact}" for fact in self.seen]
        if self.hint:
            lines.append(f"  HINT: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """A stable shape for ``--json``: code, kind, message, seen, hint."""
        return {
            "code": self.code,
            "kind": self.kind,
            "message": self.message,
            "seen": list(self.seen),
            "hint": self.hint,
        }


class SpecError(PgfleetError):
    """The file is wrong; its diagnostics say where and how. Mend the file."""

    code = "PGF-S000"
    kind = "error"
    exit_status = 2

    def __init__(self, diagnostics: Sequence[Diagnostic], message: str = "", *, hint: str = "") -> None:
        count = sum(1 for d in diagnostics if d.severity == "error")
        super().__init__(message or f"{count} mistake{'s' if count != 1 else ''} in the file", hint=hint)
        self.diagnostics = tuple(diagnostics)

    def __str__(self) -> str:
        if not self.diagnostics:
            return PgfleetError.__str__(self)
        return "\n\n".join(str(d) for d in self.diagnostics)

    def to_json(self) -> dict[str, object]:
        return PgfleetError.to_json(self) | {"diagnostics": [d.to_json() for d in self.diagnostics]}


class Unreachable(PgfleetError):
    """Something that should answer does not. Wait, or mend the network; nothing was changed."""

    code = "PGF-U000"
    kind = "unreachable"
    exit_status = 3


class Refused(PgfleetError):
    """A guard said no. A person decides; the message says which rule, and how it can be overridden if it can."""

    code = "PGF-F000"
    kind = "refused"
    exit_status = 4


class StepFailed(PgfleetError):
    """An engine said no. ``command``, ``exit_status`` and the last lines it wrote are kept."""

    code = "PGF-E000"
    kind = "failed"
    exit_status = 5


class Unproven(PgfleetError):
    """It was done, but the measurement did not keep the promise."""

    code = "PGF-P000"
    kind = "unproven"
    exit_status = 6


class Bug(PgfleetError):
    """Something that cannot happen did. Please report it with the output."""

    code = "PGF-B000"
    kind = "bug"
    exit_status = 70
