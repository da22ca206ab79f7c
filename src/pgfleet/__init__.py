"""pgfleet: a sharded, geo-replicated, highly available PostgreSQL fleet from one file.

A lazy shop window: what an application needs is imported when it is first looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgfleet.client.explanation import Explanation
    from pgfleet.client.fleet import Fleet, connect
    from pgfleet.errors import (
        BlockEnded,
        BlockRolledBack,
        CrossShardWrite,
        DeadlineExceeded,
        NotOwned,
        OutcomeUnknown,
        PgfleetError,
        PlacementError,
        PlacementMoved,
        ShardsSilent,
        TokenUnreadable,
        WriteInRead,
        WriteLost,
    )
    from pgfleet.routing.route import Route
    from pgfleet.routing.token import Token

__version__ = "0.1.0"

_ERRORS = "pgfleet.errors"
_WHERE = {
    "connect": "pgfleet.client.fleet",
    "Fleet": "pgfleet.client.fleet",
    "Explanation": "pgfleet.client.explanation",
    "Route": "pgfleet.routing.route",
    "Token": "pgfleet.routing.token",
    "BlockEnded": _ERRORS,
    "BlockRolledBack": _ERRORS,
    "CrossShardWrite": _ERRORS,
    "DeadlineExceeded": _ERRORS,
    "NotOwned": _ERRORS,
    "OutcomeUnknown": _ERRORS,
    "PgfleetError": _ERRORS,
    "PlacementError": _ERRORS,
    "PlacementMoved": _ERRORS,
    "ShardsSilent": _ERRORS,
    "TokenUnreadable": _ERRORS,
    "WriteInRead": _ERRORS,
    "WriteLost": _ERRORS,
}

__all__ = [
    "BlockEnded",
    "BlockRolledBack",
    "CrossShardWrite",
    "DeadlineExceeded",
    "Explanation",
    "Fleet",
    "NotOwned",
    "OutcomeUnknown",
    "PgfleetError",
    "PlacementError",
    "PlacementMoved",
    "Route",
    "ShardsSilent",
    "Token",
    "TokenUnreadable",
    "WriteInRead",
    "WriteLost",
    "connect",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pgfleet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
