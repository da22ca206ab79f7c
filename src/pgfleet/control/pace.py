"""How long a migration may wait, hold and take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds.

    :param lock_seconds: for each lock of a statement. Short: whoever wants the table queues behind a statement that
        waits.
    :param patience_seconds: for one file, over all its attempts to get its locks.
    :param statement_seconds: for each statement.
    :param commit_seconds: for COMMIT's answer; the replicas have to confirm it, and an election may be under way.
    :param turn_seconds: for another migrate to end.
    """

    lock_seconds: float = 3.0
    patience_seconds: float = 60.0
    statement_seconds: float = 600.0
    commit_seconds: float = 60.0
    turn_seconds: float = 10.0

    def pause(self, attempt: int) -> float:
        """Before attempt ``attempt + 1``: 0.5 s, doubled each time, at most 8 s."""
        return float(min(8.0, 0.5 * 2 ** min(attempt - 1, 10)))
