"""Nothing that changes the world is done twice: tools, dials, hang-ups; and nobody is told what is not so."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from tests.chaos.audit.evidence import TAG, Evidence, Finding, Line

CAUSE_WITHIN: Final = 40.0
"""Seconds after a fault in which a caller may be fetched from one stream to another."""
_PLACED: Final = re.compile(r"[?&]call=(out-[\w-]+)")


def check(seen: Evidence) -> Iterator[Finding]:
    yield from _effects(seen)
    yield from _told(seen)
    yield from _dials(seen)
    for call in seen.calls():
        yield from _transfers(seen, call)
        yield from _hang_ups(seen, call)
        yield from _redirects(seen, call)


def _effects(seen: Evidence) -> Iterator[Finding]:
    keys = Counter(line["key"] for line in seen.tools if line["kind"] == "effect")
    for key, count in keys.items():
        if count > 1:
            yield Finding(key, "effect twice", f"{count} times under one key")
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in seen.tools:
        if line["kind"] == "effect":
            wanted[line["call"], line["what"]].add(line["key"])
    for (call, what), under in wanted.items():
        if len(under) > 1:
            yield Finding(call, "effect twice", f"{what} was booked under {sorted(under)}")
    asked = {line["key"] for line in seen.tools if line["kind"] == "asked"}
    for key in set(keys) - asked:
        yield Finding(key, "effect from nowhere", "nobody had asked")


def _told(seen: Evidence) -> Iterator[Finding]:
    """What the record says of a tool is what its ledger says."""
    done = {(line["call"], line["key"].rpartition(":")[2]) for line in seen.tools if line["kind"] == "effect"}
    for record in seen.records.values():
        for tool in record.tools:
            if tool["name"] != "book":
                continue
            took_effect = (record.call_id, tool["tool_call_id"]) in done
            if tool["status"] is None:
                yield Finding(record.call_id, "tool without an end", tool["tool_call_id"])
            elif tool["status"] == "succeeded" and not took_effect:
                yield Finding(record.call_id, "success without effect", tool["tool_call_id"])
            elif tool["status"] == "failed" and took_effect:
                yield Finding(record.call_id, "effect called a failure", f"{tool['tool_call_id']}: {tool['error']}")
    booked = {line["what"] for line in seen.tools if line["kind"] == "effect"}
    for line in seen.callers:
        if line["kind"] == "heard" and "is booked" in line["text"]:
            for tag in TAG.findall(line["text"].partition("is booked")[0])[-1:]:
                if tag not in booked:
                    yield Finding(line["call"], "success without effect", f"heard {line['text']!r}")


def _dials(seen: Evidence) -> Iterator[Finding]:
    """A call that was asked for once rings once."""
    legs: dict[str, set[str]] = defaultdict(set)
    for line in seen.carrier:
        if line["kind"] in ("webhook", "status"):
            match = _PLACED.search(f"{line['detail']} {line.get('url', '')}")
            if match:
                legs[match[1]].add(line["call"])
    for ours, sids in legs.items():
        if len(sids) > 1:
            yield Finding(ours, "dialled twice", f"rang as {sorted(sids)}")


def _transfers(seen: Evidence, call: str) -> Iterator[Finding]:
    dials = [line for line in seen.of_carrier(call, "twiml") if line["detail"] == "Dial"]
    record = seen.record(call)
    asked = 0
    if record is not None:
        asked = sum(entry.get("command") == "transfer" for entry in record.of("commanded"))
        asked += sum(tool["name"] == "transfer_call" for tool in record.tools)
    if len(dials) > asked:
        yield Finding(call, "dialled twice", f"{len(dials)} dials, {asked} transfers asked for")


def _hang_ups(seen: Evidence, call: str) -> Iterator[Finding]:
    """Only whom it has decided to leave does the system hang up on."""
    ended = seen.of_carrier(call, "hang_up")
    record = seen.record(call)
    if not ended or record is None or ended[0].get("by") not in ("rest", "bridge"):
        return
    if record.outcome == "caller_hung_up":
        evidence = f"{ended[0]['by']} ended the call, and the record says that the caller did"
        yield Finding(call, "hung up on a caller", evidence)


def _redirects(seen: Evidence, call: str) -> Iterator[Finding]:
    """Nobody is taken out of a stream that works."""
    streams = 0
    for line in seen.of_carrier(call):
        if line["kind"] == "stream_opened":
            streams += 1
        elif line["kind"] in ("stream_broken", "stream_closed", "stream_stopped"):
            streams -= 1
        elif streams > 0 and _is_redirect(line) and not _has_cause(seen, call, line["at"]):
            yield Finding(call, "taken out of a talk", f"redirected at {line['at']} with a stream open")


def _is_redirect(line: Line) -> bool:
    return line["kind"] == "rest" and line.get("status") == 200 and "<Redirect" in line["detail"]


def _has_cause(seen: Evidence, call: str, at: float) -> bool:
    """There was a fault shortly before, or the carrier itself had failed the stream."""
    if seen.fault_near(at, CAUSE_WITHIN) is not None:
        return True
    return any(0 <= at - line["at"] <= CAUSE_WITHIN for line in seen.of_carrier(call, "fault"))
