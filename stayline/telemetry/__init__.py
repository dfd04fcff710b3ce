"""Traces and metrics of a call. What people said and who they are stays inside unless `telemetry_pii` is on.

`configure` once per process; then `span`, `record_span` and `metrics` from anywhere but workflow code, which
Temporal's interceptor traces by itself.
"""

from stayline.telemetry.instruments import LatencyPart, Metrics, metrics
from stayline.telemetry.loop_lag import watch_loop_lag
from stayline.telemetry.setup import (
    PROMETHEUS_CONTENT_TYPE,
    MetricsServer,
    configure,
    flush,
    prometheus_text,
    serve_metrics,
    shutdown,
)
from stayline.telemetry.spans import call_context, current_traceparent, record_span, span, tracer

__all__ = [
    "PROMETHEUS_CONTENT_TYPE",
    "LatencyPart",
    "Metrics",
    "MetricsServer",
    "call_context",
    "configure",
    "current_traceparent",
    "flush",
    "metrics",
    "prometheus_text",
    "record_span",
    "serve_metrics",
    "shutdown",
    "span",
    "tracer",
    "watch_loop_lag",
]
