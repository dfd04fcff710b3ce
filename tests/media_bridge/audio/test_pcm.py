"""Linear PCM to the line's μ-law and back: the length, and that the cut of the input does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.audio.pcm import MulawToPcm, PcmToMulaw


def sine(rate: int, seconds: float = 1.0) -> bytes:
    wave = 0.3 * np.sin(2 * np.pi * 400 / rate * np.arange(round(rate * seconds)))
    return (wave * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
@pytest.mark.parametrize("size", [1, 641, 48000])
def test_pcm_of_one_second_is_one_second_however_it_is_cut(rate: int, size: int) -> None:
    pcm = sine(rate)[: 20 * size * 50]
    whole = PcmToMulaw(rate)
    wanted = whole.push(pcm) + whole.flush()
    stream = PcmToMulaw(rate)
    got = b"".join(stream.push(pcm[begin : begin + size]) for begin in range(0, len(pcm), size)) + stream.flush()
    assert got == wanted
    assert len(got) == -(-(len(pcm) // 2) * 8000 // rate)


def test_an_odd_last_byte_is_dropped_and_the_stream_is_as_new() -> None:
    stream = PcmToMulaw(24000)
    first = stream.push(sine(24000, 0.1) + b"\x55") + stream.flush()
    assert first == stream.push(sine(24000, 0.1)) + stream.flush()


def test_the_sound_is_the_same_both_ways() -> None:
    line, vendor = PcmToMulaw(24000), MulawToPcm(24000)
    there = vendor.push(mulaw.from_float(np.full(8000, 0.25, dtype=np.float32))) + vendor.flush()
    assert len(there) == 2 * 24000
    back = mulaw.to_float(line.push(there) + line.flush())
    assert len(back) == 8000
    assert np.allclose(back[100:-100], 0.25, atol=0.01)
