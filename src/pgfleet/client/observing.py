"""What the client tells about itself: one narrow seam. Nobody listens by default, and then it costs nothing that can be felt.

Fleet code says what happens to a *call* while it happens::

    with observing.call("fetch", table, shard) as call:
        call.waited("token", 0.003)      # for a replica to have the caller's own writes
        call.at(node, choice)
        call.retried()

and an :class:`Observer` hears when a call begins and, with everything that was said in between, when it ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from pgfleet.errors import DeadlineExceeded, OutcomeUnknown, PgfleetError, Refused
from pgfleet.names import NodeName
from pgfleet.runtime.clock import monotonic

#: What the application called. ``transaction``: an ORM session's, from its first statement to its end; alone among them it is
#: no block of the caller's code.
Kind = Literal["fetch", "execute", "read", "write", "transact", "everywhere", "locate", "transaction"]
#: What a call waited for: a replica with the caller's own writes, a free connection, a primary.
Awaited = Literal["token", "connection", "primary"]
#: How it ended. ``failed``: the server refused the statement, or the caller's own code raised; ``unreachable``: nobody
#: answered, and nothing was done; ``unknown``: a write that may have happened.
Outcome = Literal["ok", "failed", "refused", "deadline", "unreachable", "unknown", "cancelled"]


class Because(Protocol):
    """Whatever can say why a node was chosen; asked only when somebody reads it."""

    @property
    def because(self) -> str: ...


class Said:
    """A reason that is always the same."""

    __slots__ = ("because",)

    def __init__(self, because: str) -> None:
        self.because = because


class Call:
    """One call of the application, as fleet code sees it. This one hears nothing: it stands where nobody listens."""

    __slots__ = ()

    def at(self, node: NodeName, why: Because) -> None:
        """It goes to ``node`` now; the last one counts."""

    def waited(self, what: Awaited, seconds: float) -> None:
        """It waited so long."""

    def retried(self) -> None:
        """It is sent once more."""

    def hedged(self, *, won: bool) -> None:
        """A second node was asked because the first was slow. :param won: the second answered first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class WatchedCall(Call):
    """One that somebody hears.

    :param shard: empty: several.
    """

    __slots__ = (
        "_begun", "_observers", "_why", "began", "error", "hedge_won", "hedges", "kind", "node", "outcome", "retries", "seconds",
        "shard", "table", "waits",
    )  # fmt: skip

    def __init__(self, observers: Sequence[Observer], kind: Kind, table: str, shard: str) -> None:
        self._observers = observers
        self.kind, self.table, self.shard = kind, table, shard
        self.began = monotonic()
        self.node: NodeName | None = None
        self._why: Because | None = None
        self.waits: dict[Awaited, float] = {}
        self.retries = self.hedges = 0
        self.hedge_won = False
        self.outcome: Outcome = "ok"
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._begun = [observer.began(self) for observer in observers]

    @property
    def because(self) -> str:
        """Why ``node`` was chosen; empty: none was."""
        return self._why.because if self._why is not None else ""

    def at(self, node: NodeName, why: Because) -> None:
        self.node, self._why = node, why

    def waited(self, what: Awaited, seconds: float) -> None:
        self.waits[what] = self.waits.get(what, 0.0) + seconds

    def retried(self) -> None:
        self.retries += 1

    def hedged(self, *, won: bool) -> None:
        self.hedges += 1
        self.hedge_won = self.hedge_won or won

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = monotonic() - self.began
        self.error, self.outcome = error, outcome_of(error)
        for observer, begun in zip(reversed(self._observers), reversed(self._begun), strict=True):
            observer.ended(self, begun)


class Observer(Protocol):
    """Somebody who listens. Its methods are called on the caller's thread, inside the call: they must be quick, and raise
    nothing."""

    def began(self, call: WatchedCall) -> object:
        """:returns: whatever :meth:`ended` shall get back."""

    def ended(self, call: WatchedCall, begun: object) -> None: ...

    def connections(self, driver: str, node: NodeName, role: Literal["read", "write"], count: int) -> None:
        """How many connections of ``driver`` (asyncpg, psycopg, sqlalchemy) to ``node`` are open now: each has its own."""


class Observing:
    """What fleet code holds. :param observers: none: every call is :class:`Call`, which hears nothing."""

    __slots__ = ("observers",)

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.observers = tuple(observers)

    def call(self, kind: Kind, table: str, shard: str) -> Call:
        """To be entered."""
        return WatchedCall(self.observers, kind, table, shard) if self.observers else UNHEARD

    def connections(self, driver: str, node: NodeName, role: Literal["read", "write"], count: int) -> None:
        """How many connections of ``driver`` to ``node`` are open now."""
        for observer in self.observers:
            observer.connections(driver, node, role, count)


UNHEARD = Call()
#: Nobody listens.
NOBODY = Observing()


def observing(observers: Sequence[Observer] = ()) -> Observing:
    """With ``observers``, and with OpenTelemetry's spans where the application itself has loaded OpenTelemetry.

    It is never imported for its own sake: an application that has not loaded it has nobody to send a span to.
    """
    if "opentelemetry.trace" in sys.modules:
        from pgfleet.client.spans import Spans

        if not any(isinstance(observer, Spans) for observer in observers):
            observers = (*observers, Spans())
    return Observing(observers) if observers else NOBODY


def outcome_of(error: BaseException | None) -> Outcome:
    """How a call ended that raised ``error``."""
    match error:
        case None:
            return "ok"
        case DeadlineExceeded():
            return "deadline"
        case OutcomeUnknown():
            return "unknown"
        case Refused():
            return "refused"
        case PgfleetError():
            return "unreachable"
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return "failed"


def code_of(error: BaseException) -> str:
    """What an error is called: our code, PostgreSQL's SQLSTATE, or its class."""
    code = getattr(error, "code", None) if isinstance(error, PgfleetError) else getattr(error, "sqlstate", None)
    return str(code) if code else type(error).__name__
