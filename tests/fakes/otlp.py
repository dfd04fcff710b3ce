"""An OTLP collector over HTTP: takes protobuf at /v1/traces and /v1/metrics as specified, and keeps it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """Serves on a free port of this machine while its context is open."""

    origin: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)  #: with the service.name of their resource
    metric_names: set[str] = field(default_factory=set)
    raw: bytearray = field(default_factory=bytearray)  #: everything received, decompressed
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Collector:
        app = web.Application()
        app.add_routes([web.post("/v1/traces", self._traces), web.post("/v1/metrics", self._metrics)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.origin = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at whenever something has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(condition)

    def names(self) -> list[str]:
        return [span.name for _, span in self.spans]

    async def _traces(self, request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await self._body(request))
        for resource in export.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return await self._taken()

    async def _metrics(self, request: web.Request) -> web.Response:
        export = ExportMetricsServiceRequest.FromString(await self._body(request))
        self.metric_names |= {
            metric.name
            for resource in export.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        return await self._taken()

    async def _body(self, request: web.Request) -> bytes:
        body = await request.read()  # aiohttp undoes Content-Encoding
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.raw += body
        return body

    async def _taken(self) -> web.Response:
        async with self._arrived:
            self._arrived.notify_all()
        return web.Response(content_type="application/x-protobuf")
