"""Deepgram, as its clients see it: the `/v1` and `/v2` websockets of `listen` and of `speak` at one origin.

    async with FakeDeepgram(hears=["Hello there.", Heard("I need a plumber.", ends_by="utterance_end")]) as fake:
        ... ProviderConfig("deepgram", "nova-3", api_key=fake.api_key, base_url=fake.url)
        fake.listened[0].audio_bytes, fake.requests[0].messages

As strict as the vendor: wrong key, unknown or ill-matched parameters and unknown messages are refused its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from tests.fakes.deepgram_listen import FluxListener, Heard, NovaListener, Script
from tests.fakes.deepgram_speak import AuraSpeaker, FluxSpeaker, Interrupts
from tests.fakes.misbehaviour import FakeServer, Recorded, refuse
from tests.fakes.socket import FakeSocket
from tests.fakes.sound import Pace, Sound, tone_of

__all__ = ["FakeDeepgram", "Heard"]

Check = Callable[[str], bool]


def _is(*values: str) -> Check:
    return lambda value: value in values


def _number(low: float, high: float) -> Check:
    def check(value: str) -> bool:
        try:
            return low <= float(value) <= high
        except ValueError:
            return False

    return check


_bool = _is("true", "false")
_text: Check = bool

LISTEN_V1: dict[str, Check] = {
    "model": lambda value: value.startswith(("nova", "enhanced", "base")),
    "encoding": _is("mulaw"),
    "sample_rate": _is("8000"),
    "language": _text,
    "interim_results": _bool,
    "endpointing": lambda value: value == "false" or _number(0, 10000)(value),
    "utterance_end_ms": _number(1000, 5000),
    "vad_events": _bool,
    "smart_format": _bool,
    "punctuate": _bool,
    "numerals": _bool,
    "profanity_filter": _bool,
    "mip_opt_out": _bool,
    "keyterm": _text,
    "keywords": _text,
    "redact": _text,
    "replace": _text,
    "tag": _text,
}
LISTEN_V2: dict[str, Check] = {
    "model": _is("flux-general-en", "flux-general-multi"),
    "encoding": _is("mulaw"),
    "sample_rate": _is("8000"),
    "eot_threshold": _number(0.5, 1.0),
    "eager_eot_threshold": _number(0.3, 0.9),
    "eot_timeout_ms": _number(500, 60000),
    "keyterm": _text,
    "language_hint": _text,
    "numerals": _bool,
    "profanity_filter": _bool,
    "redact": _text,
    "mip_opt_out": _bool,
    "tag": _text,
}
SPEAK_V1: dict[str, Check] = {
    "model": lambda value: value.startswith("aura-"),
    "encoding": _is("mulaw"),
    "sample_rate": _is("8000"),
    "speed": _number(0.7, 1.5),
    "mip_opt_out": _bool,
}
SPEAK_V2: dict[str, Check] = {
    "model": lambda value: value.startswith("flux-"),
    "encoding": _is("mulaw"),
    "sample_rate": _is("8000"),
    "speed": lambda value: _number(0.5, 1.5)(value) and round(float(value) * 20, 6).is_integer(),
    "expressivity": _is("-2", "-1", "0", "1", "2"),
    "mip_opt_out": _bool,
    "tag": _text,
}


class FakeDeepgram(FakeServer):
    nova_listener = NovaListener
    flux_listener = FluxListener

    def __init__(
        self,
        hears: Sequence[str | Heard] = (),
        *,
        api_key: str = "deepgram-test-key",
        ms_per_char: float = 60,
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self.script: Script = list(hears)  #: what coming bursts of sound say; add to it at any time
        self.pace = Pace(ms_per_char)
        self.sound: Sound = tone_of  #: what Aura makes of a text
        self.interrupts: Interrupts = "obeyed"
        self.listened: list[NovaListener | FluxListener] = []  #: one per connection

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/listen", self._listen_v1),
            web.get("/v2/listen", self._listen_v2),
            web.get("/v1/speak", self._speak_v1),
            web.get("/v2/speak", self._speak_v2),
        ]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        code, text = {
            400: ("Bad Request", "Bad Request: unsupported parameter."),
            401: ("INVALID_AUTH", "Invalid credentials."),
            429: ("TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
        }.get(status, ("INTERNAL_SERVER_ERROR", "Something went wrong."))
        body = {"err_code": code, "err_msg": text, "request_id": "5c1f0d6e-0000-4000-8000-000000000000"}
        return web.json_response(body, status=status, headers={**headers, "dg-error": text})

    async def _listen_v1(self, request: web.Request) -> web.WebSocketResponse:
        recorded, socket = await self._enter(request, LISTEN_V1)
        nova3 = recorded.param("model")[0].startswith("nova-3")
        if recorded.param("keywords" if nova3 else "keyterm"):
            self._refuse(400)
        if recorded.param("utterance_end_ms") and recorded.param("interim_results") != ["true"]:
            self._refuse(400)
        listener = self.nova_listener(socket, recorded, self.script)
        self.listened.append(listener)
        return await socket.serve(listener.talk)

    async def _listen_v2(self, request: web.Request) -> web.WebSocketResponse:
        recorded, socket = await self._enter(request, LISTEN_V2)
        listener = self.flux_listener(socket, recorded, self.script)
        self.listened.append(listener)
        return await socket.serve(listener.talk)

    async def _speak_v1(self, request: web.Request) -> web.WebSocketResponse:
        _, socket = await self._enter(request, SPEAK_V1)
        return await socket.serve(AuraSpeaker(socket, self.pace, self.sound).talk)

    async def _speak_v2(self, request: web.Request) -> web.WebSocketResponse:
        error = {"type": "Error", "code": "NET-0000", "description": "Internal failure"}
        _, socket = await self._enter(request, SPEAK_V2, error)
        return await socket.serve(FluxSpeaker(socket, self.pace, self.interrupts).talk)

    async def _enter(
        self, request: web.Request, allowed: dict[str, Check], error: dict[str, str] | None = None
    ) -> tuple[Recorded, FakeSocket]:
        recorded, fault = await self.begin(request)
        if recorded.headers.get("authorization") != f"Token {self.api_key}":
            self._refuse(401)
        for name, value in recorded.query:
            if name not in allowed or not allowed[name](value):
                self._refuse(400)
        for needed in ("model", "encoding", "sample_rate"):
            if len(recorded.param(needed)) != 1:
                self._refuse(400)
        if error is None:
            error = {"type": "Error", "variant": "InternalError", "description": "Internal failure", "message": ""}
        return recorded, FakeSocket(self, request, recorded, fault, error=error)

    def _refuse(self, status: int) -> None:
        refuse(self.error_response(status, {}))
