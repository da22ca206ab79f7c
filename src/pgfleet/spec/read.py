"""From a document to the fleet it declares: every mistake of structure at once, in words of the file.

What cannot be meant is told and left out, and the rest is read all the same, so that ``check`` can judge it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgfleet.diagnostics import Diagnostic, Position
from pgfleet.spec import codes, instead
from pgfleet.spec.document import Path, Positions, read_document
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.keys import known_keys, noun_of
from pgfleet.spec.nearest import nearest
from pgfleet.spec.scalars import Wrong

#: What stands in for a key that must be there and is not, so that the rest can be read.
_STAND_IN: Mapping[str, object] = {"fleet": "fleet", "regions": {}, "shards": {}}
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read.

    :param fleet: None where nothing could be made of the text; with mistakes, what is left without them.
    :param mistakes: of text and structure; ``check`` adds those of meaning.
    :param broken: paths that were left out.
    :param names: the names that the file declares, well-formed or not: regions, groups, shards, tables.
    """

    fleet: Fleet | None
    positions: Positions
    mistakes: tuple[Diagnostic, ...]
    broken: frozenset[Path]
    names: Mapping[str, tuple[str, ...]]
    text: str

    def judged(self) -> Fleet:
        """The fleet, where ``check`` found no mistake.

        :raises ValueError: nothing could be read, so ``check`` was not asked.
        """
        if self.fleet is None:
            raise ValueError("nothing could be read of this file")
        return self.fleet


def read(file: str, text: str) -> Loaded:
    """Read ``text``. Never raises for what is wrong with it.

    :param file: how messages call the file.
    """
    document = read_document(file, text)
    raw = document.root
    mistakes = list(document.mistakes)
    names = {
        kind: tuple(declared) if isinstance(declared := (raw or {}).get(kind), dict) else ()
        for kind in ("regions", "groups", "shards", "tables")
    }
    broken: set[Path] = set()
    fleet: Fleet | None = None
    if raw is not None:
        rest: dict[str, Any] = deepcopy(raw)
        for _ in range(_ROUNDS):
            try:
                fleet = Fleet.model_validate(rest)
                break
            except ValidationError as error:
                errors = error.errors(include_url=False)
            paths = [_path(found["loc"], rest, missing=found["type"] == "missing") for found in errors]
            meant = _meant(errors, paths)
            for found, path in zip(errors, paths, strict=True):
                if not _follows(path, broken) and not (found["type"] == "missing" and path in meant):
                    mistakes.append(_diagnostic(found, path, document.positions))
            for found, path in zip(errors, paths, strict=True):
                _leave_out(rest, path, broken, missing=found["type"] == "missing")
            _sweep(rest)
    mistakes.sort(key=lambda mistake: (mistake.position, mistake.code))
    return Loaded(fleet, document.positions, tuple(mistakes), frozenset(broken), names, text)


def _path(loc: Iterable[str | int], raw: object, *, missing: bool) -> Path:
    """pydantic's location less the tags of unions, which are in no file."""
    path: list[str | int] = []
    at = raw
    words = tuple(loc)
    for index, word in enumerate(words):
        if isinstance(at, dict) and word in at:
            at = at[word]
        elif isinstance(at, list):
            if not isinstance(word, int) or word >= len(at):
                continue
            at = at[word]
        elif not (missing and index == len(words) - 1):
            continue
        path.append(word)
    return tuple(path)


def _meant(errors: Iterable[Any], paths: Iterable[Path]) -> set[Path]:
    """Where keys belong that were misspelt: they are missing there, and nobody needs to hear it twice."""
    unknown = [path for found, path in zip(errors, paths, strict=True) if found["type"] == "extra_forbidden"]
    return {(*path[:-1], nearest(str(path[-1]), known_keys(path[:-1]))) for path in unknown}


def _follows(path: Path, broken: Iterable[Path]) -> bool:
    """Whether a mistake at ``path`` comes from what was left out there, around it or within it: it was told already."""
    return any(path[: len(other)] == other or other[: len(path)] == path for other in broken)


class _Gone:
    """An item of a list that was left out."""


def _leave_out(raw: dict[str, Any], path: Path, broken: set[Path], *, missing: bool) -> None:
    if missing and len(path) == 1:
        raw[str(path[0])] = deepcopy(_STAND_IN[str(path[0])])
        broken.add(path)
        return
    if missing:
        path = path[:-1]
    parent: Any = raw
    for word in path[:-1]:
        try:
            parent = parent[word]
        except (KeyError, TypeError, IndexError):
            return  # something around it was left out before
    if not path:
        return
    if isinstance(parent, dict) and path[-1] in parent:
        if len(path) == 2 and not isinstance(parent[path[-1]], dict) and path[0] in ("regions", "groups", "shards", "tables"):
            parent[path[-1]] = {}  # a name without a body is still a name
        else:
            del parent[path[-1]]
    elif isinstance(parent, list) and isinstance(path[-1], int) and path[-1] < len(parent):
        parent[path[-1]] = _Gone
    broken.add(path)


def _sweep(value: Any) -> None:
    """Close the gaps in lists, after all positions of this round were used."""
    if isinstance(value, dict):
        for inner in value.values():
            _sweep(inner)
    elif isinstance(value, list):
        value[:] = [inner for inner in value if inner is not _Gone]
        for inner in value:
            _sweep(inner)


def _diagnostic(found: Any, path: Path, positions: Positions) -> Diagnostic:
    at_key = found["type"] in ("extra_forbidden", "missing") or "[key]" in found["loc"]
    code, message, hint = _words(found, path)
    where: Position = positions.key(*path) if at_key else positions.of(*path)
    if found["type"] == "missing":
        where = positions.key(*path[:-1]) if len(path) > 1 else positions.of()
    return Diagnostic(code, where, message, hint)


def _words(found: Any, path: Path) -> tuple[str, str, str]:
    """Code, sentence and hint of one of pydantic's errors."""
    kind, value, context = found["type"], found.get("input"), found.get("ctx", {})
    name = "the file" if not path else f"`{path[-1]}`" if isinstance(path[-1], str) else f"item {path[-1] + 1}"
    if isinstance(wrong := context.get("error"), Wrong):
        named = bool(path) and isinstance(path[-1], str) and "`" not in wrong.message
        said = f"{name}: {wrong.message}" if named else wrong.message
        return wrong.code, said, wrong.hint
    match kind:
        case "extra_forbidden":
            known = known_keys(path[:-1])
            hint = nearest(str(path[-1]), known) or f"known here: {', '.join(known)}"
            return codes.UNKNOWN_KEY, f"{name} is not a key of {noun_of(path[:-1])}", hint
        case "missing":
            return codes.MISSING_KEY, f"{noun_of(path[:-1])} needs the key {name}", instead.missing(path)
        case "int_type" | "int_parsing" | "int_from_float":
            return codes.VALUE, f"{name} must be a whole number, not {_shown(value)}", instead.number(path, value)
        case "string_type":
            return codes.VALUE, f"{name} must be text, not {_shown(value)}", instead.text(path, value)
        case "dict_type" | "model_type" | "model_attributes_type":
            said = f"{name} must be keys and values, such as {{key: value}}, not {_shown(value)}"
            return codes.VALUE, said, instead.example(path) or "{}"
        case "tuple_type" | "list_type":
            return codes.VALUE, f"{name} must be a list, not {_shown(value)}", instead.a_list(value)
        case "literal_error":
            expected = str(context["expected"]).replace("'", "")
            words = expected.replace(" or ", ", ").split(", ")
            return codes.VALUE, f"{name} must be {expected}, not {_shown(value)}", nearest(str(value), words) or words[0]
        case "greater_than_equal":
            return codes.VALUE, f"{name} must be at least {context['ge']}, not {_shown(value)}", str(context["ge"])
        case "less_than_equal":
            return codes.VALUE, f"{name} must be at most {context['le']}, not {_shown(value)}", str(context["le"])
        case _:
            said = f"{name}: {str(found['msg'])[:1].lower()}{str(found['msg'])[1:]}"
            return codes.VALUE, said, instead.example(path) or "docs/reference/fleet-file.md lists what may stand here"


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "keys and values"
        case list() | tuple():
            return "a list"
        case str():
            return f"`{value[:40]}`"
        case _:
            return f"{value}"
