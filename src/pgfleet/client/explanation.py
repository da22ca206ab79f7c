"""Why a route was chosen, without sending anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a key's reads and writes would go now.

    :param read: node, None: nobody can be read. :param write: node, None: writes wait.
    :param passed_over: replicas that are not read from, each with its reason.
    """

    table: str
    key: str
    shard: str
    placed_because: str
    read: str | None
    read_because: str
    write: str | None
    write_because: str
    passed_over: Mapping[str, str]
    version: int

    def __str__(self) -> str:
        lines = [
            f"{self.table}, key {self.key!r}: shard {self.shard}, because {self.placed_because}",
            f"  reads:  {self.read or 'nobody'}, because {self.read_because}",
            f"  writes: {self.write or 'wait'}, because {self.write_because}",
            *(f"  not {node}: {why}" for node, why in self.passed_over.items()),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """A stable shape."""
        return asdict(self)
