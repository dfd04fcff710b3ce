"""A call's transcript: its turns in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from stayline.gateway.events import ToolUse
from stayline.gateway.translation import tool_use
from stayline.timeline import AgentSource, AgentTurn, TimelineEntry, ToolCalled, ToolSettled, UserTurn


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One utterance. An agent's holds what the caller heard."""

    role: Literal["user", "agent"]
    text: str
    timestamp: datetime
    duration_ms: int
    interrupted: bool = False
    source: AgentSource | None = None  #: why the agent spoke
    tool_calls: tuple[ToolUse, ...] = ()  #: that the reply asked for and that have ended


def transcript_of(timeline: Sequence[TimelineEntry]) -> list[Turn]:
    asked = {e.event.call.id: e.event.call for e in timeline if isinstance(e.event, ToolCalled)}
    ended = {
        e.event.outcome.id: tool_use(asked.get(e.event.outcome.id), e.event.outcome)
        for e in timeline
        if isinstance(e.event, ToolSettled)
    }
    turns = []
    for entry in timeline:
        match entry.event:
            case UserTurn() as turn:
                turns.append(Turn("user", turn.text, turn.at, turn.speech_ms))
            case AgentTurn(text=text) as said if text:
                tools = tuple(ended[id] for id in said.tool_calls if id in ended)
                turns.append(Turn("agent", text, said.at, said.speech_ms, said.interrupted, said.source, tools))
            case _:
                pass
    return turns
