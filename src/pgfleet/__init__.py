"""pgfleet: a sharded, geo-replicated, highly available PostgreSQL fleet from one file.

A lazy shop window: what an application needs is imported when it is first looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgfleet.client.explanation import Explanation
    from pgfleet.client.fleet import Fleet, connect
    from pgfleet.errors import DeadlineExceeded, OutcomeUnknown, PgfleetError, PlacementError, WriteInRead

__version__ = "0.1.0"

_WHERE = {
    "connect": "pgfleet.client.fleet",
    "Fleet": "pgfleet.client.fleet",
    "Explanation": "pgfleet.client.explanation",
    "DeadlineExceeded": "pgfleet.errors",
    "OutcomeUnknown": "pgfleet.errors",
    "PgfleetError": "pgfleet.errors",
    "PlacementError": "pgfleet.errors",
    "WriteInRead": "pgfleet.errors",
}

__all__ = [
    "DeadlineExceeded", "Explanation", "Fleet", "OutcomeUnknown", "PgfleetError", "PlacementError", "WriteInRead", "connect",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pgfleet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
