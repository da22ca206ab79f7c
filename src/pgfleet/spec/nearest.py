"""The nearest of the names that are known, for hints."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``word`` was probably meant to be; empty where none is near."""
    from difflib import get_close_matches  # only a mistake needs it

    known = list(known)
    letters = sorted(word.lower())
    anagrams = [name for name in known if sorted(name) == letters]  # two letters in the wrong order: half of a short word
    found = anagrams or get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return found[0] if found else ""
