"""The part of Twilio's REST interface that Stayline uses: read a call, end it, give it other TwiML."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import re
from collections import deque
from collections.abc import Mapping
from email.utils import format_datetime
from typing import Any, Final

from aiohttp import web

from stayline.lab.call import API_VERSION, Fetch, Given, LabCall
from stayline.lab.events import EventLog

_CALL: Final = re.compile(rf"/{API_VERSION}/Accounts/(?P<account>\w+)/Calls/(?P<sid>\w+)\.json")


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
    form: dict[str, str]
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

    def __init__(self, account_sid: str, auth_token: str, calls: Mapping[str, LabCall], log: EventLog) -> None:
        self.requests: list[RestRequest] = []
        self.faults: deque[Fault] = deque()
        self._account_sid = account_sid
        credentials = base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._authorization = f"Basic {credentials}".encode()
        self._calls = calls
        self._log = log

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        fields = await request.post()
        form = {name: value for name, value in fields.items() if isinstance(value, str)}
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            response = await self._misbehave(fault, request, form)
        else:
            response = self._respond(request, form)
        self.requests.append(RestRequest(request.method, request.path, form, response.status))
        match = _CALL.fullmatch(request.path)
        self._log.add(
            "rest",
            f"{request.method} {' '.join(f'{k}={v}' for k, v in form.items())} -> {response.status}",
            call_sid=match["sid"] if match else "",
            status=response.status,
            form=form,
        )
        return response

    async def _misbehave(self, fault: Fault, request: web.Request, form: dict[str, str]) -> web.Response:
        await asyncio.sleep(fault.delay)
        if fault.applied:
            self._respond(request, form)
        code, message = (20429, "Too Many Requests") if fault.status == 429 else (20500, "Internal Server Error")
        response = _error(_Refused(fault.status, code, message))
        if fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    def _respond(self, request: web.Request, form: dict[str, str]) -> web.Response:
        try:
            call = self._find(request)
            if request.method == "POST":
                self._update(call, form)
            return web.json_response(_representation(call))
        except _Refused as refusal:
            return _error(refusal)

    def _find(self, request: web.Request) -> LabCall:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            raise _Refused(401, 20003, "Authenticate")
        match = _CALL.fullmatch(request.path)
        call = self._calls.get(match["sid"]) if match else None
        if match is None or call is None or match["account"] != self._account_sid:
            raise _Refused(404, 20404, f"The requested resource {request.path} was not found")
        if request.method not in ("GET", "POST"):
            raise _Refused(405, 20004, "Method not allowed")
        return call

    def _update(self, call: LabCall, form: dict[str, str]) -> None:
        steering = [name for name in ("Status", "Twiml", "Url") if name in form]
        if len(steering) != 1:
            raise _Refused(400, 20001, "Give exactly one of Status, Twiml, Url")
        if call.over:
            raise _Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "Twiml" in form:
            call.redirect(Given(form["Twiml"]))
        elif "Url" in form:
            if not form["Url"].startswith(("http://", "https://")):
                raise _Refused(400, 21205, "Url is not a valid URL")
            call.redirect(Fetch(form["Url"], form.get("Method", "POST").upper()))
        elif form["Status"] == "completed" or (form["Status"] == "canceled" and call.status == "ringing"):
            call.hang_up("rest")
        elif form["Status"] != "canceled":  # which leaves a call in progress alone
            raise _Refused(400, 20001, "Status is not valid")


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


def _representation(call: LabCall) -> dict[str, Any]:
    uri = f"/{API_VERSION}/Accounts/{call.account_sid}/Calls/{call.sid}.json"
    return {
        "sid": call.sid,
        "account_sid": call.account_sid,
        "parent_call_sid": None,
        "api_version": API_VERSION,
        "direction": "inbound",
        "from": call.from_number,
        "to": call.to_number,
        "status": call.status,
        "date_created": format_datetime(call.created_at),
        "start_time": format_datetime(call.answered_at) if call.answered_at else None,
        "end_time": format_datetime(call.ended_at) if call.ended_at else None,
        "duration": str(round(call.seconds)) if call.ended_at else None,
        "uri": uri,
    }
