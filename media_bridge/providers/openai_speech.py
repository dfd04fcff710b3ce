"""OpenAI text to speech over the speech endpoint, `/v1/audio/speech`: one request per piece of text.

It answers with 24 kHz PCM as it is made, which is taken down to the line's 8 kHz μ-law. The connection pool of
the client keeps connections warm between requests. All models of this endpoint are switched off on 2027-01-06.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

from media_bridge.audio.pcm import PcmToMulaw
from media_bridge.providers.base import ProviderConfig, TtsProfile
from media_bridge.providers.llm_http import provider_errors
from media_bridge.providers.openai_client import OpenAIClient, request_id
from media_bridge.providers.openai_pieces import Piece, PiecewiseUtterance
from stayline.errors import ProviderError

RATE: Final = 24000
"""Samples a second of `response_format: pcm`: 16-bit signed little-endian mono without a header."""


class SpeechEndpoint:
    """See `TtsProvider`.

    Args:
        request: what every request says besides the text: voice, speed, instructions.
    """

    profile = TtsProfile(native_mulaw=False)

    def __init__(
        self, config: ProviderConfig, request: dict[str, Any], *, connect_timeout: float, read_timeout: float
    ) -> None:
        self._config = config
        self._request = request
        self._client = OpenAIClient(config, connect_timeout=connect_timeout, read_timeout=read_timeout)

    async def warm(self) -> None:
        await self._client.warm()

    async def connect(self, *, call_id: str) -> EndpointVoice:
        """Get ready for one call. Nothing is asked of OpenAI before the first text."""
        with provider_errors(self._config):
            client = await self._client.ready()
        return EndpointVoice(self._config, client, self._request, call_id)

    async def aclose(self) -> None:
        await self._client.aclose()


class EndpointVoice:
    """One call's voice: the requests in work."""

    def __init__(self, config: ProviderConfig, client: Any, request: dict[str, Any], call_id: str) -> None:
        self._config = config
        self._client = client
        self._request = request
        self._call_id = call_id
        self._numbers = itertools.count(1)
        self._utterances: list[PiecewiseUtterance] = []
        self._tasks: dict[Piece, asyncio.Task[None]] = {}
        self._closed = False

    async def utterance(self) -> PiecewiseUtterance:
        """Begin to speak.

        Raises:
            ProviderError: this voice was closed.
        """
        if self._closed:
            raise ProviderError("openai", "the voice of this call is closed.", retryable=False)
        self._utterances = [utterance for utterance in self._utterances if not utterance.audio.ended]
        self._utterances.append(PiecewiseUtterance(self))
        return self._utterances[-1]

    async def aclose(self) -> None:
        self._closed = True
        for utterance in self._utterances:
            await utterance.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what utterances ask for ---------------------------------------------------------------------

    async def begin(self, piece: Piece) -> None:
        task = asyncio.create_task(self._read(piece), name="openai-tts")
        self._tasks[piece] = task
        task.add_done_callback(lambda _: self._tasks.pop(piece, None))

    async def drop(self, piece: Piece) -> None:
        task = self._tasks.get(piece)
        if task is not None and task is not asyncio.current_task():
            task.cancel()  # closes the connection
            await asyncio.gather(task, return_exceptions=True)

    async def _read(self, piece: Piece) -> None:
        try:
            with provider_errors(self._config):
                await self._receive(piece)
        except ProviderError as error:
            await piece.fail(error)
        else:
            await piece.finish()

    async def _receive(self, piece: Piece) -> None:
        line = PcmToMulaw(RATE)
        async with self._client.audio.speech.with_streaming_response.create(
            model=self._config.model,
            input=piece.text,
            response_format="pcm",
            extra_headers=request_id(self._call_id, "tts", next(self._numbers)),
            **self._request,
        ) as response:
            async for pcm in response.iter_bytes():
                piece.put(line.push(pcm))
        piece.put(line.flush())
