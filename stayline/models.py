"""What a call, an agent, a tool and a conversation are, as data: no I/O, no clock.

Times are UTC datetimes; durations are seconds as float; latencies are integer milliseconds and say so in the
name. Phone numbers and what people said appear only in these payloads (encryptable), never in ids.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["inbound", "outbound"]
CarrierName = Literal["twilio", "lab"]
Mode = Literal["text", "realtime"]
InterruptionMode = Literal["immediate", "after_sentence", "disabled"]


class Model(BaseModel):
    """Base of wire types: immutable; unknown keys are ignored so that a newer sender can add one."""

    model_config = ConfigDict(frozen=True)


# --- the call and its agent -----------------------------------------------------------------------------


class CallInfo(Model):
    """What the carrier says of a call. Given to `on_call` policies and to tools that ask for it."""

    call_id: str  #: inbound: the carrier's call SID; outbound: ours, begins with "out-"
    from_number: str
    to_number: str
    direction: Direction = "inbound"
    carrier: CarrierName = "twilio"
    started_at: datetime
    agent: str = ""  #: name of the agent that answers
    carrier_call_id: str = ""  #: the carrier's call SID where it is not `call_id`: outbound, once it is dialled


class ToolSpec(Model):
    """A tool as the workflow and the model see it. Made from a decorated function by `stayline.tool`."""

    name: str
    description: str
    parameters: dict[str, Any]  #: JSON Schema of the arguments, an object
    max_attempts: int = 3  #: first try included
    attempt_timeout: float = 30.0  #: seconds, one attempt
    total_timeout: float = 300.0  #: seconds, all attempts and waits together
    heartbeat_timeout: float | None = None  #: seconds; needed for tools that want to be cancelled
    backoff: float = 1.0  #: seconds before the second attempt; doubles, at most 60
    filler: str | None = None  #: said when the tool takes longer than a moment
    needs_approval: bool = False
    approval_timeout: float = 120.0  #: seconds to wait for a person, then refused
    background: bool = False  #: the conversation goes on; the result is spoken when it comes


class TurnTaking(Model):
    """How the agent yields and takes the floor. All values in milliseconds unless named otherwise."""

    interruption: InterruptionMode = "immediate"
    min_speech_ms: int = 120  #: caller speech shorter than this does not interrupt
    min_words: int = 1  #: words of a partial transcript that interrupt even before `min_speech_ms` is certain
    backchannels: tuple[str, ...] = (
        "mhm",
        "mm-hmm",
        "mm",
        "uh-huh",
        "uh huh",
        "hmm",
        "yeah",
        "yep",
        "ok",
        "okay",
        "right",
        "i see",
        "sure",
    )  #: said alone while the agent speaks, these are listening noises, not turns
    resume_after_false_interruption: bool = True
    false_interruption_ms: int = 2000  #: no words this long after an interruption: it was a noise, resume
    filler_after_ms: int = 800  #: a tool that runs longer is covered by its filler
    hold_text: str = "One moment, I'm still on it."  #: answer to a caller who speaks while a tool runs


class AgentSpec(Model):
    """An agent as data: everything that a bridge or a workflow needs, no code."""

    name: str
    instructions: str = ""
    greeting: str = ""
    goodbye: str = "Thank you for calling. Goodbye."
    mode: Mode = "text"
    stt: tuple[str, ...] = ()  #: "provider/model", in order of preference
    llm: tuple[str, ...] = ()
    tts: tuple[str, ...] = ()
    realtime: tuple[str, ...] = ()  #: in mode `realtime`, instead of the three above
    voice: str = ""
    language: str = "en"
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict
    )  #: per role: {"stt": {...}, "llm": {...}, "tts": {...}, "realtime": {...}}
    tools: tuple[ToolSpec, ...] = ()
    transfers: dict[str, str] = Field(default_factory=dict)  #: name the model may use -> number or SIP address
    can_end_call: bool = True  #: the model may end the call by itself
    turn_taking: TurnTaking = TurnTaking()
    max_duration: float = 1800.0  #: seconds from the first attached stream
    duration_warning: float = 60.0  #: seconds before the end; a call shorter than twice this gets no warning
    warning_text: str = "Just so you know, we have about a minute left on this call."
    limit_text: str = "We have reached the time limit for this call. Goodbye."
    silence_prompt: float = 20.0  #: seconds without anybody speaking
    silence_text: str = "Are you still there?"
    silence_timeout: float = 60.0  #: seconds without anybody speaking, then goodbye; 0: never
    ring_timeout: float = 60.0  #: seconds from admission to the first stream
    reattach_timeout: float = 30.0  #: seconds that a call waits for a bridge after it lost one
    resume_text: str = "Sorry, we got cut off for a second."
    apology_text: str = "Sorry, I'm having trouble right now."
    transfer_text: str = "I'm connecting you now, one moment."
    transfer_ring_timeout: int = 25  #: seconds that the other side may ring
    record_audio: bool = True

    def tool(self, name: str) -> ToolSpec | None:
        return next((t for t in self.tools if t.name == name), None)


# --- the conversation, as a language model needs it ------------------------------------------------------


class ToolCall(Model):
    """The model's wish to use a tool. `id` is the provider's, made unique within the call by the bridge."""

    id: str
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class UserMessage(Model):
    role: Literal["user"] = "user"
    text: str
    confidence: float | None = None  #: 0..1, the recogniser's own; None when it gives none


class AgentMessage(Model):
    """What the agent said (as heard by the caller), the tools it asked for, or both."""

    role: Literal["agent"] = "agent"
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    interrupted: bool = False


class ToolMessage(Model):
    role: Literal["tool"] = "tool"
    tool_call_id: str
    name: str
    content: str  #: JSON of the result, or the error as a sentence
    is_error: bool = False


class NoteMessage(Model):
    """A fact for the agent that nobody said: a failed transfer, a key pressed, a resumed call."""

    role: Literal["note"] = "note"
    text: str


Message = Annotated[UserMessage | AgentMessage | ToolMessage | NoteMessage, Field(discriminator="role")]


# --- tools at work ---------------------------------------------------------------------------------------

ToolStatus = Literal["running", "waiting_approval", "succeeded", "failed", "unknown", "refused"]
"""`unknown`: it timed out or was cut off, so its effect may or may not have happened. Never "done"."""


class ToolAttempt(Model):
    number: int  #: 1, 2, …
    started_at: datetime | None = None
    seconds: float | None = None
    error: str | None = None  #: None: this attempt succeeded


class ToolOutcome(Model):
    """How a tool call ended; data, never an exception."""

    id: str
    name: str
    status: ToolStatus
    result: Any = None  #: JSON value
    error: str | None = None  #: a sentence that the agent may read
    attempts: tuple[ToolAttempt, ...] = ()
    seconds: float = 0.0

    @property
    def message(self) -> ToolMessage:
        """The outcome as a language model reads it. A tool that was cut off is never presented as done."""
        if self.status == "succeeded":
            content = json.dumps(self.result, ensure_ascii=False)
        elif self.status == "unknown":
            content = self.error or "It is not known whether this took effect; do not say that it did."
        else:
            content = self.error or f"The tool {self.status}."
        error = self.status != "succeeded"
        return ToolMessage(tool_call_id=self.id, name=self.name, content=content, is_error=error)


class ToolRun(Model):
    """A tool call in the record: what was asked, and how it stands."""

    call: ToolCall
    session: int
    requested_at: datetime
    outcome: ToolOutcome | None = None  #: None while it runs
    waiting_approval: bool = False
    after_hangup: bool = False  #: it ended when the caller was gone


class ToolInvocation(Model):
    """Input of a tool's activity. The tool's name is the activity's type, the id of the tool call its id."""

    call: CallInfo
    arguments: dict[str, Any]


class ToolReturn(Model):
    """Output of a tool's activity: the result and the attempts that it took."""

    result: Any = None
    attempts: tuple[ToolAttempt, ...] = ()
