"""The nearest of the names that are known, for hints."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``word`` was probably meant to be; empty where none is near."""
    from difflib import get_close_matches  # only a mistake needs it

    found = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else ""
