"""An observed fault as a person reads it, and as a program does."""

from __future__ import annotations

from typing import Any

from pgfleet.prove.experiment import Observed
from pgfleet.units import format_duration


def summary(observed: Observed) -> list[tuple[str, str]]:
    """Name and value, a row each."""
    verdict, load = observed.verdict, observed.tally
    errors = ", ".join(f"{count} × {kind}" for kind, count in load.errors.items()) or "none"
    behind = verdict.pooler_seconds
    rows = [
        ("reads per second", f"{load.reads_per_second:.0f}   (p50 {_ms(load.read_p50)}, p99 {_ms(load.read_p99)})"),
        ("writes per second", f"{load.writes_per_second:.0f}   (p50 {_ms(load.write_p50)}, p99 {_ms(load.write_p99)})"),
        ("share of reads on replicas", f"{load.replica_share:.1%}"),
        ("errors that the application saw", errors),
        (
            "longest write gap, the fleet's client",
            f"{format_duration(round(verdict.rto_seconds, 3))}   (a write every {_ms(verdict.resolution_seconds)})",
        ),
    ]
    if behind is not None:
        rows.append(("longest write gap, psycopg via PgBouncer + HAProxy", format_duration(round(behind, 3))))
    rows += [(f"  after the kill: {what}", f"+{seconds:.3f} s") for what, seconds in chronology(observed)]
    promised = "nothing" if verdict.promise is None else f"writes within {format_duration(verdict.promise)}, nothing lost"
    return [
        *rows,
        ("acknowledged writes", f"{verdict.acknowledged_writes:,}"),
        ("  of them lost (read back from the primaries)", f"{verdict.acknowledged_writes_lost}"),
        ("  writes whose outcome is unknown", f"{verdict.unknown}"),
        ("writers at once", f"{verdict.writers_at_once}   (timelines {verdict.timelines}, {verdict.late} late)"),
        ("promise", f"{promised}: {'kept' if verdict.kept else 'NOT KEPT'}"),
    ]


def chronology(observed: Observed) -> list[tuple[str, float]]:
    """What happened after the fault, and after how many seconds."""
    words = (
        ("released", "the old primary's lock is gone"), ("taken", "another node has the lock"),
        ("announced", "it says that it takes writes"), ("quorum", "replicas confirm commits again"),
    )  # fmt: skip
    found = [(text, seconds) for what, text in words if (seconds := observed.after(what)) is not None]
    taken = observed.after("taken")
    if taken is not None:
        first = next((ack.at for ack in observed.later_acks() if ack.at >= observed.struck.at + taken), None)
        if first is not None:
            found.append(("the first write is acknowledged", first - observed.struck.at))
    return sorted(found, key=lambda one: one[1])


def judged(observed: Observed) -> dict[str, Any]:
    """The document of ``--json``."""
    return {
        "kept": observed.verdict.kept,
        "verdict": observed.verdict.to_json(),
        "application": observed.tally.to_json(),
        "after_the_fault": {what: round(seconds, 3) for what, seconds in chronology(observed)},
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
