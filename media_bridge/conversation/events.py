"""What happens in a conversation: the inputs of `Conversation.handle`. Times are stream milliseconds."""

from __future__ import annotations

import dataclasses

from stayline.models import ToolCall, ToolOutcome
from stayline.timeline import AgentSource


@dataclasses.dataclass(frozen=True, slots=True)
class CallStarted:
    """The stream is attached and the grant is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class CallerSpoke:
    """Speech-like sound began."""


@dataclasses.dataclass(frozen=True, slots=True)
class CallerPartial:
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class CallerTurn:
    """The caller's turn is over; empty text: it was a noise."""

    text: str
    confidence: float | None = None
    speech_end_ms: int | None = None
    speech_ms: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ReplyText:
    reply: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReplyTool:
    reply: int
    call: ToolCall
    malformed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ReplyDone:
    reply: int


@dataclasses.dataclass(frozen=True, slots=True)
class ReplyFailed:
    reply: int


@dataclasses.dataclass(frozen=True, slots=True)
class ToolDone:
    outcome: ToolOutcome


@dataclasses.dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The first audio of an utterance was sent. `tts_ms`: from its first clause to its first audio."""

    utterance: int
    tts_ms: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SpeechEnded:
    """An utterance is over: played to its end, or cut. `heard` is what the caller heard of it."""

    utterance: int
    heard: str
    complete: bool
    speech_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class KeyPressed:
    digit: str


@dataclasses.dataclass(frozen=True, slots=True)
class SayRequested:
    """The workflow asks the agent to say something (an operator, a limit)."""

    text: str
    source: AgentSource


@dataclasses.dataclass(frozen=True, slots=True)
class CloseRequested:
    """The workflow asks to say goodbye, let it be heard, and close the stream."""

    say: str


@dataclasses.dataclass(frozen=True, slots=True)
class StreamGone:
    """The carrier's stream ended or broke."""


@dataclasses.dataclass(frozen=True, slots=True)
class TimerFired:
    name: str


Event = (
    CallStarted
    | CallerSpoke
    | CallerPartial
    | CallerTurn
    | ReplyText
    | ReplyTool
    | ReplyDone
    | ReplyFailed
    | ToolDone
    | SpeechBegan
    | SpeechEnded
    | KeyPressed
    | SayRequested
    | CloseRequested
    | StreamGone
    | TimerFired
)
