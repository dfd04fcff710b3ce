"""What happens in a conversation: the inputs of `Conversation.handle`. Times are stream milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Literal

from stayline.models import ToolCall, ToolOutcome
from stayline.timeline import AgentSource


@dataclasses.dataclass(frozen=True, slots=True)
class CallStarted:
    """The stream is attached and the grant is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class CallerSpoke:
    """Speech-like sound began."""

    at_ms: int | None = None  #: stream time, where it is not now


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
class CallerPaused:
    """The turn is probably over with these words; `CallerResumed` or `CallerTurn` follows."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class CallerResumed:
    """The turn goes on after all."""


@dataclasses.dataclass(frozen=True, slots=True)
class CallerStopped:
    """The caller ceased to speak: the vendor's own end of turn, its words may come later (realtime)."""

    speech_end_ms: int  #: stream time
    speech_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class CallerWords:
    """What the caller said in the oldest turn whose words are still missing (realtime)."""

    text: str
    failed: bool = False


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
class ResponseBegan:
    """The realtime model begins to answer. `by_itself`: it is known to be nothing that was asked for."""

    response: str
    by_itself: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseSaid:
    response: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseEnded:
    """Nothing more comes of a response."""

    response: str
    status: Literal["completed", "cancelled", "failed"]


@dataclasses.dataclass(frozen=True, slots=True)
class ToolAsked:
    """The realtime model asks for a tool."""

    call: ToolCall
    malformed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ToolsForgotten:
    """The realtime model no longer waits for these tools."""

    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelLost:
    """The connection to the realtime model is gone; another is being made."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelBack:
    """A realtime model is connected. `knows_tools`: it is the same conversation, open tool calls and all."""

    knows_tools: bool


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
class InterruptRequested:
    """Somebody outside the conversation wants the agent to be silent now."""


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
    | CallerPaused
    | CallerResumed
    | CallerStopped
    | CallerWords
    | ReplyText
    | ReplyTool
    | ReplyDone
    | ReplyFailed
    | ResponseBegan
    | ResponseSaid
    | ResponseEnded
    | ToolAsked
    | ToolsForgotten
    | ModelLost
    | ModelBack
    | ToolDone
    | SpeechBegan
    | SpeechEnded
    | KeyPressed
    | SayRequested
    | InterruptRequested
    | CloseRequested
    | StreamGone
    | TimerFired
)
