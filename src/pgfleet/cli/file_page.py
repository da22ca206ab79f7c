"""docs/reference/fleet-file.md: every key of the file, made from the models.

``python -m pgfleet.cli.file_page FILE`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from pgfleet.spec.keys import PLACES
from pgfleet.spec.part import Part
from pgfleet.spec.said import said_of

_HEAD = """# The fleet file

<!-- Made by `python -m pgfleet.cli.file_page docs/reference/fleet-file.md`; edit the models under src/pgfleet/spec instead. -->

One YAML file declares a fleet. `pgfleet init` writes one to start from, `pgfleet check` reads it as a promise, and
[fleet.schema.json](fleet.schema.json) (`pgfleet schema`) makes editors complete it. Booleans are `true` and `false` only;
durations have units (`50 ms`, `1 s`, `5 min`, `30 d`); the examples under [examples/](../../examples) are executed by tests.

What a group says holds for its shards, unless a shard says otherwise. With V voting replicas and `sync: s`, an election needs
V − s + 1 of them, so the primary and s − 1 voters may be lost at the same moment; `pgfleet check` prints it for every shard.

All regions of a fleet have one provider. A shard of provider `existing` says `primary` and `replicas` instead of a shape; how,
and what such a shard cannot say, is in [Use PostgreSQL that you have already](../how-to/existing.md).
"""


def page() -> str:
    """The page's text."""
    parts = [_HEAD]
    shown: set[type[Part]] = set()
    for path, (_, model) in PLACES.items():
        if model in shown:
            continue
        shown.add(model)
        place = ".".join(path).replace("*", "NAME") or "The file itself"
        parts.append(f"## {place}\n\n{' '.join((model.__doc__ or '').split())}\n\n| key | default | |\n| --- | --- | --- |")
        said = said_of(model)
        for name, field in model.model_fields.items():
            key = field.alias or name
            parts.append(f"| `{key}` | {_default(field.default)} | {said.get(key, '')} |")
        parts.append("")
    return "\n".join(parts)


def _default(value: object) -> str:
    if value is PydanticUndefined or value is None or isinstance(value, Part):
        return ""
    return f"`{value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
