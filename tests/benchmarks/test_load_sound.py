"""The sound of the load benchmark: loud and quiet where it should be, and with the call's number."""

from __future__ import annotations

import pytest

from benchmarks.sound import FRAME, SPEECH, Utterances, call_number, is_loud, quiet_frame, speech_of
from media_bridge.audio import mulaw


def test_every_frame_of_the_speech_is_loud() -> None:
    assert all(is_loud(SPEECH[at : at + FRAME]) for at in range(0, len(SPEECH), FRAME))
    assert is_loud(speech_of(2500))


@pytest.mark.parametrize("number", [0, 1, 149, 4095])
def test_the_quiet_between_carries_the_number(number: int) -> None:
    frame = quiet_frame(number)
    assert len(frame) == FRAME
    assert not is_loud(frame)
    assert call_number(frame) == number
    assert call_number(b"\xff" * 50 + frame) == number  # cut otherwise by the server
    assert call_number(mulaw.encode(mulaw.decode(frame))) == number  # through linear PCM


def test_no_number_in_other_sound() -> None:
    assert call_number(b"\xff" * FRAME) is None
    assert call_number(quiet_frame(7)[:20]) is None
    spoilt = bytearray(quiet_frame(7))
    spoilt[12] ^= 0x80  # one bit of the number, which its repetition contradicts
    assert call_number(bytes(spoilt)) is None
    assert all(call_number(SPEECH[at : at + FRAME]) is None for at in range(0, len(SPEECH), FRAME))


def test_an_utterance_begins_after_sixty_and_ends_a_hundred_milliseconds_after_it() -> None:
    utterances = Utterances()
    happened = [utterances.feed(loud, 20) for loud in [False] * 5 + [True] * 10 + [False] * 6]
    assert [(at * 20 + 20, what) for at, what in enumerate(happened) if what] == [(160, "began"), (400, "ended")]
    assert utterances.began_ms == 100


def test_a_click_is_no_utterance() -> None:
    utterances = Utterances()
    assert not any(utterances.feed(loud, 20) for loud in [True, True, False] * 10)
