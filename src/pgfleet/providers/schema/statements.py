"""The fleet's own schema on every shard, ``pgfleet``: the SQL files of this folder, in the order of their names.

Each can be run again on what it made. ``:"app"``, ``:"monitor"`` and ``:"owner"`` stand for roles, as in psql.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pgfleet.names import quote_identifier


@dataclass(frozen=True, slots=True)
class Roles:
    """:param owner: makes the objects and owns them. :param app: applications connect as it. :param monitor: sees statistics."""

    owner: str
    app: str
    monitor: str


@cache
def texts() -> tuple[str, ...]:
    """Every file's text, in order."""
    folder = files("pgfleet.providers.schema")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def scripts(roles: Roles) -> Iterator[str]:
    """The files with ``roles`` put in; each is several statements, to be run as the owner inside one transaction."""
    names = {"owner": roles.owner, "app": roles.app, "monitor": roles.monitor}
    for text in texts():
        for variable, role in names.items():
            text = text.replace(f':"{variable}"', quote_identifier(role))
        yield text
