"""Spans of a call. One trace per call: its id is fixed at admission and travels as `CallStart.traceparent`.

The bridge that admits a call opens the span `call` and starts the workflow inside it; Temporal's interceptor
carries the context into the workflow and its activities. A later session, in any process, joins with
`call_context(grant.traceparent)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from stayline.telemetry.attributes import ERROR_TYPE, EXCEPTION_TYPE

SpanAttributes = Mapping[str, AttributeValue]
_propagator = TraceContextTextMapPropagator()
exported = False
"""Whether spans go anywhere. Those that only carry a call's trace on are made all the same."""


def tracer() -> Tracer:
    """Stayline's tracer. Keys of attributes come from `stayline.telemetry.attributes`, others are dropped."""
    return trace.get_tracer("stayline")


def call_context(traceparent: str | None) -> Context:
    """The context of a call's trace; an empty one, which begins a new trace, when there is no traceparent.

    Args:
        traceparent: W3C trace context, e.g. "00-<32 hex>-<16 hex>-01"; a malformed one counts as none.
    """
    return _propagator.extract({"traceparent": traceparent} if traceparent else {}, context=Context())


def current_traceparent() -> str | None:
    """The current span as W3C traceparent; None outside of any span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(name: str, *, attributes: SpanAttributes | None = None, context: Context | None = None) -> Iterator[Span]:
    """Run the body in a span, a child of `context` (default: the current span).

    An exception is recorded and passes on; its message leaves the process only with `telemetry_pii`.
    """
    with tracer().start_as_current_span(name, context=context, attributes=attributes) as current:
        yield current


def record_span(
    name: str,
    start_ns: int,
    end_ns: int,
    attributes: SpanAttributes | None = None,
    context: Context | None = None,
    *,
    error: str | None = None,
) -> None:
    """Record a span for an interval that is already over.

    Args:
        start_ns, end_ns: nanoseconds since the epoch (`time.time_ns`).
        error: the type of the error that ended it, e.g. "ProviderError"; never a message.
    """
    if not exported:
        return
    done = tracer().start_span(name, context=context, attributes=attributes, start_time=start_ns)
    if error is not None:
        done.set_attribute(ERROR_TYPE, error)
        done.add_event("exception", {EXCEPTION_TYPE: error}, timestamp=end_ns)
        done.set_status(Status(StatusCode.ERROR))
    done.end(end_time=end_ns)
