"""What a node itself says of replication: its own word, asked once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeWord:
    """:param position: WAL written (a primary), or replayed (a replica); bytes. :param received: by a replica; bytes.
    :param replay_age: seconds since the newest replayed commit was made; None where nothing was replayed yet, or on a primary.
    :param receiving: a replica is connected to whom it follows (it need not have anything to do just now).
    :param error: why it did not answer; empty when it did.
    """

    recovering: bool = False
    position: int | None = None
    received: int | None = None
    replay_age: float | None = None
    timeline: int | None = None
    receiving: bool = False
    error: str = ""


def lag_seconds(primary: NodeWord, replica: NodeWord) -> float | None:
    """How old the replica's data is, in seconds; None = not known.

    A replica that has replayed all that its primary has written is not behind, however long ago the last commit was
    (PostgreSQL docs: pg_last_xact_replay_timestamp grows on an idle primary).
    """
    if replica.position is None or primary.position is None:
        return None
    if replica.position >= primary.position:
        return 0.0
    return replica.replay_age


def lag_bytes(primary: NodeWord, replica: NodeWord) -> int | None:
    """WAL that the replica has not replayed; None = not known."""
    if replica.position is None or primary.position is None:
        return None
    return max(0, primary.position - replica.position)
