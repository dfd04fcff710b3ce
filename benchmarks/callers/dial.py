"""How a call begins and ends at the server: through the signed webhooks at Stayline, at once elsewhere."""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol
from urllib.parse import urljoin

import aiohttp
from picows import ws_connect

from benchmarks.callers.call import Call
from benchmarks.callers.script import Script
from stayline.lab import verbs
from stayline.lab.webhooks import Webhooks
from stayline.names import INBOUND_PATH, STATUS_PATH

PATIENCE = 30.0  #: seconds for a websocket's handshake


class Refused(Exception):
    """The server takes no more calls."""


class Exchange(Protocol):
    """Connects calls to a server."""

    async def connect(self, script: Script) -> Call: ...
    async def over(self, call: Call) -> None: ...


class Plain:
    """Any server: the websocket at an address. `{number}` in it is the call's number."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self, script: Script) -> Call:
        call = Call(script, "CA" + secrets.token_hex(16), "AC" + "0" * 32)
        url = self._url.replace("{number}", str(script.number))
        await ws_connect(lambda: call, url, websocket_handshake_timeout=PATIENCE)
        return call

    async def over(self, call: Call) -> None:
        call.hang_up()


class Carrier:
    """Stayline: a signed webhook, its TwiML, the signed websocket with the token; at the end a status callback."""

    def __init__(self, http: aiohttp.ClientSession, url: str, account_sid: str, auth_token: str) -> None:
        self._webhooks = Webhooks(http, auth_token, url)
        self._account_sid = account_sid

    async def connect(self, script: Script) -> Call:
        call_sid = "CA" + secrets.token_hex(16)
        connect = await self._admitted(call_sid)
        call = Call(script, call_sid, self._account_sid, connect.parameters)
        headers = self._webhooks.sign_stream(connect.stream_url)
        await ws_connect(
            lambda: call, connect.stream_url, extra_headers=headers, websocket_handshake_timeout=PATIENCE
        )
        return call

    async def over(self, call: Call) -> None:
        call.hang_up()
        form = self._form(call.call_sid, "completed")
        await self._webhooks.notify(self._webhooks.public_url + STATUS_PATH, form)

    async def _admitted(self, call_sid: str) -> verbs.Connect:
        url = self._webhooks.public_url + INBOUND_PATH
        while True:
            said = await self._webhooks.twiml("POST", url, self._form(call_sid, "ringing"))
            for verb in verbs.parse_twiml(said):
                match verb:
                    case verbs.Connect():
                        return verb
                    case verbs.Pause():
                        await asyncio.sleep(verb.seconds)
                    case verbs.Redirect():
                        url = urljoin(url, verb.url)
                        break
                    case _:
                        raise Refused(f"the call was not taken: {verb}")

    def _form(self, call_sid: str, status: str) -> dict[str, str]:
        return {
            "AccountSid": self._account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call_sid,
            "CallStatus": status,
            "Direction": "inbound",
            "From": "+15550100001",
            "To": "+15550100002",
        }
