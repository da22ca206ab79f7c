"""What was said of each logical write, and whether the database agrees. Pure.

Each write has an id of its own, and its row tells how often it was done (:data:`pgfleet.prove.writing.COUNTED`): so what is
lost, what was done twice, and what was said wrongly, are all differences of two lists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from uuid import UUID

Said = Literal["acknowledged", "unknown", "committed", "aborted", "lost", "failed"]


#: Calls that the client sends again where that is safe: through a failover they may only come too late.
AGAIN, LATE = ("execute", "transact"), "DeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Entry:
    """One logical write of one process.

    :param how: by which call: ``execute``, ``block``, ``transact``.
    :param said: ``acknowledged``; ``unknown``: nobody could say; ``committed``, ``aborted`` or ``lost``: what ``resolve()`` said
        of an unknown one; ``failed``: an error that says that nothing was written.
    :param began: seconds on the host's monotonic clock. :param at: when the call itself ended.
    :param error: its kind; empty: none.
    """

    id: UUID
    shard: str
    how: str
    said: Said
    began: float
    at: float
    error: str = ""

    def to_line(self) -> str:
        fields = [str(self.id), self.shard, self.how, self.said, round(self.began, 6), round(self.at, 6), self.error]
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> Entry:
        """:raises ValueError: the line is none of a ledger, or was cut."""
        row, shard, how, said, began, at, error = json.loads(line)
        if said not in get_args(Said):
            raise ValueError(f"{said!r} is not said of a write")
        return cls(UUID(row), shard, how, said, float(began), float(at), error)


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What a ledger and the database say together; each list holds the writes of which it is true.

    :param said: how many of each.
    :param lost: said to have happened, and not there.
    :param twice: done more than once.
    :param wrong: ``resolve()`` said the opposite of what the database holds.
    :param denied: said not to have happened (an error, not an unknown outcome), and there.
    :param given_up: calls that try again by themselves, and failed for another reason than their deadline.
    :param unknown_there: of the unknown, those that did happen.
    :param strangers: rows that nobody's ledger knows.
    """

    said: Mapping[str, int]
    lost: tuple[Entry, ...] = ()
    twice: tuple[Entry, ...] = ()
    wrong: tuple[Entry, ...] = ()
    denied: tuple[Entry, ...] = ()
    given_up: tuple[Entry, ...] = ()
    unknown_there: int = 0
    strangers: tuple[UUID, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def resolved(self) -> int:
        """Unknown outcomes that were asked about, and answered."""
        return sum(self.said.get(word, 0) for word in ("committed", "aborted", "lost"))


def reckon(entries: Iterable[Entry], held: Mapping[UUID, Sequence[int]]) -> Reckoning:
    """Compare.

    :param held: the rows that are there: for each time that it was done, on which timeline.
    """
    listed = list(entries)
    times = {row: len(timelines) for row, timelines in held.items()}
    there = [(entry, times.get(entry.id, 0)) for entry in listed]
    known = {entry.id for entry in listed}
    return Reckoning(
        dict(sorted(Counter(entry.said for entry in listed).items())),
        lost=tuple(e for e, n in there if e.said == "acknowledged" and not n),
        twice=tuple(e for e, n in there if n > 1),
        wrong=tuple(e for e, n in there if (e.said == "committed" and not n) or (e.said in ("aborted", "lost") and n)),
        denied=tuple(e for e, n in there if e.said == "failed" and n),
        given_up=tuple(e for e in listed if e.said == "failed" and e.how in AGAIN and not e.error.startswith(LATE)),
        unknown_there=sum(1 for e, n in there if e.said == "unknown" and n),
        strangers=tuple(sorted(row for row in held if row not in known)),
        errors=dict(sorted(Counter(f"{e.how}: {e.error}" for e in listed if e.error).items())),
    )  # fmt: skip
