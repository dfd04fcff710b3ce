"""The codec against the tables of ITU-T G.711, which count in 14 bits: a quarter of the 16-bit scale."""

from __future__ import annotations

import numpy as np
import pytest

from media_bridge.audio import mulaw

SEGMENT_ENDS = (31, 95, 223, 479, 991, 2015, 4063, 8159)  # table 2a, column 3, 14-bit decision values
LAST_OUTPUTS = (30, 93, 219, 471, 975, 1983, 3999, 8031)  # column 8, the last value of each segment


def test_the_ends_of_the_segments_have_the_standards_codes_and_values() -> None:
    for segment, (end, output) in enumerate(zip(SEGMENT_ENDS, LAST_OUTPUTS, strict=True)):
        code = 0x80 | (~(segment << 4 | 0x0F) & 0x7F)
        assert mulaw.decode(bytes([code]))[0] == 4 * output
        assert mulaw.decode(bytes([code & 0x7F]))[0] == -4 * output
        assert mulaw.encode(np.array([4 * end - 1], np.int16)) == bytes([code])


@pytest.mark.parametrize("sign", [1, -1])
def test_every_sample_gets_the_code_on_its_side_of_the_decision_values(sign: int) -> None:
    magnitudes = np.arange(0, 32768, dtype=np.int32)
    values = np.abs(mulaw.decode(mulaw.encode((sign * magnitudes).astype(np.int16))).astype(np.int32))
    outputs = np.unique(values)
    assert len(outputs) == 128
    assert np.all(np.diff(values) >= 0)
    # Segment by segment the step doubles, from 8 to 1024 (2 to 256 in 14 bits).
    assert [int(outputs[16 * s + 8] - outputs[16 * s + 7]) for s in range(8)] == [8 << s for s in range(8)]


def test_decoding_undoes_encoding_for_every_code_but_negative_zero() -> None:
    codes = bytes(range(256))
    again = mulaw.encode(mulaw.decode(codes))
    assert [(a, b) for a, b in zip(codes, again, strict=True) if a != b] == [(0x7F, 0xFF)]
    assert mulaw.decode(b"\x00")[0] == -32124
    assert mulaw.decode(b"\x80")[0] == 32124


def test_silence_is_zero() -> None:
    assert mulaw.encode(np.zeros(1, np.int16)) == mulaw.SILENCE
    assert not mulaw.decode(mulaw.silence(20)).any()


def test_lengths_and_durations() -> None:
    assert mulaw.ms_to_bytes(20) == len(mulaw.silence(20)) == 160
    assert mulaw.bytes_to_ms(167) == 20
    assert mulaw.ms_to_bytes(0.125) == 1


def test_floats_are_clipped_and_come_back() -> None:
    loud = mulaw.decode(mulaw.from_float(np.array([2.0, -2.0, 0.0], np.float32)))
    assert loud.tolist() == [32124, -32124, 0]
    assert mulaw.to_float(mulaw.from_float(np.array([0.5], np.float32)))[0] == pytest.approx(0.5, rel=0.03)


def test_any_length_and_stride() -> None:
    assert mulaw.encode(np.zeros(0, np.int16)) == b""
    assert len(mulaw.decode(b"")) == 0
    assert mulaw.encode(np.arange(10, dtype=np.int16)[::2]) == mulaw.encode(np.arange(0, 10, 2, dtype=np.int16))
