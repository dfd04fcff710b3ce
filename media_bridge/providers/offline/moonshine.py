"""`offline/moonshine`: speech to text that runs here. Silero finds the turns, Moonshine writes them down.

The network is not a streaming one. Partials are decodings of what the open turn holds so far, made when a thread
is free. The final one is begun at the first pause of 200 ms, so that it is ready when 500 ms of silence end the
turn; a caller who goes on speaking has only cost a tenth of a second of one core.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import Field

from media_bridge.audio import mulaw
from media_bridge.audio.resample import resample
from media_bridge.audio.vad import (
    WINDOW_MS,
    Endpointer,
    EndpointRule,
    SileroVad,
    VoiceEnded,
    VoicePaused,
    VoiceResumed,
    VoiceStarted,
    find_vad,
    load_vad,
)
from media_bridge.providers.base import EndOfTurn, Partial, ProviderConfig, SpeechStarted, SttEvent, SttProfile
from media_bridge.providers.offline.engine import Engine, check_engine
from media_bridge.providers.offline.moonshine_model import (
    LONGEST,
    SAMPLE_RATE,
    MoonshineModel,
    Transcript,
    find_weights,
)
from media_bridge.providers.options import Options, read_options
from stayline.errors import ProviderError

PRE_ROLL_MS: Final = 300
"""Sound before the first voiced window that is decoded with it: soft consonants are not voiced."""
CUT_AFTER_MS: Final = 10_000
"""A stretch this long is closed at the next pause; one of `LONGEST` at its most silent window."""
LONGEST_TURN_MS: Final = 60_000
"""A turn this long ends where it is: a radio, or a caller who needs to be stopped."""
_SEARCH_MS: Final = 4000  # where the most silent window is looked for
_HALLUCINATED: Final = frozenset({"you"})
"""What the network hears in short noises (measured, at confidence 0.3-0.6 and now and then above)."""
_HALLUCINATION_MS: Final = 400
_LONG_SPEECH_MS: Final = 1000

_ENGINE: Final = Engine("moonshine", lambda: MoonshineModel(find_weights()))


class MoonshineOptions(Options):
    """Times in milliseconds."""

    start_ms: int = Field(60, ge=0, le=500)  #: voiced sound that makes speech
    stop_ms: int = Field(500, ge=200, le=5000)  #: silence that ends a turn
    eager_ms: int = Field(200, ge=50, le=5000)  #: silence after which the decoding of the turn begins
    partial_ms: int = Field(800, ge=200)  #: new speech between two partials
    threshold: float = Field(0.5, ge=0.1, le=0.95)  #: Silero's probability that is speech
    min_confidence: float = Field(0.6, ge=0.0, le=1.0)
    """Mean probability of the words of a short sound below which it was noise. Longer speech counts from two
    thirds of it: who spoke for a second and was not understood should be asked again, not left in silence."""


class MoonshineStt:
    """The provider: what every call of this process shares.

    Raises:
        ConfigError: the extra is not installed, or the configuration asks for another model or language.
    """

    profile = SttProfile(native_mulaw=False, eager_turns=False)

    def __init__(self, config: ProviderConfig) -> None:
        check_engine(config, "moonshine")
        self._options = read_options(MoonshineOptions, config, "stt")
        find_weights()
        find_vad()

    async def warm(self) -> None:
        """Load both networks and decode a moment of silence: the first run allocates what later ones use."""
        await asyncio.to_thread(load_vad)
        await _ENGINE.run(lambda model: model.transcribe(np.zeros(SAMPLE_RATE, dtype=np.float32)))

    async def connect(self, *, call_id: str) -> MoonshineStream:
        await asyncio.to_thread(load_vad)
        return MoonshineStream(self._options)

    async def aclose(self) -> None:
        """Nothing to close: the model belongs to the process."""


class _Decoding:
    """A stretch of the caller's sound on its way to text."""

    def __init__(self, audio: bytes, begin_ms: int) -> None:
        self.begin_ms = begin_ms
        self._audio = audio
        self._given_up = False
        self.task = asyncio.create_task(_ENGINE.run(self._decode))

    @property
    def done(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    def give_up(self) -> None:
        """Its text is no longer wanted: it ends at the next token, or never begins."""
        self._given_up = True
        self.task.cancel()

    def _decode(self, model: MoonshineModel) -> Transcript:
        samples = resample(mulaw.to_float(self._audio), mulaw.SAMPLE_RATE, SAMPLE_RATE)
        return model.transcribe(samples, lambda: self._given_up)


class _Turn:
    """An open turn of the caller: stretches that are closed, and the one that goes on."""

    def __init__(self, began_ms: int, stretch_ms: int) -> None:
        self.began_ms = began_ms
        self.stretch_ms = stretch_ms  #: where the open stretch begins
        self.closed: list[_Decoding] = []  #: the stretches before it
        self.last: _Decoding | None = None  #: the open stretch, when the caller has paused
        self.partial: _Decoding | None = None
        self.partial_ms = began_ms  #: how far the last partial reached
        self.paused_ms = began_ms  #: where `last` ends
        self.voice: list[float] = []  #: probabilities of the open stretch's windows


class MoonshineStream:
    """One call's ear. `send` detects and decides; decoding happens in the engine's threads."""

    def __init__(self, options: MoonshineOptions) -> None:
        self._options = options
        self._vad = SileroVad()
        self._endpointer = Endpointer(
            EndpointRule(
                threshold=options.threshold,
                release=max(0.05, options.threshold - 0.15),
                start_ms=options.start_ms,
                eager_ms=options.eager_ms,
                stop_ms=options.stop_ms,
            )
        )
        self._audio = bytearray()  # from `_audio_ms` on
        self._audio_ms = 0
        self._now_ms = 0  # judged so far
        self._turn: _Turn | None = None
        self._decodings: set[_Decoding] = set()
        self._happened: asyncio.Queue[SttEvent | asyncio.Task[EndOfTurn]] = asyncio.Queue()
        self._events: asyncio.Queue[SttEvent | ProviderError | None] = asyncio.Queue()
        self._endings: set[asyncio.Task[EndOfTurn]] = set()
        self._emitter = asyncio.create_task(self._emit())

    async def send(self, audio: bytes) -> None:
        if self._emitter.done():
            return
        self._audio += audio
        for probability in self._vad.push(audio):
            self._now_ms += WINDOW_MS
            self._take(probability)
        if self._turn is None:
            self._forget_before(self._now_ms - PRE_ROLL_MS - self._options.start_ms - 2 * WINDOW_MS)

    def __aiter__(self) -> MoonshineStream:
        return self

    async def __anext__(self) -> SttEvent:
        event = await self._events.get()
        if event is None or isinstance(event, ProviderError):
            self._events.put_nowait(event)  # whoever asks again gets the same answer
            if event is None:
                raise StopAsyncIteration
            raise event
        return event

    async def aclose(self) -> None:
        decodings = list(self._decodings)
        for decoding in decodings:
            decoding.give_up()
        waiting = [self._emitter, *self._endings]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, *(d.task for d in decodings), return_exceptions=True)
        self._events.put_nowait(None)

    # --- what the caller's voice does ---

    def _take(self, probability: float) -> None:
        """One more window was judged."""
        event = self._endpointer.push(probability)
        if isinstance(event, VoiceStarted):
            self._turn = _Turn(event.at_ms, max(self._audio_ms, event.at_ms - PRE_ROLL_MS))
            self._happened.put_nowait(SpeechStarted(event.at_ms))
        turn = self._turn
        if turn is None:
            return
        turn.voice.append(probability)
        if isinstance(event, VoicePaused):
            turn.paused_ms = self._now_ms
            turn.last = self._decode(turn.stretch_ms, self._now_ms)
            self._tell_when_done(turn, turn.last)
        elif isinstance(event, VoiceResumed):
            self._go_on(turn)
        elif isinstance(event, VoiceEnded):
            self._end(turn, event.at_ms)
        elif self._now_ms - turn.began_ms >= LONGEST_TURN_MS:
            self._endpointer.end()
            self._end(turn, self._endpointer.last_voiced_ms)
        else:
            self._speaking_on(turn)

    def _speaking_on(self, turn: _Turn) -> None:
        if self._now_ms - turn.stretch_ms >= LONGEST * 1000 - WINDOW_MS:
            self._cut(turn, _most_silent(turn, self._now_ms))
        due = self._now_ms - turn.partial_ms >= self._options.partial_ms
        if due and turn.partial is None and turn.last is None and not _ENGINE.busy:
            turn.partial_ms = self._now_ms
            turn.partial = self._decode(turn.stretch_ms, self._now_ms)
            self._tell_when_done(turn, turn.partial)

    def _go_on(self, turn: _Turn) -> None:
        """The pause was none. What was decoded at it is kept if the stretch is long enough to be closed there."""
        paused, turn.last = turn.last, None
        if paused is None:
            return
        if self._now_ms - turn.stretch_ms >= CUT_AFTER_MS:
            turn.closed.append(paused)
            self._begin_stretch(turn, max(turn.paused_ms, self._now_ms - PRE_ROLL_MS))
        else:
            paused.give_up()

    def _cut(self, turn: _Turn, at_ms: int) -> None:
        turn.closed.append(self._decode(turn.stretch_ms, at_ms))
        self._begin_stretch(turn, at_ms)

    def _begin_stretch(self, turn: _Turn, at_ms: int) -> None:
        del turn.voice[: -max(1, (self._now_ms - at_ms) // WINDOW_MS)]
        turn.stretch_ms = at_ms
        self._forget_before(at_ms)

    def _end(self, turn: _Turn, voiced_until_ms: int) -> None:
        last = turn.last or self._decode(turn.stretch_ms, self._now_ms)
        if turn.partial is not None:
            turn.partial.give_up()
        self._turn = None
        ending = asyncio.create_task(self._finish(turn, [*turn.closed, last], voiced_until_ms))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        self._happened.put_nowait(ending)

    def _forget_before(self, ms: int) -> None:
        """Drop sound that no decoding will need."""
        if ms > self._audio_ms:
            del self._audio[: mulaw.ms_to_bytes(ms - self._audio_ms)]
            self._audio_ms = ms

    # --- from sound to events ---

    def _decode(self, begin_ms: int, end_ms: int) -> _Decoding:
        begin, end = (mulaw.ms_to_bytes(ms - self._audio_ms) for ms in (begin_ms, end_ms))
        decoding = _Decoding(bytes(self._audio[begin:end]), begin_ms)
        self._decodings.add(decoding)
        decoding.task.add_done_callback(lambda _: self._decodings.discard(decoding))
        return decoding

    def _tell_when_done(self, turn: _Turn, decoding: _Decoding) -> None:
        """Make a partial of it, if its turn is still open then."""

        def done(task: asyncio.Task[Transcript]) -> None:
            if turn.partial is decoding:
                turn.partial = None
            if task.cancelled():
                return
            if error := task.exception():
                self._fail(error)
            elif self._turn is turn and decoding.begin_ms == turn.stretch_ms and all(d.done for d in turn.closed):
                heard = [d.task.result() for d in turn.closed]
                text = self._words([*heard, task.result()], self._now_ms - turn.began_ms)
                if text:
                    self._happened.put_nowait(Partial(text))

        decoding.task.add_done_callback(done)

    async def _finish(self, turn: _Turn, stretches: Sequence[_Decoding], voiced_until_ms: int) -> EndOfTurn:
        heard = [await stretch.task for stretch in stretches]
        speech_ms = max(0, voiced_until_ms - turn.began_ms)
        return EndOfTurn(
            text=self._words(heard, speech_ms),
            confidence=_confidence(heard),
            speech_end_ms=voiced_until_ms,
            speech_ms=speech_ms,
        )

    def _words(self, heard: Sequence[Transcript], speech_ms: int) -> str:
        """The text of a turn; empty when the network only imagined words in a noise."""
        text = " ".join(t.text for t in heard if t.text).strip()
        plain = "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()
        letters = [c for c in text if c.isalpha()]
        imagined = speech_ms < _HALLUCINATION_MS and plain in _HALLUCINATED
        foreign = any(ord(c) > 0x24F for c in letters)  # beyond Latin Extended-B
        least = self._options.min_confidence * (1 if speech_ms < _LONG_SPEECH_MS else 0.4)
        return "" if not plain or imagined or foreign or _confidence(heard) < least else text

    async def _emit(self) -> None:
        """Pass events on in the order in which they happened, waiting for the text of a turn where need be."""
        try:
            while True:
                event = await self._happened.get()
                self._events.put_nowait(await event if isinstance(event, asyncio.Task) else event)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The engine failed, and with it the stream."""
        lost = ProviderError("offline", f"moonshine failed: {error}", retryable=False)
        lost.__cause__ = error
        self._events.put_nowait(lost)


def _confidence(heard: Sequence[Transcript]) -> float:
    """Mean over all tokens, geometric as within each stretch."""
    tokens = sum(t.tokens for t in heard)
    logs = sum(t.tokens * math.log(max(t.confidence, 1e-9)) for t in heard)
    return math.exp(logs / tokens) if tokens else 0.0


def _most_silent(turn: _Turn, now_ms: int) -> int:
    """The end of the window with the least voice among the last ones of the open stretch."""
    recent = turn.voice[-_SEARCH_MS // WINDOW_MS :]
    quietest = min(range(len(recent)), key=recent.__getitem__)
    return now_ms - (len(recent) - 1 - quietest) * WINDOW_MS
