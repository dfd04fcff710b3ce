"""The carrier's webhooks: checked, put to the workflow, answered with TwiML. Never silence, never a 500."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any, cast, get_args
from urllib.parse import parse_qsl, urlencode

import structlog
from aiohttp import web
from multidict import MultiDict, MultiDictProxy

from media_bridge import admission
from media_bridge.carriers import signature, twiml
from media_bridge.shared import Shared
from stayline import logs, names, telemetry
from stayline.agent import agent_for
from stayline.call_start import caller_attribute
from stayline.messages import Admission, CarrierStatus, DialStatus, NextStep, Step
from stayline.models import CallInfo
from stayline.timeline import MachineOrPerson

log = structlog.get_logger(__name__)

HOLD_SECONDS = 2
"""Pause before a held call asks again."""
SENT_ON = 5
"""Times that a bridge which drains has a call ask again at once: the carrier may have more connections to it."""
REASSURED = 10
"""Seconds after which a caller who is held, and whose call was answered, is told again that it goes on."""
BODY_WITHIN = 10.0
"""Seconds that a request may take to bring its body. Twilio itself gives up after 15."""
FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 500
APOLOGY = "We are sorry, we cannot take your call right now. Please try again later. Goodbye."
NO_AGENT = "The number you have called is not in service. Goodbye."

_CALL_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATUSES = get_args(CarrierStatus.model_fields["status"].annotation)
_DIAL_STATUSES = get_args(DialStatus)
_ANSWERERS = get_args(MachineOrPerson)

Form = MultiDictProxy[Any]


class Webhooks:
    """`/voice/inbound`, `/voice/next` and `/voice/status`."""

    def __init__(self, bridge: Shared) -> None:
        self._bridge = bridge
        self._settings = bridge.settings
        self._auth_token = bridge.twilio.auth_token.get_secret_value()
        self._status_tasks: set[asyncio.Task[None]] = set()

    async def inbound(self, request: web.Request) -> web.Response:
        """A call comes in, or one that we placed was answered: connect it to a bridge, or refuse it politely."""
        form = await self._form(request)
        call_id = _call_id(request, form)
        if call_id.startswith(names.OUTBOUND_PREFIX):
            return await self._answered(request, call_id, _carrier_call_id(form))
        agent = agent_for(self._bridge.agents, _text(form, "To"))
        if agent is None:
            log.warning("no_agent_for_number")
            return _twiml(twiml.reject(NO_AGENT))
        if self._bridge.draining:
            return self._hold(request, "draining")
        refusal = self._refusal()
        if refusal is not None and refusal.say and _held_for(request) < self._settings.busy_timeout:
            return self._hold(request, "no room")
        call = CallInfo(
            call_id=call_id,
            from_number=_text(form, "From"),
            to_number=_text(form, "To"),
            direction="outbound" if _text(form, "Direction").startswith("outbound") else "inbound",
            carrier=self._settings.carrier,
            started_at=datetime.now(UTC),
            agent=agent.name,
        )
        token, hashed = admission.new_token()
        caller = caller_attribute(self._settings, self._auth_token, call.from_number)
        logs.bind_call(call_id)
        try:
            answer = await admission.admit(
                self._bridge.client, self._settings, self._bridge.id, call, agent, caller, hashed, refusal
            )
        except admission.TemporalAway:
            return self._hold(request, "Temporal is away")
        except admission.CallGone:
            return _twiml(twiml.hang_up())
        if answer == refusal:
            return self._refuse(answer)
        if not answer.accepted:
            log.info("call_rejected", reason=answer.reason)
            return _twiml(twiml.reject(answer.say))
        log.info("call_admitted", agent=agent.name)
        telemetry.metrics.call_started(agent.name, agent.spec().mode)
        self._bridge.capacity.expect(call_id, asyncio.get_running_loop().time())
        return _twiml(self._connect(call_id, token))

    async def _answered(self, request: web.Request, call_id: str, carrier_call_id: str) -> web.Response:
        logs.bind_call(call_id)
        if self._bridge.draining:
            return self._hold(request, "draining", answered=True)
        token, hashed = admission.new_token()
        try:
            answer = await admission.admit_answered(
                self._bridge.client, self._bridge.id, call_id, carrier_call_id, hashed
            )
        except admission.TemporalAway:
            return self._hold(request, "Temporal is away", answered=True)
        except admission.CallGone:
            return _twiml(twiml.hang_up())
        log.info("call_answered", accepted=answer.accepted)
        return _twiml(self._connect(call_id, token) if answer.accepted else twiml.hang_up(answer.say))

    async def next(self, request: web.Request) -> web.Response:
        """A stream or a dial has ended: what the carrier must do now."""
        form = await self._form(request)
        call_id = _call_id(request, form)
        status = _text(form, "DialCallStatus")
        token, hashed = admission.new_token()
        asked = NextStep(
            token_sha256=hashed,
            bridge_id=self._bridge.id,
            dial_status=cast(DialStatus, status) if status in _DIAL_STATUSES else None,
            dial_seconds=_seconds(form, "DialCallDuration"),
            carrier_call_id=_carrier_call_id(form),
            held="told" in request.query,
        )
        logs.bind_call(call_id)
        try:
            step = await admission.next_step(self._bridge.client, call_id, asked)
        except admission.TemporalAway:
            return self._hold(request, "Temporal is away", answered=True)
        except admission.CallGone:
            return _twiml(twiml.hang_up())
        log.info("next_step", action=step.action)
        if step.action == "connect" and self._bridge.draining:
            return self._hold(request, "draining", answered=True)
        return _twiml(self._carry_out(call_id, step, token))

    async def status(self, request: web.Request) -> web.Response:
        """The carrier's word on the call. Answered at once; the workflow hears of it even if Temporal is away."""
        form = await self._form(request)
        call_id = _call_id(request, form)
        who = _text(form, "AnsweredBy")
        word = _text(form, "CallStatus") or ("in-progress" if who else "")  # machine detection tells nothing else
        if word not in _STATUSES:
            raise web.HTTPBadRequest(text="unknown CallStatus")
        status = CarrierStatus(
            status=word,
            duration=_seconds(form, "CallDuration"),
            carrier_call_id=_carrier_call_id(form),
            answered_by=(cast(MachineOrPerson, who) if who in _ANSWERERS else "unknown") if who else None,
        )
        task = asyncio.create_task(self._tell(call_id, status))
        self._status_tasks.add(task)
        task.add_done_callback(self._status_tasks.discard)
        return web.Response(status=204)

    async def _tell(self, call_id: str, status: CarrierStatus) -> None:
        logs.bind_call(call_id)
        try:
            await admission.carrier_status(self._bridge.client, call_id, status, self._settings.admission_timeout)
        except TimeoutError:
            log.error("status_not_delivered", status=status.status)

    # --- answers ---

    def _connect(self, call_id: str, token: str) -> str:
        public = self._settings.public
        parameters = {"token": token}
        if call_id.startswith(names.OUTBOUND_PREFIX):
            parameters[names.CALL_PARAMETER] = call_id
        stream = "ws" + public.removeprefix("http") + names.STREAM_PATH
        return twiml.connect(stream, parameters, names.webhook_url(public, names.NEXT_PATH, call_id))

    def _carry_out(self, call_id: str, step: Step, token: str) -> str:
        match step.action:
            case "connect":
                return self._connect(call_id, token)
            case "dial":
                next_url = names.webhook_url(self._settings.public, names.NEXT_PATH, call_id)
                caller_id = self._bridge.twilio.phone_number
                return twiml.dial(step.to, next_url, step.ring_timeout, caller_id, step.say)
            case "hangup":
                return twiml.hang_up(step.say)

    def _refusal(self) -> Admission | None:
        """What a new call is answered with that the bridge has no room for; None: it has."""
        lacking = self._bridge.lacking
        if lacking is None:
            return None
        reason = self._bridge.capacity.reason(lacking)
        return Admission(accepted=False, say=self._settings.busy_text, reason=reason)

    def _refuse(self, refusal: Admission) -> web.Response:
        log.warning("call_refused", reason=refusal.reason, calls=len(self._bridge.sessions))
        telemetry.metrics.refused("no_room")
        return _twiml(twiml.reject(refusal.say, busy=True))

    def _hold(self, request: web.Request, why: str, *, answered: bool = False) -> web.Response:
        """Keep the caller for a bounded time and ask again, any bridge; then an apology.

        A bridge that drains listens no more, so a new connection leads to another one, and there is no pause.

        Args:
            answered: the caller hears no ringing, so silence would sound like a dead line.
        """
        held = _held_for(request)
        if held >= self._settings.admission_timeout:
            log.error("call_given_up", why=why, seconds=held)
            telemetry.metrics.refused("held_too_long")
            return _twiml(twiml.hang_up(APOLOGY))
        log.warning("call_held", why=why, seconds=held)
        asked = _whole(request.query.get("asked", "")) or 0
        told = _whole(request.query.get("told", ""))  #: for how long it had been held when it was last told so
        query: dict[str, Any] = {**request.query, "since": int(time.time()) - held, "asked": asked + 1}
        pause = 0 if self._bridge.draining and asked < SENT_ON else HOLD_SECONDS
        moves_on = why == "draining" and not pause
        say = ""
        if answered and not moves_on and (told is None or held - told >= REASSURED):
            say, query["told"] = self._settings.hold_text, held
        url = f"{self._settings.public}{request.path}?{urlencode(query)}"
        return _twiml(twiml.hold(pause, url, say))

    # --- requests ---

    async def _form(self, request: web.Request) -> Form:
        """The form, if it is the carrier's.

        Raises:
            HTTPForbidden: not signed, or signed with another token.
            HTTPRequestTimeout, HTTPBadRequest, HTTPRequestEntityTooLarge: its body.
        """
        form = await _read_form(request)
        if self._settings.validate_signatures:
            url = self._settings.public + request.path_qs
            header = request.headers.get(signature.HEADER)
            if not signature.check_webhook(self._auth_token, url, form, header):
                telemetry.metrics.refused("webhook_signature")
                if logs.once(f"webhook_signature {request.path}"):
                    log.warning("webhook_refused", reason="signature", path=request.path)
                raise web.HTTPForbidden(text="signature")
        return form


async def _read_form(request: web.Request) -> Form:
    """The form. Twilio sends UTF-8, and no other kind of body; what is none is read as an empty form.

    Not `request.post`, which fails in many ways over what strangers may send, and waits for it for ever.
    """
    try:
        async with asyncio.timeout(BODY_WITHIN):
            body = await request.read()
        if request.content_type != FORM_TYPE:
            return MultiDictProxy(MultiDict())
        fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="body") from None
    except (web.RequestPayloadError, ConnectionError, ValueError):
        raise web.HTTPBadRequest(text="body") from None
    return MultiDictProxy(MultiDict(fields))


def _call_id(request: web.Request, form: Form) -> str:
    """Of a call that we placed: the id that its addresses name, signed by the carrier. Else the carrier's."""
    if names.CALL_PARAMETER not in request.query:
        return _carrier_call_id(form)
    call_id = request.query[names.CALL_PARAMETER]
    if not (_CALL_SID.fullmatch(call_id) and call_id.startswith(names.OUTBOUND_PREFIX)):
        raise web.HTTPBadRequest(text="malformed call")
    return call_id


def _carrier_call_id(form: Form) -> str:
    call_id = _text(form, "CallSid")
    if not _CALL_SID.fullmatch(call_id) or call_id.startswith(names.OUTBOUND_PREFIX):
        raise web.HTTPBadRequest(text="CallSid is missing or malformed")
    return call_id


def _held_for(request: web.Request) -> int:
    """Whole seconds since the call was first held; 0: it was not."""
    since = _whole(request.query.get("since", ""))  # part of the signed URL, so it is our own
    return 0 if since is None else int(time.time()) - since


def _seconds(form: Form, key: str) -> float | None:
    seconds = _whole(_text(form, key))
    return None if seconds is None else float(seconds)


def _whole(text: str) -> int | None:
    """Not `isdigit` alone: "²" is one too, and `int` does not take it."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None


def _text(form: Form, key: str) -> str:
    value = form.get(key, "")
    return value if isinstance(value, str) else ""


def _twiml(document: str) -> web.Response:
    return web.Response(text=document, content_type=twiml.CONTENT_TYPE)
