"""ElevenLabs' voice over HTTP, for models that have no websocket and for networks that let none through.

One request speaks what has gathered of an utterance's text; the next one is made when its audio has all come,
which is long before it has been played. So the first clause is heard as soon as there is one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from media_bridge.providers.base import SpeechChunk
from media_bridge.providers.elevenlabs_alignment import ClipAlignment
from media_bridge.providers.elevenlabs_client import ElevenLabsClient
from media_bridge.providers.speech_queue import SpeechQueue
from media_bridge.providers.vendor_socket import MALFORMED, Query
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

STALL = 6.0  #: seconds without a byte while audio is due; eleven_v3 takes 1.5 to its first
CONTEXT: Final = 500  #: characters of the text before, for the melody
LONGEST_LINE: Final = 4 * 2**20  #: bytes of one piece of the answer


class HttpSpeech:
    """How the calls of one configured voice ask for speech.

    Args:
        body: what is the same in all requests: model, settings.
        stitched: the model takes the text before as context. The v3 models refuse it (`unsupported_model`).
    """

    def __init__(
        self, client: ElevenLabsClient, voice: str, query: Query, body: Mapping[str, Any], *, stitched: bool
    ) -> None:
        self._client = client
        self._path = f"/v1/text-to-speech/{quote(voice, safe='')}/stream/with-timestamps"
        self._query = [("output_format", "ulaw_8000"), *query]
        self._body = dict(body)
        self._stitched = stitched

    async def speak(self, text: str, before: str) -> AsyncIterator[tuple[bytes, int | None]]:
        """Speak `text`: pieces of audio, and the characters of it that are spoken at their end, where known.

        Raises:
            ProviderError: it failed, perhaps in the middle.
        """
        body = {**self._body, "text": text}
        if before and self._stitched:
            body["previous_text"] = before[-CONTEXT:]
        alignment: ClipAlignment | None = ClipAlignment(text)
        async with self._client.post(self._path, query=self._query, body=body, read_timeout=STALL) as response:
            async for line in _lines(response.content.iter_any()):
                try:
                    message = json.loads(line)
                    audio = base64.b64decode(message.get("audio_base64") or "")
                except MALFORMED:
                    log.warning("elevenlabs tts: ignored a malformed piece")
                    continue
                pieces: list[tuple[bytes, int | None]] = [(audio, None)]
                if alignment is not None:
                    try:
                        pieces = alignment.split(audio, message.get("alignment"))
                    except MALFORMED:
                        alignment = None  # its count is lost; the text's length at the end is certain all the same
                for piece in pieces:
                    yield piece


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The JSON objects of an answer, one a line, blank lines between them.

    Raises:
        ProviderError: a line that does not end.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > LONGEST_LINE:
            raise ProviderError("elevenlabs", "the answer is not its protocol.", retryable=True)
    if rest.strip():
        yield rest


class HttpVoice:
    """One call's voice over HTTP. There is nothing to connect; the pool of connections is the process's."""

    def __init__(self, speech: HttpSpeech) -> None:
        self._speech = speech
        self._utterances: set[HttpUtterance] = set()
        self._closed = False

    async def utterance(self) -> HttpUtterance:
        """Begin to speak. Does not wait for anything.

        Raises:
            ProviderError: the voice is closed.
        """
        if self._closed:
            raise ProviderError("elevenlabs", "the voice of this call is closed.", retryable=False)
        utterance = HttpUtterance(self._speech)
        self._utterances.add(utterance)
        utterance.task.add_done_callback(lambda _: self._utterances.discard(utterance))
        return utterance

    async def aclose(self) -> None:
        self._closed = True
        for utterance in list(self._utterances):
            await utterance.cancel()


class HttpUtterance:
    """One utterance: a request after the other, until its text is spoken."""

    def __init__(self, speech: HttpSpeech) -> None:
        self._speech = speech
        self._text = ""
        self._asked = 0  #: characters of it that were asked for
        self._finished = False
        self._more = asyncio.Event()
        self.audio = SpeechQueue()
        self.task = asyncio.create_task(self._run(), name="elevenlabs-http")

    async def send(self, text: str) -> None:
        if not self.audio.ended and not self._finished:
            self._text += text
            self._more.set()

    async def finish(self) -> None:
        self._finished = True
        self._more.set()

    def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        return self

    async def __anext__(self) -> SpeechChunk:
        return await self.audio.get()

    async def cancel(self) -> None:
        self.audio.drop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                if self._text[self._asked :].strip():
                    await self._speak_what_has_gathered()
                elif self._finished:
                    break
                else:
                    self._more.clear()
                    await self._more.wait()
            self.audio.finish(len(self._text))
        except ProviderError as error:
            self.audio.fail(error)
        except Exception as bug:
            log.exception("elevenlabs tts: the adapter failed")
            name = type(bug).__name__
            self.audio.fail(ProviderError("elevenlabs", f"the adapter failed ({name}).", retryable=True))

    async def _speak_what_has_gathered(self) -> None:
        begin, self._asked = self._asked, len(self._text)
        text, before = self._text[begin:], self._text[:begin]
        async for audio, chars in self._speech.speak(text, before):
            spoken = None if chars is None else begin + chars
            if audio:
                self.audio.put(audio, spoken)
            elif spoken is not None:
                self.audio.spoken(spoken)
        self.audio.spoken(begin + len(text))
