"""Printing what `calls list` and `calls replay` found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stayline.commands.calls_listed import ListedCall
from stayline.commands.calls_replay import ReplayReport
from stayline.commands.terminal import clean, count, now

SHORT_ID = 12
"""Characters of an id in the list: enough to be unique, and accepted by every command."""


def print_list(console: Console, calls: Sequence[ListedCall]) -> None:
    """One line per call."""
    if not calls:
        console.print(Text("No calls.", "dim"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("CALL", no_wrap=True)
    table.add_column("BEGAN", no_wrap=True)
    table.add_column("FROM", no_wrap=True)
    table.add_column("AGENT", overflow="ellipsis", no_wrap=True, min_width=5)
    table.add_column("LASTED", justify="right", no_wrap=True)
    table.add_column("TURNS", justify="right", no_wrap=True)
    table.add_column("STATE", overflow="fold", min_width=11)
    ids = short_ids([call.call_id for call in calls])
    for call in calls:
        table.add_row(
            ids[call.call_id],
            f"{call.started_at.astimezone():%d %b %H:%M}",
            clean(call.from_number or "–"),
            clean(call.agent or "–"),
            _lasted(call),
            "–" if call.turn_count is None else str(call.turn_count),
            _state(call),
        )
    console.print(table)


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings, of at least SHORT_ID characters, that tell these ids apart."""
    length = SHORT_ID
    while len({id[:length] for id in ids}) < len(set(ids)):
        length += 1
    return {id: id[:length] for id in ids}


def _lasted(call: ListedCall) -> str:
    """`2:01`, `1:04:00`."""
    if call.duration is None and not call.running:
        return "–"
    seconds = call.duration if call.duration is not None else (now() - call.started_at).total_seconds()
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _state(call: ListedCall) -> Text:
    if call.running:
        words = (call.status or "running").replace("_", " ")
        return Text(words, "bold yellow" if call.status == "wrapping_up" else "bold green")
    if call.closed_as:
        return Text(call.closed_as.replace("_", " "), "red")
    bad = call.outcome in ("failed", "lost", "no_stream")
    text = Text(_SHORT_OUTCOMES.get(call.outcome or "", (call.outcome or "ended").replace("_", " ")))
    if bad:
        text.stylize("red")
    if call.error_count:
        text.append(f", {count(call.error_count, 'error')}", "red")
    return text


_SHORT_OUTCOMES = {
    "caller_hung_up": "hung up",
    "duration_limit": "time limit",
    "silence_limit": "silence",
    "no_stream": "no stream",
}


def print_replay(console: Console, reports: Sequence[ReplayReport]) -> None:
    """OK, or where today's code leaves the recorded path."""
    for number, report in enumerate(reports, 1):
        run = f", run {number} of {len(reports)}" if len(reports) > 1 else ""
        name = f"{clean(report.workflow_id)}{run}"
        found = report.difference
        if found is None:
            console.print(
                Text.assemble(("OK ", "bold green"), f"{name}: today's code takes the same path"),
                Text(f"({count(report.event_count, 'event')})", "dim"),
                soft_wrap=True,
            )
            continue
        where = f" at event {found.event_id}" if found.event_id is not None else ""
        console.print(Text.assemble(("DIFFERS ", "bold red"), f"{name}{where}"), soft_wrap=True)
        if found.recorded:
            console.print(f"  recorded:      {clean(found.recorded)}", soft_wrap=True)
        console.print(f"  today's code:  {clean(found.today)}", soft_wrap=True)
        console.print(Text(f"  Temporal says: {clean(found.detail)}", "dim"), soft_wrap=True)
    if not all(report.ok for report in reports):
        console.print(
            "\nCalls in progress on the old code would stall under this one. Keep a worker of the old build for "
            "them (STAYLINE_BUILD_ID), or guard the change with workflow.patched().",
            soft_wrap=True,
        )
