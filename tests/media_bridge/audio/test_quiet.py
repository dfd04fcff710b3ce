"""What of the caller goes to a vendor frame by frame, and what together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import LOUD, QUIET, loudness
from media_bridge.audio.quiet import SETTLED_MS, TOGETHER_MS, QuietTogether
from tests.fakes.sound import silence

FRAME_MS = 20
TOGETHER = TOGETHER_MS // FRAME_MS


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "big") * 80


def sent(quiet: QuietTogether, louds: Iterable[bool]) -> list[bytes]:
    return [quiet.add(numbered(number), LOUD if loud else QUIET) for number, loud in enumerate(louds)]


def settled() -> QuietTogether:
    quiet = QuietTogether()
    for _ in range(SETTLED_MS // FRAME_MS):
        assert quiet.add(silence(FRAME_MS), 0), "nobody knows yet that the caller has ended"
    return quiet


def test_a_voice_goes_frame_by_frame_and_so_does_the_pause_after_it() -> None:
    louds = [True] * 100 + [False] * (SETTLED_MS // FRAME_MS)
    assert sent(QuietTogether(), louds) == [numbered(number) for number in range(len(louds))]


def test_a_long_quiet_goes_together() -> None:
    pieces = sent(settled(), [False] * (2 * TOGETHER))
    assert [len(piece) // 160 for piece in pieces] == [0, 0, 0, 0, TOGETHER] * 2
    assert b"".join(pieces) == b"".join(numbered(number) for number in range(2 * TOGETHER))


def test_who_begins_to_speak_is_heard_at_once_and_so_is_what_was_before() -> None:
    quiet = settled()
    pieces = sent(quiet, [False, False, True, True, False])
    assert pieces == [b"", b"", numbered(0) + numbered(1) + numbered(2), numbered(3), numbered(4)]


def test_a_soft_beginning_is_a_voice_and_a_lines_noise_is_not() -> None:
    soft = mulaw.encode(np.full(160, LOUD // 2, dtype=np.int16))
    hiss = mulaw.encode(np.random.default_rng(1).normal(0, 60, 160).astype(np.int16))
    quiet = settled()
    assert quiet.add(hiss, loudness(hiss)) == b""
    assert quiet.add(soft, loudness(soft)) == hiss + soft


def test_what_a_new_connection_hears_anyway_is_not_sent_again() -> None:
    quiet = settled()
    quiet.add(numbered(1), 0)
    quiet.drop()
    assert quiet.add(numbered(2), LOUD) == numbered(2)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=300))
def test_nothing_is_lost_or_waits_for_long(frames: list[tuple[bool, int]]) -> None:
    quiet = QuietTogether()
    before = after = b""
    for number, (loud, size) in enumerate(frames):
        frame = bytes([number % 256]) * size
        before += frame
        after += quiet.add(frame, LOUD if loud else QUIET)
        assert before.startswith(after)
        assert len(before) - len(after) < TOGETHER_MS * 8
        assert not loud or before == after
