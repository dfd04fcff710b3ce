"""ElevenLabs' voice over the websocket, and over HTTP when that lets it down.

The first time that the websocket is refused or lost is told, as of any vendor: the bridge connects again. The
second time the call goes on over HTTP, the utterance at work included, from the character to which it was heard.
What HTTP would say too (a wrong key, no credit, no such voice) is told at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from media_bridge.providers.base import SpeechChunk, Utterance
from media_bridge.providers.elevenlabs_http import HttpVoice
from media_bridge.providers.elevenlabs_voice import ElevenLabsVoice
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

TROUBLES: Final = 2  #: refusals and losses of the websocket after which a call goes on over HTTP
REST = 60.0  #: seconds for which new calls do not try the websocket after that many in a row


class WebsocketHealth:
    """How the websocket has been doing, for all calls of a process: what one call found out spares the others."""

    def __init__(self) -> None:
        self.troubles = 0  #: in a row, over all calls
        self._last = 0.0

    @property
    def resting(self) -> bool:
        return self.troubles >= TROUBLES and asyncio.get_running_loop().time() - self._last < REST

    def failed(self) -> None:
        self.troubles += 1
        self._last = asyncio.get_running_loop().time()

    def worked(self) -> None:
        self.troubles = 0


class SteadyVoice:
    """One call's voice: on the websocket as long as that works, then over HTTP."""

    def __init__(self, socket: ElevenLabsVoice, http: HttpVoice, health: WebsocketHealth) -> None:
        self._socket = socket
        self._http = http
        self._health = health
        self._troubles = 0
        self._known: ProviderError | None = None  #: the last trouble that was counted: utterances share a loss
        self._connected = False
        self.over_http = False

    async def connect(self) -> None:
        """
        Raises:
            ProviderError: ElevenLabs refused or could not be reached, and HTTP is not to be tried instead.
        """
        if self._health.resting:
            self.over_http = True
            return
        try:
            await self._socket.connect()
            self._connected = True
        except ProviderError as error:
            self.trouble(error)

    async def utterance(self) -> Utterance:
        """Begin to speak.

        Raises:
            ProviderError: as `connect`; the connection was lost and could not be opened again.
        """
        if not self.over_http:
            try:
                return SteadyUtterance(self, await self._socket.utterance())
            except ProviderError as error:
                self.trouble(error)
        return await self._http.utterance()

    async def aclose(self) -> None:
        await self._http.aclose()
        if self._connected:
            await self._socket.aclose()

    # --- what utterances ask for ----------------------------------------------------------------------

    def trouble(self, error: ProviderError) -> None:
        """The websocket failed. Returns if the call is to go on over HTTP.

        Raises:
            ProviderError: the error, if it is to be told.
        """
        if _same_over_http(error):
            raise error
        if error is not self._known:
            self._known = error
            self._troubles += 1
            self._health.failed()
        enough = self._troubles >= TROUBLES or self._health.troubles >= TROUBLES
        if not self.over_http and not enough and error.status != 403:
            raise error
        if not self.over_http:
            log.warning("%s; the call goes on over HTTP", error.message)
            self.over_http = True

    def worked(self) -> None:
        self._health.worked()

    async def http_utterance(self) -> Utterance:
        return await self._http.utterance()


def _same_over_http(error: ProviderError) -> bool:
    """Whether HTTP would give the same answer. 403 is how a model is refused that has no websocket."""
    return error.status == 429 or (not error.retryable and error.status != 403)


class SteadyUtterance:
    """One utterance, which may begin on the websocket and end over HTTP."""

    def __init__(self, voice: SteadyVoice, inner: Utterance) -> None:
        self._voice = voice
        self._inner = inner
        self._text = ""
        self._finished = False
        self._ended = False
        self._moved = False  #: to HTTP
        self._base = 0  #: characters that were spoken before the move
        self._heard: int | None = 0  #: characters spoken at the end of what was yielded; None: not known

    async def send(self, text: str) -> None:
        if not self._finished and not self._ended:
            self._text += text
            await self._inner.send(text)

    async def finish(self) -> None:
        if not self._finished and not self._ended:
            self._finished = True
            await self._inner.finish()

    def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        return self

    async def __anext__(self) -> SpeechChunk:
        try:
            chunk = await anext(aiter(self._inner))
        except ProviderError as error:
            await self._move(error)
            chunk = await anext(aiter(self._inner))
        except StopAsyncIteration:
            if not self._ended and not self._moved:
                self._voice.worked()
            self._ended = True
            raise
        if chunk.chars is not None:
            chunk = SpeechChunk(chunk.audio, self._base + chunk.chars)
        self._heard = chunk.chars
        return chunk

    async def cancel(self) -> None:
        self._ended = True
        await self._inner.cancel()

    async def _move(self, error: ProviderError) -> None:
        """Have the rest of the text spoken over HTTP.

        Raises:
            ProviderError: the error, if that is not to be, or it is not known how much was heard.
        """
        if self._moved or self._ended:
            raise error
        self._voice.trouble(error)
        if self._heard is None:
            raise error
        self._moved, self._base = True, self._heard
        self._inner = await self._voice.http_utterance()
        await self._inner.send(self._text[self._base :])
        if self._finished:
            await self._inner.finish()
        log.info("elevenlabs tts: an utterance goes on over HTTP after %d of its characters", self._base)
