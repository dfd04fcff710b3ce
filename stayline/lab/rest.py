"""The part of Twilio's REST interface that Stayline uses: place, list, read, steer and end calls."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import re
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from typing import Any, Final

from aiohttp import web
from multidict import MultiDict

from stayline.lab.call import API_VERSION, Fetch, Given, LabCall
from stayline.lab.events import EventLog
from stayline.lab.outbound import STATUS_EVENTS, Order, OutboundCall
from stayline.numbers import is_dialable

_CALLS: Final = re.compile(rf"/{API_VERSION}/Accounts/(?P<account>\w+)/Calls\.json")
_CALL: Final = re.compile(
    rf"/{API_VERSION}/Accounts/(?P<account>\w+)/Calls/(?P<sid>\w+?)(?P<events>/Events)?\.json"
)
_ORDER: Final = frozenset(
    {
        "To",
        "From",
        "Url",
        "Method",
        "Twiml",
        "StatusCallback",
        "StatusCallbackMethod",
        "StatusCallbackEvent",
        "Timeout",
        "TimeLimit",
        "Record",
        "RecordingChannels",
        "MachineDetection",
        "AsyncAmd",
        "AsyncAmdStatusCallback",
        "AsyncAmdStatusCallbackMethod",
    }
)
"""What the lab knows of the parameters that place a call; all of Twilio's that Stayline uses."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """How the interface misbehaves for one request.

    Attributes:
        status: the HTTP status answered, e.g. 429 or 500.
        retry_after: seconds, for the `Retry-After` header.
        delay: seconds before any answer; long ones make a client give up.
        applied: the request takes effect all the same, which the client cannot know.
    """

    status: int = 500
    retry_after: int | None = None
    delay: float = 0.0
    applied: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RestRequest:
    """A request as it came, and the status that was answered."""

    method: str
    path: str
    form: dict[str, str]  #: a key that was repeated: its last value
    status: int


class _Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class RestApi:
    """Answers REST requests for the calls of one account.

    Attributes:
        requests: all that came.
        faults: used up by the requests to come, one each.
    """

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        calls: Mapping[str, LabCall],
        log: EventLog,
        place: Callable[[Order], OutboundCall],
    ) -> None:
        self.requests: list[RestRequest] = []
        self.faults: deque[Fault] = deque()
        self._account_sid = account_sid
        credentials = base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._authorization = f"Basic {credentials}".encode()
        self._calls = calls
        self._log = log
        self._place = place

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        fields = await request.post()
        form = MultiDict((name, value) for name, value in fields.items() if isinstance(value, str))
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            response = await self._misbehave(fault, request, form)
        else:
            response = self._respond(request, form)
        self.requests.append(RestRequest(request.method, request.path, dict(form), response.status))
        match = _CALL.fullmatch(request.path)
        self._log.add(
            "rest",
            f"{request.method} {' '.join(f'{k}={v}' for k, v in form.items())} -> {response.status}",
            call_sid=match["sid"] if match else "",
            status=response.status,
            form=dict(form),
        )
        return response

    async def _misbehave(self, fault: Fault, request: web.Request, form: MultiDict[str]) -> web.Response:
        await asyncio.sleep(fault.delay)
        if fault.applied:
            self._respond(request, form)
        code, message = (20429, "Too Many Requests") if fault.status == 429 else (20500, "Internal Server Error")
        response = _error(_Refused(fault.status, code, message))
        if fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    def _respond(self, request: web.Request, form: MultiDict[str]) -> web.Response:
        try:
            self._check(request)
            if (match := _CALLS.fullmatch(request.path)) is not None:
                if request.method == "POST":
                    return web.json_response(_representation(self._place(_order(form))), status=201)
                return web.json_response(_page(request, "calls", [_representation(c) for c in self._list(request)]))
            match = _CALL.fullmatch(request.path)
            call = self._calls.get(match["sid"]) if match else None
            if match is None or call is None:
                raise _Refused(404, 20404, f"The requested resource {request.path} was not found")
            if match["events"]:
                return web.json_response(_page(request, "events", [_event(*asked) for asked in call.asked]))
            if request.method == "POST":
                self._update(call, form)
            return web.json_response(_representation(call))
        except _Refused as refusal:
            return _error(refusal)

    def _check(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            raise _Refused(401, 20003, "Authenticate")
        match = _CALLS.fullmatch(request.path) or _CALL.fullmatch(request.path)
        if match is None or match["account"] != self._account_sid:
            raise _Refused(404, 20404, f"The requested resource {request.path} was not found")
        if request.method not in ("GET", "POST"):
            raise _Refused(405, 20004, "Method not allowed")

    def _list(self, request: web.Request) -> list[LabCall]:
        """The latest first."""
        query = request.query
        found = [
            call
            for call in self._calls.values()
            if query.get("To", call.to_number) == call.to_number
            and query.get("From", call.from_number) == call.from_number
            and query.get("Status", call.status) == call.status
        ]
        return found[::-1][: int(query.get("PageSize", "50"))]

    def _update(self, call: LabCall, form: MultiDict[str]) -> None:
        steering = [name for name in ("Status", "Twiml", "Url", "TimeLimit") if name in form]
        if len(steering) != 1:
            raise _Refused(400, 20001, "Give exactly one of Status, Twiml, Url, TimeLimit")
        if call.over:
            raise _Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        unanswered = call.status in ("queued", "ringing")
        if isinstance(call, OutboundCall) and unanswered and ("Twiml" in form or "Url" in form):
            raise _Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "TimeLimit" in form:
            if isinstance(call, OutboundCall):
                call.move_time_limit(_whole(form, "TimeLimit", 1, 86400))
        elif "Twiml" in form:
            call.redirect(Given(form["Twiml"]))
        elif "Url" in form:
            if not form["Url"].startswith(("http://", "https://")):
                raise _Refused(400, 21205, "Url is not a valid URL")
            call.redirect(Fetch(form["Url"], form.get("Method", "POST").upper()))
        elif form["Status"] == "completed" or (form["Status"] == "canceled" and unanswered):
            call.hang_up("rest")
        elif form["Status"] != "canceled":  # which leaves a call in progress alone
            raise _Refused(400, 20001, "Status is not valid")


def _order(form: MultiDict[str]) -> Order:
    """Read the parameters that place a call, and refuse what Twilio would refuse."""
    unknown = set(form) - _ORDER
    if unknown:
        raise _Refused(400, 20001, f"The lab does not know {min(unknown)}")
    to, sender = form.get("To", ""), form.get("From", "")
    if not is_dialable(to):
        raise _Refused(400, 21211, "Invalid 'To' Phone Number" if to else "No 'To' number is specified")
    if not is_dialable(sender):
        raise _Refused(400, 21212, "Invalid 'From' Phone Number" if sender else "No 'From' number is specified")
    if ("Url" in form) == ("Twiml" in form):
        raise _Refused(400, 21205, "Give one of Url and Twiml")
    for name in ("Url", "StatusCallback", "AsyncAmdStatusCallback"):
        if name in form and not form[name].startswith(("http://", "https://")):
            raise _Refused(400, 21205, f"{name} is not a valid URL")
    events = tuple(form.getall("StatusCallbackEvent", ["completed"]))
    if not set(events) <= set(STATUS_EVENTS):
        raise _Refused(400, 21626, "Invalid StatusCallbackEvent")
    detection = form.get("MachineDetection", "")
    if detection not in ("", "Enable", "DetectMessageEnd"):
        raise _Refused(400, 20001, "Invalid MachineDetection")
    plan = Fetch(form["Url"], form.get("Method", "POST").upper()) if "Url" in form else Given(form["Twiml"])
    return Order(
        to_number=to,
        from_number=sender,
        plan=plan,
        status_callback=form.get("StatusCallback", ""),
        status_events=events,
        ring_timeout=_whole(form, "Timeout", 1, 600, 60),
        time_limit=_whole(form, "TimeLimit", 1, 86400, 14400),
        detection=bool(detection),
        detection_callback=form.get("AsyncAmdStatusCallback", "") if form.get("AsyncAmd") == "true" else "",
        record=form.get("Record") == "true",
    )


def _whole(form: MultiDict[str], name: str, least: int, most: int, default: int = 0) -> int:
    value = form.get(name, str(default))
    if not value.isdigit() or not least <= int(value) <= most:
        raise _Refused(400, 20001, f"{name} is not between {least} and {most}")
    return int(value)


def _error(refusal: _Refused) -> web.Response:
    return web.json_response(
        {
            "code": refusal.code,
            "message": refusal.message,
            "more_info": f"https://www.twilio.com/docs/errors/{refusal.code}",
            "status": refusal.status,
        },
        status=refusal.status,
    )


def _page(request: web.Request, name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """One page of a list; there never is another."""
    pages = dict.fromkeys(("next_page_uri", "previous_page_uri"))
    size = int(request.query.get("PageSize", "50"))
    return {name: items, "page": 0, "page_size": size, "uri": str(request.rel_url), **pages}


def _event(method: str, url: str, form: dict[str, str]) -> dict[str, Any]:
    """A webhook that was sent, as https://www.twilio.com/docs/voice/api/call-event-resource describes it."""
    return {"request": {"method": method, "url": url, "parameters": form}, "response": {}}


def _representation(call: LabCall) -> dict[str, Any]:
    uri = f"/{API_VERSION}/Accounts/{call.account_sid}/Calls/{call.sid}.json"
    return {
        "sid": call.sid,
        "account_sid": call.account_sid,
        "parent_call_sid": None,
        "api_version": API_VERSION,
        "direction": call.direction,
        "from": call.from_number,
        "to": call.to_number,
        "status": call.status,
        "answered_by": call.answered_by or None if isinstance(call, OutboundCall) else None,
        "date_created": format_datetime(call.created_at),
        "start_time": format_datetime(call.answered_at) if call.answered_at else None,
        "end_time": format_datetime(call.ended_at) if call.ended_at else None,
        "duration": str(round(call.seconds)) if call.ended_at else None,
        "uri": uri,
    }
