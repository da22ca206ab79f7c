"""What a rule finds: a mistake or a doubt, and the path in the file that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pgfleet.spec.document import Path, Positions
from pgfleet.spec.fleet import Fleet

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic before it has a position.

    :param shard: the shard it is about, where several that share a group may have the same.
    :param key: whether the position is that of the key rather than of its value.
    """

    code: str
    path: Path
    message: str
    hint: str = ""
    severity: Severity = "error"
    shard: str = ""
    key: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules look at.

    :param names: every name that the file declares, by regions, groups, shards and tables; also those whose body could
        not be read.
    """

    fleet: Fleet
    positions: Positions
    names: Mapping[str, tuple[str, ...]]

    def said(self, shard: str, *field: str) -> Path:
        """Where the file says ``field`` of ``shard``: there, in its group, in the fleet; else the shard itself."""
        group = self.fleet.shards[shard].group or ""
        for path in (("shards", shard, *field), ("groups", group, *field), field):
            if self.positions.says(*path):
                return path
        return ("shards", shard)

    def line(self, path: Path) -> str:
        """For messages: `` (line 12)``; nothing where the file says nothing there."""
        return f" (line {self.positions.of(*path).line})" if self.positions.says(*path) else ""


Rule = Callable[[Subject], Iterator[Finding]]
