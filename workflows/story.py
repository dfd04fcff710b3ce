"""The call's story as Temporal's UI shows it under the workflow's current details: short, readable markdown."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from stayline.timeline import (
    AgentTurn,
    AnsweredBy,
    CallDialled,
    CallEnded,
    CallError,
    CallRejected,
    Commanded,
    Dtmf,
    Interruption,
    LimitReached,
    RecordGap,
    SessionClosed,
    SessionOpened,
    TimelineEvent,
    ToolCalled,
    ToolSettled,
    TransferSettled,
    UserTurn,
)
from workflows.state import CallState

SHOWN: Final = 40
"""Events shown, the latest; the whole is in query `timeline`."""


class Story:
    """The story of one call. Each event is told once and kept: the story is asked for at every step of the call."""

    def __init__(self) -> None:
        self._lines: deque[str | None] = deque(maxlen=SHOWN)
        self._told = 0  #: entries of the timeline

    def tell(self, state: CallState) -> str:
        """The story so far."""
        head = f"**{state.status}** · agent `{state.agent.name}`"
        if state.attached:
            head += f" · session {state.attached.number} on bridge `{state.attached.bridge_id}`"
        if state.ending:
            head += f" · {state.ending.outcome}"
        length = len(state.timeline)
        for entry in state.timeline[max(self._told, length - SHOWN) :]:
            line = tell_event(entry.event)
            self._lines.append(line and f"- `{_clock(entry.event.at, state.started_at)}` {line}")
        self._told = length
        earlier = [f"- … {length - SHOWN} earlier events"] if length > SHOWN else []
        return "\n".join([head, "", *earlier, *filter(None, self._lines)])


def tell_event(event: TimelineEvent) -> str | None:
    """One event in a line of markdown; None when it is not worth one."""
    teller = _TELLERS.get(type(event))
    return teller(event) if teller else None


def _agent_turn(event: AgentTurn) -> str:
    cut = " *(interrupted)*" if event.interrupted else ""
    total = event.latency.total_ms if event.latency else None
    return f"**agent** {event.text}{cut}" + (f" · {total} ms" if total is not None else "")


def _tool_settled(event: ToolSettled) -> str:
    outcome = event.outcome
    tries = f" after {len(outcome.attempts)} attempts" if len(outcome.attempts) > 1 else ""
    late = ", after the caller had left" if event.after_hangup else ""
    return f"tool `{outcome.name}` {outcome.status}{tries}{late}"


def _commanded(event: Commanded) -> str:
    why = f": {event.why}" if event.why else ""
    return f"{event.command} by {event.by}{why}"


_TELLERS: Final[dict[type[Any], Callable[[Any], str]]] = {
    SessionOpened: lambda e: f"session {e.session} opened on bridge `{e.bridge_id}`",
    SessionClosed: lambda e: f"session {e.session} {e.reason.replace('_', ' ')}",
    UserTurn: lambda e: f"**caller** {e.text}",
    AgentTurn: _agent_turn,
    Interruption: lambda e: "false interruption" if e.resumed else "caller interrupted",
    ToolCalled: lambda e: f"tool `{e.call.name}` asked" + (" again (joined)" if e.duplicate_of else ""),
    ToolSettled: _tool_settled,
    Dtmf: lambda e: f"key {e.digit}",
    CallDialled: lambda e: "dialled",
    AnsweredBy: lambda e: f"answered by {e.who.replace('_', ' ')}",
    CallError: lambda e: f"error in {e.where}: {e.message}",
    CallRejected: lambda e: f"rejected {e.reason}".rstrip(),
    Commanded: _commanded,
    TransferSettled: lambda e: f"transfer {e.outcome.replace('_', ' ')}",
    LimitReached: lambda e: f"limit: {e.limit.replace('_', ' ')}",
    RecordGap: lambda e: f"records {e.first}-{e.last} of session {e.session} are missing",
    CallEnded: lambda e: f"ended: {e.outcome.replace('_', ' ')}" + (f" by {e.by}" if e.by else ""),
}


def _clock(at: datetime, start: datetime) -> str:
    seconds = max(0, int((at - start).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02d}"
