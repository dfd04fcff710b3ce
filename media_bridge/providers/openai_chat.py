"""OpenAI's chat interface (`/v1/chat/completions`) as OpenAI and the many servers that imitate it speak it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from media_bridge.providers.base import LlmEvent, LlmUsage, ProviderConfig, TextDelta, ToolCallDelta
from media_bridge.providers.llm_history import alternating
from media_bridge.providers.llm_http import check_ending, ended_early, schema_of, tool_arguments
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, ToolSpec

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk


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


async def chat_events(config: ProviderConfig, stream: AsyncStream[ChatCompletionChunk]) -> AsyncGenerator[LlmEvent]:
    """One reply. Tool calls come in fragments that are told apart by their index; usage comes last, alone."""
    calls: dict[int, _Fragments] = {}
    ending: str | None = None
    spoken = False
    usage: CompletionUsage | None = None
    async with stream:
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in (chunk.choices or ())[:1]:  # usage comes without, as do surprises
                ending = choice.finish_reason or ending
                if text := choice.delta.content or choice.delta.refusal:
                    spoken = spoken or bool(text.strip())
                    yield TextDelta(text)
                for fragment in choice.delta.tool_calls or ():
                    call = calls.setdefault(fragment.index, _Fragments(f"call_{fragment.index}"))
                    call.id = fragment.id or call.id
                    if fragment.function:
                        call.name += fragment.function.name or ""
                        call.arguments += fragment.function.arguments or ""
    if ending is None:
        raise ended_early(config)
    if ending not in ("length", "content_filter"):  # else a call may be cut in the middle of its arguments
        for _, call in sorted(calls.items()):
            arguments, malformed = tool_arguments(call.arguments)
            yield ToolCallDelta(ToolCall(id=call.id, name=call.name, arguments=arguments), malformed)
    if usage is not None:
        details = usage.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details else 0
        yield LlmUsage(usage.prompt_tokens, usage.completion_tokens, cached)
    check_ending(config, ending, spoken=spoken and not calls)


@dataclasses.dataclass(slots=True)
class _Fragments:
    """A tool call that is still being written; only its first fragment names id and function."""

    id: str
    name: str = ""
    arguments: str = ""
