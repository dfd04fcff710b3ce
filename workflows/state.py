"""The state of a call as plain data, and how each thing that happens changes it. Pure: no clock, no I/O.

`CallWorkflow` owns one `CallState`, gives it the time, and carries it whole through continue-as-new.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, PrivateAttr

from stayline.messages import Admission, CallStart, DialStatus, OpenSession, Speak
from stayline.models import AgentSpec, CallInfo, ToolRun
from stayline.timeline import (
    CallAdmitted,
    CallDialled,
    CallEnded,
    CallError,
    CallOutcome,
    CallRejected,
    CallSnapshot,
    CallStatus,
    Commanded,
    SessionClosed,
    SessionOpened,
    TimelineEntry,
    TimelineEvent,
    TransferOutcome,
    TransferSettled,
)
from workflows import packing
from workflows.metrics import measure
from workflows.outbound import Outbound

CloseReason = Literal["stopped", "closed", "lost", "bridge_lost", "replaced"]


class Session(BaseModel):
    """One attachment to a bridge, and which of its records have arrived."""

    number: int
    bridge_id: str
    stream_id: str
    opened_at: datetime
    closed: CloseReason | None = None
    next_seq: int = 1  #: the lowest record number that nothing at or above has arrived for
    missing: list[int] = Field(default_factory=list)  #: numbers below `next_seq` that have not arrived
    closed_by_record: bool = False  #: the bridge itself recorded the end: nothing more will come
    bridge_died: bool = False  #: it answers nothing any more, whether it had recorded the end or not
    audio_in_ms: int = 0  #: as its records have said
    audio_out_ms: int = 0


class Detached(BaseModel):
    """The call has had a stream and has none now."""

    since: datetime
    reason: CloseReason | Literal["asked", "transfer"]
    asked_at: datetime | None = None  #: when the carrier last asked what to do, or was last redirected
    redirecting: bool = False


class Transfer(BaseModel):
    to: str
    say: str
    by: str
    begun: bool = False  #: the bridge was told, or there was none to tell
    announced: bool = False  #: the caller has heard `say`
    dialled_at: datetime | None = None


class Ending(BaseModel):
    """The decision that the call is over. Everything after it is farewell and bookkeeping."""

    outcome: CallOutcome
    by: str
    say: str = ""  #: what the caller is owed before the line goes dead
    said: bool = False  #: it is owed no more
    saying: bool = False  #: a bridge says it, or the model in its own words; whether the caller hears it is open
    told: bool = False  #: the carrier knows that it is to hang up
    by_carrier: bool = False  #: the bridge cannot say it, so the carrier does


class CallState(BaseModel):
    call: CallInfo
    agent: AgentSpec
    started_at: datetime
    run_count: int = 1
    outbound: Outbound | None = None  #: we place the call
    admission: Admission | None = None
    admitted_at: datetime | None = None
    tokens: dict[str, bool] = Field(default_factory=dict)  #: hash -> may still be used
    timeline: list[TimelineEntry] = Field(default_factory=list)
    sessions: list[Session] = Field(default_factory=list)
    detached: Detached | None = None
    tools: dict[str, ToolRun] = Field(default_factory=dict)  #: by tool-call id, in the order asked
    approvals: dict[str, bool] = Field(default_factory=dict)  #: a person's word on tools that wait for it
    to_say: list[Speak] = Field(default_factory=list)
    transfer: Transfer | None = None
    note: str = ""  #: why the caller is back; given to the next session
    last_sound_at: datetime | None = None
    prompted: bool = False  #: the silence prompt has been said since the last sound
    warned: bool = False  #: the duration warning has been said
    carrier_over_at: datetime | None = None  #: the carrier says that the call is over
    left_at: datetime | None = None  #: when the caller was gone
    ending: Ending | None = None
    ended_at: datetime | None = None
    _unsettled: dict[str, None] = PrivateAttr(default_factory=dict)  #: ids of tools that run, in the order asked

    def model_post_init(self, context: Any) -> None:
        self._unsettled = {id: None for id, run in self.tools.items() if run.outcome is None}

    @classmethod
    def begin(cls, start: CallStart, now: datetime) -> CallState:
        """The state of a new call, or the one that the previous run of the workflow carried over."""
        if start.carry is None:
            outbound = Outbound(dial=start.outbound) if start.outbound else None
            return cls(call=start.call, agent=start.agent, started_at=now, outbound=outbound)
        carried = packing.unpack(start.carry.packed) if start.carry.packed else start.carry.state
        packing.repeat(carried["timeline"], carried["tools"])
        state = cls.model_validate({"call": start.call, "agent": start.agent, **carried})
        state.run_count += 1
        return state

    def carried(self) -> str:
        """Everything that `begin` needs beside the workflow's own input, packed."""
        whole = self.model_dump(mode="json", exclude={"call", "agent"})
        return packing.pack(whole["timeline"], whole["tools"], whole)

    # --- what can be read of it --------------------------------------------------------------------------

    @property
    def attached(self) -> Session | None:
        """The session that holds the caller now."""
        return self.sessions[-1] if self.sessions and self.detached is None else None

    @property
    def dialling(self) -> bool:
        """A transfer has the carrier call somebody else."""
        return self.transfer is not None and self.transfer.dialled_at is not None

    @property
    def dial_outlasted_ringing(self) -> bool:
        """The caller left so long after the dial began that somebody must have answered."""
        if self.transfer is None or self.transfer.dialled_at is None or self.carrier_over_at is None:
            return False
        return (
            self.carrier_over_at - self.transfer.dialled_at
        ).total_seconds() > self.agent.transfer_ring_timeout + 10

    @property
    def unanswered(self) -> bool:
        """A call that we place, which nobody has answered yet."""
        return self.outbound is not None and self.outbound.answered_at is None

    @property
    def running_tools(self) -> list[ToolRun]:
        """Asked for at every step of the workflow, so it must not grow with the tools that have ended."""
        return [self.tools[id] for id in self._unsettled]

    @property
    def status(self) -> CallStatus:
        if self.ended_at is not None:
            return "wrapping_up" if self.running_tools else "ended"
        if self.ending is not None:
            return "ending"
        if self.transfer is not None:
            return "transferring"
        if self.attached is not None:
            return "active"
        return "detached" if self.sessions else "ringing"

    @property
    def answered_at(self) -> datetime | None:
        return self.sessions[0].opened_at if self.sessions else None

    @property
    def records_complete(self) -> bool:
        """No session owes records, as far as can be known; a dead bridge owes none."""
        return all(
            (s.closed_by_record and not s.missing) or s.closed in ("bridge_lost", "replaced") for s in self.sessions
        )

    def session(self, number: int) -> Session | None:
        return self.sessions[number - 1] if 0 < number <= len(self.sessions) else None

    def seconds_left(self, now: datetime) -> float:
        """Until the maximum duration."""
        begun = self.answered_at or now
        return max(0.0, self.agent.max_duration - (now - begun).total_seconds())

    def snapshot(self, now: datetime) -> CallSnapshot:
        attached = self.attached
        return CallSnapshot(
            call=self.call,
            agent=self.agent.name,
            mode=self.agent.mode,
            status=self.status,
            outcome=self.ending.outcome if self.ending else None,
            session=len(self.sessions),
            bridge_id=attached.bridge_id if attached and self.ended_at is None else None,
            started_at=self.started_at,
            answered_at=self.answered_at,
            ended_at=self.ended_at,
            seconds_left=None if self.ended_at else self.seconds_left(now),
            tools=tuple(self.tools.values()),
            metrics=measure(
                self.timeline,
                self.answered_at,
                self.ended_at or now,
                audio_in_ms=sum(s.audio_in_ms for s in self.sessions),
                audio_out_ms=sum(s.audio_out_ms for s in self.sessions),
            ),
            timeline_length=len(self.timeline),
            run_count=self.run_count,
        )

    # --- what happens to it ------------------------------------------------------------------------------

    def add(self, event: TimelineEvent, session: int = 0) -> int:
        """Append to the timeline; returns the entry's index."""
        index = len(self.timeline)
        self.timeline.append(TimelineEntry(index=index, session=session, event=event))
        return index

    def put_tool(self, id: str, run: ToolRun) -> None:
        """A tool was asked for, or another is known of it than before."""
        self.tools[id] = run
        if run.outcome is None:
            self._unsettled[id] = None
        else:
            self._unsettled.pop(id, None)

    def note_error(self, now: datetime, where: str, message: str, retryable: bool = False) -> None:
        self.add(CallError(at=now, where=where, message=message, retryable=retryable))

    def heard(self, now: datetime) -> None:
        """Somebody spoke, or the caller had a reason to wait: silence counts from here."""
        self.last_sound_at = now
        self.prompted = False

    def dial(self, now: datetime) -> None:
        """The carrier is to be asked. In the record first: whoever finds it there asks whether it has been done."""
        assert self.outbound is not None
        self.outbound.asked_at = now
        self.add(CallDialled(at=now))

    def take_leg(self, carrier_call_id: str, *, live: bool = True) -> bool:
        """Whether the carrier speaks of this very call. Of one that we place, the first id that it names is the
        one; further ones that live were dialled by a request whose answer was lost."""
        if self.outbound is None or not carrier_call_id:
            return True
        if not self.call.carrier_call_id:
            self.call = self.call.model_copy(update={"carrier_call_id": carrier_call_id})
        own = self.call.carrier_call_id == carrier_call_id
        if not own and live and carrier_call_id not in self.outbound.strays:
            self.outbound.strays.append(carrier_call_id)
        return own

    def admit(self, admission: Admission, now: datetime, by: str = "policy") -> None:
        self.admission = admission
        self.admitted_at = now
        if admission.accepted:
            self.add(CallAdmitted(at=now))
        else:
            self.add(CallRejected(at=now, reason=admission.reason))
            self.end("rejected", by, now, said=True)

    def expect_token(self, token_sha256: str) -> None:
        """A stream may open with this token, once. One that was used stays used."""
        self.tokens.setdefault(token_sha256, True)

    def open_session(self, ask: OpenSession, now: datetime) -> tuple[Session, Session | None]:
        """Attach the caller; its token and all others are spent. Returns the new session and a replaced one."""
        self.tokens = dict.fromkeys((*self.tokens, ask.token_sha256), False)
        replaced = self.attached
        if replaced is not None:
            replaced.closed = "replaced"
            self.add(SessionClosed(at=now, session=replaced.number, reason="replaced"))
        number = len(self.sessions) + 1
        session = Session(number=number, bridge_id=ask.bridge_id, stream_id=ask.stream_id, opened_at=now)
        self.sessions.append(session)
        self.detached = None
        self.add(SessionOpened(at=now, session=number, bridge_id=ask.bridge_id, resumed=number > 1))
        self.heard(now)
        return session, replaced

    @property
    def closed_in_order(self) -> bool:
        """The last session was closed by its bridge or by the caller. The bridge records that before it closes the
        stream, so a carrier that asks earlier lost the stream, or the bridge has died."""
        return bool(self.sessions) and self.sessions[-1].closed in ("closed", "stopped")

    @property
    def was_cut(self) -> bool:
        """The session before this one did not end by its bridge's own will: the caller heard it break."""
        return len(self.sessions) > 1 and self.sessions[-2].closed != "closed"

    def detach(self, reason: CloseReason | Literal["asked", "transfer"], now: datetime) -> None:
        """The attached session's stream is gone."""
        if self.attached is not None:
            self.detached = Detached(since=now, reason=reason)

    def lose_bridge(self, bridge_id: str, now: datetime) -> bool:
        """The bridge is dead. False: it does not hold this call, so nothing changed."""
        session = self.attached
        if session is None or session.bridge_id != bridge_id or self.ended_at is not None:
            return False
        session.closed = "bridge_lost"
        session.bridge_died = True
        if self.transfer is not None:
            self.transfer.announced = False  # nobody knows whether it was heard
        if self.ending is not None:
            self.ending.saying = False  # likewise
        self.add(SessionClosed(at=now, session=session.number, reason="bridge_lost"))
        self.detach("bridge_lost", now)
        return True

    def last_held_by(self, bridge_id: str) -> Session | None:
        """The last session, if it was this bridge's."""
        return self.sessions[-1] if self.sessions and self.sessions[-1].bridge_id == bridge_id else None

    def carrier_asks(self, token_sha256: str, now: datetime) -> None:
        """The carrier will open a stream with this token next."""
        self.expect_token(token_sha256)
        self.detach("asked", now)
        if self.detached is not None:
            self.detached.asked_at = now

    def carrier_over(self, outcome: CallOutcome, by: str, now: datetime) -> None:
        """The carrier's own word that the call has ended. While dialling, the dial's status may still come."""
        if self.carrier_over_at is not None:
            return
        self.carrier_over_at = now
        self.left_at = self.left_at or now
        if not self.dialling:
            self.end(outcome, by, now, said=True)

    def begin_transfer(self, to: str, say: str | None, by: str, why: str, now: datetime) -> int:
        say = self.agent.transfer_text if say is None else say
        self.transfer = Transfer(to=to, say=say, by=by)
        return self.add(Commanded(at=now, command="transfer", by=by, why=why, detail=to))

    def settle_transfer(self, outcome: TransferOutcome, seconds: float | None, now: datetime) -> None:
        """The dial is over: the call ends, or the caller comes back with a note that says why."""
        transfer = self.transfer
        if transfer is None:
            return
        self.transfer = None
        self.add(TransferSettled(at=now, to=transfer.to, outcome=outcome, seconds=seconds))
        if outcome == "answered":
            self.end("transferred", transfer.by, now, said=True)
        elif outcome == "caller_left":
            self.end("caller_hung_up", "caller", now, said=True)
        else:
            self.note = transfer_note(self.agent, transfer.to, outcome)
            self.detached = Detached(since=now, reason="transfer", asked_at=now)
            self.heard(now)

    def dial_ended(self, status: DialStatus, seconds: float | None, now: datetime) -> None:
        """What the carrier says of the dial. A repeated or stray status changes nothing."""
        if not self.dialling:
            return
        outcome: TransferOutcome
        if status in ("completed", "answered"):
            outcome = "answered"
        elif self.carrier_over_at is not None:
            outcome = "caller_left"
        elif status == "busy":
            outcome = "busy"
        else:
            outcome = "no_answer" if status == "no-answer" else "failed"
        self.settle_transfer(outcome, seconds, now)

    def command_end(self, say: str | None, by: str, why: str, now: datetime, *, by_carrier: bool = False) -> int:
        say = self.agent.goodbye if say is None else say
        index = self.add(Commanded(at=now, command="end", by=by, why=why, detail=say))
        self.end("completed", by, now, say=say)
        if self.ending is not None:
            self.ending.by_carrier = by_carrier
        return index

    def model_says_goodbye(self, session: int) -> None:
        """The model ended the call, and says goodbye in that same reply: where its session breaks, the agent's
        goodbye is owed."""
        ending = self.ending
        if ending is not None:
            ending.say = self.agent.goodbye
            ending.said = not ending.say
            ending.saying = self.attached is not None and self.attached.number == session

    @property
    def goodbye_heard(self) -> bool:
        """As far as is known now."""
        ending = self.ending
        return ending is not None and (ending.said or (ending.saying and self.closed_in_order))

    def end(self, outcome: CallOutcome, by: str, now: datetime, say: str = "", said: bool = False) -> None:
        """Decide that the call is over. The first decision stays."""
        if self.ending is not None:
            return
        said = said or not say or self.dialling  # who talks to somebody else hears no goodbye of ours
        self.ending = Ending(outcome=outcome, by=by, say=say, said=said)
        if self.transfer is not None:
            left: TransferOutcome = "caller_left" if outcome == "caller_hung_up" else "failed"
            self.add(TransferSettled(at=now, to=self.transfer.to, outcome=left))
            self.transfer = None

    def finish(self, now: datetime) -> None:
        """The caller is gone for good."""
        assert self.ending is not None
        self.ended_at = self.left_at or now
        self.add(CallEnded(at=self.ended_at, outcome=self.ending.outcome, by=self.ending.by))


def transfer_note(agent: AgentSpec, to: str, outcome: TransferOutcome) -> str:
    """What the agent is told of a transfer that failed. Names the target as the agent knows it."""
    name = next((name for name, number in agent.transfers.items() if number == to), to)
    why = {"busy": "the line was busy", "no_answer": "nobody answered"}.get(outcome, "it could not be connected")
    return f"The transfer to {name} failed: {why}. The caller is back with you."
