"""OpenAI's chat interface (`/v1/chat/completions`) as OpenAI and the many servers that imitate it speak it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from media_bridge.providers.base import LlmEvent, LlmUsage, ProviderConfig, TextDelta, ToolCallDelta
from media_bridge.providers.llm_client import EventStream
from media_bridge.providers.llm_history import alternating
from media_bridge.providers.llm_http import (
    check_ending,
    ended_early,
    error_from_event,
    schema_of,
    text_of,
    tool_arguments,
)
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, ToolSpec


def function(tool: ToolSpec) -> dict[str, Any]:
    """A tool as both of OpenAI's interfaces describe it."""
    return {"name": tool.name, "description": tool.description, "parameters": schema_of(tool.parameters)}


def called(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}


def chat_messages(instructions: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation for servers whose prompt templates know one system message, at the start."""
    wire: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for message in alternating(messages):
        if isinstance(message, ToolMessage):
            wire.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content})
        elif isinstance(message, AgentMessage):
            said: dict[str, Any] = {"role": "assistant", "content": message.text or None}
            if message.tool_calls:
                said["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": called(call)} for call in message.tool_calls
                ]
            wire.append(said)
        else:
            wire.append({"role": "user", "content": message.text})
    return wire


async def chat_events(config: ProviderConfig, stream: EventStream) -> AsyncGenerator[LlmEvent]:
    """One reply. Tool calls come in fragments that are told apart by their index; usage comes last, alone."""
    calls: dict[int, _Fragments] = {}
    ending: str | None = None
    spoken = False
    usage: dict[str, Any] | None = None
    async with stream:
        async for chunk in stream:
            if chunk.get("error"):
                raise error_from_event(config, chunk)
            usage = chunk.get("usage") or usage
            for choice in (chunk.get("choices") or ())[:1]:  # usage comes without, as do surprises
                ending = choice.get("finish_reason") or ending
                delta = choice.get("delta") or {}
                if text := text_of(delta.get("content") or delta.get("refusal") or ""):
                    spoken = spoken or bool(text.strip())
                    yield TextDelta(text)
                for fragment in delta.get("tool_calls") or ():
                    index = fragment["index"]
                    call = calls.setdefault(index, _Fragments(f"call_{index}"))
                    call.id = fragment.get("id") or call.id
                    function = fragment.get("function") or {}
                    call.name += function.get("name") or ""
                    call.arguments += function.get("arguments") or ""
    if ending is None:
        raise ended_early(config)
    if ending not in ("length", "content_filter"):  # else a call may be cut in the middle of its arguments
        for _, call in sorted(calls.items()):
            arguments, malformed = tool_arguments(call.arguments)
            yield ToolCallDelta(ToolCall(id=call.id, name=call.name, arguments=arguments), malformed)
    if usage is not None:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        yield LlmUsage(usage["prompt_tokens"], usage["completion_tokens"], cached)
    check_ending(config, ending, spoken=spoken and not calls)


@dataclasses.dataclass(slots=True)
class _Fragments:
    """A tool call that is still being written; only its first fragment names id and function."""

    id: str
    name: str = ""
    arguments: str = ""
