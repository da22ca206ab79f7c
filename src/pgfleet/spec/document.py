"""A fleet file as text in, and plain values with their positions out. Nothing here knows what the file means.

YAML 1.2's core scalars, read from libyaml's events: ``true`` and ``false`` are the only booleans (``no``, ``on`` and
``NO`` stay text: a country, a parameter's value), a number with leading zeros is text, and dates are text. Anchors,
aliases and tags are refused: a group says once what many shards share, and no short file can mean a long one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite

import yaml

from pgfleet.diagnostics import Diagnostic, Position
from pgfleet.spec import codes
from pgfleet.spec.syntax import COMPARE, not_allowed, not_text, not_yaml

#: A fleet of hundreds of shards is some 50 kB; a file beyond this is a mistake.
MAX_CHARACTERS = 1_000_000
#: tables / NAME / place / SHARD / item / value / over / item is eight.
MAX_DEPTH = 24

Path = tuple[str | int, ...]
Value = object

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where the wheel has it: ten times quicker
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|-?\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Positions:
    """Where each value and each key of the file stands; lines and columns count from 1."""

    file: str
    values: Mapping[Path, tuple[int, int]]
    keys: Mapping[Path, tuple[int, int]]

    def of(self, *path: str | int) -> Position:
        """The value at ``path``; the nearest value around it where the file says nothing there."""
        return self._nearest(self.values, path)

    def key(self, *path: str | int) -> Position:
        """The key at the end of ``path``; its value where it has no key of its own (an item of a list)."""
        where = self.keys.get(path)
        return Position(self.file, *where) if where else self.of(*path)

    def says(self, *path: str | int) -> bool:
        """Whether the file says something at ``path``."""
        return path in self.values

    def _nearest(self, places: Mapping[Path, tuple[int, int]], path: Path) -> Position:
        while path not in places and path:
            path = path[:-1]
        return Position(self.file, *places.get(path, (1, 1)))


@dataclass(slots=True)
class Document:
    """What the text says. ``root`` is None where it could not be read at all."""

    root: dict[str, Value] | None
    positions: Positions
    mistakes: list[Diagnostic] = field(default_factory=list)


_SAY_IT_ONCE = "say it once in `groups:` and let shards name the group"


class Fraction(float):
    """A number that remembers how it was written: ``1.10`` may have been meant as a word."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> Fraction:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


class _Stop(Exception):
    """The text cannot be read beyond this mistake."""

    def __init__(self, mistake: Diagnostic) -> None:
        self.mistake = mistake


def read_document(file: str, text: str) -> Document:
    """Read ``text``; every duplicate key is told, and the first mistake of syntax.

    :param file: how messages call the file.
    :param text: decoded with ``surrogateescape``, so that a byte that is not UTF-8 has a place, too.
    """
    reader = _Reader(file)
    root: Value = None
    try:
        if len(text) > MAX_CHARACTERS:
            raise _Stop(
                Diagnostic(
                    codes.TOO_LARGE,
                    Position(file, 1, 1),
                    f"the file has more than {MAX_CHARACTERS} characters",
                    hint="say it once in `groups:`, and place keys by `elsewhere: {hash: 64, over: [SHARD, …]}`",
                )
            )
        if (stray := not_text(file, text)) is not None:
            raise _Stop(stray)
        root = reader.read(text)
    except _Stop as stop:
        reader.mistakes.append(stop.mistake)
        root = None
    else:
        if not isinstance(root, dict):
            reader.mistakes.append(
                Diagnostic(
                    codes.NOT_A_MAPPING,
                    Position(file, *reader.values.get((), (1, 1))),
                    "the file is empty" if root is None else "the file is not a mapping of keys to values",
                    hint="pgfleet init",
                )
            )
    return Document(root if isinstance(root, dict) else None, Positions(file, reader.values, reader.keys), reader.mistakes)


class _Reader:
    """One pass over the events, with the path that led here."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self.mistakes: list[Diagnostic] = []

    def read(self, text: str) -> Value:
        try:
            events = yaml.parse(text, Loader=_LOADER)
            return self._document(events)
        except yaml.MarkedYAMLError as error:
            raise _Stop(not_yaml(self.file, text, error)) from None
        except yaml.reader.ReaderError as error:
            raise _Stop(not_allowed(self.file, text, error)) from None

    def _document(self, events: Iterator[yaml.Event]) -> Value:
        root: Value = None
        documents = 0
        for event in events:
            match event:
                case yaml.StreamStartEvent() | yaml.StreamEndEvent() | yaml.DocumentEndEvent():
                    continue
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise _Stop(
                            self._mistake(
                                codes.SYNTAX, event, "a second document begins here; a file holds one fleet",
                                hint="pgfleet -f other.yaml check   for a fleet in a file of its own, or remove this line",
                            )
                        )  # fmt: skip
                case _:
                    root = self._value(event, events, ())
        return root

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Value:
        if len(path) > MAX_DEPTH:
            hint = "close the brackets that were opened before: a fleet needs eight levels"
            raise _Stop(self._mistake(codes.TOO_LARGE, event, f"nested deeper than {MAX_DEPTH} levels", hint))
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Stop(self._mistake(codes.ALIAS, event, "anchors and aliases are not used in a fleet file", _SAY_IT_ONCE))
        tag = getattr(event, "tag", None)
        if tag is not None and not (tag == "!" and isinstance(event, yaml.ScalarEvent)):
            hint = json.dumps(event.value, ensure_ascii=False) if isinstance(event, yaml.ScalarEvent) else "leave the tag out"
            raise _Stop(self._mistake(codes.ALIAS, event, f"tags are not used in a fleet file: {tag}", hint))
        self.values[path] = self._where(event)
        match event:
            case yaml.ScalarEvent():
                return scalar(event.value) if not event.style and tag is None else event.value
            case yaml.SequenceStartEvent():
                return self._items(events, path)
            case yaml.MappingStartEvent():
                return self._pairs(events, path)
        raise _Stop(self._mistake(codes.SYNTAX, event, "something else was expected here", COMPARE))

    def _items(self, events: Iterator[yaml.Event], path: Path) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._value(event, events, (*path, len(items))))
        return items

    def _pairs(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Value]:
        pairs: dict[str, Value] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _Stop(self._mistake(codes.SYNTAX, event, "a key must be a word, not a list or a mapping", "key: value"))
            if event.anchor or event.tag not in (None, "!"):
                raise _Stop(self._mistake(codes.ALIAS, event, "anchors and tags are not used in a fleet file", _SAY_IT_ONCE))
            key, where = event.value, self._where(event)
            inner = (*path, key)
            if key in pairs:
                line = self.keys[inner][0]
                message = f"`{key}` is said twice; first in line {line}"
                hint = f"remove this `{key}`, or the one in line {line}" if line != where[0] else f"remove one of both `{key}`"
                self.mistakes.append(self._mistake(codes.DUPLICATE_KEY, event, message, hint))
                kept = self.values, self.keys
                self.values, self.keys = {}, {}
                self._value(next(events), events, inner)  # read past it; the first one counts
                self.values, self.keys = kept
                continue
            self.keys[inner] = where
            pairs[key] = self._value(next(events), events, inner)
        return pairs

    def _where(self, event: yaml.Event) -> tuple[int, int]:
        mark = event.start_mark
        return (mark.line + 1, mark.column + 1) if mark else (1, 1)

    def _mistake(self, code: str, event: yaml.Event, message: str, hint: str = "") -> Diagnostic:
        return Diagnostic(code, Position(self.file, *self._where(event)), message, hint)


def scalar(text: str) -> str | int | float | bool | None:
    """A plain (unquoted) scalar as YAML 1.2's core schema reads it, less octal, hexadecimal and leading zeros."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text) and len(text) < 4000:  # int() refuses more digits than that
        return int(text)
    if _FLOAT.fullmatch(text) and isfinite(float(text)):
        return Fraction(text)
    return text
