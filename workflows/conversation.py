"""The conversation so far, as a language model needs it, read from the timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stayline.models import (
    AgentMessage,
    AgentSpec,
    Message,
    NoteMessage,
    ToolCall,
    ToolRun,
    UserMessage,
)
from stayline.timeline import (
    ASIDES,
    AgentTurn,
    Dtmf,
    SessionOpened,
    TimelineEntry,
    ToolCalled,
    TransferSettled,
    UserTurn,
)
from workflows.state import transfer_note


def conversation(timeline: Sequence[TimelineEntry], tools: dict[str, ToolRun], agent: AgentSpec) -> list[Message]:
    """Build the messages: turns as heard, tool calls each with its result, and what nobody said as notes.

    A tool call stands where its reply stands, or where the workflow accepted it when the reply was never
    recorded. A tool that still runs is left out: whoever gets its outcome appends the pair.
    """
    entries = _as_it_was_said(timeline)
    reply_of = {id: e for e in entries if isinstance(e.event, AgentTurn) for id in e.event.tool_calls}
    messages: list[Message] = []
    placed: set[str] = set()  #: tool calls
    told: set[int] = set()  #: indexes of agent turns
    digits = ""
    for entry in entries:
        event = entry.event
        if digits and not isinstance(event, Dtmf):
            messages.append(NoteMessage(text=f"The caller pressed {digits}."))
            digits = ""
        if isinstance(event, UserTurn):
            messages.append(UserMessage(text=event.text, confidence=event.confidence))
        elif isinstance(event, Dtmf):
            digits += event.digit
        elif isinstance(event, AgentTurn) and event.source in ASIDES:
            continue
        elif isinstance(event, AgentTurn) and entry.index not in told:
            told.add(entry.index)
            messages += _reply(event, event.tool_calls, tools, placed)
        elif isinstance(event, ToolCalled) and event.call.id not in placed:
            reply = reply_of.get(event.call.id)
            if reply is not None and isinstance(reply.event, AgentTurn):
                if reply.index not in told:
                    told.add(reply.index)
                    messages += _reply(reply.event, reply.event.tool_calls, tools, placed)
            else:
                messages += _reply(None, (event.call.id,), tools, placed)
        elif isinstance(event, TransferSettled) and event.outcome in ("busy", "no_answer", "failed"):
            messages.append(NoteMessage(text=transfer_note(agent, event.to, event.outcome)))
    if digits:
        messages.append(NoteMessage(text=f"The caller pressed {digits}."))
    return messages


def _reply(
    turn: AgentTurn | None, tool_call_ids: Iterable[str], tools: dict[str, ToolRun], placed: set[str]
) -> list[Message]:
    """A reply and the results of the tools it asked for, as far as they are known."""
    calls: list[ToolCall] = []
    results: list[Message] = []
    for id in tool_call_ids:
        run = tools.get(id)
        if run is None or run.outcome is None or id in placed:
            continue
        placed.add(id)
        calls.append(run.call)
        results.append(run.outcome.message)
    text = turn.text if turn else ""
    if not text and not calls:
        return []
    interrupted = turn.interrupted if turn else False
    return [AgentMessage(text=text, tool_calls=tuple(calls), interrupted=interrupted), *results]


def _as_it_was_said(timeline: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    """Put records that arrived late where they belong.

    What a session recorded comes before the session after it opened; within a session its own clock decides.
    Clocks of different machines are never compared.
    """
    current = 0
    session_of: dict[int, int] = {}
    for entry in timeline:
        if isinstance(entry.event, SessionOpened):
            current = entry.event.session
        session_of[entry.index] = entry.session or current
    ordered = sorted(timeline, key=lambda entry: session_of[entry.index])
    for number in range(1, current + 1):
        places = [i for i, entry in enumerate(ordered) if entry.session == number]
        in_time = sorted((ordered[i] for i in places), key=lambda entry: entry.event.at)
        for place, entry in zip(places, in_time, strict=True):
            ordered[place] = entry
    return ordered
