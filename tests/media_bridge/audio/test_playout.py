"""What the caller heard: marks, clears, generations, and where sentences end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_bridge.audio.playout import LOOKAHEAD, Ended, Playout, SendAudio, SendClear, SendMark, Started

TEXT = "One two three four five. Six seven eight nine ten."
MS_PER_CHAR = 60


def speaking(text: str = TEXT) -> Playout:
    playout = Playout()
    playout.add_text(1, text)
    playout.add_audio(1, b"\x01" * (len(text) * MS_PER_CHAR * 8), len(text))
    playout.close(1)
    return playout


def marks(messages: Sequence[object]) -> list[str]:
    return [m.name for m in messages if isinstance(m, SendMark)]


def test_sends_no_more_than_its_lookahead() -> None:
    messages, news = speaking().due(0)
    sent = sum(len(m.audio) for m in messages if isinstance(m, SendAudio))
    assert LOOKAHEAD <= sent <= LOOKAHEAD + 1600
    assert news == [Started(1)]


def test_nothing_is_heard_before_time_passes() -> None:
    playout = speaking()
    playout.due(0)
    assert playout.played(0) == 0


def test_without_an_echo_the_next_mark_bounds_what_was_heard() -> None:
    playout = speaking()
    playout.due(0)
    assert playout.played(100) == 800
    assert playout.played(5000) == 1600  # the first mark, at 200 ms, was not echoed


def test_an_echo_moves_the_position_and_time_goes_on_from_it() -> None:
    playout = speaking()
    messages, _ = playout.due(0)
    playout.mark(marks(messages)[0], 260)
    assert playout.played(260) == 1600
    assert playout.played(300) == 1600 + 40 * 8


def test_a_mark_echoed_after_a_clear_proves_nothing() -> None:
    playout = speaking()
    messages, _ = playout.due(0)
    out, ended = playout.drop(100)
    assert out == [SendClear()]
    assert ended == [Ended(1, "", False, 100)]  # 100 ms: not one whole word
    playout.mark(marks(messages)[-1], 120)
    assert playout.played(120) == 0


@pytest.mark.parametrize(
    ("ms", "heard"),
    [(0, ""), (240, "One"), (250, "One"), (460, "One two"), (1440, "One two three four five."), (1500, TEXT[:24])],
)
def test_what_was_heard_is_cut_at_a_word(ms: int, heard: str) -> None:
    playout = speaking()
    now = 0
    while now < ms:
        messages, _ = playout.due(now)
        now += 20
        for name in marks(messages):
            if int(name.partition(":")[2]) <= now * 8:
                playout.mark(name, now)
        for position in range(1600, now * 8 + 1, 1600):
            playout.mark(f"0:{position}", position // 8)
    _, ended = playout.drop(ms)
    assert (ended[0].heard if ended else "") == heard


def test_an_utterance_ends_with_its_last_echo() -> None:
    playout = speaking("Hi.")
    messages, _ = playout.due(0)
    assert playout.due(180)[1] == []
    playout.mark(marks(messages)[-1], 200)
    assert playout.due(200)[1] == [Ended(1, "Hi.", True, 180)]
    assert playout.idle


def on_the_line(playout: Playout, begin: int, end: int) -> tuple[int, list[Ended]]:
    """Frames of a caller come, and no echo. How many milliseconds were sent in that time, and what ended."""
    sent, ended = 0, []
    for now in range(begin, end, 20):
        playout.frame(now)
        messages, news = playout.due(now)
        sent += sum(len(m.audio) for m in messages if isinstance(m, SendAudio)) // 8
        ended += [item for item in news if isinstance(item, Ended)]
    return sent, ended


def test_a_carrier_that_echoes_nothing_does_not_hold_the_floor_for_ever() -> None:
    playout = speaking("Hi.")
    assert on_the_line(playout, 0, 3100) == (180, [])
    assert on_the_line(playout, 3100, 3300) == (0, [Ended(1, "Hi.", True, 180)])


def test_a_carrier_that_echoes_nothing_is_told_everything() -> None:
    playout, whole = speaking(), len(TEXT) * MS_PER_CHAR
    assert on_the_line(playout, 0, 12_000) == (whole, [Ended(1, TEXT, True, whole)])
    playout.add_text(2, TEXT)
    playout.add_audio(2, b"\x01" * (whole * 8), len(TEXT))
    playout.close(2)
    assert on_the_line(playout, 12_000, 12_000 + whole - 100) == (whole, []), "by the clock from now on"
    assert on_the_line(playout, 12_000 + whole - 100, 20_000) == (0, [Ended(2, TEXT, True, whole)])


@pytest.mark.parametrize("stalls", [4_000, 60_000])
def test_what_was_sent_while_nothing_came_through_is_not_taken_for_heard(stalls: int) -> None:
    """The network is cut, or this process stands still; then 200 frames come at once, and the echoes after them."""
    playout = speaking("I have booked it.")
    playout.frame(0)
    messages, _ = playout.due(20)
    for _ in range(200):
        playout.frame(stalls)
        assert playout.due(stalls)[1] == []
    playout.mark(marks(messages)[0], stalls + 200)
    playout.frame(stalls + 200)
    assert playout.due(stalls + 200)[1] == []
    assert playout.drop(stalls + 200)[1] == [Ended(1, "I", False, 200)]


def test_an_echo_after_all_is_believed_again() -> None:
    playout = speaking()
    messages, _ = playout.due(0)
    on_the_line(playout, 0, 3_400)
    assert playout.played(3_400) > 1600
    playout.mark(marks(messages)[0], 3_400)
    assert playout.played(9_000) == 3200, "as far as the next mark"


def test_pause_and_resume_play_every_byte_once() -> None:
    playout = speaking()
    messages, _ = playout.due(0)
    playout.mark(marks(messages)[0], 200)
    assert playout.pause(250) == [SendClear()]
    assert playout.due(400) == ([], [])
    playout.resume()
    now, sent = 1000, 250 * 8
    ended: list[object] = []
    while not playout.idle and now < 20_000:
        messages, news = playout.due(now)
        sent += sum(len(m.audio) for m in messages if isinstance(m, SendAudio))
        ended += news
        for name in marks(messages):
            now += 200
            playout.mark(name, now)
        now += 20
    assert sent == len(TEXT) * MS_PER_CHAR * 8
    assert ended[-1] == Ended(1, TEXT, True, len(TEXT) * MS_PER_CHAR)


def test_utterances_are_played_in_order() -> None:
    playout = Playout()
    for number in (1, 2):
        playout.add_text(number, "Hi.")
        playout.add_audio(number, b"\x01" * 800, 3)
        playout.close(number)
    messages, news = playout.due(0)
    assert news == [Started(1), Started(2)]
    playout.mark(marks(messages)[0], 100)
    assert playout.due(100)[1] == [Ended(1, "Hi.", True, 100)]


def test_the_second_utterance_waits_for_the_audio_of_the_first() -> None:
    playout = Playout()
    playout.add_text(1, "First.")
    playout.add_text(2, "Second.")
    playout.add_audio(2, b"\x02" * 800, 7)
    assert playout.due(0) == ([], [])
    playout.add_audio(1, b"\x01" * 800, 6)
    playout.close(1)
    messages, _ = playout.due(10)
    assert [m.audio[:1] for m in messages if isinstance(m, SendAudio)] == [b"\x01", b"\x02"]


def test_late_audio_of_a_dropped_utterance_is_thrown_away() -> None:
    playout = speaking()
    playout.due(0)
    playout.drop(100)
    playout.add_audio(1, b"\x01" * 800, None)
    playout.close(1)
    assert playout.due(200) == ([], [])


@given(
    st.lists(st.sampled_from(["due", "pause", "resume", "tick", "echo", "frames"]), max_size=60),
    st.integers(1, 80),
    st.booleans(),
)
def test_heard_text_only_grows_and_is_always_a_prefix(actions: list[str], chars: int, timed: bool) -> None:
    text = ("word " * 20)[:chars]
    playout = Playout()
    playout.add_text(1, text)
    playout.add_audio(1, b"\x01" * (chars * 480), chars if timed else None)
    playout.close(1)
    now, outstanding = 0, []
    heard_ms = 0
    for action in actions:
        if action == "due":
            outstanding += marks(playout.due(now)[0])
        elif action == "pause":
            playout.pause(now)
            outstanding.clear()
        elif action == "resume":
            playout.resume()
        elif action == "echo" and outstanding:
            playout.mark(outstanding.pop(0), now)
        elif action == "frames":
            playout.frame(now)
            now += 450
        now += 50
        assert playout.heard_ms >= heard_ms
        heard_ms = playout.heard_ms
    _, ended = playout.drop(now)
    for item in ended:
        assert text.startswith(item.heard)
        assert item.speech_ms <= chars * 60


def test_what_is_said_after_a_sentence_was_to_be_the_last_is_played() -> None:
    playout = speaking()
    messages, _ = playout.due(0)
    playout.stop_after_sentence(200)
    playout.add_text(2, "More.")
    playout.add_audio(2, b"\x02" * 2400, 5)
    playout.close(2)
    now, heard, ended = 0, bytearray(), []
    while not playout.idle and now < 20_000:
        for message in messages:
            if isinstance(message, SendClear):
                heard = heard[: now * 8]
            elif isinstance(message, SendAudio):
                heard += message.audio
        now += 20
        for name in marks(messages):
            playout.mark(name, now)
        messages, news = playout.due(now)
        ended += [item for item in news if isinstance(item, Ended)]
    assert [(item.utterance, item.complete) for item in ended] == [(1, False), (2, True)]
    assert ended[0].heard == "One two three four five."
    assert heard.count(b"\x02") == 2400


def test_words_without_their_sound_were_not_said() -> None:
    """A realtime model's words come ahead of its sound, and the connection breaks between the two."""
    for cut, heard in ((True, "One two"), (False, "One two three")):
        playout = Playout()
        playout.add_text(1, "One")
        playout.add_audio(1, b"\x01" * 1600, None)
        playout.add_text(1, " two")
        playout.add_audio(1, b"\x01" * 1600, None)
        playout.add_text(1, " three")
        playout.close(1, cut=cut)
        messages, _ = playout.due(0)
        for name in marks(messages):
            playout.mark(name, 400)
        _, news = playout.due(400)
        assert news == [Ended(1, heard, complete=True, speech_ms=400)]
