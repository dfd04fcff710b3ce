"""From what callers and vendors wrote down to figures. No I/O; times are seconds of CLOCK_MONOTONIC."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.callers.call import BUFFER
from benchmarks.sound import BYTES_PER_MS, MS_PER_CHAR, REPLY

WHOLE = 0.9
"""Share of a reply's bytes that makes it whole: resamplers keep a little of its end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a caller and what came of it. Milliseconds; None: it did not come."""

    call: int
    heard_ms: float | None  #: first loud frame at the caller -> at the vendor
    answer_ms: (
        float | None
    )  #: final transcript (realtime: first sound) leaves the vendor -> first sound at the caller
    dry_ms: float  #: the caller's buffer was empty for so long in the middle of the answer
    whole: bool  #: the answer came to its end before the caller spoke again
    clear_ms: float | None  #: vendor's first word of it -> `clear` at the caller
    onset_ms: float | None  #: first loud frame at the caller -> `clear` there

    @property
    def on_time(self) -> bool:
        return self.whole and self.dry_ms == 0


def turns(callers: dict[str, Any], vendors: list[dict[str, Any]], *, long: int = 1) -> list[Turn]:
    """All turns that had the time to be answered before the run was over.

    Args:
        callers, vendors: their ledgers.
        long: how many times the usual reply the answers are.
    Raises:
        ValueError: the vendors heard a call of which nobody knows which it was.
    """
    events: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in vendors:
        if line["call"] is not None:
            for what, at in line["events"]:
                events[line["call"]][what].append(at)
        elif line["vendor"] != "llm" and line["events"]:
            raise ValueError(f"a line to {line['vendor']} carried no call's number")
    size = (len(REPLY) * long + long - 1) * MS_PER_CHAR * BYTES_PER_MS
    found = []
    for call in callers["calls"]:
        spoke = call["spoke"]
        for index, (began, ended) in enumerate(spoke):
            until = spoke[index + 1][0] if index + 1 < len(spoke) else callers["over"]
            if began <= callers["over"] - callers["cycle"]:
                found.append(_turn(call, events[call["number"]], began, ended, until, size))
    return found


def _turn(
    call: dict[str, Any], events: dict[str, list[float]], began: float, ended: float, until: float, size: int
) -> Turn:
    heard = _first(events["heard"], began, until)
    vendor = _first(events["began"], began, until)
    clear = _first(call["clears"], began, until)
    final = _first(events["final"], ended - 0.1, until)
    answer, dry, got = None, 0.0, 0
    if final is not None:
        plays_until = 0.0
        for at, length, loud in call["media"]:
            if at < final or at >= until or got >= size * WHOLE:
                continue
            if answer is None:
                if not loud:
                    continue
                answer, plays_until = at, at + BUFFER
            elif at > plays_until:
                dry += at - plays_until
                plays_until = at
            plays_until += length / BYTES_PER_MS / 1000
            got += length
    return Turn(
        call["number"],
        _ms(began, heard),
        _ms(final, answer),
        round(dry * 1000, 2),
        got >= size * WHOLE,
        _ms(vendor, clear),
        _ms(began, clear),
    )


def _first(times: Sequence[float], begin: float, end: float) -> float | None:
    return next((at for at in times if begin <= at < end), None)


def _ms(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round((end - begin) * 1000, 2)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(found: Sequence[Turn]) -> dict[str, Any]:
    """Quantiles and shares over turns, as they go into the results."""
    answers = [turn.answer_ms for turn in found if turn.answer_ms is not None]
    shown: dict[str, Any] = {
        "turns": len(found),
        "answered": len(answers),
        "on_time": sum(turn.on_time for turn in found),
        "dry_ms": round(sum(turn.dry_ms for turn in found), 1),
    }
    for name, values in (
        ("answer_ms", answers),
        ("heard_ms", [turn.heard_ms for turn in found if turn.heard_ms is not None]),
        ("clear_ms", [turn.clear_ms for turn in found if turn.clear_ms is not None]),
        ("onset_ms", [turn.onset_ms for turn in found if turn.onset_ms is not None]),
    ):
        if values:
            shown[name] = {
                "p50": quantile(values, 0.5),
                "p95": quantile(values, 0.95),
                "p99": quantile(values, 0.99),
                "max": max(values),
                "n": len(values),
            }
    return shown
