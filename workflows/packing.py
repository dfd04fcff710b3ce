"""What a call remembers, small enough for a payload of Temporal's, which holds 2 MiB at most.

A long call with talkative tools has more than that to hand to its next run, and to the database. So each tool's
call and outcome, which stand in the timeline and among the tools, are packed once, and the whole is deflated. What
is too large even then is not carried, or loses what its tools returned, rather than wedge the call.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic_core import from_json, to_json

from stayline.messages import PackedRecord
from stayline.timeline import CallRecord

LARGEST: Final = 1_800_000
"""Bytes; leaves room for what stands beside it in the payload, and for encryption."""
READABLE: Final = 256 * 1024
"""Bytes of a record that is left as it is, so that Temporal's UI shows it."""
KEPT_OF_RESULT: Final = 1000
"""Letters of a tool's result in a record that would be too large."""

Json = dict[str, Any]


def pack(timeline: list[Json], tools: Mapping[str, Json], whole: Json) -> str:
    """JSON, deflated, in base 64.

    Args:
        timeline, tools: parts of `whole`; what stands in both is taken out of the timeline, in place.
    """
    for event, field, run in _tool_events(timeline, tools):
        part = run["call" if field == "call" else "outcome"]
        if event[field] == part:
            event[field] = part["id"]
    return b64encode(zlib.compress(to_json(whole))).decode()


def unpack(packed: str) -> Json:
    """What was packed; `repeat` then fills its timeline."""
    whole: Json = from_json(zlib.decompress(b64decode(packed)))
    return whole


def repeat(timeline: list[Json], tools: Mapping[str, Json]) -> None:
    """Put back into a timeline what `pack` took out of it."""
    for event, field, run in _tool_events(timeline, tools):
        if isinstance(event[field], str):
            event[field] = run["call" if field == "call" else "outcome"]


def portable(record: CallRecord) -> CallRecord | PackedRecord:
    """The record as the activity `save_call` is given it."""
    whole = record.model_dump(mode="json")
    if len(to_json(whole)) <= READABLE:
        return record
    tools = _by_id(whole)
    packed = pack(whole["timeline"], tools, whole)
    if len(packed) > LARGEST:
        for run in tools.values():
            _cut_result(run)
        packed = pack(whole["timeline"], tools, whole)
    return PackedRecord(packed=packed)


def opened(record: CallRecord | PackedRecord) -> CallRecord:
    if isinstance(record, CallRecord):
        return record
    whole = unpack(record.packed)
    repeat(whole["timeline"], _by_id(whole))
    return CallRecord.model_validate(whole)


def _by_id(record: Json) -> dict[str, Json]:
    return {run["call"]["id"]: run for run in record["snapshot"]["tools"]}


def _tool_events(timeline: list[Json], tools: Mapping[str, Json]) -> Iterator[tuple[Json, str, Json]]:
    """Events that repeat what is known of a tool: the event, its field that does, and the tool."""
    for entry in timeline:
        event = entry["event"]
        field = {"tool_called": "call", "tool_settled": "outcome"}.get(event["type"])
        if field is None:
            continue
        part = event[field]
        run = tools.get(part if isinstance(part, str) else part["id"])
        if run is not None and run["outcome" if field == "outcome" else "call"] is not None:
            yield event, field, run


def _cut_result(run: Json) -> None:
    outcome = run["outcome"]
    if outcome is None:
        return
    text = to_json(outcome["result"]).decode()
    if len(text) > KEPT_OF_RESULT:
        outcome["result"] = f"{text[:KEPT_OF_RESULT]}… (cut: the record of this call would be too large)"
