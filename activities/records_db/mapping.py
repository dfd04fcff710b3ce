"""A call record as rows, and rows as a call record. No I/O; `record_of(rows_of(record)) == record`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from activities.records_db.models import Base, Call, Event, Session, ToolAttemptRow, ToolCallRow, Turn
from stayline.models import CallInfo, ToolAttempt, ToolCall, ToolOutcome, ToolRun
from stayline.timeline import (
    AgentTurn,
    CallMetrics,
    CallRecord,
    CallSnapshot,
    SessionClosed,
    SessionOpened,
    TimelineEntry,
    UserTurn,
)

Row = dict[str, Any]

_SNAPSHOT_COLUMNS = (
    "agent",
    "mode",
    "status",
    "outcome",
    "session",
    "bridge_id",
    "started_at",
    "answered_at",
    "ended_at",
    "seconds_left",
    "timeline_length",
    "run_count",
)
_CALL_COLUMNS = ("call_id", "from_number", "to_number", "direction", "carrier", "carrier_call_id")


def call_row(record: CallRecord) -> Row:
    """The row of `calls`."""
    snapshot = record.snapshot
    row: Row = {name: getattr(snapshot.call, name) for name in _CALL_COLUMNS}
    row |= {name: getattr(snapshot, name) for name in _SNAPSHOT_COLUMNS}
    row |= {name: getattr(snapshot.metrics, name) for name in CallMetrics.model_fields}
    return row | {
        "final": record.final,
        "carrier_started_at": snapshot.call.started_at,
        "carrier_agent": snapshot.call.agent,
    }


def child_rows(record: CallRecord) -> list[tuple[type[Base], list[Row]]]:
    """The rows of all other tables, parents before children."""
    call_id = record.snapshot.call.call_id
    tables: list[tuple[type[Base], Iterable[Row]]] = [
        (Event, map(_event_row, record.timeline)),
        (Session, _session_rows(record.timeline)),
        (Turn, (row for entry in record.timeline if (row := _turn_row(entry)))),
        (ToolCallRow, (_tool_row(position, run) for position, run in enumerate(record.snapshot.tools))),
        (ToolAttemptRow, _attempt_rows(record.snapshot.tools)),
    ]
    return [(table, [{"call_id": call_id, **row} for row in rows]) for table, rows in tables]


def _event_row(entry: TimelineEntry) -> Row:
    return {
        "timeline_index": entry.index,
        "session": entry.session,
        "type": entry.event.type,
        "at": entry.event.at,
        "body": entry.event.model_dump(mode="json"),
    }


def _turn_row(entry: TimelineEntry) -> Row | None:
    event = entry.event
    row: Row = {"timeline_index": entry.index, "session": entry.session, "at": event.at}
    if isinstance(event, UserTurn):
        return row | {
            "speaker": "user",
            "text": event.text,
            "generated": None,
            "interrupted": False,
            "source": None,
            "confidence": event.confidence,
            "speech_ms": event.speech_ms,
            "endpoint_ms": None,
            "llm_ms": None,
            "tts_ms": None,
            "total_ms": None,
        }
    if isinstance(event, AgentTurn):
        latency = event.latency
        return row | {
            "speaker": "agent",
            "text": event.text,
            "generated": event.generated,
            "interrupted": event.interrupted,
            "source": event.source,
            "confidence": None,
            "speech_ms": event.speech_ms,
            "endpoint_ms": latency and latency.endpoint_ms,
            "llm_ms": latency and latency.llm_ms,
            "tts_ms": latency and latency.tts_ms,
            "total_ms": latency and latency.total_ms,
        }
    return None


def _session_rows(timeline: Sequence[TimelineEntry]) -> Iterable[Row]:
    rows: dict[int, Row] = {}
    for entry in timeline:
        event = entry.event
        if not isinstance(event, SessionOpened | SessionClosed):
            continue
        row = rows.setdefault(
            event.session,
            {
                "number": event.session,
                "bridge_id": "",
                "resumed": False,
                "opened_at": None,
                "closed_at": None,
                "close_reason": None,
                "recording": "",
                "audio_in_ms": 0,
                "audio_out_ms": 0,
            },
        )
        if isinstance(event, SessionOpened):
            row |= {"bridge_id": event.bridge_id, "resumed": event.resumed, "opened_at": event.at}
        else:
            # A lost session may be closed twice: by the workflow, then by the bridge's late record.
            row |= {
                "closed_at": row["closed_at"] or event.at,
                "close_reason": row["close_reason"] or event.reason,
                "recording": event.recording or row["recording"],
                "audio_in_ms": event.audio_in_ms or row["audio_in_ms"],
                "audio_out_ms": event.audio_out_ms or row["audio_out_ms"],
            }
    return rows.values()


def _tool_row(position: int, run: ToolRun) -> Row:
    outcome = run.outcome
    return {
        "position": position,
        "tool_call_id": run.call.id,
        "name": run.call.name,
        "arguments": run.call.arguments,
        "session": run.session,
        "requested_at": run.requested_at,
        "waiting_approval": run.waiting_approval,
        "after_hangup": run.after_hangup,
        "status": outcome and outcome.status,
        "result": outcome and outcome.result,
        "error": outcome and outcome.error,
        "seconds": outcome and outcome.seconds,
    }


def _attempt_rows(tools: Sequence[ToolRun]) -> Iterable[Row]:
    for tool_position, run in enumerate(tools):
        for position, attempt in enumerate(run.outcome.attempts if run.outcome else ()):
            yield {
                "tool_position": tool_position,
                "position": position,
                "number": attempt.number,
                "started_at": attempt.started_at,
                "seconds": attempt.seconds,
                "error": attempt.error,
            }


def record_of(
    call: Call, events: Sequence[Event], tools: Sequence[ToolCallRow], attempts: Sequence[ToolAttemptRow]
) -> CallRecord:
    """Rebuild the record. Rows come in the order of their keys."""
    return CallRecord(
        snapshot=_snapshot_of(call, tools, attempts),
        timeline=tuple(
            TimelineEntry.model_validate({"index": e.timeline_index, "session": e.session, "event": e.body})
            for e in events
        ),
        final=call.final,
    )


def _snapshot_of(call: Call, tools: Sequence[ToolCallRow], attempts: Sequence[ToolAttemptRow]) -> CallSnapshot:
    info = CallInfo.model_validate(
        {name: getattr(call, name) for name in _CALL_COLUMNS}
        | {"started_at": call.carrier_started_at, "agent": call.carrier_agent}
    )
    metrics = CallMetrics.model_validate({name: getattr(call, name) for name in CallMetrics.model_fields})
    return CallSnapshot.model_validate(
        {name: getattr(call, name) for name in _SNAPSHOT_COLUMNS}
        | {
            "call": info,
            "metrics": metrics,
            "tools": tuple(
                _tool_run_of(row, [a for a in attempts if a.tool_position == row.position]) for row in tools
            ),
        }
    )


def _tool_run_of(row: ToolCallRow, attempts: Sequence[ToolAttemptRow]) -> ToolRun:
    outcome = None
    if row.status is not None:
        outcome = ToolOutcome.model_validate(
            {
                "id": row.tool_call_id,
                "name": row.name,
                "status": row.status,
                "result": row.result,
                "error": row.error,
                "seconds": row.seconds,
                "attempts": tuple(
                    ToolAttempt(number=a.number, started_at=a.started_at, seconds=a.seconds, error=a.error)
                    for a in attempts
                ),
            }
        )
    return ToolRun(
        call=ToolCall(id=row.tool_call_id, name=row.name, arguments=row.arguments),
        session=row.session,
        requested_at=row.requested_at,
        outcome=outcome,
        waiting_approval=row.waiting_approval,
        after_hangup=row.after_hangup,
    )
