"""What an utterance yields, between the task that hears the vendor and the one that plays."""

from __future__ import annotations

import asyncio

from media_bridge.providers.base import SpeechChunk
from stayline.errors import ProviderError

TAIL = 160  #: bytes, 20 ms


class SpeechQueue:
    """Audio of one utterance: put in by the vendor's reader, iterated by the player, ended once.

    Where the vendor tells only after the audio how much text it spoke, the last 20 ms are held back until
    more or that word comes, so that the count travels with the audio it belongs to. It delays nothing that
    can be heard: those 20 ms are due only when the rest has been played.
    """

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[SpeechChunk | None] = asyncio.Queue()
        self._held = b""
        self._chars = 0
        self._error: ProviderError | None = None
        self.ended = False

    def put(self, audio: bytes, chars: int | None = None) -> None:
        """Audio, and the characters spoken at its end where that is known already."""
        if self.ended or not audio:
            return
        audio, self._held = self._held + audio, b""
        if chars is not None:
            self._emit(audio, chars)
        else:
            if len(audio) > TAIL:
                self._emit(audio[:-TAIL], None)
            self._held = audio[-TAIL:]

    def spoken(self, chars: int) -> None:
        """So many characters are spoken when everything put in so far has been played."""
        if not self.ended and (self._held or chars > self._chars):
            self._emit(self._held, chars)
            self._held = b""

    def finish(self, chars: int | None = None) -> None:
        """No more audio; iteration ends after what there is, `chars` being the length of the whole text."""
        if self.ended:
            return
        if chars is not None:
            self.spoken(chars)
        if self._held:
            self._emit(self._held, None)
        self._end()

    def fail(self, error: ProviderError) -> None:
        """Iteration raises after what there is."""
        if not self.ended:
            self._error = error
            self.finish()

    def drop(self) -> None:
        """Iteration ends now; what there is, is dropped."""
        self._held, self._error = b"", None
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._end()

    def _emit(self, audio: bytes, chars: int | None) -> None:
        self._chars = max(self._chars, chars or 0)
        self._chunks.put_nowait(SpeechChunk(audio, chars))

    def _end(self) -> None:
        self.ended = True
        self._chunks.put_nowait(None)

    async def get(self) -> SpeechChunk:
        """The next chunk.

        Raises:
            StopAsyncIteration: the utterance is over.
            ProviderError: it failed.
        """
        chunk = await self._chunks.get()
        if chunk is not None:
            return chunk
        self._chunks.put_nowait(None)  # whoever asks again gets the same answer
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration
