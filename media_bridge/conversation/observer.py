"""Spans and metrics of a session, from the same events and commands that drive it. Never touches the call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from stayline import telemetry
from stayline.catalog import ROLES, Role
from stayline.errors import ProviderError
from stayline.messages import Grant
from stayline.models import ToolCall
from stayline.telemetry import attributes as attr
from stayline.timeline import AgentTurn, Interruption


class SessionObserver:
    """Turns a session's events into `turn`, `stt`, `llm`, `tts` and `playout` spans, and into metrics."""

    def __init__(self, grant: Grant) -> None:
        self._context = telemetry.call_context(grant.traceparent)
        self._common: dict[str, str | int] = {
            attr.CALL_ID: grant.call.call_id,
            attr.SESSION: grant.session,
            attr.AGENT: grant.agent.name,
        }
        agent = grant.agent
        self._realtime = agent.mode == "realtime"
        self._serving: dict[Role, str] = {
            role: refs[0]
            for role, refs in zip(ROLES, (agent.stt, agent.llm, agent.tts, agent.realtime), strict=True)
            if refs
        }
        self._responses: dict[str, int] = {}
        self._caller_since = 0
        self._turn_since = 0
        self._replies: dict[int, int] = {}  #: when each began, in nanoseconds; the same below
        self._said: dict[int, int] = {}
        self._playing: dict[int, int] = {}

    def event(self, event: ev.Event) -> None:
        now = time.time_ns()
        match event:
            case ev.CallerSpoke():
                self._caller_since = self._caller_since or now
            case ev.CallerTurn(text, _, _, speech_ms):
                since = now - speech_ms * 1_000_000 if speech_ms else self._caller_since or now
                self._span(attr.SPAN_STT, since, now, text, provider="stt")
                self._caller_since = 0
                self._turn_since = now
            case ev.CallerStopped(_, speech_ms):
                self._span(attr.SPAN_STT, now - speech_ms * 1_000_000, now, provider="realtime")
                self._turn_since = now
            case ev.ResponseBegan(response):
                self._responses[response] = now
            case ev.ResponseEnded(response):
                if since := self._responses.pop(response, 0):
                    self._span(attr.SPAN_REALTIME, since, now, provider="realtime")
            case ev.ReplyDone(reply) | ev.ReplyFailed(reply):
                if since := self._replies.pop(reply, 0):
                    self._span(attr.SPAN_LLM, since, now, provider="llm")
            case ev.SpeechBegan(utterance):
                if since := self._said.pop(utterance, 0):
                    self._span(attr.SPAN_TTS, since, now, provider="tts")
                self._playing[utterance] = now
            case ev.SpeechEnded(utterance, heard):
                if since := self._playing.pop(utterance, 0):
                    self._span(attr.SPAN_PLAYOUT, since, now, heard)
                if self._turn_since and not self._playing:
                    self._span(attr.SPAN_TURN, self._turn_since, now)
                    self._turn_since = 0
            case _:
                pass

    def command(self, command: do.Command) -> None:
        match command:
            case do.StartReply(reply):
                self._replies[reply] = time.time_ns()
            case do.CancelReply(reply):
                if since := self._replies.pop(reply, 0):
                    self._span(attr.SPAN_LLM, since, time.time_ns(), provider="llm")
            case do.Say(utterance):
                if utterance not in self._playing:
                    self._said.setdefault(utterance, time.time_ns())
            case do.Record(AgentTurn() as turn):
                self._latencies(turn)
            case do.Record(Interruption(mode=mode, resumed=resumed)):
                telemetry.metrics.interruption(mode, resumed)
            case _:
                pass

    @contextmanager
    def tool(self, call: ToolCall) -> Iterator[None]:
        """Span around the bridge's wait for a tool; the workflow's and the activity's spans nest in it."""
        with telemetry.span(
            attr.SPAN_TOOL, attributes={**self._common, attr.TOOL: call.name}, context=self._context
        ):
            yield

    def serves(self, role: Role, ref: str) -> None:
        """Another provider serves a role from now on."""
        self._serving[role] = ref

    def failover(self, role: str, error: ProviderError) -> None:
        telemetry.metrics.failover(role, error.provider)

    def close(self) -> None:
        """End the spans of what was cut off."""
        now = time.time_ns()
        for since in self._replies.values():
            self._span(attr.SPAN_LLM, since, now, provider="llm")
        for since in self._responses.values():
            self._span(attr.SPAN_REALTIME, since, now, provider="realtime")
        for since in self._playing.values():
            self._span(attr.SPAN_PLAYOUT, since, now)

    def _latencies(self, turn: AgentTurn) -> None:
        if turn.latency is None:
            return
        parts: dict[telemetry.LatencyPart, tuple[int | None, Role | None]] = {
            "endpoint": (turn.latency.endpoint_ms, "stt"),
            "llm": (turn.latency.llm_ms, "llm"),
            "tts": (turn.latency.tts_ms, "tts"),
            "total": (turn.latency.total_ms, None),
        }
        for part, (ms, role) in parts.items():
            if ms is not None:
                who: Role | None = "realtime" if self._realtime and role else role
                telemetry.metrics.turn_latency(part, ms, self._serving.get(who, "") if who else "")

    def _span(self, name: str, start_ns: int, end_ns: int, text: str = "", *, provider: Role | None = None) -> None:
        attributes: dict[str, str | int] = dict(self._common)
        if provider is not None and provider in self._serving:
            attributes[attr.PROVIDER] = self._serving[provider]
        if text:
            attributes[attr.PII_USER_TEXT if name == attr.SPAN_STT else attr.PII_AGENT_TEXT] = text
        telemetry.record_span(name, start_ns, end_ns, attributes, self._context)
