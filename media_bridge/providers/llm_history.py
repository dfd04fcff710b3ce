"""The conversation so far, put in an order that language-model vendors accept.

A phone call leaves a history that no vendor takes as it is: the agent greets before anybody asked, replies are
cut, a tool's result arrives three turns after its call or not at all, ids come from another vendor. Vendors
answer 400 to each of these, and a 400 on a call is silence. Everything here is pure and stable: a longer
conversation keeps the beginning that a shorter one had, so that the vendors' prompt caches hit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage

OPENING = "The call begins."
GO_ON = "It is your turn to speak."
INTERRUPTED = "The caller interrupted you there and heard no more than that."
NO_RESULT_YET = "No result yet: the tool is still running, or was cut off."

_ID = re.compile(r"[^A-Za-z0-9_-]")
_ID_LENGTH = 64
"""OpenAI takes `call_id` up to 64 characters; Anthropic takes letters, digits, `_` and `-` only."""


def note_text(text: str) -> str:
    """How a note reads to the model, in roles that have no other mark for "nobody said this"."""
    return f"[{text.strip()}]"


def in_vendor_order(messages: Sequence[Message]) -> list[Message]:
    """Repair a conversation.

    Returns messages of which all of this holds:
        - it begins with the user or a note, and ends with the user, a note or a tool's result;
        - each agent message with tool calls is followed by exactly one result per call, in the calls' order,
          and no other result exists; a result that came later is told by a note where it came;
        - tool-call ids are unique and fit every vendor;
        - no text is empty; an agent message that was cut is followed by a note that says so.
    """
    repaired: list[Message] = []
    wire_ids = _WireIds()
    rest = [m for m in messages if isinstance(m, AgentMessage | ToolMessage) or m.text.strip()]
    index = 0
    while index < len(rest):
        message = rest[index]
        index += 1
        if isinstance(message, ToolMessage):
            repaired.append(_late_result(message))
        elif not isinstance(message, AgentMessage):
            repaired.append(message)
        else:
            if not repaired and (message.text.strip() or message.tool_calls):
                repaired.append(NoteMessage(text=OPENING))
            end = index
            while end < len(rest) and isinstance(rest[end], ToolMessage | NoteMessage):
                end += 1
            repaired += _exchange(message, rest[index:end], wire_ids)
            index = end
    if not repaired:
        return [NoteMessage(text=OPENING)]
    if isinstance(repaired[-1], AgentMessage):
        repaired.append(NoteMessage(text=GO_ON))
    return repaired


def alternating(messages: Sequence[Message]) -> list[UserMessage | AgentMessage | ToolMessage]:
    """As `in_vendor_order`, for interfaces that know no notes and want the roles to alternate: notes become
    bracketed words of the user, and neighbours of one role become one message."""
    turns: list[UserMessage | AgentMessage | ToolMessage] = []
    for item in in_vendor_order(messages):
        message = UserMessage(text=note_text(item.text)) if isinstance(item, NoteMessage) else item
        last = turns[-1] if turns else None
        if isinstance(message, UserMessage) and isinstance(last, UserMessage):
            turns[-1] = UserMessage(text=f"{last.text}\n{message.text}")
        elif isinstance(message, AgentMessage) and isinstance(last, AgentMessage):
            text = f"{last.text} {message.text}".strip()
            turns[-1] = AgentMessage(text=text, tool_calls=message.tool_calls)
        else:
            turns.append(message)
    return turns


def _exchange(message: AgentMessage, following: Iterable[Message], wire_ids: _WireIds) -> list[Message]:
    """An agent message, the results of its tools, then the notes among which they came."""
    results: dict[str, ToolMessage] = {}
    asked = {call.id for call in message.tool_calls}
    after: list[Message] = []
    for item in following:
        if isinstance(item, ToolMessage) and item.tool_call_id in asked and item.tool_call_id not in results:
            results[item.tool_call_id] = item
        elif isinstance(item, ToolMessage):
            after.append(_late_result(item))
        else:
            after.append(item)

    calls: list[ToolCall] = []
    answers: list[Message] = []
    for call in message.tool_calls:
        wire_id = wire_ids.new(call.id)
        calls.append(call.model_copy(update={"id": wire_id}))
        answer = results.get(call.id) or ToolMessage(tool_call_id=call.id, name=call.name, content=NO_RESULT_YET)
        answers.append(answer.model_copy(update={"tool_call_id": wire_id}))
    text = message.text.strip()
    said: list[Message] = []
    if text or calls:
        said.append(message.model_copy(update={"text": text, "tool_calls": tuple(calls)}))
    if message.interrupted and text:
        after.insert(0, NoteMessage(text=INTERRUPTED))
    return [*said, *answers, *after]


def _late_result(message: ToolMessage) -> NoteMessage:
    outcome = "failed" if message.is_error else "finished"
    return NoteMessage(text=f"The tool {message.name} has {outcome}: {message.content}")


class _WireIds:
    """Ids as they go to the vendor; the same in every request of a call, as they depend on what came before."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new(self, own_id: str) -> str:
        base = _ID.sub("_", own_id)[:_ID_LENGTH] or "call"
        wire_id, number = base, 2
        while wire_id in self._used:
            suffix = f"-{number}"
            wire_id, number = base[: _ID_LENGTH - len(suffix)] + suffix, number + 1
        self._used.add(wire_id)
        return wire_id
