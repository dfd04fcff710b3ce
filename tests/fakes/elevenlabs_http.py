"""ElevenLabs' text to speech over HTTP: `/stream` (bare μ-law) and `/stream/with-timestamps` (lines of JSON).

Mounted by `FakeElevenLabs`, whose key, voices and pace it has. Refusals are statuses with ElevenLabs' own body.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.misbehaviour import Misbehaviour, cut, refuse

if TYPE_CHECKING:
    from tests.fakes.elevenlabs import FakeElevenLabs

QUERY = {"output_format", "enable_logging", "optimize_streaming_latency"}
BODY = {
    "text",
    "model_id",
    "language_code",
    "voice_settings",
    "seed",
    "previous_text",
    "next_text",
    "apply_text_normalization",
}
VOICE_SETTINGS = {"stability", "similarity_boost", "style", "use_speaker_boost", "speed"}
CHARS_PER_LINE = 12
LONGEST = 40_000  #: characters of a request


def detail(status: int, name: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"detail": {"type": "error", "code": name, "message": message, "status": name}}
    return web.json_response(body, status=status, headers={"request-id": "req-7", **(headers or {})})


class HttpSpeaker:
    def __init__(self, fake: FakeElevenLabs) -> None:
        self._fake = fake
        self.times_begin_anew = False  #: the times of each line count from that line's audio
        self.words_first = False  #: all of the alignment comes with the first line
        self._transports: set[asyncio.Transport] = set()

    @property
    def connections(self) -> int:
        """Connections over which speech was asked for, and which the client has not closed."""
        return sum(not transport.is_closing() for transport in self._transports)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/text-to-speech/{voice}/stream", self._bare),
            web.post("/v1/text-to-speech/{voice}/stream/with-timestamps", self._timed),
        ]

    async def _bare(self, request: web.Request) -> web.StreamResponse:
        text, response, fault = await self._begin(request, "audio/basic")
        for number, piece in enumerate(_pieces(text)):
            await self._misbehave(request, response, fault, number)
            await self._fake.pace.wait(number)
            await response.write(self._fake.sound(piece, self._fake.pace.ms_per_char))
        return response

    async def _timed(self, request: web.Request) -> web.StreamResponse:
        text, response, fault = await self._begin(request, "application/json")
        step = self._fake.pace.ms_per_char / 1000
        at = 0
        for number, piece in enumerate(_pieces(text)):
            await self._misbehave(request, response, fault, number)
            await self._fake.pace.wait(number)
            shown, first = piece, 0 if self.times_begin_anew else at
            if self.words_first:
                shown = "" if number else text
            alignment = {
                "characters": list(shown),
                "character_start_times_seconds": [round((first + i) * step, 3) for i in range(len(shown))],
                "character_end_times_seconds": [round((first + i + 1) * step, 3) for i in range(len(shown))],
            }
            told = alignment if shown and self._fake.alignment else None
            line = {
                "audio_base64": base64.b64encode(self._fake.sound(piece, self._fake.pace.ms_per_char)).decode(),
                "alignment": told,
                "normalized_alignment": told,
            }
            await response.write(json.dumps(line).encode() + b"\n\n")
            at += len(piece)
        return response

    async def _begin(self, request: web.Request, kind: str) -> tuple[str, web.StreamResponse, Misbehaviour | None]:
        recorded, fault = await self._fake.begin(request)
        if request.transport is not None:
            self._transports.add(request.transport)
        if recorded.headers.get("xi-api-key") != self._fake.api_key:
            refuse(detail(401, "invalid_api_key", "Invalid API key"))
        if request.match_info["voice"] not in self._fake.voices:
            refuse(detail(404, "voice_not_found", "A voice with this id does not exist."))
        if {name for name, _ in recorded.query} - QUERY or recorded.param("output_format") != ["ulaw_8000"]:
            refuse(detail(422, "invalid_parameters", "Invalid query parameters."))
        body = json.loads(recorded.body)
        self._check(body)
        response = web.StreamResponse(headers={"Content-Type": kind, "request-id": "req-7"})
        await response.prepare(request)
        return body["text"], response, fault

    def _check(self, body: dict[str, Any]) -> None:
        if set(body) - BODY or set(body.get("voice_settings", {})) - VOICE_SETTINGS:
            refuse(detail(422, "invalid_parameters", f"Invalid body with {sorted(body)}."))
        if not body["text"].strip() or len(body["text"]) > LONGEST:
            refuse(detail(400, "invalid_text", "The text is empty or too long."))
        if body["model_id"].startswith("eleven_v3") and {"previous_text", "next_text"} & set(body):
            refuse(detail(400, "unsupported_model", "Providing previous_text is not yet supported."))
        if "language_code" in body and not body["model_id"].endswith("_v2_5"):
            refuse(detail(400, "unsupported_language", "The model does not take a language."))

    async def _misbehave(
        self, request: web.Request, response: web.StreamResponse, fault: Misbehaviour | None, sent: int
    ) -> None:
        if fault is None or fault.after != sent:
            return
        match fault.what:
            case "disconnect":
                await asyncio.sleep(0)
                assert request.transport is not None
                request.transport.close()
                raise ConnectionResetError("misbehaviour")
            case "half_message":
                await response.write(b'{"audio_base64":"aGFs')
                assert request.transport is not None
                request.transport.close()
                raise ConnectionResetError("misbehaviour")
            case "hang":
                await self._fake.closing.wait()
                cut(request)
            case "garbage":
                await response.write(b"{ this is not JSON\n[]\n")
            case "unknown_message":
                await response.write(b'{"type":"SomethingNew","value":1}\n')
            case _:
                pass


def _pieces(text: str) -> list[str]:
    return [text[begin : begin + CHARS_PER_LINE] for begin in range(0, len(text), CHARS_PER_LINE)]
