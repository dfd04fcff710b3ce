"""The metrics, by what happens in a call. Recording one is a dictionary and a lock: fit for the audio process.

Names as Prometheus shows them: `stayline_calls_started_total`, `stayline_turn_latency_seconds`, …
"""

from __future__ import annotations

from typing import Literal

from opentelemetry.metrics import Meter, NoOpMeterProvider, Observation
from opentelemetry.sdk.metrics import Counter, Histogram, UpDownCounter
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from stayline.models import InterruptionMode, Mode
from stayline.telemetry.attributes import (
    LABEL_AGENT,
    LABEL_MODE,
    LABEL_OUTCOME,
    LABEL_PART,
    LABEL_PROVIDER,
    LABEL_REASON,
    LABEL_RESUMED,
    LABEL_ROLE,
    LABEL_STATUS,
    LABEL_TOOL,
    LABELS,
)

LatencyPart = Literal["endpoint", "llm", "tts", "total"]

TURN_BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds. Dense between 0.2 and 1.5 s, where a caller feels the difference."""

LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 2.5)
"""Seconds. A frame is 20 ms: a loop that is later than that delays audio."""


def views() -> list[View]:
    """Labels that are not in `attributes` never become part of a metric, nor do spans' attributes."""
    labels = set(LABELS)
    return [
        View(
            instrument_type=Histogram,
            instrument_name="stayline.turn.latency",
            attribute_keys=labels,
            aggregation=ExplicitBucketHistogramAggregation(TURN_BUCKETS),
        ),
        View(
            instrument_type=Histogram,
            instrument_name="stayline.event_loop.lag",
            attribute_keys=labels,
            aggregation=ExplicitBucketHistogramAggregation(LAG_BUCKETS),
        ),
        View(instrument_type=Counter, attribute_keys=labels),
        View(instrument_type=UpDownCounter, attribute_keys=labels),
    ]


class Metrics:
    """What is counted and timed. Does nothing until `configure` binds it to a meter."""

    def __init__(self) -> None:
        self._waiting = 0  #: asked for when somebody reads it, because it changes several times a turn
        self.bind(NoOpMeterProvider().get_meter("stayline"))

    def bind(self, meter: Meter) -> None:
        """Create the instruments on a meter."""
        self._started = meter.create_counter("stayline.calls.started", description="Calls admitted.")
        self._ended = meter.create_counter("stayline.calls.ended", description="Calls that ended, by outcome.")
        self._refused = meter.create_counter(
            "stayline.calls.refused", description="Requests and calls turned away."
        )
        self._opened = meter.create_counter("stayline.sessions.opened", description="Streams attached to a call.")
        self._closed = meter.create_counter(
            "stayline.sessions.closed", description="Streams that are gone, by reason."
        )
        self._active = meter.create_up_down_counter("stayline.sessions.active", description="Streams attached now.")
        self._latency = meter.create_histogram(
            "stayline.turn.latency",
            unit="s",
            description="From the caller's last word to the reply's first sound, by part.",
        )
        self._interruptions = meter.create_counter("stayline.interruptions", description="Callers who cut in.")
        self._attempts = meter.create_counter("stayline.tool.attempts", description="Attempts of tools, by status.")
        self._failovers = meter.create_counter("stayline.failovers", description="Switches to another provider.")
        meter.create_observable_up_down_counter(
            "stayline.records.waiting",
            callbacks=[lambda _: [Observation(self._waiting)]],
            description="Timeline events not yet taken by Temporal.",
        )
        self._lag = meter.create_histogram(
            "stayline.event_loop.lag", unit="s", description="How late the event loop woke up."
        )

        self._tasks = meter.create_up_down_counter(
            "stayline.event_loop.tasks", description="Tasks in the event loop; what grows with each call is a leak."
        )
        self._overloaded = meter.create_up_down_counter(
            "stayline.bridge.overloaded", description="1 while the event loop is too late for new calls."
        )

    def call_started(self, agent: str, mode: Mode) -> None:
        self._started.add(1, {LABEL_AGENT: agent, LABEL_MODE: mode})

    def call_ended(self, agent: str, outcome: str) -> None:
        self._ended.add(1, {LABEL_AGENT: agent, LABEL_OUTCOME: outcome})

    def session_opened(self, resumed: bool) -> None:
        self._opened.add(1, {LABEL_RESUMED: _word(resumed)})
        self._active.add(1)

    def session_closed(self, reason: str) -> None:
        self._closed.add(1, {LABEL_REASON: reason})
        self._active.add(-1)

    def turn_latency(self, part: LatencyPart, ms: float, provider: str = "") -> None:
        """One part of an agent turn's latency; see `stayline.timeline.TurnLatency`. `provider`: who caused it."""
        self._latency.record(ms / 1000, {LABEL_PART: part, LABEL_PROVIDER: provider})

    def interruption(self, mode: InterruptionMode, resumed: bool) -> None:
        self._interruptions.add(1, {LABEL_MODE: mode, LABEL_RESUMED: _word(resumed)})

    def tool_attempt(self, tool: str, status: str) -> None:
        self._attempts.add(1, {LABEL_TOOL: tool, LABEL_STATUS: status})

    def failover(self, role: str, provider: str) -> None:
        """`provider` failed in its role and another one took over."""
        self._failovers.add(1, {LABEL_ROLE: role, LABEL_PROVIDER: provider})

    def records_waiting(self, delta: int) -> None:
        self._waiting += delta

    def event_loop_lag(self, ms: float) -> None:
        self._lag.record(ms / 1000)

    def event_loop_tasks(self, delta: int) -> None:
        self._tasks.add(delta)

    def overloaded(self, delta: int) -> None:
        self._overloaded.add(delta)

    def refused(self, reason: str) -> None:
        """A webhook, a stream or a call was turned away. `reason` is a code: "bad_signature", "busy", …"""
        self._refused.add(1, {LABEL_REASON: reason})


def _word(flag: bool) -> str:
    return "true" if flag else "false"


metrics = Metrics()
"""The process' metrics."""
