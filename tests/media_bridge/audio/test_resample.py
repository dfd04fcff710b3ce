from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from media_bridge.audio.mulaw import from_float, to_float
from media_bridge.audio.pcm import MulawToPcm, PcmToMulaw
from media_bridge.audio.resample import Resampler, resample

RATES = [(24000, 8000), (22050, 8000), (16000, 8000), (44100, 8000), (48000, 8000), (8000, 16000), (8000, 24000)]
EDGE = 300  # samples at either end, where the filter sees the silence around the sound


def tone(frequency: float, rate: int, seconds: float = 1.0) -> NDArray[np.float32]:
    at = np.arange(int(rate * seconds)) / rate
    return np.sin(2 * np.pi * frequency * at).astype(np.float32)


def in_chunks(samples: NDArray[np.float32], rates: tuple[int, int], sizes: list[int]) -> NDArray[np.float32]:
    resampler = Resampler(*rates)
    out = []
    at = turn = 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        out.append(resampler.push(samples[at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*out, resampler.flush()])


@pytest.mark.parametrize("rates", RATES)
def test_a_second_stays_a_second_and_a_tone_stays_in_place(rates: tuple[int, int]) -> None:
    out = resample(tone(1000, rates[0]), *rates)
    assert len(out) == rates[1]
    wanted = tone(1000, rates[1])
    assert np.abs(out - wanted)[EDGE:-EDGE].max() < 1e-4


@pytest.mark.parametrize("rates", [r for r in RATES if r[0] > r[1]])
def test_what_would_alias_is_gone_and_speech_is_not(rates: tuple[int, int]) -> None:
    def level(frequency: float) -> float:
        return float(np.sqrt(2 * np.mean(resample(tone(frequency, rates[0]), *rates)[EDGE:-EDGE] ** 2)))

    assert level(3400) == pytest.approx(1.0, abs=0.01)  # the top of the telephone band
    for above in (4100, 5000, 7900):
        if above < rates[0] / 2:
            assert level(above) < 1e-4  # -80 dB


@pytest.mark.parametrize("rates", [r for r in RATES if r[0] < r[1]])
def test_no_image_appears_above_the_old_band(rates: tuple[int, int]) -> None:
    out = resample(tone(3000, rates[0]), *rates)[EDGE:-EDGE]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    above = int(4100 / rates[1] * len(out))
    assert spectrum[above:].max() < spectrum.max() * 1e-3


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(RATES), st.lists(st.integers(0, 900), min_size=1, max_size=8).filter(any), st.integers(0, 3000)
)
def test_chunking_changes_nothing(rates: tuple[int, int], sizes: list[int], length: int) -> None:
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    whole = resample(samples, *rates)
    chunked = in_chunks(samples, rates, sizes)
    assert len(whole) == -(-length * rates[1] // rates[0])
    np.testing.assert_array_equal(chunked, whole)


def test_output_comes_as_it_becomes_known() -> None:
    resampler = Resampler(24000, 8000)
    out = resampler.push(tone(400, 24000, 0.1))
    assert 700 < len(out) < 800  # all but the filter's reach of 4 ms


def test_a_flushed_resampler_is_as_new() -> None:
    resampler = Resampler(22050, 8000)
    first, second = (np.concatenate((resampler.push(tone(500, 22050)), resampler.flush())) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_equal_rates_leave_the_telephone_band_alone() -> None:
    out = resample(tone(1000, 8000), 8000, 8000)
    assert np.abs(out - tone(1000, 8000))[EDGE:-EDGE].max() < 1e-4


def test_a_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(0, 8000)


# --- the whole way of a vendor's sound ------------------------------------------------------------------------


def cut(sound: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = turn = 0
    while at < len(sound):
        yield sound[at : at + sizes[turn % len(sizes)]]
        at, turn = at + sizes[turn % len(sizes)], turn + 1


SIZES = st.lists(st.integers(0, 3000), min_size=1, max_size=6).filter(any)


@settings(deadline=None, max_examples=20)
@given(SIZES, st.integers(0, 2000))
def test_so_many_milliseconds_in_are_so_many_out(sizes: list[int], ms: int) -> None:
    """A call at 16 and 24 kHz: however the sound is cut, and again after the end of a stretch of speech."""
    heard, spoken = MulawToPcm(16000), PcmToMulaw(24000)
    for _ in range(2):
        pcm = b"".join([*map(heard.push, cut(b"\x55" * ms * 8, sizes)), heard.flush()])
        assert len(pcm) == ms * 16 * 2
        mulaw = b"".join([*map(spoken.push, cut(b"\x01\x10" * ms * 24, sizes)), spoken.flush()])
        assert len(mulaw) == ms * 8


def test_a_tone_comes_through_both_ways_as_it_was() -> None:
    there, back = MulawToPcm(16000), PcmToMulaw(16000)
    wanted = tone(1000, 8000) * 0.5
    pcm = there.push(from_float(wanted)) + there.flush()
    returned = to_float(back.push(pcm) + back.flush())
    noise = np.sqrt(np.mean((returned - wanted)[EDGE:-EDGE] ** 2))
    assert 20 * np.log10(noise / np.sqrt(np.mean(wanted**2))) < -33  # μ-law's own noise, twice
