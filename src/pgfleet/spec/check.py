"""``check``: the file read as a promise, not only as syntax."""

from __future__ import annotations

from pgfleet.diagnostics import Diagnostic
from pgfleet.spec.read import Loaded


def check(loaded: Loaded) -> list[Diagnostic]:
    """Every mistake and doubt, of text, structure and meaning, in the order of the file."""
    return list(loaded.mistakes)
