"""`offline/hibari`: text to speech that runs here: one English voice, 24 kHz, 140 times as fast as it speaks.

Only the voice `heart` is inside the wheel; the engine would download any other, so any other is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from media_bridge.audio import mulaw
from media_bridge.audio.inference import INSTALL, packaged_file
from media_bridge.audio.resample import resample
from media_bridge.providers.base import ProviderConfig, SpeechChunk, TtsProfile
from media_bridge.providers.offline.engine import Engine, check_engine
from media_bridge.providers.options import Options, read_options
from media_bridge.providers.speech_queue import SpeechQueue
from stayline.errors import ConfigError, ProviderError

VOICE: Final = "heart"
SAMPLE_RATE: Final = 24000
CHUNK: Final = mulaw.ms_to_bytes(200)
GAIN: Final = 2.0
"""The engine speaks at -27 dBFS; a telephone's speech is nearer to -20, and its peaks (0.31) leave room."""
LEAD_MS: Final = 30
PAUSE_MS: Final = {".": 280, "!": 280, "?": 280, "…": 280}
COMMA_MS: Final = 120
"""The engine puts 300 ms of silence before each stretch and 450 after it. The first would delay every reply,
and both together tear clauses apart, so silence is cut to `LEAD_MS` before and to this much after."""
_QUIET: Final = 0.004  # below: silence (the engine's noise floor is 0.001)


class HibariOptions(Options):
    speed: float = Field(1.0, ge=0.5, le=2.0)  #: 1.0: 170 words a minute


class HibariModel:
    """The loaded voice; may be used from several threads at once."""

    def __init__(self) -> None:
        try:
            from hibari import Hibari
        except ImportError as error:
            raise ConfigError("The engine hibari is not installed.", fix=INSTALL) from error
        self._voice: Any = Hibari(voice=VOICE, model=str(find_voice()), threads=1)
        self._spelling = threading.Lock()  # text to sounds keeps caches; it takes a millisecond

    def split(self, text: str) -> list[str]:
        """Sentences, by the engine's own rules ("Dr. Smith" is no end). Joined, they are the text."""
        ends: list[int] = []
        for sentence in self._voice.split_sentences(text):
            begin = text.find(sentence, ends[-1] if ends else 0)
            ends.append(begin + len(sentence))
        cuts = [0, *ends[:-1], len(text)]  # the space between two sentences goes with the second
        return [text[a:b] for a, b in itertools.pairwise(cuts)]

    def speak(self, text: str, speed: float) -> bytes:
        """A sentence or clause as 8 kHz μ-law, the same for the same text; empty if nothing in it is spoken."""
        if not any(c.isalnum() for c in text):
            return b""  # it would breathe at "..."
        with self._spelling:
            sounds = self._voice.phonemize(text)
        parts = [self._voice.from_phonemes(stretch, speed, 0) for stretch in sounds]
        if not parts:
            return b""  # no word that it can say
        ending = text.rstrip(" \"')]\n")[-1:]
        trimmed = _trim(np.concatenate(parts), PAUSE_MS.get(ending, COMMA_MS))
        return mulaw.from_float(resample(trimmed * np.float32(GAIN), SAMPLE_RATE, mulaw.SAMPLE_RATE))


def find_voice() -> Path:
    """The file of the voice that the wheel holds.

    Raises:
        ConfigError: it is not installed.
    """
    return packaged_file("hibari", "assets", "hibari.onnx")


_ENGINE: Final = Engine("hibari", HibariModel)


class HibariTts:
    """The provider: what every call of this process shares.

    Raises:
        ConfigError: the extra is not installed, or the configuration asks for another model, voice or language.
    """

    profile = TtsProfile(native_mulaw=False)

    def __init__(self, config: ProviderConfig) -> None:
        check_engine(config, "hibari")
        if config.voice not in ("", VOICE):
            raise ConfigError(
                f"{config.provider}/{config.model} has no voice {config.voice!r}.",
                fix=f"Its one voice that needs no download is {VOICE!r}.",
            )
        self._options = read_options(HibariOptions, config, "tts")
        find_voice()

    async def warm(self) -> None:
        """Load the voice and say a word: the first time takes 0.3 s more than any other."""
        await _ENGINE.run(HibariModel.speak, "Hello.", self._options.speed)

    async def connect(self, *, call_id: str) -> HibariSession:
        return HibariSession(self._options)

    async def aclose(self) -> None:
        """Nothing to close: the model belongs to the process."""


class HibariSession:
    """One call's voice."""

    def __init__(self, options: HibariOptions) -> None:
        self._options = options
        self._utterances: set[HibariUtterance] = set()

    async def utterance(self) -> HibariUtterance:
        utterance = HibariUtterance(self._options.speed)
        self._utterances.add(utterance)
        utterance.task.add_done_callback(lambda _: self._utterances.discard(utterance))
        return utterance

    async def aclose(self) -> None:
        for utterance in list(self._utterances):
            await utterance.cancel()


class HibariUtterance:
    """One stretch of agent speech. A task of its own turns clauses into sound as they come."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._speech = SpeechQueue()
        self.task = asyncio.create_task(self._speak())

    async def send(self, text: str) -> None:
        self._texts.put_nowait(text)

    async def finish(self) -> None:
        self._texts.put_nowait(None)

    async def cancel(self) -> None:
        self._speech.drop()
        self.task.cancel()
        await asyncio.wait([self.task])

    def __aiter__(self) -> HibariUtterance:
        return self

    async def __anext__(self) -> SpeechChunk:
        return await self._speech.get()

    async def _speak(self) -> None:
        spoken = 0  # characters
        try:
            while (text := await self._texts.get()) is not None:
                for sentence in await _ENGINE.run(HibariModel.split, text):
                    audio = await _ENGINE.run(HibariModel.speak, sentence, self._speed)
                    spoken += len(sentence)
                    for at in range(0, len(audio), CHUNK):
                        self._speech.put(audio[at : at + CHUNK])
                    self._speech.spoken(spoken)
            self._speech.finish()
        except Exception as error:
            self._speech.fail(ProviderError("offline", f"hibari failed: {error}", retryable=False))


def _trim(samples: NDArray[np.float32], pause_ms: int) -> NDArray[np.float32]:
    """Cut the silence before and after speech, with a margin for sounds that begin or end softly."""
    loud = np.flatnonzero(np.abs(samples) > _QUIET)
    if not len(loud):
        return samples[:0]
    per_ms = SAMPLE_RATE // 1000
    return samples[max(0, loud[0] - LEAD_MS * per_ms) : loud[-1] + pause_ms * per_ms]
