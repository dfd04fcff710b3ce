"""The process' tracer and meter providers: made once, pointed anew by each `configure`.

Traces go to `settings.otlp_endpoint` (OTLP over HTTP) or nowhere; metrics can always be read as Prometheus
text, and go to the endpoint too. OpenTelemetry's own environment variables (headers, sampler, export interval,
resource attributes) work as documented there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client import generate_latest as _generate_latest
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider

from stayline.errors import ConfigError
from stayline.settings import Settings
from stayline.telemetry import spans
from stayline.telemetry.instruments import metrics, views
from stayline.telemetry.privacy import leaving

PROMETHEUS_CONTENT_TYPE = CONTENT_TYPE_LATEST
_FLUSH_SECONDS = 3
# Reading a call's state again and again would bury its trace; queries change nothing.
_NOISE = ("QueryWorkflow:", "HandleQuery:")

_registry = CollectorRegistry()
ProcessCollector(registry=_registry)


class Outlet(SpanProcessor):
    """The only way out for spans: cleans each one, then hands it to the exporters of the present settings."""

    def __init__(self) -> None:
        self._processors: tuple[SpanProcessor, ...] = ()
        self._resource = Resource.get_empty()
        self._pii = False

    def point(self, processors: tuple[SpanProcessor, ...], resource: Resource, *, pii: bool) -> None:
        former, self._processors = self._processors, processors
        spans.exported = bool(processors)
        self._resource, self._pii = resource, pii
        for processor in former:
            _within(_FLUSH_SECONDS, processor.shutdown)  # sends what is left first

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: exporters see ended spans only."""

    def on_end(self, span: ReadableSpan) -> None:
        if not self._processors or span.name.startswith(_NOISE):
            return
        clean = leaving(span, self._resource, pii=self._pii)
        for processor in self._processors:
            processor.on_end(clean)

    def shutdown(self) -> None:
        self.point((), Resource.get_empty(), pii=False)

    def force_flush(self, timeout_millis: int = 1000 * _FLUSH_SECONDS) -> bool:
        flushed = [_within(timeout_millis / 1000, processor.force_flush) for processor in self._processors]
        return all(flushed)


@dataclass(frozen=True)
class _Configured:
    process: str
    otlp_endpoint: str
    pii: bool
    exporter: SpanExporter | None


_outlet = Outlet()
_configured: _Configured | None = None
_meter_provider: MeterProvider | None = None


def configure(settings: Settings, process: str, *, exporter: SpanExporter | None = None) -> None:
    """Set up tracing and metrics for this process. The same call again does nothing; another one replaces it.

    Args:
        process: "bridge", "worker", …; becomes part of the resource (`service.name` is stayline-<process>).
        exporter: one more exporter for spans, served at once instead of in batches.
    Raises:
        ConfigError: this process already has another tracer provider.
    """
    global _configured, _meter_provider
    wanted = _Configured(process, settings.otlp_endpoint, settings.telemetry_pii, exporter)
    if wanted == _configured:
        return
    shutdown()
    resource = _resource(process)
    ensure_provider()
    processors: list[SpanProcessor] = [SimpleSpanProcessor(exporter)] if exporter else []
    readers: list[MetricReader] = [PrometheusMetricReader(registry=_registry, scope_info_enabled=False)]
    if settings.otlp_endpoint:
        # Imported on use: the HTTP exporters cost 100 ms that most processes need not pay.
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        processors.append(BatchSpanProcessor(OTLPSpanExporter(f"{settings.otlp_endpoint}/v1/traces")))
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(f"{settings.otlp_endpoint}/v1/metrics")))
    _outlet.point(tuple(processors), resource, pii=settings.telemetry_pii)
    _meter_provider = MeterProvider(readers, resource, views=views(), shutdown_on_exit=False)
    metrics.bind(_meter_provider.get_meter("stayline"))
    _configured = wanted


def ensure_provider() -> ReplaySafeTracerProvider:
    """The global tracer provider, which Temporal requires to be replay-safe; made on first use.

    Raises:
        ConfigError: this process already has another tracer provider.
    """
    present = trace.get_tracer_provider()
    if isinstance(present, trace.ProxyTracerProvider):
        present = create_tracer_provider(shutdown_on_exit=False)
        present.add_span_processor(_outlet)
        trace.set_tracer_provider(present)
    if not isinstance(present, ReplaySafeTracerProvider):
        raise ConfigError(
            f"This process already has an OpenTelemetry tracer provider ({type(present).__name__}), which is not"
            " safe under Temporal's replay.",
            fix="Start Stayline without it and set STAYLINE_OTLP_ENDPOINT.",
        )
    return present


def shutdown() -> None:
    """Send what is left and stop; `configure` may follow. Every process calls it before it ends.

    Blocks for a few seconds where a collector is away: call it when the calls are over, or in a thread.
    """
    global _configured, _meter_provider
    _outlet.shutdown()
    if _meter_provider is not None:
        _within(_FLUSH_SECONDS, _meter_provider.shutdown)
        _meter_provider = None
    _configured = None


def flush() -> None:
    """Send what is waiting now."""
    _outlet.force_flush()


def prometheus_text() -> bytes:
    """All metrics of this process in Prometheus' text format (`PROMETHEUS_CONTENT_TYPE`)."""
    return _generate_latest(_registry)


@dataclass(frozen=True)
class MetricsServer:
    """Serves /metrics from a thread of its own until closed."""

    server: WSGIServer
    thread: Thread

    @property
    def address(self) -> str:
        """host:port"""
        return f"{self.server.server_address[0]!s}:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def serve_metrics(addr: str) -> MetricsServer:
    """Serve this process' metrics over HTTP, for a worker. A bridge has its own route.

    Args:
        addr: host:port; port 0 takes any free one.
    Raises:
        ConfigError: the address cannot be listened on.
    """
    host, _, port = addr.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host or "127.0.0.1", _registry)
    except OSError as error:
        raise ConfigError(
            f"Metrics cannot be served on {addr}: {error.strerror}.", fix="Change STAYLINE_METRICS_ADDR."
        ) from error
    return MetricsServer(server, thread)


def _within(seconds: float, work: Callable[[], object]) -> bool:
    """Wait so long for an exporter and no longer: with its collector away it would hold up an exit for 30 s."""
    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _resource(process: str) -> Resource:
    return Resource.create({"service.name": f"stayline-{process}", "service.namespace": "stayline"})
