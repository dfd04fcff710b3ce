"""The readable speech: it survives what a telephone does to it, and is nothing else's."""

from __future__ import annotations

from stayline.lab.voice import is_voiced
from tests.chaos import speech
from tests.fakes.sound import loud, tone


def test_what_is_said_is_what_is_read() -> None:
    reader = speech.Reader()
    sound = speech.utter("I am c12-3, hello.")
    for begin in range(0, len(sound), 160):
        assert is_voiced(sound[begin : begin + 160])
        assert loud(sound[begin : begin + 160])
        reader.take(sound[begin : begin + 160])
    assert reader.text == "I am c12-3, hello."
    assert reader.heard[0].whole


def test_a_short_text_is_said_once_and_its_end_is_long() -> None:
    sound = speech.utter("c1n1 hi", least_frames=25)
    reader = speech.Reader()
    for begin in range(5 * 160, len(sound), 160):
        reader.take(sound[begin : begin + 160])
    assert len(sound) == 25 * 160
    assert reader.text == "hi"


def test_frames_that_do_not_fit_the_clock_are_read_all_the_same() -> None:
    reader = speech.Reader()
    sound = b"\xff" * 73 + speech.utter("moved by 73 bytes") + b"\xff" * 87
    for begin in range(0, len(sound), 160):
        reader.take(sound[begin : begin + 160])
    assert reader.text == "moved by 73 bytes"


def test_a_gap_is_seen() -> None:
    reader = speech.Reader()
    sound = speech.utter("hello there")
    for begin in [*range(0, 4 * 160, 160), *range(7 * 160, len(sound), 160)]:
        reader.take(sound[begin : begin + 160])
    assert reader.text == "hell~here"
    assert not reader.heard[0].whole


def test_other_sounds_say_nothing() -> None:
    assert speech.read(tone(20)) is None
    assert speech.read(b"\xff" * 160) is None
    assert speech.read(b"") is None
