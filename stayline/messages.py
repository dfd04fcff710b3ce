"""What bridge, workflow and activities say to each other (DESIGN.md, rule 2). Data only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from stayline.models import AgentSpec, CallInfo, Message, Model, ToolCall
from stayline.timeline import CallMetrics, CallOutcome, MachineOrPerson, TimelineEvent


class CallStart(Model):
    """Input of CallWorkflow."""

    call: CallInfo
    agent: AgentSpec
    caller_hash: str = ""  #: for the search attribute; already the number if the user opted for it
    has_policy: bool = False  #: the agent has an `on_call` policy
    public_url: str = ""  #: where the carrier finds any bridge
    outbound: Dial | None = None  #: set: the workflow places the call
    traceparent: str | None = None  #: W3C trace context of the call's root span
    history_limit: int = 0  #: events after which the workflow continues as new; 0: when Temporal suggests it
    carry: CallCarry | None = None  #: set by continue-as-new only


class Dial(Model):
    """How an outbound call is placed."""

    ring_timeout: int = 60  #: seconds that the other side may ring; Twilio: at most 600
    machine_detection: bool = False  #: have the carrier tell people from answering machines (`answered_by`)
    record: bool = False  #: the carrier records both channels as well


class CallCarry(Model):
    """The call's state, from one run of the workflow to the next. Filled and read by `workflows` only."""

    state: dict[str, Any] = Field(default_factory=dict)  #: of runs that did not pack it yet
    packed: str = ""  #: see `workflows.packing`


class Admit(Model):
    """Input of update `admit`. The stream token stays with the bridge; the workflow knows its hash only."""

    token_sha256: str
    bridge_id: str
    carrier_call_id: str = ""  #: of an outbound call, which was answered: the carrier's call SID
    no_room: Admission | None = None  #: the bridge has no room, so this is the answer, unless there was one before


class Admission(Model):
    accepted: bool
    say: str = ""  #: what a rejected caller hears
    reason: str = ""


class OpenSession(Model):
    """Input of update `open_session`, at the stream's `start`. A wrong or used token fails the update with
    an ApplicationError of type `BadToken`; a call that is over with `CallOver`."""

    token_sha256: str
    bridge_id: str
    stream_id: str


class Grant(Model):
    """Answer to `open_session`: all that a bridge needs to hold the call.

    Every tool call among `messages` is followed by its result. Tools that still run are not among them but in
    `running_tools`: ask `run_tool` again with the same id, and append the AgentMessage with the tool call and
    the ToolMessage with its outcome when it comes.
    """

    session: int  #: 1, 2, …
    call: CallInfo
    agent: AgentSpec
    messages: tuple[Message, ...] = ()  #: the conversation so far
    running_tools: tuple[ToolCall, ...] = ()  #: ask again with the same id to get their outcome
    seconds_left: float
    resumed: bool = False  #: the session before was cut, not handed over: say so, then go on
    note: str = ""  #: why the caller is back, e.g. a failed transfer; already among the messages
    traceparent: str | None = None


class RunTool(Model):
    """Input of update `run_tool`; its update id is the tool call's id, so asking twice runs once."""

    session: int
    call: ToolCall


class Record(Model):
    """Input of signal `record`: timeline events of one session in order. `first_seq` counts from 1."""

    session: int
    first_seq: int
    events: tuple[TimelineEvent, ...]
    audio_in_ms: int = 0  #: caller audio of the session when this was sent
    audio_out_ms: int = 0  #: agent audio that was played by then


DialStatus = Literal["completed", "answered", "busy", "no-answer", "failed", "canceled"]


class NextStep(Model):
    """Input of update `next_step`: the carrier asks what to do after a stream or a dial."""

    token_sha256: str
    bridge_id: str
    dial_status: DialStatus | None = None  #: set when a dialled transfer has ended
    dial_seconds: float | None = None
    carrier_call_id: str = ""  #: of an outbound call: the carrier's call SID
    held: bool = False  #: the caller has been asked to wait since then


class Step(Model):
    """What the carrier must do now."""

    action: Literal["connect", "dial", "hangup"]
    say: str = ""  #: spoken by the carrier before a dial or a hang-up
    to: str = ""  #: number or SIP address to dial
    ring_timeout: int = 25


class CarrierStatus(Model):
    """Input of signal `carrier_status`: the carrier's own word on the call."""

    status: Literal[
        "queued",
        "initiated",
        "ringing",
        "in-progress",
        "completed",
        "busy",
        "failed",
        "no-answer",
        "canceled",
    ]
    duration: float | None = None
    carrier_call_id: str = ""  #: of an outbound call: the carrier's call SID
    answered_by: MachineOrPerson | None = None  #: the result of machine detection


class Command(Model):
    """Who steers a call, and why. Base of the commands that people give."""

    by: str = "unknown"
    why: str = ""


class EndCall(Command):
    say: str | None = None  #: None: the agent's goodbye
    by_carrier: bool = False  #: the bridge has no voice left: the carrier itself says it, then hangs up


class TransferCall(Command):
    to: str  #: E.164 number or sip: address
    say: str | None = None  #: announcement; None: the agent's


class SayText(Command):
    text: str


class Approve(Command):
    tool_call_id: str
    approved: bool


class Accepted(Model):
    """Answer to a command given as an update: it stands in the timeline at `index` and will be carried out."""

    index: int


class Speak(Model):
    """Input of activity `speak` on a bridge's own queue; it answers whether it was said (bool).

    With source `silence` the bridge answers False, and says nothing, when somebody is speaking: a long turn is
    recorded only at its end, so the workflow cannot know. Empty `text` then only asks whether there is silence.
    """

    call_id: str
    session: int
    text: str
    source: Literal["operator", "limit", "silence"] = "operator"


class CloseSession(Model):
    """Input of activity `close_session` on a bridge's own queue: say it, let it be heard, close."""

    call_id: str
    session: int
    say: str = ""
    reason: str = ""


class LeaseInput(Model):
    bridge_id: str
    heartbeat_timeout: float = 2.0  #: seconds
    pickup_timeout: float = 1.5  #: seconds in which a living bridge takes an offered lease


class LeaseState(Model):
    """Heartbeat details of `keep_lease`."""

    calls: tuple[str, ...] = ()
    address: str = ""  #: host:port at which other processes reach this very bridge; empty: not yet known
    load: float = 0.0  #: calls held / calls allowed
    loop_lag_ms: float = 0.0


class PlaceCall(Model):
    """Input of activity `place_call`: have the carrier dial, once however often it is asked."""

    call_id: str
    from_number: str
    to_number: str
    public_url: str  #: the carrier's webhooks about the call go there, and name `call_id`
    since: datetime  #: when this was first asked for: no call of an earlier time is the one
    time_limit: int  #: seconds after which the carrier ends the call by itself
    dial: Dial


class Placed(Model):
    """Answer of `place_call`.

    Without an id the carrier has a call to that number since then, but does not say whose: its webhooks will.
    """

    carrier_call_id: str = ""


class HangUp(Model):
    call_id: str
    carrier_call_id: str = ""  #: where it is not `call_id`
    unanswered: bool = False  #: it may still be ringing at the other side


class Redirect(Model):
    """Input of activity `redirect_call`: send the live call to /voice/next of any living bridge."""

    call_id: str
    public_url: str
    carrier_call_id: str = ""  #: where it is not `call_id`
    say: str = ""  #: not to a bridge then: the carrier itself says this and hangs up


class ExtendCall(Model):
    """Input of activity `extend_call`: people talk to people now, so the carrier must not end it early."""

    carrier_call_id: str
    time_limit: int  #: seconds since the call was answered


class PackedRecord(Model):
    """Input of activity `save_call`: a `CallRecord` that would be too large as it is; see `workflows.packing`."""

    packed: str


class CallResult(Model):
    """Result of CallWorkflow: small, readable in Temporal's UI."""

    outcome: CallOutcome
    metrics: CallMetrics


CallStart.model_rebuild()
Admit.model_rebuild()
