"""OpenTelemetry: a span of kind CLIENT for every call, under the caller's own, by the semantic conventions for databases.

The driver's own instrumentation, where it is installed too, makes a span for each statement below ours. SQL is not in
ours: we do not parse it, and text with values in it belongs in no trace. Needs ``pgfleet[otel]``.
"""

from __future__ import annotations

from contextvars import Token
from typing import Literal, NamedTuple

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from pgfleet.client.observing import WatchedCall, code_of
from pgfleet.names import NodeName

#: Outcomes that a trace shows as errors. A guard's refusal is one too: somebody's call did not happen.
_ERRORS = frozenset({"failed", "refused", "deadline", "unreachable", "unknown"})


class Begun(NamedTuple):
    """:param token: of what was current before; None: the span is not current."""

    span: Span
    token: Token[context.Context] | None


class Spans:
    """An :class:`pgfleet.client.observing.Observer`. :param provider: None: OpenTelemetry's global one, when it is asked."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("pgfleet", tracer_provider=provider)

    def began(self, call: WatchedCall) -> Begun:
        span = self._tracer.start_span(
            f"{call.kind} {call.table}",
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.collection.name": call.table,
                "db.operation.name": call.kind,
                "pgfleet.shard": call.shard,
            },
        )
        # Attached, so that what the caller's block does stands below it; where there is no block, nothing says when to stop.
        return Begun(span, context.attach(trace.set_span_in_context(span)) if call.kind != "transaction" else None)

    def ended(self, call: WatchedCall, begun: object) -> None:
        assert isinstance(begun, Begun)  # noqa: S101 - what began() returned
        span, token = begun
        if token is not None:
            context.detach(token)
        if span.is_recording():
            if call.node is not None:
                span.set_attribute("pgfleet.node", call.node.member)
                span.set_attribute("pgfleet.region", call.node.region)
                span.set_attribute("pgfleet.because", call.because)
            for awaited, seconds in call.waits.items():
                span.set_attribute(f"pgfleet.waited.{awaited}", seconds)
            if call.retries:
                span.set_attribute("pgfleet.retries", call.retries)
            if call.hedges:
                span.set_attribute("pgfleet.hedges", call.hedges)
                span.set_attribute("pgfleet.hedge_won", call.hedge_won)
            span.set_attribute("pgfleet.outcome", call.outcome)
            if call.error is not None and call.outcome in _ERRORS:
                code = code_of(call.error)
                span.set_attribute("error.type", code)
                if (state := getattr(call.error, "sqlstate", None)) is not None:
                    span.set_attribute("db.response.status_code", str(state))
                span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def connections(self, driver: str, node: NodeName, role: Literal["read", "write"], count: int) -> None:
        pass  # a number at an instant is a metric's business
