"""What a conversation decides: the outputs of `Conversation.handle`. The shell carries them out in order."""

from __future__ import annotations

import dataclasses

from stayline.models import Message, ToolCall, ToolMessage
from stayline.timeline import TimelineEvent


@dataclasses.dataclass(frozen=True, slots=True)
class StartReply:
    """Ask the language model; its answer comes back as ReplyText, ReplyTool, ReplyDone or ReplyFailed."""

    reply: int
    messages: tuple[Message, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class CancelReply:
    reply: int


@dataclasses.dataclass(frozen=True, slots=True)
class Say:
    """Synthesise a clause of an utterance and play it. The first clause opens the utterance."""

    utterance: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class EndUtterance:
    """No more clauses; SpeechEnded follows when it has been played."""

    utterance: int
    cut: bool = False  #: it was broken off: words without their sound were never said


@dataclasses.dataclass(frozen=True, slots=True)
class PauseSpeech:
    """Clear what the carrier has not played yet, but keep it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResumeSpeech:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class DropSpeech:
    """Give up all utterances; SpeechEnded follows at once for each that was opened."""


@dataclasses.dataclass(frozen=True, slots=True)
class StopAfterSentence:
    """Let the current sentence end and give up the rest; SpeechEnded follows when it has ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class OpenSpeech:
    """The audio of a realtime response is to be played as this utterance; SpeechEnded follows when it was."""

    response: str
    utterance: int


@dataclasses.dataclass(frozen=True, slots=True)
class AddText:
    """More of what an utterance says, for the account of what was heard (realtime)."""

    utterance: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class AskToSay:
    """Have the realtime model say exactly this."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Respond:
    """Have the realtime model answer now."""


@dataclasses.dataclass(frozen=True, slots=True)
class TellModel:
    """A fact for the realtime model that nobody said."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerTool:
    result: ToolMessage
    respond: bool  #: it was the last one open: the model goes on


@dataclasses.dataclass(frozen=True, slots=True)
class CancelResponse:
    """Stop the realtime model's response under way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Truncate:
    """Have the realtime model remember only what was heard of a response."""

    response: str
    heard_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUpModel:
    """The realtime model owes something and is silent: leave it. ModelLost follows."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunTool:
    """Ask the workflow to run a tool; ToolDone follows."""

    call: ToolCall


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    event: TimelineEvent


@dataclasses.dataclass(frozen=True, slots=True)
class StartTimer:
    """Fire `TimerFired(name)` after `ms`; starting it again starts over."""

    name: str
    ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class StopTimer:
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """Close the stream: all that had to be said was heard."""


Command = (
    StartReply
    | CancelReply
    | Say
    | EndUtterance
    | PauseSpeech
    | ResumeSpeech
    | DropSpeech
    | StopAfterSentence
    | OpenSpeech
    | AddText
    | AskToSay
    | Respond
    | TellModel
    | AnswerTool
    | CancelResponse
    | Truncate
    | GiveUpModel
    | RunTool
    | Record
    | StartTimer
    | StopTimer
    | Close
)
