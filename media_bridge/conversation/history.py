"""The conversation as a language model needs it, kept in the order in which things were begun."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Final

from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, ToolOutcome, UserMessage

CUT_OFF: Final = "You were cut off in mid-sentence. Go on from there; do not repeat what you have said."
"""What a model is told that must finish what it, or another one, has begun to say."""


@dataclasses.dataclass(slots=True)
class _Speech:
    """Agent speech at its place: what was generated while it lasts, what was heard afterwards."""

    text: str = ""
    interrupted: bool = False


@dataclasses.dataclass(slots=True)
class _Heard:
    """A turn of the caller at its place; its words may come later."""

    text: str = ""


@dataclasses.dataclass(slots=True)
class _Tools:
    """The tool calls of one reply; sent to the model when each has an answer."""

    reply: int
    calls: list[ToolCall] = dataclasses.field(default_factory=list)
    answers: dict[str, ToolMessage] = dataclasses.field(default_factory=dict)


class History:
    """Messages of earlier sessions and of this one. Speech and tools keep the place where they began."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._entries: list[Message | _Speech | _Heard | _Tools] = list(messages)
        self._speech: dict[int, _Speech] = {}
        self._background: set[str] = set()

    @property
    def agent_has_spoken(self) -> bool:
        return any(isinstance(m, AgentMessage) and m.text for m in self._entries)

    @property
    def unanswered(self) -> bool:
        """The last thing that happened waits for the agent."""
        last = next((m for m in reversed(self.messages())), None)
        return last is not None and not isinstance(last, AgentMessage)

    def add(self, message: Message) -> None:
        self._entries.append(message)

    def open_turn(self) -> Callable[[str], None]:
        """Keep a place for a turn of the caller; returns what takes its words."""
        turn = _Heard()
        self._entries.append(turn)

        def words(text: str) -> None:
            turn.text = text

        return words

    def open_speech(self, utterance: int, *, spoken_to_model: bool) -> None:
        """`spoken_to_model` False: an aside (`stayline.timeline.ASIDES`)."""
        speech = _Speech()
        self._speech[utterance] = speech
        if spoken_to_model:
            self._entries.append(speech)

    def extend_speech(self, utterance: int, text: str) -> None:
        self._speech[utterance].text += text

    def end_speech(self, utterance: int, heard: str, *, interrupted: bool) -> None:
        speech = self._speech.pop(utterance)
        speech.text, speech.interrupted = heard, interrupted

    def add_tool(self, reply: int, call: ToolCall, *, background: bool = False) -> None:
        last = self._entries[-1] if self._entries else None
        group = last if isinstance(last, _Tools) and last.reply == reply else None
        if group is None:
            group = _Tools(reply)
            self._entries.append(group)
        group.calls.append(call)
        if background:
            self._background.add(call.id)
            content = json.dumps({"status": "running", "note": "The result will follow; go on meanwhile."})
            group.answers[call.id] = ToolMessage(tool_call_id=call.id, name=call.name, content=content)

    def settle(self, outcome: ToolOutcome) -> None:
        """Put a tool's outcome where the call was made; a background tool's result comes as a note instead."""
        if outcome.id in self._background:
            self._background.discard(outcome.id)
            self.add(NoteMessage(text=f"The tool {outcome.name} has ended. Result: {outcome.message.content}"))
            return
        for entry in self._entries:
            if isinstance(entry, _Tools) and any(call.id == outcome.id for call in entry.calls):
                entry.answers[outcome.id] = outcome.message

    def messages(self) -> tuple[Message, ...]:
        out: list[Message] = []
        for entry in self._entries:
            if isinstance(entry, _Speech):
                if entry.text.strip():
                    out.append(AgentMessage(text=entry.text.strip(), interrupted=entry.interrupted))
            elif isinstance(entry, _Heard):
                if entry.text:
                    out.append(UserMessage(text=entry.text))
            elif isinstance(entry, _Tools):
                answered = [call for call in entry.calls if call.id in entry.answers]
                if answered:
                    out.append(AgentMessage(tool_calls=tuple(answered)))
                    out += [entry.answers[call.id] for call in answered]
            else:
                out.append(entry)
        return tuple(out)
