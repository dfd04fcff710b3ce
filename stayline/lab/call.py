"""One call at the lab carrier: asks the bridge what to do, does it, and holds the line meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urljoin

from stayline.errors import ConfigError
from stayline.lab import verbs
from stayline.lab.buffer import FRAME_MS, SILENCE, PlayBuffer
from stayline.lab.callee import Callee
from stayline.lab.events import EventLog, Kind
from stayline.lab.line import Caller
from stayline.lab.stream import MediaStream, StreamEnd
from stayline.lab.voice import speak
from stayline.lab.webhooks import Webhooks
from stayline.names import INBOUND_PATH, STATUS_PATH

API_VERSION: Final = "2010-04-01"

EndedBy = Literal["caller", "bridge", "rest", "error", "timeout", "carrier"]
"""Who ended the call: the caller (or who was called); the bridge's TwiML (its end, `<Hangup>` or `<Reject>`); its
REST request; a Twilio error; nobody, until the lab's time limit; or the carrier, by the call's own time limit or
because the lab shuts down."""


@dataclasses.dataclass(frozen=True, slots=True)
class DialOutcome:
    """How a dialled number takes the call."""

    status: Literal["completed", "busy", "no-answer", "failed"] = "completed"
    ring_seconds: float = 1.0
    talk_seconds: float = 2.0  #: of a completed one


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """Where Twilio may do the one or the other.

    Attributes:
        on_break: after a media socket that broke without a close frame, `wait` leaves the caller in silence
            until a REST request steers the call or `break_timeout` ends it; `next` goes on with the TwiML.
        dials: outcomes of transfers by number or SIP address; others are answered.
        callees: who takes the calls that are placed by REST, by number or SIP address; others are answered by
            somebody who listens.
        repeats: every webhook is sent twice, of which the second answer counts, and so is the status callback,
            followed by an older one.
        say_aloud: `<Say>` is spoken where the voice is installed; otherwise it takes as long in silence.
    """

    on_break: Literal["wait", "next"] = "wait"
    break_timeout: float = 120.0  #: seconds
    dials: dict[str, DialOutcome] = dataclasses.field(default_factory=dict)
    callees: dict[str, Callee] = dataclasses.field(default_factory=dict)
    say_aloud: bool = True
    repeats: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch:
    """TwiML that must be asked for."""

    url: str
    method: str = "POST"
    form: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """TwiML that came in a REST request."""

    twiml: str


class LabCall:
    """A call, from the first webhook to the status callback. Made by `LabCarrier.place_call`.

    Attributes:
        status: Twilio's word for it: queued, ringing, in-progress, completed, busy, no-answer, failed, canceled.
        ended_by: None while it lives.
        error: Twilio's error code that ended it.
        protocol_errors: messages on its streams that Twilio would not have understood.
        asked: the webhooks that were sent about it: method, address and form.
    """

    direction: ClassVar[str] = "inbound"

    def __init__(
        self,
        *,
        account_sid: str,
        from_number: str,
        to_number: str,
        caller: Caller,
        webhooks: Webhooks,
        behaviour: Behaviour,
        log: EventLog,
        plan: Fetch | Given | None = None,
    ) -> None:
        self.sid = "CA" + secrets.token_hex(16)
        self.account_sid = account_sid
        self.from_number = from_number
        self.to_number = to_number
        self.caller = caller
        self.status = "ringing"
        self.created_at = datetime.now(UTC)
        self.answered_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.ended_by: EndedBy | None = None
        self.error: int | None = None
        self.streams = 0
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._closed_protocol_errors = 0
        self._webhooks = webhooks
        self._behaviour = behaviour
        self._log = log
        self._plan: Fetch | Given | None = plan or Fetch(webhooks.public_url + INBOUND_PATH)
        self._base = webhooks.public_url + INBOUND_PATH
        self._work: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self._answered_time = 0.0
        self._over = asyncio.Event()
        self._defect: ExceptionGroup | None = None
        self._stream: MediaStream | None = None
        self._announcement: PlayBuffer | None = None
        self._announced = asyncio.Event()

    # --- what others do with it

    @property
    def over(self) -> bool:
        return self.ended_by is not None

    @property
    def seconds(self) -> float:
        """How long the caller has been (or was) connected."""
        if self.answered_at is None:
            return 0.0
        return ((self.ended_at or datetime.now(UTC)) - self.answered_at).total_seconds()

    @property
    def protocol_errors(self) -> int:
        return self._closed_protocol_errors + (self._stream.protocol_errors if self._stream else 0)

    async def wait(self) -> None:
        """Until the call is over and its status callback was delivered (or failed).

        Raises:
            ExceptionGroup: the caller (or the lab itself) has a defect.
        """
        await self._over.wait()
        if self._defect is not None:
            raise self._defect

    def hang_up(self, by: EndedBy = "caller") -> None:
        """End the call now. Does nothing when it is over."""
        if self._finish(by, f"by: {by}"):
            self._interrupt(None)

    def redirect(self, plan: Fetch | Given) -> bool:
        """Give the live call other TwiML, as a REST request does. False when it is over."""
        if self.over:
            return False
        self._interrupt(plan)
        return True

    def fall_silent(self) -> bool:
        """The carrier's end of the stream stops sending, and says nothing. False: there is no stream."""
        if self._stream is None:
            return False
        self._event("fault", "the stream falls silent")
        self._stream.fall_silent()
        return True

    def drop_stream(self) -> bool:
        """The stream's connection breaks without a word. False: there is no stream."""
        if self._stream is None:
            return False
        self._event("fault", "the stream is dropped")
        self._stream.drop()
        return True

    async def run(self) -> None:
        """Live through the call."""
        self._event("call", f"{self.from_number} -> {self.to_number}")
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(work) for work in self._beside()]
                self._work = group.create_task(self._ring())
                await asyncio.wait({self._work})
                while self._plan is not None:
                    plan, self._plan = self._plan, None
                    self._work = group.create_task(self._follow(plan))
                    await asyncio.wait({self._work})
                for task in beside:
                    task.cancel()
            await self._report()
        except ExceptionGroup as defect:
            self._defect = defect
            self._finish("error", "a defect in the lab")
        finally:
            self._finish("carrier", "the lab was stopped")
            self.caller.close()
            self._over.set()

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on for as long as the call does."""
        return [self._line()]

    async def _ring(self) -> None:
        """What comes before the first TwiML: a call that comes in rings until the TwiML answers it."""

    # --- the line

    async def _line(self) -> None:
        """Both directions of the audio, 20 ms at a time, in real time from the answer on."""
        await self._answered.wait()
        loop = asyncio.get_running_loop()
        began = loop.time()
        ticks = 0
        while True:
            late = loop.time() - (began + ticks * FRAME_MS / 1000)
            await asyncio.sleep(max(0.0, -late))
            stream = self._stream if self._stream is not None and self._stream.live else None
            source = stream.buffer if stream else self._announcement
            heard, marks = source.frame() if source else (SILENCE, [])
            queued = source.queued_ms if source else 0.0
            spoken = self.caller.tick(heard, at_ms=ticks * FRAME_MS, queued_ms=queued)
            ticks += 1
            if stream is not None:
                for mark in marks:
                    stream.echo(mark)
                stream.caller_audio(spoken.audio)
                if spoken.digit:
                    stream.dtmf(spoken.digit)
            elif marks:
                self._announced.set()
            if spoken.digit:
                self._event("dtmf", spoken.digit, heard=stream is not None)
            if spoken.hang_up:
                self.hang_up("caller")
                return

    def _cleared(self) -> None:
        now = asyncio.get_running_loop().time()
        self.caller.cleared(round((now - self._answered_time) * 1000))

    # --- TwiML

    def _interrupt(self, plan: Fetch | Given | None) -> None:
        self._plan = plan
        if self._work is not None:
            self._work.cancel()

    async def _follow(self, plan: Fetch | Given) -> None:
        """Carry out a document and those that it leads to, until the call has nothing left to do."""
        following: Fetch | Given | None = plan
        try:
            while following is not None:
                following = await self._perform(verbs.parse_twiml(await self._document(following)))
        except verbs.CarrierFault as fault:
            self.error = fault.code
            self._event("error", str(fault), code=fault.code)
            if self.answered_at is None:
                self.status = "failed"
            self._finish("error", str(fault))

    async def _document(self, plan: Fetch | Given) -> str:
        if isinstance(plan, Given):
            return plan.twiml
        self._base = plan.url
        form = self.form() | plan.form
        self.asked.append((plan.method, plan.url, form))
        text = await self._webhooks.twiml(plan.method, plan.url, form)
        if self._behaviour.repeats:  # the first answer got lost
            text = await self._webhooks.twiml(plan.method, plan.url, form)
        self._event("webhook", f"{plan.method} {plan.url}", twiml=text, **plan.form)
        return text

    async def _perform(self, document: list[verbs.Verb]) -> Fetch | None:
        for verb in document:
            self._event("twiml", type(verb).__name__, verb=verb)
            match verb:
                case verbs.Redirect():
                    return self._fetch(verb.url, verb.method)
                case verbs.Pause():  # as a call's first verb, it leaves the caller ringing
                    await asyncio.sleep(verb.seconds)
                case verbs.Reject():
                    if self.answered_at is None:
                        self.status = "busy" if verb.reason == "busy" else "no-answer"
                    self._finish("bridge", "rejected")
                    return None
                case _:
                    self._answer()
                    following = await self._perform_answered(verb)
                    if following is not None or self.over:
                        return following
        self._finish("bridge", "the TwiML came to its end")
        return None

    async def _perform_answered(self, verb: verbs.Verb) -> Fetch | None:
        match verb:
            case verbs.Hangup():
                self._finish("bridge", "Hangup")
            case verbs.Say():
                await self._say(verb.text)
            case verbs.Connect():
                end = await self._connect(verb)
                if end == "broken" and self._behaviour.on_break == "wait":
                    await asyncio.sleep(self._behaviour.break_timeout)
                    self._finish("carrier", "nobody took the call after its stream broke")
                elif verb.action is not None:
                    return self._fetch(verb.action, verb.method)
            case verbs.Dial():
                form = await self._dial(verb)
                if verb.action is not None:
                    return self._fetch(verb.action, verb.method, form)
            case _:
                pass  # <Play> takes no time here
        return None

    async def _connect(self, verb: verbs.Connect) -> StreamEnd:
        stream = MediaStream(
            call_sid=self.sid,
            account_sid=self.account_sid,
            parameters=verb.parameters,
            log=self._log,
            on_clear=self._cleared,
        )
        self._stream = stream
        self.streams += 1
        try:
            return await stream.run(
                self._webhooks.reachable(verb.stream_url), self._webhooks.sign_stream(verb.stream_url)
            )
        finally:
            self._closed_protocol_errors += stream.protocol_errors
            self._stream = None

    async def _say(self, text: str) -> None:
        """Speak to the caller, and wait until it was heard."""
        buffer = PlayBuffer()
        buffer.add(await self._spoken(text))
        buffer.mark("said")
        self._announced.clear()
        self._announcement = buffer
        try:
            await self._announced.wait()
        finally:
            self._announcement = None

    async def _spoken(self, text: str) -> bytes:
        if self._behaviour.say_aloud:
            try:
                return (await speak(text, voice="en-GB")).audio
            except ConfigError:
                pass  # no voice here, or nothing to pronounce
        return SILENCE * (len(text) * 3)  # 60 ms a character is an ordinary pace

    async def _dial(self, verb: verbs.Dial) -> dict[str, str]:
        outcome = self._behaviour.dials.get(verb.to, DialOutcome())
        status = outcome.status
        if outcome.ring_seconds > verb.ring_timeout:
            status = "no-answer"
        await asyncio.sleep(min(outcome.ring_seconds, verb.ring_timeout))
        form = {"DialCallStatus": status, "DialCallSid": "CA" + secrets.token_hex(16)}
        if status == "completed":
            self._event("dial", f"{verb.to} answered")
            await asyncio.sleep(outcome.talk_seconds)
            form |= {"DialCallDuration": str(round(outcome.talk_seconds)), "DialBridged": "true"}
        self._event("dial", f"{verb.to} {status}", status=status)
        return form

    def _fetch(self, url: str, method: str, form: dict[str, str] | None = None) -> Fetch:
        return Fetch(urljoin(self._base, url), method, form or {})

    # --- how it stands

    def form(self) -> dict[str, str]:
        """What every webhook of the call says."""
        return {
            "AccountSid": self.account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": self.sid,
            "CallStatus": self.status,
            "Called": self.to_number,
            "Caller": self.from_number,
            "Direction": self.direction,
            "From": self.from_number,
            "To": self.to_number,
        }

    def _answer(self) -> None:
        if self.answered_at is None:
            self.answered_at = datetime.now(UTC)
            self._answered_time = asyncio.get_running_loop().time()
            self.status = "in-progress"
            self._answered.set()
            self._event("answered")

    def _finish(self, by: EndedBy, why: str) -> bool:
        """Mark the call as over. False when it was already."""
        if self.over:
            return False
        self.ended_by = by
        self.ended_at = datetime.now(UTC)
        if self.status in ("queued", "ringing", "in-progress"):
            self.status = "completed" if self.answered_at or by == "bridge" else "canceled"
            if by == "caller" and self.answered_at is None:
                self.status = "no-answer"
        self._event("hang_up", why, by=by)
        return True

    async def _report(self) -> None:
        """The status callback of an ended call."""
        url = self._webhooks.public_url + STATUS_PATH
        await self._notify(url, self._progress(self.status, 0))
        if self._behaviour.repeats:  # once more, and then what should have come before it
            await self._notify(url, self._progress(self.status, 0))
            await self._notify(url, self._progress("in-progress", 0))
        self._event("ended", f"{self.status}, {self.seconds:.1f} s", by=self.ended_by)

    def _progress(self, status: str, number: int) -> dict[str, str]:
        """The form of a status callback."""
        form = self.form() | {
            "CallStatus": status,
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(number),
            "Timestamp": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000"),
        }
        return form | ({"CallDuration": str(round(self.seconds))} if self.over else {})

    async def _notify(self, url: str, form: dict[str, str]) -> None:
        self.asked.append(("POST", url, form))
        self._event("status", form.get("CallStatus") or form["AnsweredBy"], url=url)
        try:
            await self._webhooks.notify(url, form)
        except verbs.CarrierFault as fault:
            self._event("error", str(fault), code=fault.code)

    def _event(self, kind: Kind, detail: str = "", **data: object) -> None:
        self._log.add(kind, detail, call_sid=self.sid, **data)
