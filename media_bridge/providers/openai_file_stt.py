"""OpenAI's file transcription: each utterance of the caller is one request, when it is over.

The utterances are found here (`utterances`). No words come before the end of a turn, and then a whole request is
waited for: the live models are faster. Audio goes as a WAV file of 16-bit PCM, because raw μ-law is not taken.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, ProviderConfig, SttEvent, SttProfile
from media_bridge.providers.hearing_queue import HearingQueue
from media_bridge.providers.llm_http import provider_errors
from media_bridge.providers.openai_client import OpenAIClient, request_id
from media_bridge.providers.openai_stt_options import OpenAISttOptions, file_request
from media_bridge.providers.openai_turns import confidence_of
from media_bridge.providers.turn_order import Turn, TurnOrder
from media_bridge.providers.utterances import (
    UtteranceFinder,
    UtteranceOver,
    UtteranceRule,
    UtteranceStarted,
    warm_vad,
)
from stayline.errors import ProviderError

TRIES: Final = 2
PATIENCE: Final = 1.0
"""Seconds: a `Retry-After` that is longer is not waited for; another recogniser is sooner."""

Transcribe = Callable[[bytes], Awaitable[tuple[str, float | None]]]
"""μ-law audio of an utterance to its text and, where known, the confidence in it."""


class FileTranscription:
    """See `SttProvider`. The options are checked."""

    def __init__(self, config: ProviderConfig, options: OpenAISttOptions) -> None:
        self.profile = SttProfile(native_mulaw=False)
        self._config = config
        self._options = options
        self._request = file_request(config, options)
        self._client = OpenAIClient(
            config, connect_timeout=options.connect_timeout, read_timeout=options.final_timeout
        )

    async def warm(self) -> None:
        """Load what is needed, and ask for the model.

        Raises:
            ProviderError: OpenAI refused or could not be reached.
        """
        await warm_vad()
        await self._client.warm()

    async def connect(self, *, call_id: str) -> FileStream:
        """Open one call's ear. Nothing is asked of OpenAI before the first utterance."""
        await warm_vad()
        await self._client.ready()
        numbers = itertools.count(1)

        async def transcribe(audio: bytes) -> tuple[str, float | None]:
            return await self._transcribe(audio, request_id(call_id, "stt", next(numbers)))

        return FileStream(transcribe, self._options.rule())

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _transcribe(self, audio: bytes, headers: dict[str, str]) -> tuple[str, float | None]:
        with provider_errors(self._config):
            client = await self._client.ready()
            async with asyncio.timeout(self._options.final_timeout):
                answer: Any = await client.audio.transcriptions.create(
                    file=("utterance.wav", wav(audio), "audio/wav"), extra_headers=headers, **self._request
                )
            logprobs = [token.model_dump() for token in getattr(answer, "logprobs", None) or ()]
            return str(answer.text), confidence_of(logprobs)


class FileStream:
    """One call's ear: an utterance at a time."""

    def __init__(self, transcribe: Transcribe, rule: UtteranceRule) -> None:
        self._transcribe = transcribe
        self._finder = UtteranceFinder(rule)
        self._order = TurnOrder()
        self._events = HearingQueue()
        self._requests: set[asyncio.Task[None]] = set()

    async def send(self, audio: bytes) -> None:
        if self._events.ended:
            return
        for event in self._finder.push(audio):
            if isinstance(event, UtteranceStarted):
                self._order.begin(event.at_ms)
            elif isinstance(event, UtteranceOver):
                task = asyncio.create_task(self._write_down(self._order.open[-1], event), name="openai-stt-file")
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
        self._events.put(self._order.due())

    def __aiter__(self) -> AsyncIterator[SttEvent]:
        return self

    async def __anext__(self) -> SttEvent:
        return await self._events.get()

    async def aclose(self) -> None:
        """Close; requests under way are cut off."""
        self._events.close()
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)

    async def _write_down(self, turn: Turn, over: UtteranceOver) -> None:
        try:
            text, confidence = await self._patiently(over.audio)
        except ProviderError as error:
            self._fail(error)
            return
        turn.text = text
        turn.end = EndOfTurn(text.strip(), confidence, speech_end_ms=over.speech_end_ms, speech_ms=over.speech_ms)
        self._events.put(self._order.due())

    async def _patiently(self, audio: bytes) -> tuple[str, float | None]:
        for left in reversed(range(TRIES)):
            try:
                return await self._transcribe(audio)
            except ProviderError as error:
                wait = error.retry_after or 0.0
                if not left or not error.retryable or wait > PATIENCE:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _fail(self, error: ProviderError) -> None:
        """The words are lost, and with them what is said next: whoever listens goes to another recogniser."""
        for turn in self._order.open:
            turn.end = turn.end or EndOfTurn("")
        self._events.put(self._order.due())
        self._events.fail(error)
        for task in self._requests - {asyncio.current_task()}:
            task.cancel()


def wav(audio: bytes) -> bytes:
    """μ-law audio as a WAV file: mono, 8 kHz, 16-bit PCM."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(mulaw.SAMPLE_RATE)
        writer.writeframes(mulaw.decode(audio).astype("<i2").tobytes())
    return file.getvalue()
