"""The timeline: the ordered, typed events of a call, and what can be read of it. Data only.

Keys that hold what people said or who they are stay in these payloads; telemetry never carries them unless
the user asks for it (see `stayline.telemetry`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from stayline.models import CallInfo, InterruptionMode, Mode, Model, ToolCall, ToolOutcome, ToolRun

# --- events ----------------------------------------------------------------------------------------------


class TurnLatency(Model):
    """Milliseconds of one agent turn, from the caller's last word to the first sound of the reply.

    `total_ms` = `endpoint_ms` + `llm_ms` + `tts_ms` + what is left for the pipeline itself.
    """

    endpoint_ms: int | None = None  #: last voiced audio -> end of turn decided (silence rule and recogniser)
    llm_ms: int | None = None  #: request -> first token
    tts_ms: int | None = None  #: first clause sent -> first audio
    total_ms: int | None = None  #: last voiced audio -> first audio sent
    saved_ms: int | None = None  #: sooner by this, because the model began before the turn was surely over


class _Event(Model):
    at: datetime


class SessionOpened(_Event):
    type: Literal["session_opened"] = "session_opened"
    session: int
    bridge_id: str
    resumed: bool = False


class SessionClosed(_Event):
    """The stream is gone. `stopped`: the carrier said `stop`; `closed`: we closed it; `lost`: it broke."""

    type: Literal["session_closed"] = "session_closed"
    session: int
    reason: Literal["stopped", "closed", "lost", "bridge_lost", "replaced"]
    recording: str = ""  #: path or address of the session's stereo recording
    audio_in_ms: int = 0
    audio_out_ms: int = 0  #: agent audio that was played, not merely sent


class UserTurn(_Event):
    type: Literal["user_turn"] = "user_turn"
    text: str
    confidence: float | None = None
    speech_ms: int = 0


AgentSource = Literal["greeting", "reply", "filler", "operator", "limit", "silence", "resume", "goodbye", "apology"]
"""Why the agent spoke."""

ASIDES: frozenset[AgentSource] = frozenset({"filler", "limit", "silence", "resume", "apology"})
"""Speech that the caller hears but that is no part of the conversation as a language model gets it."""


class AgentTurn(_Event):
    """What the caller heard. `generated` is set when more had been generated than was heard."""

    type: Literal["agent_turn"] = "agent_turn"
    text: str
    generated: str | None = None
    interrupted: bool = False
    source: AgentSource = "reply"
    speech_ms: int = 0
    latency: TurnLatency | None = None
    tool_calls: tuple[str, ...] = ()  #: ids of the tools that the reply asked for


class Interruption(_Event):
    type: Literal["interruption"] = "interruption"
    mode: InterruptionMode
    heard: str = ""
    resumed: bool = False  #: it was a noise or a backchannel; the agent went on


class ToolCalled(_Event):
    """Written by the workflow when it accepts a tool call."""

    type: Literal["tool_called"] = "tool_called"
    call: ToolCall
    duplicate_of: str | None = None


class ToolSettled(_Event):
    """Written by the workflow when a tool call ends."""

    type: Literal["tool_settled"] = "tool_settled"
    outcome: ToolOutcome
    after_hangup: bool = False


class Dtmf(_Event):
    type: Literal["dtmf"] = "dtmf"
    digit: str


class CallError(_Event):
    type: Literal["error"] = "error"
    where: str  #: "stt", "llm", "tts", "carrier", "tool", …
    provider: str = ""
    message: str
    retryable: bool = False


ChangeReason = Literal["failed", "recovered", "renewed"]
"""The one before failed; a preferred one is back; the same one, on a new connection because its time was up."""


class ProviderChanged(_Event):
    """Another provider serves a role from here on, or the same one on a new connection."""

    type: Literal["provider_changed"] = "provider_changed"
    role: Literal["stt", "llm", "tts", "realtime"]
    provider: str  #: "provider/model"
    why: ChangeReason


class Usage(_Event):
    """What a reply cost at the language model."""

    type: Literal["usage"] = "usage"
    provider: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class CallAdmitted(_Event):
    type: Literal["call_admitted"] = "call_admitted"


class CallDialled(_Event):
    """An outbound call: the carrier is asked to dial. Written before it is asked."""

    type: Literal["call_dialled"] = "call_dialled"


MachineOrPerson = Literal[
    "human", "machine_start", "machine_end_beep", "machine_end_silence", "machine_end_other", "fax", "unknown"
]
"""Twilio's words for who or what answered (twilio.com/docs/voice/answering-machine-detection)."""


class AnsweredBy(_Event):
    """An outbound call: what the carrier's machine detection found, often some seconds into the call."""

    type: Literal["answered_by"] = "answered_by"
    who: MachineOrPerson


class CallRejected(_Event):
    type: Literal["call_rejected"] = "call_rejected"
    reason: str = ""


class Commanded(_Event):
    """A person, the model or a limit steered the call."""

    type: Literal["commanded"] = "commanded"
    command: Literal["transfer", "end", "say", "approve", "refuse"]
    by: str
    why: str = ""
    detail: str = ""


TransferOutcome = Literal["answered", "busy", "no_answer", "failed", "caller_left"]


class TransferSettled(_Event):
    type: Literal["transfer_settled"] = "transfer_settled"
    to: str
    outcome: TransferOutcome
    seconds: float | None = None


class LimitReached(_Event):
    type: Literal["limit"] = "limit"
    limit: Literal["duration_warning", "duration", "silence_prompt", "silence", "ring", "reattach"]


class RecordGap(_Event):
    """Records of a session are missing: `first`..`last` never arrived (yet)."""

    type: Literal["gap"] = "gap"
    session: int
    first: int
    last: int


CallOutcome = Literal[
    "completed",
    "caller_hung_up",
    "transferred",
    "rejected",
    "duration_limit",
    "silence_limit",
    "no_stream",
    "busy",
    "no_answer",
    "lost",
    "failed",
]
"""`busy`, `no_answer`: of outbound calls."""


class CallEnded(_Event):
    type: Literal["call_ended"] = "call_ended"
    outcome: CallOutcome
    by: str = ""


TimelineEvent = Annotated[
    SessionOpened
    | SessionClosed
    | UserTurn
    | AgentTurn
    | Interruption
    | ToolCalled
    | ToolSettled
    | Dtmf
    | CallError
    | ProviderChanged
    | Usage
    | CallAdmitted
    | CallDialled
    | AnsweredBy
    | CallRejected
    | Commanded
    | TransferSettled
    | LimitReached
    | RecordGap
    | CallEnded,
    Field(discriminator="type"),
]


class TimelineEntry(Model):
    """One event at its place in the call. `index` counts from 0 over the whole call."""

    index: int
    session: int  #: 0: the workflow itself
    event: TimelineEvent


# --- what can be read of a call --------------------------------------------------------------------------

CallStatus = Literal["ringing", "active", "detached", "transferring", "ending", "wrapping_up", "ended"]


class CallMetrics(Model):
    """Counted from committed turns. Names of the guide and of its core, with true values."""

    duration: float = 0.0  #: seconds, first stream to the end of the call
    user_turn_count: int = 0
    agent_turn_count: int = 0
    turn_count: int = 0
    interruption_count: int = 0
    tool_call_count: int = 0
    tool_attempt_count: int = 0
    error_count: int = 0
    session_count: int = 0
    user_speech_duration_ms: int = 0
    agent_speech_duration_ms: int = 0
    avg_stt_latency_ms: float | None = None  #: endpoint; average over the turns that have one
    avg_llm_latency_ms: float | None = None
    avg_tts_latency_ms: float | None = None
    avg_total_latency_ms: float | None = None
    max_total_latency_ms: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    session_duration_ms: int = 0  #: `duration` in milliseconds
    audio_bytes_received: int = 0  #: caller audio, μ-law bytes, as far as recorded
    audio_bytes_sent: int = 0  #: agent audio that was played


class CallSnapshot(Model):
    """Answer of query `snapshot`, and the live half of `calls show`."""

    call: CallInfo
    agent: str
    mode: Mode
    status: CallStatus
    outcome: CallOutcome | None = None
    session: int = 0
    bridge_id: str | None = None
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    seconds_left: float | None = None
    tools: tuple[ToolRun, ...] = ()
    metrics: CallMetrics = CallMetrics()
    timeline_length: int = 0
    run_count: int = 1  #: continue-as-new runs of the workflow


class CallRecord(Model):
    """The finished record of a call, as activities write it to the database. Writing it twice is harmless."""

    snapshot: CallSnapshot
    timeline: tuple[TimelineEntry, ...]
    final: bool = True  #: False: the caller is gone but tools still run; a later record replaces this one
