"""How an utterance is spoken by a vendor that is asked for one finished stretch of text at a time.

OpenAI takes no text that is still being written. So an utterance is cut into pieces: the first clause is asked
for as soon as it is there, the next one while that is being made, and what comes meanwhile gathers and becomes one
piece: fewer requests, and a more natural melody. Two pieces are in work at a time, so that the second is ready
when the first has been played; their audio is put in order here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Protocol

from media_bridge.providers.base import SpeechChunk
from media_bridge.providers.speech_queue import SpeechQueue
from stayline.errors import ProviderError

AHEAD: Final = 2  #: pieces in work at a time
LONGEST: Final = 2000  #: characters of a piece; OpenAI's speech endpoint takes 4096


class Reader(Protocol):
    """Who has pieces spoken."""

    async def begin(self, piece: Piece) -> None:
        """Ask for the audio of a piece. It answers with `put`, then `finish` or `fail`; it raises nothing."""

    async def drop(self, piece: Piece) -> None:
        """The piece is not wanted any more: have the vendor stop. It may have ended already."""


class Piece:
    """A stretch of an utterance. `end`: characters of the utterance spoken at its end."""

    def __init__(self, utterance: PiecewiseUtterance, text: str, end: int) -> None:
        self._utterance = utterance
        self.text = text
        self.end = end
        self.held: list[bytes] = []  #: audio that waits for the pieces before it
        self.heard = False
        self.done = False
        self.error: ProviderError | None = None

    def put(self, audio: bytes) -> None:
        if audio and not self.done:
            self.heard = True
            self.held.append(audio)
            self._utterance.arrange()

    async def finish(self) -> None:
        """All of its audio has come."""
        if not self.heard:
            await self.fail(ProviderError("openai", "it said nothing.", retryable=True))
        elif not self.done:
            self.done = True
            await self._utterance.go_on()

    async def fail(self, error: ProviderError) -> None:
        if not self.done:
            self.done, self.error = True, error
            await self._utterance.go_on()


class PiecewiseUtterance:
    """One utterance. See `Utterance`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pieces: deque[Piece] = deque()
        self._unsaid = ""
        self._length = 0  #: characters of the whole text so far
        self._asked = 0  #: of these, in pieces
        self._finished = False
        self.audio = SpeechQueue()

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        if self.audio.ended or self._finished:
            return
        self._unsaid += text
        self._length += len(text)
        await self.go_on()

    async def finish(self) -> None:
        if not self.audio.ended and not self._finished:
            self._finished = True
            await self.go_on()

    def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        return self

    async def __anext__(self) -> SpeechChunk:
        return await self.audio.get()

    async def cancel(self) -> None:
        self.audio.drop()
        await self._drop_pieces()

    # --- the pieces' side ----------------------------------------------------------------------------

    def arrange(self) -> None:
        """Pass on the audio whose turn it is."""
        while self._pieces:
            first = self._pieces[0]
            for audio in first.held:
                self.audio.put(audio)
            first.held.clear()
            if first.error is not None:
                self.audio.fail(first.error)
            if not first.done or first.error is not None:
                return
            self.audio.spoken(first.end)
            self._pieces.popleft()

    async def go_on(self) -> None:
        """Something changed: ask for what can be asked for, and end when everything is said."""
        self.arrange()
        while not self.audio.ended and len(self._pieces) < AHEAD and _speakable(self._unsaid):
            piece = self._cut()
            self._pieces.append(piece)
            await self._reader.begin(piece)
        if self.audio.ended:
            await self._drop_pieces()
        elif self._finished and not self._pieces:
            self.audio.finish(self._length)

    def _cut(self) -> Piece:
        """The next piece: all that is there, or as many whole words as may be in one."""
        end = len(self._unsaid)
        if end > LONGEST:
            end = self._unsaid.rfind(" ", 1, LONGEST) + 1 or LONGEST
        text, self._unsaid = self._unsaid[:end], self._unsaid[end:]
        self._asked += end
        return Piece(self, text, self._asked)

    async def _drop_pieces(self) -> None:
        self._unsaid = ""
        while self._pieces:
            piece = self._pieces.popleft()
            piece.done = True
            await self._reader.drop(piece)


def _speakable(text: str) -> bool:
    """Blanks and bare punctuation wait for the words that follow: alone they would be spoken as a guess."""
    return any(map(str.isalnum, text))
