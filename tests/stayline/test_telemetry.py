"""Metrics as Prometheus sees them, spans and their context, the loop's lag, and a collector that is away."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stayline import telemetry
from stayline.errors import ConfigError
from stayline.settings import Settings
from stayline.telemetry import attributes, metrics, setup
from tests.fakes.otlp import Collector


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry.configure(Settings(), "test", exporter=exporter)
    yield exporter
    telemetry.shutdown()


def _record_one_of_each() -> None:
    metrics.call_started("desk", "text")
    metrics.call_ended("desk", "completed")
    metrics.session_opened(resumed=False)
    metrics.session_opened(resumed=True)
    metrics.session_closed("lost")
    metrics.turn_latency("total", 640, "deepgram")
    metrics.interruption("immediate", resumed=True)
    metrics.tool_attempt("book", "failed")
    metrics.failover("tts", "elevenlabs")
    metrics.records_waiting(3)
    metrics.records_waiting(-1)
    metrics.event_loop_lag(12)
    metrics.refused("bad_signature")


def test_metrics_in_prometheus_text(spans: InMemorySpanExporter) -> None:
    _record_one_of_each()
    lines = telemetry.prometheus_text().decode().splitlines()
    for expected in (
        'stayline_calls_started_total{agent="desk",mode="text"} 1.0',
        'stayline_calls_ended_total{agent="desk",outcome="completed"} 1.0',
        'stayline_calls_refused_total{reason="bad_signature"} 1.0',
        'stayline_sessions_opened_total{resumed="true"} 1.0',
        'stayline_sessions_closed_total{reason="lost"} 1.0',
        "stayline_sessions_active 1.0",
        'stayline_turn_latency_seconds_bucket{le="0.5",part="total",provider="deepgram"} 0.0',
        'stayline_turn_latency_seconds_bucket{le="0.65",part="total",provider="deepgram"} 1.0',
        'stayline_interruptions_total{mode="immediate",resumed="true"} 1.0',
        'stayline_tool_attempts_total{status="failed",tool="book"} 1.0',
        'stayline_failovers_total{provider="elevenlabs",role="tts"} 1.0',
        "stayline_records_waiting 2.0",
        'stayline_event_loop_lag_seconds_bucket{le="0.02"} 1.0',
    ):
        assert expected in lines


def test_every_metric_and_label_is_known(spans: InMemorySpanExporter) -> None:
    _record_one_of_each()
    families = [line for line in telemetry.prometheus_text().decode().splitlines() if line.startswith("# TYPE")]
    names = {line.split()[2] for line in families}
    foreign = {name for name in names if not name.startswith(("stayline_", "process_", "target_info"))}
    assert not foreign


def test_configure_again_is_harmless_and_may_replace(spans: InMemorySpanExporter) -> None:
    metrics.refused("a")
    telemetry.configure(Settings(), "test", exporter=spans)
    assert b'stayline_calls_refused_total{reason="a"} 1.0' in telemetry.prometheus_text()

    replacement = InMemorySpanExporter()
    telemetry.configure(Settings(), "test", exporter=replacement)
    with telemetry.span("session"):
        pass
    assert [span.name for span in replacement.get_finished_spans()] == ["session"]
    assert not spans.get_finished_spans()


def test_without_configure_nothing_happens() -> None:
    telemetry.shutdown()
    _record_one_of_each()
    with telemetry.span("session"):
        pass
    assert b"stayline_calls_started" not in telemetry.prometheus_text()


def test_a_worker_serves_its_metrics(spans: InMemorySpanExporter) -> None:
    metrics.tool_attempt("book", "succeeded")
    server = telemetry.serve_metrics("127.0.0.1:0")
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as response:
            body = response.read()
        assert b"stayline_tool_attempts_total" in body
        with pytest.raises(ConfigError, match="STAYLINE_METRICS_ADDR"):
            telemetry.serve_metrics(server.address)
    finally:
        server.close()


def test_a_later_session_joins_the_call(spans: InMemorySpanExporter) -> None:
    with telemetry.span(attributes.SPAN_CALL):
        traceparent = telemetry.current_traceparent()
    assert traceparent is not None
    assert telemetry.current_traceparent() is None
    with telemetry.span(attributes.SPAN_SESSION, context=telemetry.call_context(traceparent)):
        now = time.time_ns()
        telemetry.record_span(attributes.SPAN_STT, now - 500_000_000, now, {attributes.PROVIDER: "deepgram"})
    telemetry.record_span(
        attributes.SPAN_TTS, now - 5, now, None, telemetry.call_context(traceparent), error="ProviderError"
    )
    call, stt, session, tts = spans.get_finished_spans()
    assert {span.context.trace_id for span in (call, stt, session, tts)} == {call.context.trace_id}
    assert session.parent is not None
    assert session.parent.span_id == call.context.span_id
    assert stt.parent is not None
    assert stt.parent.span_id == session.context.span_id
    assert (stt.start_time, stt.end_time) == (now - 500_000_000, now)
    assert tts.status.description == "ProviderError"


@pytest.mark.parametrize("traceparent", [None, "", "rubbish", "00-zz-11-01"])
def test_no_traceparent_begins_a_new_trace(spans: InMemorySpanExporter, traceparent: str | None) -> None:
    with telemetry.span("call"), telemetry.span("session", context=telemetry.call_context(traceparent)):
        pass
    session, call = spans.get_finished_spans()
    assert session.parent is None
    assert session.context.trace_id != call.context.trace_id


async def test_traces_and_metrics_reach_a_collector() -> None:
    async with Collector() as collector:
        telemetry.configure(Settings(otlp_endpoint=collector.origin), "bridge")
        with telemetry.span("session"):
            metrics.call_started("desk", "text")
        await asyncio.to_thread(telemetry.shutdown)
    assert [(service, span.name) for service, span in collector.spans] == [("stayline-bridge", "session")]
    assert "stayline.calls.started" in collector.metric_names


async def test_shutdown_does_not_wait_long_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter alone retries for ten seconds and more; `shutdown` gives it up."""
    monkeypatch.setattr(setup, "_FLUSH_SECONDS", 0.01)
    telemetry.configure(Settings(otlp_endpoint="http://127.0.0.1:9"), "bridge")
    with telemetry.span("session"):
        pass
    async with asyncio.timeout(9):
        await asyncio.to_thread(telemetry.shutdown)


async def test_a_blocked_loop_shows_as_lag(spans: InMemorySpanExporter) -> None:
    lags: list[float] = []
    watching = asyncio.create_task(telemetry.watch_loop_lag(interval=0.001, then=lags.append))
    try:
        async with asyncio.timeout(10):
            seen = b""
            while max(lags, default=0) < 5 or b"stayline_event_loop_lag_seconds_count" not in seen:
                await asyncio.sleep(0.002)
                time.sleep(0.02)  # noqa: ASYNC251  what is measured
                seen = telemetry.prometheus_text()
    finally:
        watching.cancel()
