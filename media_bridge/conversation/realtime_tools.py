"""The tool calls of a realtime conversation: which run, and which of them the model waits for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from media_bridge.conversation import commands as do
from media_bridge.conversation.history import History
from media_bridge.conversation.realtime_requests import Requests, has_ended
from media_bridge.conversation.realtime_state import Response
from stayline.models import AgentMessage, AgentSpec, Message, ToolCall, ToolMessage, ToolOutcome

BEGUN: Final = {"status": "running", "note": "The result will follow; go on meanwhile."}
"""What the model is answered at once for a background tool."""
MALFORMED: Final = "The arguments were not a JSON object."


class ToolCalls:
    """What runs is the call's; what is awaited belongs to one connection of the model.

    A tool is *running* while the conversation waits for it; a background one, and one that the model has
    forgotten, goes on without anybody waiting.

    Args:
        messages: the conversation of earlier sessions.
    """

    def __init__(self, agent: AgentSpec, messages: Sequence[Message], history: History, requests: Requests) -> None:
        self._agent = agent
        self._history = history
        self._requests = requests
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

    # --- what the model asks for ---

    def asked(self, call: ToolCall, response: Response | None) -> ToolCall:
        """The model asks for a tool; its id is made unique within the call."""
        unique = call.id
        while unique in self._used:
            unique = f"{call.id}-{len(self._used)}"
        if unique != call.id:
            self._names[unique] = call.id
            call = call.model_copy(update={"id": unique})
        self._used.add(unique)
        self._awaited.add(unique)
        if response is not None:
            response.calls.append(unique)
        return call

    def refuse(self, call: ToolCall, response: Response | None, *, may_go_on: bool) -> None:
        """Its arguments make no sense: it is not run."""
        outcome = ToolOutcome(id=call.id, name=call.name, status="failed", error=MALFORMED)
        self._history.add_tool(response.number if response else 0, call)
        self._history.settle(outcome)
        self._answer(outcome, may_go_on=may_go_on)

    def run(
        self, call: ToolCall, response: Response | None, *, filler_after_ms: int | None, may_go_on: bool
    ) -> None:
        """Run it.

        Args:
            filler_after_ms: when its filler is due; None: the model cannot speak meanwhile.
            may_go_on: as for `done`.
        """
        self._used.add(call.id)
        spec = self._agent.tool(call.name)
        background = spec is not None and spec.background
        (self._aside if background else self._running)[call.id] = call
        self._history.add_tool(response.number if response else 0, call, background=background)
        self._requests.out.append(do.RunTool(call))
        if background:
            if call.id in self._awaited:
                begun = ToolOutcome(id=call.id, name=call.name, status="succeeded", result=BEGUN)
                self._answer(begun, may_go_on=may_go_on)
        elif spec is not None and spec.filler and filler_after_ms is not None:
            self._requests.out.append(do.StartTimer(f"filler:{call.id}", filler_after_ms))

    def filler(self, tool_id: str) -> str:
        """Of a tool that the conversation waits for; else empty."""
        call = self._running.get(tool_id)
        spec = self._agent.tool(call.name) if call else None
        return (spec.filler or "") if spec else ""

    # --- what comes of it ---

    def done(self, outcome: ToolOutcome, *, may_go_on: bool) -> None:
        """It has ended. `may_go_on`: with its last result the model may speak at once."""
        if self._running.pop(outcome.id, None) is None and self._aside.pop(outcome.id, None) is None:
            return
        self._requests.out.append(do.StopTimer(f"filler:{outcome.id}"))
        self._history.settle(outcome)
        if outcome.id in self._awaited:
            self._answer(outcome, may_go_on=may_go_on)
        else:
            self._requests.tell(do.TellModel(has_ended(outcome.message)))
            self._requests.reply_due = True

    def _answer(self, outcome: ToolOutcome, *, may_go_on: bool) -> None:
        self._awaited.discard(outcome.id)
        name = self._names.get(outcome.id, outcome.id)
        result: ToolMessage = outcome.message.model_copy(update={"tool_call_id": name})
        self._requests.answer_tool(do.AnswerTool(result, may_go_on and not self._awaited))

    # --- the model forgets ---

    def forgotten(self, ids: Iterable[str]) -> None:
        """The model no longer waits for these (its own ids); their work goes on."""
        for given in ids:
            tool_id = next((ours for ours, theirs in self._names.items() if theirs == given), given)
            if tool_id in self._awaited:
                self._awaited.discard(tool_id)
                if (call := self._running.pop(tool_id, None)) is not None:
                    self._aside[tool_id] = call

    def new_model(self) -> list[do.Command]:
        """A model without memory of the calls took over; returns what it must know of them."""
        self._awaited.clear()
        return [
            do.TellModel(
                f"The tool {call.name} is running already, with {json.dumps(call.arguments, ensure_ascii=False)}. "
                "Its result will follow; do not call it again."
            )
            for call in self._running.values()
        ]
