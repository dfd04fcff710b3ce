"""When the caller's audio began, as the frames tell it."""

from __future__ import annotations

import pytest

from media_bridge.audio.line import CallerAudio

FRAME = 160  # bytes: 20 ms


def begun(*times: int) -> int:
    caller = CallerAudio()
    for now_ms in times:
        caller.frame(FRAME, now_ms)
    return caller.begun_ms


@pytest.mark.parametrize(
    ("times", "began"),
    [
        pytest.param([520, 540, 560], 500, id="in time"),
        pytest.param([5, 5, 5, 5, 5, 25], -95, id="gathered before the session was there"),
        pytest.param([520, 900, 900, 900, 920], 500, id="held up on the way, and then in time again"),
        pytest.param([720, 720, 720, 740, 760], 660, id="the first ones came late"),
        pytest.param([520, 530, 540], 480, id="the carrier's clock is the faster one"),
    ],
)
def test_when_it_began(times: list[int], began: int) -> None:
    assert begun(*times) == began


def test_nothing_was_heard_yet() -> None:
    assert begun() == 0
