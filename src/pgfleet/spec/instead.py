"""What to write instead of a value that cannot be meant: text that can be pasted in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pgfleet.spec.document import Path
from pgfleet.spec.keys import default_of

#: By key, what may stand there.
_VALUES: Mapping[str, str] = {
    "fleet": "my-fleet",
    "regions": "{here: {provider: local}}",
    "groups": "{everywhere: {voters: {home: 2}, sync: 1}}",
    "shards": "{main: {voters: {home: 2}}}",
    "tables": "{questions: {key: subject}}",
    "promises": "{crash: {rto: 1 s, rpo: 0}}",
    "pools": "{default_pool_size: 20}",
    "settings": "{work_mem: 8MB}",
    "voters": "{home: 2}",
    "readers": "{home: 1}",
    "place": "{main: [PMP, AWS]}",
    "elsewhere": "{hash: 64, over: [stem, stem-2]}",
    "lookups": "{by_email: [email]}",
    "partition": "{by: created_at, every: month}",
    "crash": "{rto: 1 s, rpo: 0}",
    "silent": "{rto: 25 s, rpo: 0}",
    "region": "{rto: 5 min, rpo: 30 s}",
    "replica_lag": "{same region: 50 ms, other regions: 500 ms}",
    "query": "{p99: 100 ms}",
    "hash": "64",
    "over": "[stem, stem-2]",
    "by": "created_at",
    "every": "month",
    "columns": "[email]",
    "key": "id",
    "provider": "local",
}
#: By the mapping they stand in, the bodies of things with a name of their own.
_BODIES: Mapping[str, str] = {
    "regions": "{provider: local}",
    "groups": "{voters: {home: 2}, sync: 1}",
    "shards": "{voters: {home: 2}}",
    "tables": "{key: id}",
    "lookups": "[email]",
}


def example(path: Path) -> str:
    """What may stand at ``path``; empty where nothing is known."""
    if len(path) >= 2 and (body := _BODIES.get(str(path[-2]))):
        return body
    return _VALUES.get(str(path[-1]), "") if path else "pgfleet init"


def missing(path: Path) -> str:
    """The key at the end of ``path`` with what may stand there."""
    return f"{path[-1]}: {_VALUES.get(str(path[-1]), '…')}"


def number(path: Path, value: object) -> str:
    """A whole number: the one that was meant, or the default, or 1."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 10:
        return value.strip()
    if isinstance(value, float) and abs(value) < 1e9:
        return str(round(value))
    default = default_of(path)
    return str(default) if isinstance(default, int) and not isinstance(default, bool) else "1"


def text(path: Path, value: object) -> str:
    """Text: the value in quotes; of a list with one item the item."""
    match value:
        case [str() | int() | float() as only]:
            return f"{only}"
        case dict() | list() | None:
            return example(path) or '"…"'
        case bool():
            return json.dumps(str(value).lower())
        case _:
            return json.dumps(str(getattr(value, "text", value)), ensure_ascii=False)


def a_list(value: object) -> str:
    """A list of what was written."""
    match value:
        case None:
            return "[]"
        case dict():
            return f"[{', '.join(map(str, value))}]"
        case bool():
            return f'["{str(value).lower()}"]'
        case _:
            return f"[{value}]"
