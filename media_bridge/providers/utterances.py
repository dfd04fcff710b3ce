"""Turn detection for recognisers that have none: finds the caller's utterances in the sound, here, with Silero.

For adapters whose vendor takes whole utterances (a file per request) or wants to be told where one ends (`commit`).
What such an adapter does with one call's audio:

    require_vad(config.provider)            # in the constructor: a ConfigError if the network is not installed
    await warm_vad()                        # in `warm` and `connect`: loads it once for the process, in a thread
    finder = UtteranceFinder(UtteranceRule(stop_ms=400))        # one per call
    for event in finder.push(mulaw):        # any length; cheap enough for the event loop (57 µs for 20 ms)
        match event:
            case UtteranceStarted(at_ms):   # -> base.SpeechStarted(at_ms)
            case UtteranceAudio(audio):     # the next piece of its sound, pre-roll first: for vendors that stream
            case UtteranceOver() as over:   # over.audio is the whole of it: for vendors that want a file

Audio is 8 kHz μ-law; positions are milliseconds of everything that was pushed. Each utterance is one Started, one
or more pieces of Audio and one Over, in this order; the pieces joined are `UtteranceOver.audio`. Between utterances
nothing comes out: silence need not be sent (or paid).
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
from typing import Final

from media_bridge.audio.mulaw import BYTES_PER_MS, bytes_to_ms, ms_to_bytes
from media_bridge.audio.vad import (
    WINDOW,
    WINDOW_MS,
    Endpointer,
    EndpointRule,
    SileroVad,
    VoiceEnded,
    VoiceStarted,
    find_vad,
    load_vad,
)
from stayline.errors import ConfigError

HYSTERESIS: Final = 0.15
"""How far below the threshold a window stays voiced once there is speech (Silero's own)."""


@dataclasses.dataclass(frozen=True, slots=True)
class UtteranceRule:
    """What an utterance is. Times in milliseconds, rounded up to windows of 32.

    Attributes:
        threshold: Silero's probability (0..1) from which a window is voiced.
        start_ms: unbroken voiced sound that makes speech.
        stop_ms: silence after which the utterance is over.
        pre_roll_ms: sound before the first voiced window that belongs to it: soft consonants are not voiced.
        longest_ms: an utterance this long ends where it is; what follows is the next one.
    """

    threshold: float = 0.5
    start_ms: int = 60
    stop_ms: int = 500
    pre_roll_ms: int = 300
    longest_ms: int = 60_000


@dataclasses.dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """The caller began to speak at `at_ms`; its audio begins up to `pre_roll_ms` earlier, at `audio_from_ms`."""

    at_ms: int
    audio_from_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class UtteranceAudio:
    """The next piece of the open utterance. The first one holds the pre-roll."""

    audio: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class UtteranceOver:
    """The caller has been silent for `stop_ms` (or the utterance got too long, or was ended by `flush`).

    Attributes:
        audio: all of it: pre-roll, speech, and the silence that ended it.
        audio_from_ms: where `audio` begins.
        speech_end_ms: the end of the last voiced window.
        speech_ms: from the first voiced window to the last.
    """

    audio: bytes
    audio_from_ms: int
    speech_end_ms: int
    speech_ms: int


UtteranceEvent = UtteranceStarted | UtteranceAudio | UtteranceOver


def require_vad(provider: str) -> None:
    """See that the voice activity detector can be loaded, without loading it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        find_vad()
        missing = importlib.util.find_spec("onnxruntime") is None
    except ConfigError:
        missing = True
    if missing:
        raise ConfigError(
            f"{provider} stt: this model does not find the ends of turns, and the voice activity detector that "
            "does it here is not installed.",
            fix='Install it: pip install "stayline[vad]".',
        )


async def warm_vad() -> None:
    """Load the network that all calls of the process share, if it is not loaded yet. About 50 ms, in a thread."""
    await asyncio.to_thread(load_vad)


class UtteranceFinder:
    """Finds the utterances of one call. No I/O; `load_vad` (or `warm_vad`) should have run before."""

    def __init__(self, rule: UtteranceRule | None = None) -> None:
        self._rule = rule = rule or UtteranceRule()
        self._vad = SileroVad()
        self._endpointer = Endpointer(
            EndpointRule(
                threshold=rule.threshold,
                release=max(0.05, rule.threshold - HYSTERESIS),
                start_ms=rule.start_ms,
                eager_ms=rule.stop_ms,  # this finder knows no eager ends
                stop_ms=rule.stop_ms,
            )
        )
        # Stream positions in bytes: `_audio` holds what may still be needed, from `_base` on.
        self._audio = bytearray()
        self._base = 0
        self._judged = 0
        self._given = 0  # of the open utterance, up to here, as UtteranceAudio
        self._began_ms: int | None = None

    @property
    def speaking(self) -> bool:
        """There is an open utterance."""
        return self._began_ms is not None

    @property
    def now_ms(self) -> int:
        """How much audio was pushed."""
        return bytes_to_ms(self._base + len(self._audio))

    def push(self, audio: bytes) -> list[UtteranceEvent]:
        """Take μ-law audio of any length; returns what happened in it, in order."""
        self._audio += audio
        events: list[UtteranceEvent] = []
        for probability in self._vad.push(audio):
            self._judged += WINDOW
            self._window(probability, events)
        if self._began_ms is None:
            # A start is noticed `start_ms` late, and a window begins before it is judged.
            late_ms = self._rule.start_ms + 2 * WINDOW_MS
            self._forget_before(self._judged - ms_to_bytes(self._rule.pre_roll_ms + late_ms))
        else:
            self._give(events)
        return events

    def flush(self) -> list[UtteranceEvent]:
        """End the open utterance now, with all audio that was pushed; nothing if there is none."""
        if self._began_ms is None:
            return []
        self._judged = self._base + len(self._audio)
        self._endpointer.end()
        return self._over(self._endpointer.last_voiced_ms, [])

    def _window(self, probability: float, events: list[UtteranceEvent]) -> None:
        event = self._endpointer.push(probability)
        if isinstance(event, VoiceStarted):
            self._began_ms = event.at_ms
            self._forget_before(ms_to_bytes(event.at_ms - self._rule.pre_roll_ms))
            self._given = self._base
            events.append(UtteranceStarted(event.at_ms, bytes_to_ms(self._base)))
        elif isinstance(event, VoiceEnded):
            self._over(event.at_ms, events)
        elif self._began_ms is not None and bytes_to_ms(self._judged) - self._began_ms >= self._rule.longest_ms:
            self._endpointer.end()
            self._over(self._endpointer.last_voiced_ms, events)

    def _give(self, events: list[UtteranceEvent]) -> None:
        if self._judged > self._given:
            piece = bytes(self._audio[self._given - self._base : self._judged - self._base])
            events.append(UtteranceAudio(piece))
            self._given = self._judged

    def _over(self, voiced_until_ms: int, events: list[UtteranceEvent]) -> list[UtteranceEvent]:
        began_ms, self._began_ms = self._began_ms, None
        assert began_ms is not None
        self._give(events)
        audio = bytes(self._audio[: self._judged - self._base])
        begin_ms = bytes_to_ms(self._base)
        events.append(UtteranceOver(audio, begin_ms, voiced_until_ms, max(0, voiced_until_ms - began_ms)))
        self._forget_before(self._judged)
        return events

    def _forget_before(self, position: int) -> None:
        """Drop audio that no utterance will need; positions stay whole milliseconds."""
        position -= position % BYTES_PER_MS
        if position > self._base:
            del self._audio[: position - self._base]
            self._base = position
