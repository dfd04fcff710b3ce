"""Which frames may hold a voice."""

from __future__ import annotations

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import LOUD, is_loud
from tests.fakes.sound import silence, tone


def test_a_voice_is_loud_and_a_silent_line_is_not() -> None:
    assert is_loud(tone(20))
    assert not is_loud(silence(20))
    assert not is_loud(b"")


@pytest.mark.parametrize(("level", "loud"), [(LOUD // 4, False), (LOUD * 2, True)])
def test_it_is_the_mean_magnitude_that_counts(level: int, loud: bool) -> None:
    frame = mulaw.encode(np.full(160, level, dtype=np.int16))
    assert is_loud(frame) is loud


def test_half_a_frame_of_sound_counts_half() -> None:
    assert is_loud(mulaw.encode(np.full(80, LOUD * 3, dtype=np.int16)) + silence(10))
    assert not is_loud(mulaw.encode(np.full(80, LOUD * 3 // 2, dtype=np.int16)) + silence(10))
