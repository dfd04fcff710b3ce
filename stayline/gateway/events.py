"""What happens in a call, as an application reads it: one class for each kind, with its type, time and data.

    async for event in session.events():
        match event:
            case UserTranscript(data=text):
                print("User:", text)
            case ToolCalled(data=call):
                print("Tool:", call.name, call.arguments, call.result)
            case Failed(error=error):
                print("Error:", error)
            case SessionEnded(data=outcome):
                print("Call ended:", outcome)

Or by `event.type`, whose values are those of `EventType`.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from pydantic_core import to_jsonable_python

from stayline.errors import StaylineError
from stayline.models import CallInfo, InterruptionMode, ToolStatus
from stayline.timeline import AgentSource, CallOutcome


class EventType(StrEnum):
    """The kinds of events, by the names that they have on the wire."""

    SESSION_STARTED = "session_started"
    USER_TRANSCRIPT = "user_transcript"
    AGENT_TRANSCRIPT = "agent_transcript"
    TOOL_CALL = "tool_call"
    INTERRUPTION = "interruption"
    SESSION_ENDED = "session_ended"
    ERROR = "error"
    USER_SPEECH_START = "user_speech_start"
    USER_SPEECH_END = "user_speech_end"
    AGENT_THINKING = "agent_thinking"
    AGENT_SPEECH_START = "agent_speech_start"
    AGENT_SPEECH_END = "agent_speech_end"
    AUDIO_RECEIVED = "audio_received"
    AUDIO_SENT = "audio_sent"
    DTMF = "dtmf"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionEvent:
    """Base of all events.

    Attributes:
        timestamp: UTC.
        data: what the kind says of itself.
        error: of `Failed` only.
        attachment: the bridge session that it happened in: 1, and more when the call was moved; 0: in none.
    """

    type: ClassVar[EventType]
    timestamp: datetime
    data: Any = None
    error: StaylineError | None = dataclasses.field(default=None, compare=False)
    attachment: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that has ended. Where it timed out it is `unknown` whether it took effect."""

    id: str
    name: str
    arguments: dict[str, Any]
    status: ToolStatus
    result: Any = None  #: JSON value
    error: str | None = None
    duration_ms: int = 0
    attempts: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Interruption:
    mode: InterruptionMode
    heard: str  #: of what the agent was saying


@dataclasses.dataclass(frozen=True, slots=True)
class AudioCount:
    """Sound of the attachment so far. Counted once a second, or less often in a long call."""

    total_bytes: int  #: 8 kHz μ-law

    @property
    def total_ms(self) -> int:
        return self.total_bytes // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionStarted(SessionEvent):
    """The caller and the agent hear each other. Once in a call, also when it is moved to another bridge."""

    type = EventType.SESSION_STARTED
    data: CallInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserTranscript(SessionEvent):
    """What the caller said in one turn."""

    type = EventType.USER_TRANSCRIPT
    data: str
    confidence: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentTranscript(SessionEvent):
    """What the caller HEARD of one stretch of the agent's speech, told when it is over."""

    type = EventType.AGENT_TRANSCRIPT
    data: str
    interrupted: bool = False
    generated: str | None = None  #: all that had been generated, where that was more
    source: AgentSource = "reply"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCalled(SessionEvent):
    """A tool call has ended. One that outlives the caller comes after `SessionEnded`."""

    type = EventType.TOOL_CALL
    data: ToolUse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interrupted(SessionEvent):
    """The agent was cut off. Noises after which it went on are none."""

    type = EventType.INTERRUPTION
    data: Interruption


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionEnded(SessionEvent):
    """The call is over."""

    type = EventType.SESSION_ENDED
    data: CallOutcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed(SessionEvent):
    """Something failed; the call may well go on. `data` is the part: "stt", "llm", "tts", "carrier", "tool", …"""

    type = EventType.ERROR
    data: str
    error: StaylineError = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DtmfPressed(SessionEvent):
    """The caller pressed a key."""

    type = EventType.DTMF
    data: str


# --- live: from the bridge that holds the call, never through the record ------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserSpeechStart(SessionEvent):
    type = EventType.USER_SPEECH_START


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserSpeechEnd(SessionEvent):
    """The caller's turn is over, or was a noise."""

    type = EventType.USER_SPEECH_END


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentThinking(SessionEvent):
    """A language model was asked."""

    type = EventType.AGENT_THINKING


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentSpeechStart(SessionEvent):
    type = EventType.AGENT_SPEECH_START


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentSpeechEnd(SessionEvent):
    """It was heard to its end, or cut."""

    type = EventType.AGENT_SPEECH_END


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioReceived(SessionEvent):
    type = EventType.AUDIO_RECEIVED
    data: AudioCount


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioSent(SessionEvent):
    type = EventType.AUDIO_SENT
    data: AudioCount


def as_dict(event: SessionEvent) -> dict[str, Any]:
    """An event as JSON values: `type`, `timestamp`, and `data` and `error` where there are any."""
    values: dict[str, Any] = {"type": event.type.value, "timestamp": event.timestamp}
    if event.data is not None:
        values["data"] = event.data
    if event.error is not None:
        values["error"] = str(event.error)
    known: dict[str, Any] = to_jsonable_python(values)
    return known
