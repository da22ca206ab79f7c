"""What the keeper did and why: a line in its log for people, and one in ``keeper-events.jsonl`` for the journal."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeeperEvent:
    """:param at: UTC, ISO 8601 with milliseconds.
    :param unit: empty where it concerns the keeper itself.
    :param took: seconds, where the act has a length."""

    at: str
    unit: str
    what: str
    because: str
    took: float | None = None


class Told:
    """Appends, and remembers the last few for ``status``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keeper-events.jsonl"
        self.tail: deque[KeeperEvent] = deque(maxlen=50)

    def tell(self, unit: str, what: str, because: str, took: float | None = None) -> None:
        """Written before anybody can ask for it."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = KeeperEvent(at, unit, what, because, None if took is None else round(took, 4))
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")
        self._path.chmod(0o640)
        self.tail.append(event)
        length = "" if took is None else f" {took * 1000:.0f} ms"
        sys.stdout.write(f"{at} {unit or 'keeper'} {what}{length} because {because}\n")
        sys.stdout.flush()
