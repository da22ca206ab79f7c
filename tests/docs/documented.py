"""docs/reference/json.md as a value: for each command the keys that it says its document has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "json.md"

TYPES = {"text": str, "number": (int, float), "true or false": bool, "object": dict, "null": type(None)}
#: What is told by the keys of something else on the page, or depends on what happened: not looked into.
OPAQUE = ("object", "object or null", "any")


def documented() -> dict[str, dict[str, str]]:
    """Heading -> key -> type."""
    found: dict[str, dict[str, str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = dict(re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", text, re.MULTILINE))
    return found


def matches(pattern: str, path: tuple[str, ...]) -> bool:
    """Whether the key ``path`` is one that ``pattern`` speaks of: a word in capitals is any name."""
    words = pattern.replace("[]", ".[]").split(".")
    return len(words) == len(path) and all(w == p or (w.isupper() and p != "[]") for w, p in zip(words, path, strict=True))


def leaves(value: Any, keys: dict[str, str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of ``value`` at which something stands that is not looked into further."""
    kind = next((kind for pattern, kind in keys.items() if path and matches(pattern, path)), "")
    if kind in OPAQUE or not isinstance(value, dict | list):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, keys, (*path, key))
    else:
        for inner in value:
            yield from leaves(inner, keys, (*path, "[]"))


def wrong(value: Any, keys: dict[str, str]) -> list[str]:
    """What of ``value`` the page does not say, or says otherwise."""
    found = []
    for path, leaf in leaves(value, keys):
        name = ".".join(path).replace(".[]", "[]")
        kinds = [kind for pattern, kind in keys.items() if matches(pattern, path)]
        if len(kinds) != 1:
            found.append(f"{name} is {'not documented' if not kinds else 'documented twice'}")
        elif not is_a(kinds[0], leaf):
            found.append(f"{name} is {leaf!r}, documented as {kinds[0]}")
    return found


def is_a(kind: str, value: Any) -> bool:
    """Whether ``value`` is what ``kind`` says: ``text``, ``number or null``, ``true or false``."""
    if kind == "any":
        return True
    nullable = kind.endswith(" or null")
    if value is None:
        return nullable
    kind = kind.removesuffix(" or null")
    wanted: Any = TYPES[kind]
    return isinstance(value, wanted) and (kind == "true or false" or not isinstance(value, bool))


def unseen(values: list[Any], keys: dict[str, str]) -> list[str]:
    """Keys of the page that none of ``values`` has."""
    seen = {path for value in values for path, _ in leaves(value, keys)}
    return [pattern for pattern in keys if not any(matches(pattern, path) for path in seen)]
