"""One call's voice at ElevenLabs: the multi-context websocket.

One socket per call, one context per utterance; every message carries its context's id, so a cancelled
utterance's late audio is told apart from the next one's. The next context is always open already: it keeps the
socket warm between utterances (ElevenLabs closes idle ones) and is one message less when speech is due.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers import elevenlabs_alignment
from media_bridge.providers.base import SpeechChunk
from media_bridge.providers.speech_queue import SpeechQueue
from media_bridge.providers.vendor_socket import CLOSE_TIMEOUT, MALFORMED, Watchdog, lost, parsed, scrub
from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

CONTEXTS: Final = 5  #: live contexts that a socket may have; a sixth gets it closed (max_active_conversations)
KEEPALIVE = 10.0  #: seconds between signs of life on the waiting context
LINGER = 1.0  #: seconds that a context we closed is taken to count when its end is not confirmed
STALL = 5.0  #: seconds without anything while audio is due

_RETRYABLE_ERRORS: Final = frozenset(
    {
        "max_active_conversations",
        "rate_limit_exceeded",
        "too_many_concurrent_requests",
        "concurrent_limit_exceeded",
        "system_busy",
        "internal_error",
        "internal_server_error",
        "input_timeout_exceeded",
    }
)


class ElevenLabsVoice:
    """One call's voice at ElevenLabs: a connection and its contexts."""

    def __init__(
        self, open_: Callable[[], Awaitable[ClientConnection]], voice_settings: dict[str, Any], secret: str
    ) -> None:
        self._open = open_
        self._voice_settings = voice_settings
        self._secret = secret
        self._entering = asyncio.Lock()
        self._closed = False
        self._count = 0

    async def connect(self) -> None:
        socket = await self._open()
        self._socket = socket
        self._alive = True
        self._error: ProviderError | None = None
        self._live: dict[str, ElevenLabsUtterance | None] = {}
        """Contexts by id: at work, or waiting for its utterance (None)."""
        self._leaving: list[str] = []  #: cancelled contexts, closed by us, whose end has not been confirmed
        self._ended = asyncio.Event()  #: a context ended
        self._watchdog = Watchdog(STALL)
        self._waiting = ""
        self._reader = asyncio.create_task(self._read(socket), name="elevenlabs-tts")
        self._keeper = asyncio.create_task(self._keep_alive(), name="elevenlabs-tts-keepalive")
        try:
            self._waiting = await self._open_context()
        except BaseException:  # cancelled in the middle: nobody will close what we opened
            await self._hang_up(timeout=0)
            raise

    async def utterance(self) -> ElevenLabsUtterance:
        """Begin to speak. Waits while five contexts are at work, which is more than a voice ever needs.

        Raises:
            ProviderError: the connection was lost and cannot be opened again, or ElevenLabs refused us for good.
        """
        async with self._entering:
            if self._closed:
                raise self._over()
            if not self._alive:
                if self._error is not None and not self._error.retryable:
                    raise self._error
                await self._hang_up(timeout=0)
                await self.connect()
            context = self._waiting or await self._open_context()
            utterance = ElevenLabsUtterance(self, context)
            self._live[context] = utterance
            self._waiting = ""
            if not self._full:
                self._waiting = await self._open_context()
            return utterance

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        async with self._entering:
            for utterance in self._live.values():
                if utterance is not None:
                    utterance.audio.drop()
            self._live.clear()
            await self._hang_up(timeout=CLOSE_TIMEOUT)

    # --- the connection ------------------------------------------------------------------------------

    async def _open_context(self) -> str:
        while self._full and self._alive and not self._closed:
            self._ended.clear()
            try:
                async with asyncio.timeout(LINGER if self._leaving else None):
                    await self._ended.wait()
            except TimeoutError:
                del self._leaving[:1]
        if self._closed:
            raise self._over()
        self._count += 1
        context = f"u{self._count}"
        self._live[context] = None
        first: dict[str, Any] = {"text": " ", "context_id": context}
        if self._voice_settings:
            first["voice_settings"] = self._voice_settings
        await self.send(first)
        return context

    def _over(self) -> ProviderError:
        return ProviderError("elevenlabs", "the voice of this call is closed.", retryable=False)

    @property
    def _full(self) -> bool:
        return len(self._live) + len(self._leaving) >= CONTEXTS

    async def _hang_up(self, timeout: float) -> None:
        self._watchdog.rest()
        self._reader.cancel()
        self._keeper.cancel()
        await asyncio.gather(self._reader, self._keeper, return_exceptions=True)
        self._alive = False
        if timeout:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._socket.send('{"close_socket":true}')
            await self._socket.close()
        else:
            self._socket.transport.abort()

    async def _keep_alive(self) -> None:
        while self._alive:
            await asyncio.sleep(KEEPALIVE)
            for context, utterance in list(self._live.items()):
                if context == self._waiting or (utterance is not None and not utterance.finished):
                    await self.send({"text": "", "context_id": context})

    async def _read(self, socket: ClientConnection) -> None:
        error: ProviderError
        try:
            while True:
                self._hear(await socket.recv())
                self.watch()
        except ConnectionClosed as closed:
            said = f"nothing came for {STALL:g} s" if self._watchdog.barked else ""
            error = self._error or lost("elevenlabs", closed, said)
        except Exception as bug:
            log.exception("elevenlabs tts: the adapter failed")
            socket.transport.abort()
            error = ProviderError("elevenlabs", f"the adapter failed ({type(bug).__name__}).", retryable=True)
        self._watchdog.rest()
        self._alive, self._error = False, error
        for utterance in self._live.values():
            if utterance is not None:
                utterance.audio.fail(error)
        self._live.clear()
        self._ended.set()

    def _hear(self, raw: str | bytes) -> None:
        try:
            message = parsed(raw)
            if message.get("error"):
                self._refused(message)
                return
            context = message.get("contextId", "")
            utterance = self._live.get(context)
            if utterance is not None and message.get("audio"):
                utterance.heard(base64.b64decode(message["audio"]), message.get("alignment"))
            if message.get("isFinal"):
                self._live.pop(context, None)
                if context in self._leaving:
                    self._leaving.remove(context)
                self._ended.set()
                if utterance is not None:
                    utterance.ended()
        except MALFORMED:
            log.warning("elevenlabs tts: ignored a malformed message")

    def _refused(self, message: dict[str, Any]) -> None:
        """ElevenLabs says what is wrong, then closes with 1008."""
        name, code = str(message["error"]), message.get("code")
        said = scrub(str(message.get("message") or name), self._secret)
        retryable = name in _RETRYABLE_ERRORS
        key = PROVIDERS["elevenlabs"].key_env
        self._error = ProviderError(
            "elevenlabs",
            f"{name}: {said}",
            retryable=retryable,
            status=code if isinstance(code, int) else None,
            fix=f"Check {key}." if "api_key" in name or "auth" in name else "",
        )
        log.warning("elevenlabs tts: %s", self._error.message)
        utterance = self._live.get(message.get("contextId", ""))
        if utterance is not None:
            utterance.audio.fail(self._error)

    # --- what utterances ask for ----------------------------------------------------------------------

    async def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader learns it too, and fails the utterances
            await self._socket.send(json.dumps(message))

    def watch(self) -> None:
        """Wait for audio only as long as is reasonable, if any is due."""
        if any(utterance is not None and utterance.due for utterance in self._live.values()):
            self._watchdog.expect(self._socket)
        else:
            self._watchdog.rest()

    async def leave(self, context: str, *, close: bool) -> None:
        """The utterance is over for us: its audio is no longer of interest. `close` unless it is closed already."""
        if self._live.pop(context, None) is None:
            return
        self._leaving.append(context)
        self._ended.set()
        self.watch()
        if close:
            await self.send({"context_id": context, "close_context": True})


class ElevenLabsUtterance:
    """One utterance: one context."""

    def __init__(self, voice: ElevenLabsVoice, context: str) -> None:
        self._voice = voice
        self._context = context
        self._text = ""
        self._unsaid = ""
        self._position = 0  #: characters of the text that have been spoken
        self.audio = SpeechQueue()
        self.finished = False
        self.due = False  #: audio must come: for text just sent, and after the end until the last of it

    async def send(self, text: str) -> None:
        if self.audio.ended or self.finished:
            return
        self._text += text
        self._unsaid += text
        if not self._unsaid.strip():
            return  # blanks wait for the words that follow them
        clause, self._unsaid = self._unsaid, ""
        if not clause[-1].isspace():
            clause += " "  # without it, ElevenLabs takes the last word for unfinished
        self.due = True
        self._voice.watch()
        await self._voice.send({"text": clause, "context_id": self._context, "flush": True})

    async def finish(self) -> None:
        if self.audio.ended or self.finished:
            return
        self.finished = True
        if not self._text.strip():
            self.audio.finish(len(self._text))
            await self._voice.leave(self._context, close=True)
            return
        self.due = True
        self._voice.watch()
        await self._voice.send({"context_id": self._context, "close_context": True})

    def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        return self

    async def __anext__(self) -> SpeechChunk:
        return await self.audio.get()

    async def cancel(self) -> None:
        self.audio.drop()
        await self._voice.leave(self._context, close=not self.finished)

    # --- the voice's side ----------------------------------------------------------------------------

    def heard(self, audio: bytes, alignment: dict[str, Any] | None) -> None:
        self.due = self.finished
        try:
            pieces = elevenlabs_alignment.split(audio, alignment, self._text, self._position)
        except MALFORMED:
            pieces = [(audio, None)]
        for piece, chars in pieces:
            self.audio.put(piece, chars)
            self._position = self._position if chars is None else chars

    def ended(self) -> None:
        """ElevenLabs has no more audio for this context."""
        if self.finished:
            self.audio.finish(len(self._text))
        else:
            self.audio.fail(ProviderError("elevenlabs", "it ended the utterance before we did.", retryable=True))
