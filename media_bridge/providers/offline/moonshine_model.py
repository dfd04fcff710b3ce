"""Moonshine tiny-en (26 M parameters, MIT) on plain onnxruntime: sound in, text and confidence out.

The weights come from the moonshine-voice 0.0.73 wheel (0.1.x has none); its own library, which downloads, is not
imported. Measured on one thread: 0.1 s for a sentence, 0.5 s for 20 s of speech.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from media_bridge.audio.inference import open_session, packaged_file

SAMPLE_RATE: Final = 16000
LONGEST: Final = 20.0  #: seconds; cost grows faster than length, and from 30 s it repeats itself
_SHORTEST: Final = 0.1  # seconds; the encoder fails below
_TOKENS_PER_SECOND: Final = 6.5  # nobody speaks faster; beyond it a decoder is in a loop
_START, _END = 1, 2
_HEADS, _HEAD_SIZE = 8, 36


@dataclasses.dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard. `confidence`: geometric mean of the tokens' probabilities, 0..1."""

    text: str
    confidence: float
    tokens: int


def find_weights() -> Path:
    """The folder of the weights.

    Raises:
        ConfigError: they are not installed.
    """
    return packaged_file("moonshine_voice", "assets", "tiny-en", "decoder_model_merged.ort").parent


class MoonshineModel:
    """The loaded network. Holds no state of a call; may be used from several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._encoder = open_session(folder / "encoder_model.ort")
        self._decoder = open_session(folder / "decoder_model_merged.ort")
        self._pieces = _read_pieces((folder / "tokenizer.bin").read_bytes())
        self._encoder_masked = len(self._encoder.get_inputs()) > 1
        names = [i.name for i in self._decoder.get_inputs()]
        self._decoder_masked = "encoder_attention_mask" in names
        self._caches = [n for n in names if n.startswith("past_")]
        self._outputs = [o.name.replace("present", "past_key_values") for o in self._decoder.get_outputs()[1:]]

    def transcribe(self, samples: NDArray[np.float32], given_up: Callable[[], bool] = lambda: False) -> Transcript:
        """Transcribe one stretch of speech.

        Args:
            samples: 16 kHz, full scale ±1.0, at most `LONGEST` seconds.
            given_up: asked before each token; true ends the work, with what there is so far.
        """
        missing = int(_SHORTEST * SAMPLE_RATE) - len(samples)
        if missing > 0:
            samples = np.concatenate((samples, np.zeros(missing, dtype=np.float32)))
        sound = samples[np.newaxis].astype(np.float32, copy=False)
        mask = np.ones(sound.shape, dtype=np.int64)
        feed: dict[str, Any] = {"input_values": sound}
        if self._encoder_masked:
            feed["attention_mask"] = mask
        hidden = self._encoder.run(None, feed)[0]
        # The decoder wants the mask of the raw sound, which its graph subsamples. One of the hidden states'
        # length works below 9 s only.
        fixed = {
            "encoder_hidden_states": hidden,
            **({"encoder_attention_mask": mask} if self._decoder_masked else {}),
        }
        return self._decode(fixed, max(8, int(len(samples) / SAMPLE_RATE * _TOKENS_PER_SECOND) + 4), given_up)

    def _decode(self, fixed: dict[str, Any], longest: int, given_up: Callable[[], bool]) -> Transcript:
        """Greedy decoding, a token at a time."""
        empty = np.zeros((1, _HEADS, 0, _HEAD_SIZE), dtype=np.float32)
        cache: dict[str, Any] = dict.fromkeys(self._caches, empty)
        tokens = [_START]
        log_probability = 0.0
        steps = 0
        while steps < longest and not given_up():
            cached = steps > 0
            feed = {"input_ids": np.array([[tokens[-1]]], dtype=np.int64), "use_cache_branch": np.array([cached])}
            logits, *state = self._decoder.run(None, {**fixed, **feed, **cache})
            scores = logits[0, -1]
            token = int(scores.argmax())
            log_probability -= math.log(float(np.exp(scores - scores[token]).sum()))
            for name, value in zip(self._outputs, state, strict=True):
                if not (cached and ".encoder." in name):  # those stay as the first step made them
                    cache[name] = value
            steps += 1
            if token == _END:
                break
            tokens.append(token)
        return Transcript(self._text(tokens[1:]), math.exp(log_probability / steps) if steps else 0.0, steps)

    def _text(self, tokens: list[int]) -> str:
        pieces = (self._pieces[token] for token in tokens)
        spoken = b"".join(piece for piece in pieces if len(piece) == 1 or not _is_control(piece))
        return spoken.decode("utf-8", "ignore").replace("\u2581", " ").strip()


def _is_control(piece: bytes) -> bool:
    return piece.startswith(b"<") and piece.endswith(b">")


def _read_pieces(data: bytes) -> list[bytes]:
    """The tokenizer's pieces: each with its length before it, in one byte, or two (low 7 bits first) from 128."""
    pieces = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += (data[at] - 1) * 128
            at += 1
        pieces.append(data[at : at + length])
        at += length
    return pieces
