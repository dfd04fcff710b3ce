"""The tool calls of a realtime conversation: which run, and which of them the model waits for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from stayline.models import AgentMessage, AgentSpec, Message, ToolCall, ToolMessage, ToolOutcome, ToolSpec

BEGUN: Final = {"status": "running", "note": "The result will follow; go on meanwhile."}


class ToolCalls:
    """What runs is the call's; what is awaited belongs to one connection of the model.

    A tool is *running* while the conversation waits for it; a background one, and one that the model has
    forgotten, goes on without anybody waiting.
    """

    def __init__(self, agent: AgentSpec, messages: Sequence[Message]) -> None:
        self._agent = agent
        self._used = {call.id for m in messages if isinstance(m, AgentMessage) for call in m.tool_calls}
        self._names: dict[str, str] = {}  #: the model's own id, where it had to be changed
        self._running: dict[str, ToolCall] = {}
        self._aside: dict[str, ToolCall] = {}
        self._awaited: set[str] = set()

    @property
    def running(self) -> bool:
        return bool(self._running)

    @property
    def awaited(self) -> bool:
        """The model waits for a result."""
        return bool(self._awaited)

    def is_awaited(self, tool_id: str) -> bool:
        return tool_id in self._awaited

    def asked(self, call: ToolCall) -> ToolCall:
        """The model asks for a tool; its id is made unique within the call."""
        unique = call.id
        while unique in self._used:
            unique = f"{call.id}-{len(self._used)}"
        if unique != call.id:
            self._names[unique] = call.id
            call = call.model_copy(update={"id": unique})
        self._used.add(unique)
        self._awaited.add(unique)
        return call

    def begin(self, call: ToolCall) -> bool:
        """It runs from now on. Whether it does so in the background."""
        self._used.add(call.id)
        spec = self._agent.tool(call.name)
        background = spec is not None and spec.background
        (self._aside if background else self._running)[call.id] = call
        return background

    def end(self, tool_id: str) -> bool:
        """It has ended; False: it was not running."""
        return self._running.pop(tool_id, None) is not None or self._aside.pop(tool_id, None) is not None

    def answer(self, outcome: ToolOutcome) -> ToolMessage:
        """The result under the model's own id, which does not wait for it any more."""
        self._awaited.discard(outcome.id)
        return outcome.message.model_copy(update={"tool_call_id": self._names.get(outcome.id, outcome.id)})

    @staticmethod
    def begun(call: ToolCall) -> ToolOutcome:
        """What the model is answered at once for a background tool."""
        return ToolOutcome(id=call.id, name=call.name, status="succeeded", result=BEGUN)

    def forgotten(self, ids: Iterable[str]) -> None:
        """The model no longer waits for these (its own ids); their work goes on."""
        for given in ids:
            tool_id = next((ours for ours, theirs in self._names.items() if theirs == given), given)
            if tool_id in self._awaited:
                self._awaited.discard(tool_id)
                if (call := self._running.pop(tool_id, None)) is not None:
                    self._aside[tool_id] = call

    def new_model(self) -> None:
        """A model without memory of the calls took over."""
        self._awaited.clear()

    def notes(self) -> list[str]:
        """What a new model must know of the tools that run."""
        return [
            f"The tool {call.name} is running already, with {json.dumps(call.arguments, ensure_ascii=False)}. "
            "Its result will follow; do not call it again."
            for call in self._running.values()
        ]

    def spec(self, tool_id: str) -> ToolSpec | None:
        """Of a tool that the conversation waits for."""
        call = self._running.get(tool_id)
        return self._agent.tool(call.name) if call else None


def has_ended(result: ToolMessage) -> str:
    """The result as a note, for a model that does not wait for it."""
    return f"The tool {result.name} has ended. Result: {result.content}"
