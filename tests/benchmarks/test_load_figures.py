"""The figures of the load benchmark, from ledgers written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.callers.call import BUFFER
from benchmarks.figures import Turn, quantile, summary, turns
from benchmarks.goals import ceiling_goals
from benchmarks.load import FINE, next_step
from benchmarks.sound import BYTES_PER_MS, MS_PER_CHAR, REPLY

REPLY_S = len(REPLY) * MS_PER_CHAR / 1000
PIECE_S = 0.2
PIECE = int(PIECE_S * 1000) * BYTES_PER_MS


def played(begin: float, pause: float = 0.0, pieces: int | None = None) -> list[tuple[float, int, bool]]:
    """A reply that comes in real time; the fourth piece, and all after it, come so much later."""
    count = round(REPLY_S / PIECE_S + 0.5) if pieces is None else pieces
    return [(begin + at * PIECE_S + (pause if at >= 3 else 0.0), PIECE, True) for at in range(count)]


def one(media: list[tuple[float, int, bool]], **changes: Any) -> Turn:
    """The turn of a caller who speaks at 100.0 for a second; the vendor knows what at 101.1."""
    call = {"number": 3, "spoke": [(100.0, 101.0)], "media": media, "clears": [], "marks": 0, "lost": None}
    line = {"vendor": "deepgram", "call": 3, "events": [("heard", 100.003), ("began", 100.05), ("final", 101.1)]}
    callers = {"over": 105.0, "cycle": 5.0, "calls": [{**call, **changes}]}
    (found,) = turns(callers, [line])
    return found


def test_an_answer_is_timed_from_the_final_transcript() -> None:
    turn = one(played(101.12))
    assert turn.answer_ms == pytest.approx(20, abs=0.1)
    assert turn.heard_ms == pytest.approx(3, abs=0.1)
    assert turn.on_time


def test_sound_before_the_final_transcript_and_silence_are_no_answer() -> None:
    early = [(100.5, PIECE, True), (101.11, 160, False)]
    assert one([*early, *played(101.15)]).answer_ms == pytest.approx(50, abs=0.1)
    assert one(early).answer_ms is None


def test_a_pause_is_audible_when_it_outlasts_the_callers_buffer() -> None:
    assert one(played(101.12, pause=BUFFER - 0.01)).on_time
    late = one(played(101.12, pause=BUFFER + 0.03))
    assert late.dry_ms == pytest.approx(30, abs=0.1)
    assert not late.on_time


def test_audio_ahead_of_time_is_kept_by_the_carrier() -> None:
    ahead = [(101.12 + at * 0.01, PIECE, True) for at in range(5)] + played(101.12 + 0.9, pieces=5)
    assert one(ahead).dry_ms == 0


def test_an_answer_that_is_cut_is_not_on_time() -> None:
    cut = one(played(101.12, pieces=3))
    assert cut.answer_ms is not None
    assert not cut.on_time


def test_an_answer_after_the_caller_speaks_again_is_none() -> None:
    again = {"spoke": [(100.0, 101.0), (105.0, 106.0)]}
    assert one(played(105.2), **again).answer_ms is None


def test_clear_is_timed_from_the_vendors_word_and_from_the_callers() -> None:
    turn = one(played(101.12), clears=[99.0, 100.052])
    assert turn.clear_ms == pytest.approx(2, abs=0.1)
    assert turn.onset_ms == pytest.approx(52, abs=0.1)


def test_a_line_without_a_number_is_an_error() -> None:
    line = {"vendor": "deepgram", "call": None, "events": [("final", 101.1)]}
    with pytest.raises(ValueError, match="deepgram"):
        turns({"over": 105.0, "cycle": 5.0, "calls": []}, [line])


def test_summary_counts_what_is_missing() -> None:
    found = [one(played(101.12)), one([]), one(played(101.12, pause=1.0))]
    row = summary(found)
    assert (row["turns"], row["answered"], row["on_time"]) == (3, 2, 1)
    assert row["answer_ms"]["n"] == 2


def test_quantiles_are_values_that_occurred() -> None:
    values = list(range(1, 101))
    assert [quantile(values, share) for share in (0.5, 0.99)] == [51, 100]
    assert quantile([], 0.5) is None


def test_goals_are_judged_and_left_out_where_a_side_is_missing() -> None:
    met = ceiling_goals({"stayline": 200, "relay": 300, "pipecat": 40})
    assert [goal.met for goal in met] == [True, True, True]
    missed = ceiling_goals({"stayline": 100, "relay": 300, "pipecat": 40, "stayline-vad": 10})
    assert [goal.met for goal in missed] == [False, False, False, False]
    assert ceiling_goals({"relay": 300}) == []


@pytest.mark.parametrize("holds", [1, 7, 39, 400])
@pytest.mark.parametrize("start", [1, 20, 600])
def test_the_ceiling_is_found_from_below_and_from_above(start: int, holds: int) -> None:
    good, bad, calls, tried = 0, 0, start, 0
    while calls:
        good, bad = (calls, bad) if calls <= holds else (good, calls)
        calls, tried = next_step(good, bad), tried + 1
    assert holds - max(1, FINE * holds) <= good <= holds < bad
    assert tried < 30


def test_a_server_that_holds_no_call_has_a_ceiling_of_none() -> None:
    assert next_step(0, 1) == 0
