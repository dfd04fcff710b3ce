"""One call's voice at Deepgram Flux TTS: the `/v2/speak` websocket.

It speaks in turns: text is spoken as it comes in (Deepgram finds the clauses itself), `Flush` ends the turn, and
`SpeechMetadata` follows the last of its audio (`Flushed` is only an acknowledgement and may come before it).
`Interrupt` ends a turn in the middle and is answered by `SpeechInterrupted`, or by a `Warning` where it changed
nothing. The connection is kept: Flux carries its tone from turn to turn. Audio frames do not say which turn they
belong to, so one utterance, which is one turn, is at work at a time and later ones wait in line
(developers.deepgram.com, flux-tts: client-messages, server-messages, interrupt-handling; not tried live).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection

from media_bridge.providers.base import SpeechChunk
from media_bridge.providers.speech_queue import SpeechQueue
from media_bridge.providers.speech_socket import SpeechSocket
from media_bridge.providers.vendor_socket import scrub
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

LONGEST: Final = 2000  #: characters in one `Speak`, as for Aura; how it is cut does not matter to Flux
INTERRUPT_TIMEOUT = 1.0  #: seconds that an answer to `Interrupt` may take before the next turn goes elsewhere

_IGNORED: Final = frozenset({"NO_AUDIO_GENERATED", "INTERRUPT_IN_PROGRESS", "INVALID_INTERRUPT_OFFSET"})
"""Warnings that mean: the `Interrupt` was ignored, and the turn goes on."""


class FluxVoice:
    """One call's voice at Flux: a connection, and the utterances in line for it."""

    def __init__(self, open_: Callable[[], Awaitable[ClientConnection]], secret: str) -> None:
        self._socket = SpeechSocket("deepgram", self, open_)
        self._secret = secret
        self._line: deque[FluxUtterance] = deque()
        self._entering = asyncio.Lock()
        self._closed = False
        self._fresh()

    async def connect(self) -> None:
        """
        Raises:
            ProviderError: Deepgram refused or could not be reached.
        """
        self._fresh()
        await self._socket.connect()

    async def utterance(self) -> FluxUtterance:
        """Begin to speak. An earlier utterance that was not finished is finished now; a voice says one thing
        at a time. Waits, shortly, until a cancelled one has been silenced.

        Raises:
            ProviderError: the connection was lost and cannot be opened again.
        """
        async with self._entering:
            if self._line:
                await self._line[-1].finish()
            if not self._silenced.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERRUPT_TIMEOUT):
                        await self._silenced.wait()
            if self._closed:
                raise ProviderError("deepgram", "the voice of this call is closed.", retryable=False)
            if not self._silenced.is_set():
                await self._socket.abort("it went on speaking after it was interrupted.")
            if not self._socket.alive:
                await self.connect()
            utterance = FluxUtterance(self)
            self._line.append(utterance)
            return utterance

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._silenced.set()
        async with self._entering:
            for utterance in self._line:
                utterance.audio.drop()
            self._line.clear()
            await self._socket.hang_up(goodbye={"type": "Close"})

    # --- what Deepgram says --------------------------------------------------------------------------

    def _fresh(self) -> None:
        self._spoke = False  #: audio has come on this connection
        self._silenced = asyncio.Event()  #: no answer to an `Interrupt` is outstanding
        self._silenced.set()

    @property
    def due(self) -> bool:
        return not self._silenced.is_set() or bool(self._line and self._line[0].flushed)

    async def hear(self, message: dict[str, Any] | bytes) -> None:
        if isinstance(message, bytes):
            self._spoke = True
            if self._line and self._silenced.is_set():
                self._line[0].audio.put(message)
            return
        kind = message.get("type")
        if kind == "SpeechMetadata" and self._silenced.is_set() and self._line:
            self._line.popleft().over()
            await self._next()
        elif kind == "SpeechInterrupted":
            await self._silent()
        elif kind in ("Warning", "Error"):
            await self._complain(str(kind), str(message.get("code")), str(message.get("description")))

    async def _complain(self, kind: str, code: str, description: str) -> None:
        interrupting = not self._silenced.is_set()
        if interrupting and code == "NO_ACTIVE_SPEECH":  # the turn had just ended by itself
            await self._silent()
            return
        said = scrub(f"{code}: {description}", self._secret)
        log.warning("deepgram tts: %s: %s", kind.lower(), said)
        if kind == "Error":
            self._socket.said = said
        elif interrupting and code in _IGNORED:
            await self._socket.abort("it went on speaking after it was interrupted.")

    async def _silent(self) -> None:
        if not self._silenced.is_set():
            self._silenced.set()
            await self._next()

    async def _next(self) -> None:
        if self._line:
            await self.work(self._line[0])

    async def lost(self, error: ProviderError) -> None:
        self._silenced.set()
        while self._line:
            self._line.popleft().audio.fail(error)

    # --- what utterances ask for ---------------------------------------------------------------------

    async def work(self, utterance: FluxUtterance) -> None:
        """Send what the utterance has to say, if it is its turn."""
        if not self._line or self._line[0] is not utterance or not self._silenced.is_set():
            return
        text = utterance.take()
        for start in range(0, len(text), LONGEST):
            await self._socket.send({"type": "Speak", "text": text[start : start + LONGEST]})
        if utterance.wants_flush():
            await self._socket.send({"type": "Flush"})
        if utterance.mute and self._line and self._line[0] is utterance:
            self._line.popleft().over()
            await self._next()

    async def leave(self, utterance: FluxUtterance) -> None:
        """The utterance was cancelled: have Deepgram stop speaking it."""
        if utterance not in self._line:
            return
        speaking = utterance is self._line[0]
        self._line.remove(utterance)
        if not speaking:
            return
        if not utterance.at_vendor:
            await self._next()
        elif self._spoke:
            self._silenced.clear()
            await self._socket.send({"type": "Interrupt"})
        else:  # Flux ignores an `Interrupt` before the first audio of a session
            await self._socket.abort("the connection was closed to stop an utterance.")


class FluxUtterance:
    """One utterance, one turn."""

    def __init__(self, voice: FluxVoice) -> None:
        self._voice = voice
        self._unsaid = ""
        self._length = 0  #: characters of the whole text so far
        self._finished = False
        self.audio = SpeechQueue()
        self.at_vendor = False  #: text was sent; its audio has not all come as long as we are in line
        self.flushed = False

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        if self.audio.ended or self._finished:
            return
        self._unsaid += text
        self._length += len(text)
        await self._voice.work(self)

    async def finish(self) -> None:
        if not self.audio.ended and not self._finished:
            self._finished = True
            await self._voice.work(self)

    def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        return self

    async def __anext__(self) -> SpeechChunk:
        return await self.audio.get()

    async def cancel(self) -> None:
        self.audio.drop()
        await self._voice.leave(self)

    # --- the voice's side ----------------------------------------------------------------------------

    @property
    def mute(self) -> bool:
        """It is finished and had nothing to say."""
        return self._finished and not self.at_vendor

    def take(self) -> str:
        """Text to send now; blanks wait for the words that follow them."""
        if not self._unsaid.strip():
            return ""
        text, self._unsaid = self._unsaid, ""
        self.at_vendor = True
        return text

    def wants_flush(self) -> bool:
        """Whether to end the turn now."""
        if not self._finished or not self.at_vendor or self.flushed:
            return False
        self.flushed = True
        return True

    def over(self) -> None:
        self.audio.finish(self._length)
