"""What an application's calls add up to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pgfleet.prove.evidence import quantile

Kind = Literal["page", "point", "search", "insert", "update"]
READS: frozenset[Kind] = frozenset({"page", "point", "search"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the application.

    :param at: when it ended, seconds on the monotonic clock. :param took: seconds.
    :param replica: whether a replica answered, in the answer's own words (``pg_is_in_recovery()``); None: no read, or
        it failed.
    :param error: what kind of error it ended with; empty: none.
    """

    at: float
    took: float
    kind: Kind
    shard: str
    replica: bool | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """:param seconds: the time that the calls took together. Rates are of calls that succeeded."""

    seconds: float
    reads: int
    writes: int
    on_replicas: int
    errors: dict[str, int]
    read_p50: float
    read_p99: float
    write_p50: float
    write_p99: float

    @property
    def reads_per_second(self) -> float:
        return self.reads / self.seconds if self.seconds else 0.0

    @property
    def writes_per_second(self) -> float:
        return self.writes / self.seconds if self.seconds else 0.0

    @property
    def replica_share(self) -> float:
        """Of the reads that were answered; 0 to 1."""
        return self.on_replicas / self.reads if self.reads else 0.0

    def to_json(self) -> dict[str, object]:
        return {
            "seconds": round(self.seconds, 3), "reads": self.reads, "writes": self.writes,
            "reads_per_second": round(self.reads_per_second, 1), "writes_per_second": round(self.writes_per_second, 1),
            "replica_share": round(self.replica_share, 4), "errors": self.errors,
            "read_ms": {"p50": _ms(self.read_p50), "p99": _ms(self.read_p99)},
            "write_ms": {"p50": _ms(self.write_p50), "p99": _ms(self.write_p99)},
        }  # fmt: skip


def _ms(seconds: float) -> float | None:
    return round(seconds * 1000, 2) if seconds == seconds else None  # not a number: there was nothing


def tally(calls: Sequence[Call], seconds: float) -> Tally:
    """Count ``calls`` of ``seconds`` seconds."""
    good = [call for call in calls if not call.error]
    reads = [call for call in good if call.kind in READS]
    writes = [call for call in good if call.kind not in READS]
    return Tally(
        seconds, len(reads), len(writes), sum(1 for call in reads if call.replica),
        dict(sorted(Counter(call.error for call in calls if call.error).items())),
        quantile([call.took for call in reads], 0.5), quantile([call.took for call in reads], 0.99),
        quantile([call.took for call in writes], 0.5), quantile([call.took for call in writes], 0.99),
    )  # fmt: skip
