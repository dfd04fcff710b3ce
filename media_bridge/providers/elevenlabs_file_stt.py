"""ElevenLabs' Scribe by the utterance: what the caller said is found here, with Silero, and sent as a file.

`POST /v1/speech-to-text`, a form; the answer has the text and its words. Dearer in time than a live session, since
nothing is recognised before the caller is silent, but it takes the models that have none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

import aiohttp
from pydantic import Field

from media_bridge.audio import mulaw
from media_bridge.audio.resample import resample
from media_bridge.providers.base import EndOfTurn, ProviderConfig, SttEvent
from media_bridge.providers.elevenlabs_client import ElevenLabsClient
from media_bridge.providers.elevenlabs_scribe import language, utterance_rule
from media_bridge.providers.options import Options
from media_bridge.providers.turn_order import Turn, TurnOrder
from media_bridge.providers.utterances import UtteranceFinder, UtteranceOver, UtteranceRule, UtteranceStarted
from media_bridge.providers.vendor_socket import MALFORMED, Query
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

PATH: Final = "/v1/speech-to-text"
RATE: Final = 16_000  #: of `pcm_s16le_16`, which ElevenLabs answers sooner than any encoded sound
LEAST: Final = 0.5  #: seconds that must be left for a second request
_KEYTERM: Final = Field(min_length=1, max_length=50, pattern=r"^[^<>{}\[\]\\]*$")


class ScribeFileOptions(Options):
    """Options of the models that take files, by ElevenLabs' own names. The first three are our turn detection's."""

    vad_silence_threshold_secs: float = Field(0.5, ge=0.3, le=3)  #: that ends a turn
    vad_threshold: float | None = Field(None, ge=0.1, le=0.9)  #: None: 0.5
    min_speech_duration_ms: int | None = Field(None, ge=50, le=2000)  #: None: 60
    keyterms: tuple[Annotated[str, _KEYTERM], ...] = Field((), max_length=1000)  #: cost a fifth more
    no_verbatim: bool | None = None  #: True: no fillers and false starts
    temperature: float | None = Field(None, ge=0, le=2)
    enable_logging: bool | None = None  #: False: zero retention, where the account may
    final_timeout: float = Field(8.0, gt=0)  #: seconds from the end of a turn until its words are there

    def rule(self) -> UtteranceRule:
        return utterance_rule(self.vad_threshold, self.vad_silence_threshold_secs, self.min_speech_duration_ms)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What all requests of a configured recogniser have in common."""

    query: Query
    fields: tuple[tuple[str, str], ...]


def request(config: ProviderConfig, options: ScribeFileOptions) -> Request:
    fields = {"model_id": config.model, "file_format": "pcm_s16le_16", "tag_audio_events": "false"}
    fields |= language(config)
    if options.no_verbatim is not None:
        fields["no_verbatim"] = str(options.no_verbatim).lower()
    if options.temperature is not None:
        fields["temperature"] = str(options.temperature)
    logging_ = [] if options.enable_logging is None else [("enable_logging", options.enable_logging)]
    return Request(logging_, (*fields.items(), *(("keyterms", term) for term in options.keyterms)))


class FileStream:
    """One call's ear. Utterances are written down as they end, also two at once, and told in their order."""

    def __init__(self, client: ElevenLabsClient, request: Request, options: ScribeFileOptions) -> None:
        self._client = client
        self._request = request
        self._timeout = options.final_timeout
        self._finder = UtteranceFinder(options.rule())
        self._order = TurnOrder()
        self._open: Turn | None = None
        self._over: asyncio.Queue[tuple[Turn, UtteranceOver]] = asyncio.Queue()
        self._events: asyncio.Queue[SttEvent | None] = asyncio.Queue()
        self._error: ProviderError | None = None
        self._closed = False
        self._run_task = asyncio.create_task(self._run(), name="elevenlabs-file-stt")

    async def send(self, audio: bytes) -> None:
        if self._closed or self._error is not None:
            return
        for event in self._finder.push(audio):
            if isinstance(event, UtteranceStarted):
                self._open = self._order.begin(event.at_ms)
            elif isinstance(event, UtteranceOver) and self._open is not None:
                self._over.put_nowait((self._open, event))
                self._open = None
        self._tell()

    def __aiter__(self) -> AsyncIterator[SttEvent]:
        return self

    async def __anext__(self) -> SttEvent:
        event = await self._events.get()
        if event is not None:
            return event
        self._events.put_nowait(None)
        if self._error is not None and not self._closed:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed = True
        self._run_task.cancel()
        await asyncio.gather(self._run_task, return_exceptions=True)
        self._events.put_nowait(None)

    def _tell(self) -> None:
        for event in self._order.due():
            self._events.put_nowait(event)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as requests:
                while True:
                    turn, over = await self._over.get()
                    requests.create_task(self._write_down(turn, over))
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if not isinstance(first, ProviderError):
                log.error("elevenlabs stt: the adapter failed", exc_info=first)
                first = ProviderError("elevenlabs", f"the adapter failed ({type(first).__name__}).", retryable=True)
            self._error = first
        finally:
            self._events.put_nowait(None)

    async def _write_down(self, turn: Turn, over: UtteranceOver) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout
        sound = await asyncio.to_thread(_pcm, over.audio)
        try:
            text, confidence = await self._ask(sound, self._timeout)
        except ProviderError as error:
            left = until - clock()
            if not error.retryable or error.retry_after or left < LEAST:
                raise
            log.info("elevenlabs stt: %s; asking again", error.message)
            text, confidence = await self._ask(sound, left)
        turn.end = EndOfTurn(text, confidence, speech_end_ms=over.speech_end_ms, speech_ms=over.speech_ms)
        self._tell()

    async def _ask(self, sound: bytes, timeout: float) -> tuple[str, float | None]:
        """The words of an utterance, and how sure ElevenLabs is of them."""
        form = aiohttp.FormData()
        for name, value in self._request.fields:
            form.add_field(name, value)
        form.add_field("file", sound, filename="utterance.pcm", content_type="application/octet-stream")
        async with self._client.post(
            PATH,
            query=self._request.query,
            form=form,
            read_timeout=timeout,
            total_timeout=timeout,
        ) as response:
            raw = await response.read()
        try:
            answer = json.loads(raw)
            return answer["text"].strip(), _confidence(answer)
        except MALFORMED:
            raise ProviderError("elevenlabs", "the answer is not its protocol.", retryable=True) from None


def _pcm(audio: bytes) -> bytes:
    """μ-law at 8 kHz as linear samples at 16 kHz, 16-bit little-endian. 1.2 ms of work for a second of sound."""
    samples = resample(mulaw.to_float(audio), mulaw.SAMPLE_RATE, RATE)
    return (samples.clip(-1.0, 1.0) * 32767.0).astype("<i2").tobytes()


def _confidence(answer: Mapping[str, Any]) -> float | None:
    """Mean probability of the words (geometric)."""
    logprobs = [word["logprob"] for word in answer.get("words") or () if word.get("type") == "word"]
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else None
