"""What observers make of a call: spans below the caller's own, counters with few labels."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from pgfleet.client.counters import Counters
from pgfleet.client.observing import Observing, observing
from pgfleet.client.spans import Spans
from pgfleet.errors import DeadlineExceeded
from pgfleet.names import NodeName

NODE = NodeName("stem", "east", 1)


class Said:
    because = "it is near"


class Refusal(Exception):
    sqlstate = "23505"


def test_a_span_says_where_a_call_went_and_stands_below_the_callers() -> None:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("application")
    with tracer.start_as_current_span("request"), Observing([Spans(provider)]).call("write", "questions", "stem") as call:
        call.waited("token", 0.5)
        call.retried()
        call.at(NODE, Said())
        with tracer.start_as_current_span("inside"):
            pass
    inside, ours, request = kept.get_finished_spans()
    assert (ours.name, ours.kind, ours.status.status_code) == ("write questions", SpanKind.CLIENT, StatusCode.UNSET)
    assert ours.parent is not None
    assert inside.parent is not None
    assert request.context is not None
    assert ours.context is not None
    assert (ours.parent.span_id, inside.parent.span_id) == (request.context.span_id, ours.context.span_id)
    assert dict(ours.attributes or {}) == {
        "db.system.name": "postgresql", "db.collection.name": "questions", "db.operation.name": "write", "pgfleet.shard": "stem",
        "pgfleet.node": "east-1", "pgfleet.region": "east", "pgfleet.because": "it is near", "pgfleet.waited.token": 0.5,
        "pgfleet.retries": 1, "pgfleet.outcome": "ok",
    }  # fmt: skip
    assert trace.get_current_span().get_span_context().span_id == 0


@pytest.mark.parametrize(
    ("error", "kind", "state"), [(DeadlineExceeded("late"), "PGF-U131", None), (Refusal(), "23505", "23505")]
)
def test_a_span_of_a_call_that_failed_says_how(error: Exception, kind: str, state: str | None) -> None:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with pytest.raises(type(error)), Observing([Spans(provider)]).call("fetch", "questions", "stem"):
        raise error
    [span] = kept.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert (span.status.status_code, attributes["error.type"]) == (StatusCode.ERROR, kind)
    assert attributes.get("db.response.status_code") == state


def test_counters_count() -> None:
    registry = CollectorRegistry()
    watching = Observing([Counters(registry)])
    for won in (True, False):
        with watching.call("fetch", "questions", "stem") as call:
            call.waited("connection", 0.02)
            call.hedged(won=won)
            call.at(NODE, Said())
    with pytest.raises(DeadlineExceeded), watching.call("execute", "questions", "stem") as call:  # noqa: PT012
        call.retried()
        call.retried()
        raise DeadlineExceeded("late")
    watching.connections("psycopg", NODE, "read", 4)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pgfleet_client_{name}", labels)

    assert value("calls_total", table="questions", shard="stem", node="east-1", kind="fetch", outcome="ok") == 2
    assert value("calls_total", table="questions", shard="stem", node="", kind="execute", outcome="deadline") == 1
    assert value("call_seconds_count", table="questions", shard="stem", kind="fetch") == 2
    assert value("wait_seconds_bucket", shard="stem", awaited="connection", le="0.025") == 2
    assert value("wait_seconds_bucket", shard="stem", awaited="connection", le="0.01") == 0
    assert value("retries_total", table="questions", shard="stem", kind="execute") == 2
    assert value("hedges_total", table="questions", shard="stem", won="yes") == 1
    assert value("connections", driver="psycopg", shard="stem", node="east-1", role="read") == 4


def test_spans_are_there_once_because_this_process_has_loaded_opentelemetry() -> None:
    assert [type(observer) for observer in observing().observers] == [Spans]
    own = Spans()
    assert observing([own]).observers == (own,)


def test_who_does_not_use_an_extra_does_not_load_it() -> None:
    program = (
        "import sys, pgfleet, pgfleet.client.guide, pgfleet.client.observing, pgfleet.adapters.psycopg, pgfleet.adapters.asgi\n"
        "from pgfleet.client.fleet import connect\n"
        "assert pgfleet.client.observing.observing().observers == ()\n"
        "print(sorted({'sqlalchemy', 'opentelemetry', 'prometheus_client', 'fastapi', 'starlette'} & sys.modules.keys()))\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
