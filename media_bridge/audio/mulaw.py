"""μ-law, the phone line's code for sound: 8 kHz, one byte a sample (ITU-T G.711)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 8000
BYTES_PER_MS: Final = 8
SILENCE: Final = b"\xff"
"""One sample of silence: positive zero."""

_BIAS: Final = 132  # 33 in the 14-bit scale of the recommendation; makes every segment start at a power of two
_CLIP: Final = 32635  # the largest magnitude that stays in the last segment with the bias added


def _decoding_table() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF  # bits are sent inverted
    magnitude = (((code & 0x0F) << 3) + _BIAS << ((code >> 4) & 0x07)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _encoding_table() -> NDArray[np.uint8]:
    """Codes by sample, indexed by the sample's 16 bits read as unsigned."""
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    biased = np.minimum(np.abs(sample), _CLIP) + _BIAS
    exponent = np.log2(biased).astype(np.int32) - 7
    code = np.where(sample < 0, 0x80, 0) | exponent << 4 | (biased >> (exponent + 3)) & 0x0F
    return np.asarray(~code & 0xFF, dtype=np.uint8)


_DECODED: Final = _decoding_table()
_ENCODED: Final = _encoding_table()


def decode(payload: bytes) -> NDArray[np.int16]:
    """Expand μ-law to linear PCM.

    Args:
        payload: μ-law samples, one byte each, any length.
    Returns:
        Samples of the same count, 16-bit signed, full scale ±32124.
    """
    return _DECODED[np.frombuffer(payload, dtype=np.uint8)]


def encode(samples: NDArray[np.int16]) -> bytes:
    """Compress linear PCM to μ-law.

    Args:
        samples: 16-bit signed, any length; magnitudes above 32635 are clipped.
    Returns:
        One byte per sample. Decoding it gives the nearest of the code's 255 values.
    """
    return _ENCODED[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)].tobytes()


def from_float(samples: NDArray[np.float32]) -> bytes:
    """Compress samples of full scale ±1.0 to μ-law; louder ones are clipped."""
    return encode((np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16))


def to_float(payload: bytes) -> NDArray[np.float32]:
    """Expand μ-law to samples of full scale ±1.0."""
    return decode(payload).astype(np.float32) / np.float32(32768.0)


def ms_to_bytes(ms: float) -> int:
    """How many bytes last so many milliseconds, to the nearest sample."""
    return round(ms * BYTES_PER_MS)


def bytes_to_ms(count: int) -> int:
    """How many whole milliseconds so many bytes last."""
    return count // BYTES_PER_MS


def silence(ms: float) -> bytes:
    return SILENCE * ms_to_bytes(ms)
