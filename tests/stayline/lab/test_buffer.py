"""The playout buffer: audio in order, marks where they belong, nothing lost by framing."""

from hypothesis import given
from hypothesis import strategies as st

from stayline.lab.buffer import FRAME_BYTES, SILENCE, PlayBuffer


def test_an_empty_buffer_plays_silence_and_returns_marks_at_once() -> None:
    buffer = PlayBuffer()
    assert buffer.frame() == (SILENCE, [])
    buffer.mark("a")
    assert buffer.frame() == (SILENCE, ["a"])


def test_a_mark_comes_back_when_the_audio_before_it_has_been_played() -> None:
    buffer = PlayBuffer()
    buffer.add(b"\x01" * FRAME_BYTES)
    buffer.mark("one")
    buffer.add(b"\x02" * 40)
    buffer.mark("two")
    assert buffer.queued_ms == 25
    assert buffer.frame() == (b"\x01" * FRAME_BYTES, [])
    assert buffer.frame() == (b"\x02" * 40 + SILENCE[40:], ["one"])
    assert buffer.frame() == (SILENCE, ["two"])
    assert buffer.queued_ms == 0


def test_clear_returns_all_outstanding_marks_in_order() -> None:
    buffer = PlayBuffer()
    for name in ("playing", "waiting"):
        buffer.add(b"\x01" * FRAME_BYTES)
        buffer.mark(name)
    buffer.frame()
    assert buffer.clear() == ["playing", "waiting"]
    assert buffer.clear() == []
    assert buffer.frame() == (SILENCE, [])


@given(st.lists(st.binary(min_size=1, max_size=500) | st.text(min_size=1, max_size=3), max_size=20))
def test_everything_comes_out_once_and_in_order(items: list[bytes | str]) -> None:
    buffer = PlayBuffer()
    for item in items:
        buffer.mark(item) if isinstance(item, str) else buffer.add(item)
    audio = b"".join(item for item in items if isinstance(item, bytes))
    expected = []  # marks, and how much audio must have been played by then
    played = 0
    for item in items:
        if isinstance(item, str):
            expected.append((item, played))
        else:
            played += len(item)
    heard = b""
    names: list[str] = []
    for tick in range(len(audio) // FRAME_BYTES + 3):
        frame, marks = buffer.frame()
        for name in marks:
            wanted, position = expected[len(names)]
            assert name == wanted
            assert position <= tick * FRAME_BYTES < position + 2 * FRAME_BYTES
            names.append(name)
        heard += frame
    assert len(names) == len(expected)
    assert heard[: len(audio)] == audio
    assert set(heard[len(audio) :]) <= {0xFF}
