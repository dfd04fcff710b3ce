"""One call's voice at Deepgram: the `/v1/speak` websocket.

The socket is one stream: text is spoken in the order in which it came, `Flush` has the buffered text spoken and
is answered by `Flushed` after its audio, `Clear` drops text and audio and is answered by `Cleared`. Audio frames
do not say what they belong to, so one utterance is at work at a time and later ones wait in line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers.base import SpeechChunk
from media_bridge.providers.speech_queue import SpeechQueue
from media_bridge.providers.vendor_socket import CLOSE_TIMEOUT, Watchdog, lost, parsed, scrub
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

FLUSHES: Final = 20
FLUSH_WINDOW: Final = 60.0
"""Deepgram takes 20 `Flush` in 60 s on a connection and ignores more (developers.deepgram.com, tts-ws-flush)."""

FLUSHES_KEPT: Final = 5  #: kept for the ends of utterances; early flushes stop here
FLUSHES_LAST: Final = 2  #: when no more are left, the next utterance gets a new connection
ENOUGH: Final = 120  #: characters, about 8 s of speech, worth another early flush
LONGEST: Final = 2000  #: characters in one `Speak`
STALL = 5.0  #: seconds without anything while audio is due


class DeepgramVoice:
    """One call's voice at Deepgram: a connection, and the utterances in line for it."""

    def __init__(
        self, socket: ClientConnection, open_: Callable[[], Awaitable[ClientConnection]], secret: str
    ) -> None:
        self._open = open_
        self._secret = secret
        self._line: deque[DeepgramUtterance] = deque()
        self._entering = asyncio.Lock()
        self._closed = False
        self._use(socket)

    async def utterance(self) -> DeepgramUtterance:
        """Begin to speak. An earlier utterance that was not finished is finished now; a voice says one thing
        at a time.

        Raises:
            ProviderError: the connection was lost and cannot be opened again.
        """
        async with self._entering:
            if self._closed:
                raise ProviderError("deepgram", "the voice of this call is closed.", retryable=False)
            if self._line:
                await self._line[-1].finish()
            if not self._alive or (not self._line and self._flushes_left() <= FLUSHES_LAST):
                await self._hang_up(timeout=0)
                self._use(await self._open())
            utterance = DeepgramUtterance(self)
            self._line.append(utterance)
            return utterance

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        async with self._entering:
            for utterance in self._line:
                utterance.audio.drop()
            self._line.clear()
            await self._hang_up(timeout=CLOSE_TIMEOUT)

    # --- the connection ------------------------------------------------------------------------------

    def _use(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._alive = True
        self._flushes: deque[float] = deque(maxlen=FLUSHES)
        self._clearing = 0  #: `Clear` sent and not yet answered: audio until then is of a cancelled utterance
        self._said = ""
        self._watchdog = Watchdog(STALL)
        self._reader = asyncio.create_task(self._read(socket), name="deepgram-tts")

    async def _hang_up(self, timeout: float) -> None:
        self._watchdog.rest()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._alive = False
        if timeout:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._socket.send('{"type":"Close"}')
            await self._socket.close()
        else:
            self._socket.transport.abort()

    async def _read(self, socket: ClientConnection) -> None:
        error: ProviderError
        try:
            while True:
                await self._hear(await socket.recv())
                if self._due():
                    self._watchdog.expect(socket)
                else:
                    self._watchdog.rest()
        except ConnectionClosed as closed:
            if self._watchdog.barked:
                self._said = f"nothing came for {STALL:g} s"
            error = lost("deepgram", closed, self._said)
        except Exception as bug:
            log.exception("deepgram tts: the adapter failed")
            socket.transport.abort()
            error = ProviderError("deepgram", f"the adapter failed ({type(bug).__name__}).", retryable=True)
        self._watchdog.rest()
        self._alive = False
        while self._line:
            self._line.popleft().audio.fail(error)

    def _due(self) -> bool:
        return bool(self._clearing or (self._line and self._line[0].marks))

    async def _hear(self, raw: str | bytes) -> None:
        if isinstance(raw, bytes):
            if self._line and not self._clearing:
                self._line[0].audio.put(raw)
            return
        message = parsed(raw)
        kind = message.get("type")
        if not message:
            log.warning("deepgram tts: ignored a malformed message")
        elif kind == "Cleared":
            self._clearing = max(0, self._clearing - 1)
        elif kind == "Flushed" and not self._clearing and self._line:
            self._line[0].flushed()
            await self._settle()
        elif kind in ("Warning", "Error"):
            said = str(message.get("description") or message.get("err_msg") or message.get("code"))
            self._said = scrub(said, self._secret)
            log.warning("deepgram tts: %s: %s", str(kind).lower(), self._said)

    # --- what utterances ask for ----------------------------------------------------------------------

    async def work(self, utterance: DeepgramUtterance) -> None:
        """Send what the utterance has to say, if it is its turn."""
        if not self._line or self._line[0] is not utterance:
            return
        text = utterance.take()
        for start in range(0, len(text), LONGEST):
            await self._send({"type": "Speak", "text": text[start : start + LONGEST]})
        if utterance.wants_flush(early=self._flushes_left() > FLUSHES_KEPT):
            self._flushes.append(asyncio.get_running_loop().time())
            self._watchdog.expect(self._socket)
            await self._send({"type": "Flush"})
        await self._settle()

    async def leave(self, utterance: DeepgramUtterance) -> None:
        """The utterance was cancelled: have what it said dropped."""
        if utterance not in self._line:
            return
        speaking = utterance is self._line[0]
        self._line.remove(utterance)
        if speaking and utterance.at_vendor:
            self._clearing += 1
            self._watchdog.expect(self._socket)
            await self._send({"type": "Clear"})
        if speaking and self._line:
            await self.work(self._line[0])

    async def _settle(self) -> None:
        """Let the next one speak when the first in line has said everything."""
        if self._line and self._line[0].complete:
            done = self._line.popleft()
            done.audio.finish(done.length)
            if self._line:
                await self.work(self._line[0])

    def _flushes_left(self) -> int:
        horizon = asyncio.get_running_loop().time() - FLUSH_WINDOW
        return FLUSHES - sum(at > horizon for at in self._flushes)

    async def _send(self, message: dict[str, str]) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader learns it too, and fails the utterances
            await self._socket.send(json.dumps(message))


class DeepgramUtterance:
    """One utterance. `marks` holds, for each `Flush` not yet answered, the characters spoken by then."""

    def __init__(self, voice: DeepgramVoice) -> None:
        self._voice = voice
        self._unsaid = ""
        self._flushed = 0
        self._finished = False
        self.audio = SpeechQueue()
        self.marks: deque[int] = deque()
        self.length = 0  #: characters of the whole text so far
        self._said = 0

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        if self.audio.ended or self._finished:
            return
        self._unsaid += text
        self.length += len(text)
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
    def at_vendor(self) -> bool:
        """Text was sent whose audio has not all come."""
        return bool(self.marks) or self._said > self._flushed

    @property
    def complete(self) -> bool:
        return self._finished and not self.at_vendor and not self._unsaid.strip()

    def take(self) -> str:
        """Text to send now; blanks wait for the words that follow them."""
        if not self._unsaid.strip():
            return ""
        text, self._unsaid = self._unsaid, ""
        self._said += len(text)
        return text

    def wants_flush(self, early: bool) -> bool:
        """Whether to flush now: at the end always; before that for the first clause, so that speech starts
        at once, and when much has gathered."""
        waiting = self._said - self._flushed
        if not waiting or not (self._finished or (early and (not self._flushed or waiting >= ENOUGH))):
            return False
        self._flushed = self._said
        self.marks.append(self._said)
        return True

    def flushed(self) -> None:
        if self.marks:
            self.audio.spoken(self.marks.popleft())
