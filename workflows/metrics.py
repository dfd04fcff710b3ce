"""Metrics of a call, counted from its timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from stayline.timeline import (
    AgentTurn,
    CallError,
    CallMetrics,
    Interruption,
    SessionOpened,
    TimelineEntry,
    ToolCalled,
    ToolSettled,
    Usage,
    UserTurn,
)

BYTES_PER_MS: Final = 8
"""μ-law on a telephone line."""


def measure(
    timeline: Sequence[TimelineEntry],
    answered_at: datetime | None,
    until: datetime,
    *,
    audio_in_ms: int = 0,
    audio_out_ms: int = 0,
) -> CallMetrics:
    """Count a call.

    A filler is speech but no turn; a tool call that joined a running one is no second call; an interruption
    that proved to be a noise is none. Latencies are averaged over the turns that have the value.

    Args:
        answered_at: when the first stream attached; None: never.
        until: the end of the call, or now.
        audio_in_ms, audio_out_ms: caller audio, and agent audio that was played, as far as known.
    """
    events = [entry.event for entry in timeline]
    users = [e for e in events if isinstance(e, UserTurn)]
    spoken = [e for e in events if isinstance(e, AgentTurn)]
    agents = [e for e in spoken if e.source != "filler" and e.text]
    latencies = [e.latency for e in spoken if e.latency is not None]
    totals = [v.total_ms for v in latencies if v.total_ms is not None]
    called = {e.call.id for e in events if isinstance(e, ToolCalled) and e.duplicate_of is None}
    usage = [e for e in events if isinstance(e, Usage)]
    duration = max(0.0, (until - answered_at).total_seconds()) if answered_at else 0.0
    return CallMetrics(
        duration=duration,
        session_duration_ms=round(duration * 1000),
        audio_bytes_received=audio_in_ms * BYTES_PER_MS,
        audio_bytes_sent=audio_out_ms * BYTES_PER_MS,
        user_turn_count=len(users),
        agent_turn_count=len(agents),
        turn_count=len(users) + len(agents),
        interruption_count=sum(isinstance(e, Interruption) and not e.resumed for e in events),
        tool_call_count=len(called),
        tool_attempt_count=sum(
            len(e.outcome.attempts) for e in events if isinstance(e, ToolSettled) and e.outcome.id in called
        ),
        error_count=sum(isinstance(e, CallError) for e in events),
        session_count=sum(isinstance(e, SessionOpened) for e in events),
        user_speech_duration_ms=sum(e.speech_ms for e in users),
        agent_speech_duration_ms=sum(e.speech_ms for e in spoken),
        avg_stt_latency_ms=_average(v.endpoint_ms for v in latencies),
        avg_llm_latency_ms=_average(v.llm_ms for v in latencies),
        avg_tts_latency_ms=_average(v.tts_ms for v in latencies),
        avg_total_latency_ms=_average(totals),
        max_total_latency_ms=max(totals, default=None),
        input_tokens=sum(e.input_tokens for e in usage),
        output_tokens=sum(e.output_tokens for e in usage),
    )


def _average(values: Iterable[int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
