"""A call on the page: header, story, metrics. Rendering only; what to render is found elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from stayline.commands.calls_temporal import PendingTool
from stayline.commands.story import STYLES, Line, attempt_line, outcome_words, tell, waiting_line
from stayline.commands.terminal import clean, clock, count, duration, offset
from stayline.models import ToolAttempt, ToolRun
from stayline.timeline import CallMetrics, CallRecord, CallSnapshot, SessionClosed, TimelineEntry

OFFSET_WIDTH = 7
WHO_WIDTH = 8


def print_call(
    console: Console,
    record: CallRecord,
    *,
    source: str,
    retried: Sequence[PendingTool] = (),
    ui_url: str = "",
    zone: tzinfo | None = None,
) -> None:
    """Print a whole call.

    Args:
        source: where the record was read, in words.
        retried: tools that still run and have failed before.
        ui_url: the call in Temporal's UI; empty: not known.
        zone: the reader's time zone; None: this machine's.
    """
    console.print(header(record.snapshot, zone=zone))
    console.print()
    start = beginning(record.snapshot, record.timeline)
    for entry in record.timeline:
        line = tell(entry.event)
        if line is not None:
            console.print(Row(line, offset(entry.event.at, start)))
    for run in record.snapshot.tools:
        if run.outcome is None:
            console.print(
                Row(_running_line(run, [tool.failed for tool in retried if tool.call_id == run.call.id]), "now")
            )
    console.print()
    console.print(metrics_table(record.snapshot.metrics, wide=console.width >= 76))
    console.print()
    for text in _footer(record, source, ui_url):
        console.print(text, soft_wrap=True)


def beginning(snapshot: CallSnapshot, timeline: Sequence[TimelineEntry]) -> datetime:
    """Where 0:00.0 is: the call's start."""
    return min(snapshot.started_at, timeline[0].event.at) if timeline else snapshot.started_at


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A line of the story with its remarks under it; columns have the same place on every line.

    Not a rich table: that fills each line with blanks, which get in the way of whoever pipes the output.
    """

    line: Line
    when: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = Text.assemble(
            (self.when.rjust(OFFSET_WIDTH), "dim"),
            " ",
            (self.line.who.ljust(WHO_WIDTH), STYLES.get(self.line.who, "dim")),
            " ",
        )
        indent = Text(" " * len(head))
        width = max(20, options.max_width - len(head))
        for text, first, hang in ((self.line.text, head, ""), *((r, indent, "  ") for r in self.line.remarks)):
            margin = first
            for part in text.wrap(console, width - len(hang), overflow="fold"):
                part.rstrip()
                yield margin + Text(hang) + part
                margin = indent


def header(snapshot: CallSnapshot, *, zone: tzinfo | None = None) -> RenderableType:
    """Who, when, which agent, how long, and how it ended or stands."""
    call = snapshot.call
    state = f"ended: {outcome_words(snapshot.outcome)}" if snapshot.status == "ended" else snapshot.status
    if snapshot.status == "wrapping_up":
        state = f"{outcome_words(snapshot.outcome)}; tools still run"
    style = {"ended": "bold", "wrapping_up": "bold yellow"}.get(snapshot.status, "bold green")
    who = f"{clean(call.from_number)} → {clean(call.to_number)}"
    agent = f"agent {clean(snapshot.agent)} ({snapshot.mode})"
    lines = [
        Text.assemble("Call ", (clean(call.call_id), "bold"), "  ", (state.replace("_", " "), style)),
        Text(f"{who} · {call.direction} over {call.carrier} · {agent}"),
        Text(f"{clock(snapshot.started_at, zone)} · {_how_long(snapshot)}"),
    ]
    return Group(*lines)


def _how_long(snapshot: CallSnapshot) -> str:
    if snapshot.answered_at is None:
        return "never answered" if snapshot.status == "ended" else "not answered yet"
    talked = duration(snapshot.metrics.duration)
    if snapshot.ended_at is not None or snapshot.seconds_left is None:
        return talked
    return f"{talked} so far, {duration(snapshot.seconds_left)} left"


def _running_line(run: ToolRun, failed: Iterable[ToolAttempt]) -> Line:
    if run.waiting_approval:
        return waiting_line(run.call)
    text = Text.assemble("… ", (clean(run.call.name), "yellow"), " is running")
    return Line("tool", text, [attempt_line(attempt) for attempt in failed])


def metrics_table(metrics: CallMetrics, *, wide: bool = True) -> RenderableType:
    """The metrics: counts on the left, latencies on the right; below each other where it is narrow."""
    counts = [
        ("turns", f"{metrics.turn_count} (caller {metrics.user_turn_count}, agent {metrics.agent_turn_count})"),
        ("interruptions", str(metrics.interruption_count)),
        ("tool calls", f"{metrics.tool_call_count} ({count(metrics.tool_attempt_count, 'attempt')})"),
        ("sessions", str(metrics.session_count)),
        ("errors", str(metrics.error_count)),
        ("caller spoke", duration(metrics.user_speech_duration_ms / 1000)),
        ("agent spoke", duration(metrics.agent_speech_duration_ms / 1000)),
    ]
    times = [
        ("first sound", f"{_milliseconds(metrics.avg_total_latency_ms)} on average"),
        ("  end of turn", _milliseconds(metrics.avg_stt_latency_ms)),
        ("  model", _milliseconds(metrics.avg_llm_latency_ms)),
        ("  voice", _milliseconds(metrics.avg_tts_latency_ms)),
        ("  worst", _milliseconds(metrics.max_total_latency_ms)),
        ("tokens read", str(metrics.input_tokens)),
        ("tokens written", str(metrics.output_tokens)),
    ]
    table = Table.grid(padding=(0, 2), pad_edge=False)
    rows = [(*left, *right) for left, right in zip(counts, times, strict=True)] if wide else [*counts, *times]
    for cells in rows:
        table.add_row(*(Text(cell, "" if index % 2 else "dim") for index, cell in enumerate(cells)))
    return table


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def _footer(record: CallRecord, source: str, ui_url: str) -> list[Text]:
    recordings = [
        f"{entry.event.recording} (session {entry.event.session})"
        for entry in record.timeline
        if isinstance(entry.event, SessionClosed) and entry.event.recording
    ]
    lines = [Text.assemble(("recording  ", "dim"), clean(path)) for path in recordings]
    if ui_url:
        lines.append(Text.assemble(("temporal   ", "dim"), ui_url))
    over = record.snapshot.ended_at is not None
    remark = "; not final: tools still ran when it was written" if over and not record.final else ""
    lines.append(Text.assemble(("read from  ", "dim"), source + remark))
    return lines
