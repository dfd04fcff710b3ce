"""OpenAI's two ways to speak: `POST /v1/audio/speech`, and a Realtime session that reads out.

    voice = OpenAIVoice()
    async with FakeOpenAI(speech=voice.endpoint, realtime=voice.session) as fake:
        ... ProviderConfig("openai", "gpt-4o-mini-tts", api_key=fake.key, base_url=fake.url)

60 ms a character. The endpoint answers with a tone as 24 kHz PCM, in chunks that cut samples in halves; a session
(`openai_reading`) answers with μ-law in which each character is so many bytes of its code, so `spelled` tells what
was said. Messages of a session are checked with the SDK's own types, both ways, and for what else OpenAI refuses.
"""

from __future__ import annotations

import array
import asyncio
import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.misbehaviour import Misbehaviour, cut
from tests.fakes.openai_reading import OWN_VOICE, REALTIME_VOICES, Reading, error_object, refusal
from tests.fakes.socket import FakeSocket

if TYPE_CHECKING:
    from tests.fakes.openai import FakeOpenAI

VOICES = [*REALTIME_VOICES, "fable", "onyx", "nova"]
SPEECH_MODELS = {"tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15"}
SPEECH_KEYS = {"model", "input", "voice", "response_format", "speed", "instructions"}
CHUNK = 4801  #: bytes: 100 ms of PCM and half a sample


def pcm_tone(ms: float) -> bytes:
    """400 Hz at 24 kHz, 16-bit little-endian."""
    wave = [round(9000 * math.sin(2 * math.pi * i / 60)) for i in range(60)]
    samples = array.array("h", (wave[i % 60] for i in range(round(ms * 24))))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


class OpenAIVoice:
    def __init__(self, *, ms_per_char: float = 60) -> None:
        self.ms_per_char = ms_per_char
        self.asked: list[dict[str, Any]] = []  #: requests, and responses asked for in sessions
        self.hold: dict[int, int] = {}
        """Number of a request (from 1) -> pieces of its audio after which it waits for `go_on`."""
        self.go_on = asyncio.Event()
        self.transcript: Callable[[str], str] = lambda text: text  #: what a session says that it said
        self.endings: dict[int, dict[str, Any]] = {}
        """Number of a response -> its `status` and `status_details`, after half of its audio."""
        self.peers: set[tuple[str, int]] = set()  #: addresses from which the endpoint was asked
        self.hung_up = asyncio.Event()  #: set when a client left a request of the endpoint in the middle
        self.cancelled: list[str] = []  #: what cancelled responses were to say
        self.refuses: set[str] = set()  #: texts for which a session makes no response
        self.complaint = ""  #: an error that a session reports once it is configured

    # --- /v1/audio/speech ----------------------------------------------------------------------------

    async def endpoint(self, fake: FakeOpenAI, request: web.Request) -> web.StreamResponse:
        recorded, fault = await fake.begin(request)
        fake._check_key(request)
        body: dict[str, Any] = json.loads(recorded.body)
        self._check_request(fake, body)
        self.asked.append(body)
        if request.transport is not None:
            self.peers.add(request.transport.get_extra_info("peername"))
        number = len(self.asked)
        sound = pcm_tone(len(body["input"]) * self.ms_per_char)
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        await response.prepare(request)
        try:
            for sent, begin in enumerate(range(0, len(sound), CHUNK)):
                if self.hold.get(number) == sent:
                    await fake._hold(request, self.go_on)
                if fault is not None and fault.due(sent):
                    await self._go_wrong(fake, request, response, fault)
                await response.write(sound[begin : begin + CHUNK])
                await asyncio.sleep(0)
        except ConnectionError:
            self.hung_up.set()
            raise
        return response

    def _check_request(self, fake: FakeOpenAI, body: dict[str, Any]) -> None:
        for name in set(body) - SPEECH_KEYS:
            fake._bad(f"Unknown parameter: '{name}'.", "unknown_parameter", name)
        fake._check_model(body.get("model"))
        if body["model"] not in SPEECH_MODELS:
            fake._bad("This is not a speech model.", "invalid_value", "model")
        voice = body.get("voice")
        if voice not in VOICES and voice != {"id": OWN_VOICE}:
            fake._bad(f"Invalid value: '{voice}'.", "invalid_value", "voice")
        if not isinstance(body.get("input"), str) or not 0 < len(body["input"]) <= 4096:
            fake._bad("Invalid 'input': string too long or empty.", "string_above_max_length", "input")
        if body.get("response_format") != "pcm":
            fake._bad("This fake speaks PCM only.", "invalid_value", "response_format")
        if not 0.25 <= body.get("speed", 1) <= 4:
            fake._bad("Invalid 'speed'.", "invalid_value", "speed")
        if "instructions" in body and body["model"].startswith("tts-1"):
            fake._bad("Unsupported parameter: 'instructions'.", "unsupported_parameter", "instructions")

    async def _go_wrong(
        self, fake: FakeOpenAI, request: web.Request, response: web.StreamResponse, fault: Misbehaviour
    ) -> None:
        match fault.what:
            case "hang":
                await fake._hold(request, fake.closing)
                cut(request)
            case "half_message":
                await response.write(b"\0" * 101)
                cut(request)
            case "disconnect":
                cut(request)

    # --- /v1/realtime --------------------------------------------------------------------------------

    async def session(self, fake: FakeOpenAI, request: web.Request) -> web.StreamResponse:
        recorded, fault = await fake.begin(request)
        fake._check_key(request)
        error = {
            "type": "error",
            "event_id": "event_x",
            "error": error_object("server_error", "It broke.", "server_error"),
        }
        socket = FakeSocket(fake, request, recorded, fault, error=error)
        model = recorded.param("model")

        async def talk() -> None:
            if [name for name, _ in recorded.query] != ["model"] or not model[0].startswith("gpt-realtime"):
                raise refusal("invalid_model", f"Model {model} is not supported in realtime mode.")
            if "openai-beta" in recorded.headers:
                raise refusal("beta_api_shape_disabled", "The Realtime Beta API is no longer supported.")
            if model[0] in fake.unknown_models:
                raise refusal("model_not_found", f"The model '{model[0]}' does not exist.")
            await Reading(self, socket, model[0]).talk()

        return await socket.serve(talk)
