"""Events: what was done and what was seen, one numbered row each. They are journaled first, then told
(control/journal.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pgfleet.units import format_duration

Outcome = Literal["began", "ended", "failed", "seen"]
OUTCOMES: tuple[Outcome, ...] = ("began", "ended", "failed", "seen")


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the journal.

    :param number: from 1, without gaps.
    :param at: UTC, ISO 8601 with milliseconds: ``2026-01-31T01:14:09.250Z``.
    :param actor: who did or saw it: ``apply``, ``migrate``, ``keeper``, …
    :param what: the act: ``promote``, ``migrate``, ``node``.
    :param subject: what it was done to: a shard, a node, a unit.
    :param because: the reason, as a person reads it; empty where the act needs none.
    :param outcome: ``began`` and then ``ended`` or ``failed``; ``seen`` for what nobody did.
    :param took_seconds: of an act that is over, else None.
    """

    number: int
    at: str
    actor: str
    what: str
    subject: str
    because: str
    outcome: Outcome
    took_seconds: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """``01:14:09Z #4812 promote users-eu/apac-1 ended 4.1 s timeline 7→8 because silent, fenced`` (the day is
        left out)."""
        words = [f"{self.at[11:19]}Z", f"#{self.number}", self.what, self.subject, self.outcome]
        if self.took_seconds is not None:
            words.append(format_duration(self.took_seconds))
        # Of an error the first line: the rest is in the detail, and was told to whoever waited.
        told = self.detail.get("told") or str(self.detail.get("error") or "").partition("\n")[0]
        words.append(str(told))
        if self.because:
            words.append(f"because {self.because}")
        return " ".join(word for word in words if word)

    def to_json(self) -> dict[str, object]:
        """A stable shape for ``--json``."""
        return {
            "number": self.number, "at": self.at, "actor": self.actor, "what": self.what, "subject": self.subject,
            "because": self.because, "outcome": self.outcome, "took_seconds": self.took_seconds,
            "detail": dict(self.detail),
        }  # fmt: skip

    def canonical(self) -> str:
        """The text that the journal's chain is hashed over: JSON, keys sorted, no spaces, ASCII (RFC 8785 in spirit;
        numbers are as Python writes them, which is the shortest text that reads back the same)."""
        return canonical_json(self.to_json())


def canonical_json(value: object) -> str:
    """One text for one value.

    :raises ValueError: NaN or infinity, which JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
