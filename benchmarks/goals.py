"""What the load benchmark's figures were meant to be, and whether they are. Ratios are within one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    what: str
    figure: str
    goal: str
    met: bool | None


def load_goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Goals on latency and cost, as far as the rows hold both sides."""
    found = {(row["server"], row["calls"]): row for row in rows}
    goals = []
    realtime = {row.get("mode") for row in rows} == {"realtime"}
    one, other = found.get(("stayline", 1)), found.get(("pipecat", 1))
    if _answers(one) and _answers(other):
        share = 0.5 if realtime else 0.3
        ratio = one["answer_ms"]["p50"] / other["answer_ms"]["p50"]
        goals.append(_ratio("added latency at one call, p50, against Pipecat bare", ratio, share))
    many = found.get(("stayline", 50))
    if _answers(many) and not realtime:
        p99 = many["answer_ms"]["p99"]
        goals.append(Goal("added latency at 50 calls, p99", f"{p99:.1f} ms", "≤ 25 ms", p99 <= 25))
    for calls in sorted({row["calls"] for row in rows}):
        mine, theirs = found.get(("stayline", calls)), found.get(("pipecat", calls))
        if calls > 1 and mine and theirs and theirs["rss_mib_per_call"] > 0:
            ratio = mine["rss_mib_per_call"] / theirs["rss_mib_per_call"]
            goals.append(_ratio(f"memory per call at {calls} calls, against Pipecat bare", ratio, 0.2))
            ratio = mine["cpu_ms_per_call_second"] / theirs["cpu_ms_per_call_second"]
            goals.append(_ratio(f"CPU per call second at {calls} calls, against Pipecat bare", ratio, 0.2))
    return goals


def barge_in_goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Goals on how soon the agent is silent."""
    goals = []
    for server, name, most, what in (
        ("stayline", "clear_ms", 3, "vendor's first word → `clear`, p50"),
        ("stayline-vad", "onset_ms", 150, "caller's first sound → `clear` with local detection, p50"),
    ):
        found = [row[name]["p50"] for row in rows if row["server"] == server and name in row]
        if found:
            goals.append(Goal(what, f"{min(found):.1f} ms", f"≤ {most} ms", min(found) <= most))
    return goals


def ceiling_goals(most: Mapping[str, int]) -> list[Goal]:
    """Goals on calls per core."""
    goals = []
    for server, least in (("stayline", 150), ("stayline-vad", 60)):
        if server in most:
            calls = most[server]
            goals.append(Goal(f"calls per core, `{server}`", str(calls), f"≥ {least}", calls >= least))
    for server, other, factor in (
        ("stayline", "pipecat", 5.0),
        ("stayline-vad", "pipecat-defaults", 5.0),
        ("stayline", "relay", 0.5),
    ):
        if server in most and most.get(other):
            ratio = most[server] / most[other]
            text = f"calls per core, `{server}` against `{other}`"
            goals.append(Goal(text, f"{ratio:.2f} ×", f"≥ {factor:g} ×", ratio >= factor))
    return goals


def _answers(row: Mapping[str, Any] | None) -> bool:
    return row is not None and "answer_ms" in row


def _ratio(what: str, ratio: float, most: float) -> Goal:
    return Goal(what, f"{ratio:.2f} ×", f"≤ {most:g} ×", ratio <= most)
