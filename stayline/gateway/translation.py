"""From the timeline and from a bridge's live log to the events that an application reads."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from media_bridge.live_events import LiveEvent, LiveKind
from stayline import timeline as tl
from stayline.errors import ProviderError, StaylineError
from stayline.gateway import events as ge
from stayline.models import CallInfo, ToolCall, ToolOutcome
from stayline.timeline import TimelineEntry

_LIVE: Final[dict[LiveKind, type[ge.SessionEvent]]] = {
    "user_speech_start": ge.UserSpeechStart,
    "user_speech_end": ge.UserSpeechEnd,
    "agent_thinking": ge.AgentThinking,
    "agent_speech_start": ge.AgentSpeechStart,
    "agent_speech_end": ge.AgentSpeechEnd,
}


def of_live(event: LiveEvent, attachment: int) -> ge.SessionEvent:
    if event.type == "audio_received" or event.type == "audio_sent":
        kind = ge.AudioReceived if event.type == "audio_received" else ge.AudioSent
        return kind(timestamp=event.at, attachment=attachment, data=ge.AudioCount(event.total_bytes))
    return _LIVE[event.type](timestamp=event.at, attachment=attachment)


class Translation:
    """Reads a timeline from its beginning, entry by entry."""

    def __init__(self, call: CallInfo) -> None:
        self._call = call
        self._tools: dict[str, ToolCall] = {}
        self._latest: datetime | None = None

    def of_entry(self, entry: TimelineEntry) -> tuple[ge.SessionEvent, datetime] | None:
        """The event that an entry is, if it is one, and the time by which to order it.

        A call's end is dated by when the caller left. It is ordered after all that is in the record before it: a
        last turn may have been written down a moment later.
        """
        event = entry.event
        self._latest = max(self._latest or event.at, event.at)
        told = self._event(entry)
        if told is None:
            return None
        return told, self._latest if isinstance(told, ge.SessionEnded) else told.timestamp

    def _event(self, entry: TimelineEntry) -> ge.SessionEvent | None:
        at, attachment = entry.event.at, entry.session
        match entry.event:
            case tl.SessionOpened(session=1):
                return ge.SessionStarted(timestamp=at, attachment=1, data=self._call)
            case tl.UserTurn(text=text, confidence=confidence):
                return ge.UserTranscript(timestamp=at, attachment=attachment, data=text, confidence=confidence)
            case tl.AgentTurn() as turn:
                return ge.AgentTranscript(
                    timestamp=at,
                    attachment=attachment,
                    data=turn.text,
                    interrupted=turn.interrupted,
                    generated=turn.generated,
                    source=turn.source,
                )
            case tl.ToolCalled(call=call):
                self._tools.setdefault(call.id, call)
                return None
            case tl.ToolSettled(outcome=outcome):
                use = tool_use(self._tools.get(outcome.id), outcome)
                return ge.ToolCalled(timestamp=at, attachment=attachment, data=use)
            case tl.Interruption(resumed=False, mode=mode, heard=heard):
                return ge.Interrupted(timestamp=at, attachment=attachment, data=ge.Interruption(mode, heard))
            case tl.Dtmf(digit=digit):
                return ge.DtmfPressed(timestamp=at, attachment=attachment, data=digit)
            case tl.CallError() as error:
                return ge.Failed(timestamp=at, attachment=attachment, data=error.where, error=_error(error))
            case tl.CallEnded(outcome=outcome):
                return ge.SessionEnded(timestamp=at, data=outcome)
            case _:
                return None


def tool_use(call: ToolCall | None, outcome: ToolOutcome) -> ge.ToolUse:
    return ge.ToolUse(
        id=outcome.id,
        name=outcome.name,
        arguments=dict(call.arguments) if call else {},
        status=outcome.status,
        result=outcome.result,
        error=outcome.error,
        duration_ms=round(outcome.seconds * 1000),
        attempts=len(outcome.attempts),
    )


def _error(error: tl.CallError) -> StaylineError:
    if error.provider:
        message = error.message.removeprefix(f"{error.provider}: ")  # it says so itself
        return ProviderError(error.provider, message, retryable=error.retryable)
    return StaylineError(error.message, retryable=error.retryable)
