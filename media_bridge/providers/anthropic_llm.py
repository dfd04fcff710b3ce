"""Anthropic language models over the Messages API.

The API version in use (2026-10-21) has no `temperature`, `top_p` or `top_k`. Models from Sonnet 5 and
Opus 5 on think before they speak unless told otherwise, and thinking counts against `max_tokens`; on a phone that
is silence, so it is off unless an option asks for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field

from media_bridge.providers.base import (
    LlmEvent,
    LlmProfile,
    LlmRequest,
    LlmUsage,
    ProviderConfig,
    TextDelta,
    ToolCallDelta,
)
from media_bridge.providers.llm_client import EventStream, HttpClient, LlmClient, read_out
from media_bridge.providers.llm_history import alternating
from media_bridge.providers.llm_http import (
    LlmOptions,
    check_ending,
    ended_early,
    error_from_event,
    provider_errors,
    schema_of,
    text_of,
    tool_arguments,
)
from media_bridge.providers.options import read_options
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError
from stayline.models import AgentMessage, ToolCall, ToolMessage, UserMessage

API_VERSION = "2026-10-21"
CACHE = {"type": "ephemeral"}
"""Marks the end of a prefix that Anthropic keeps for 5 minutes, renewed by each use."""


class AnthropicOptions(LlmOptions):
    """`options={"llm": {...}}` of an agent that uses Anthropic."""

    max_tokens: int = Field(default=1024, gt=0)  #: of a reply, thinking included
    thinking: Literal["disabled", "adaptive", "between_tools", "default"] = "disabled"  #: default: the model's own
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    cache: bool = True  #: keep instructions and tools in Anthropic's prompt cache
    speed: Literal["standard", "fast"] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


class AnthropicLlm:
    """See `LlmProvider`.

    Args:
        client: default: one of its own. Who gives one closes it.
    """

    def __init__(self, config: ProviderConfig, client: LlmClient | None = None) -> None:
        self._config = config
        self._options = read_options(AnthropicOptions, config, "llm")
        if not config.api_key:
            raise ConfigError("Anthropic has no key.", fix="Set ANTHROPIC_API_KEY.")
        origin = config.base_url or PROVIDERS["anthropic"].default_base_url
        headers = {"x-api-key": config.api_key, "anthropic-version": API_VERSION}
        self._client = client or HttpClient(config, origin.rstrip("/").removesuffix("/v1"), headers, self._options)
        self.profile = LlmProfile(parallel_tools=self._options.parallel_tools)

    async def warm(self) -> None:
        """Open a connection; asks for the model, so a wrong key or name shows here."""
        with provider_errors(self._config):
            await self._client.check(f"/v1/models/{quote(self._config.model)}")

    async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        with provider_errors(self._config):
            events = self._events(await self._client.reply("/v1/messages", self._parameters(request)))
            # A generator that is left in the middle closes its connection when it is told to, not when it is lost.
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event

    async def aclose(self) -> None:
        await self._client.aclose()

    def _parameters(self, request: LlmRequest) -> dict[str, Any]:
        options = self._options
        messages = alternating(request.messages)
        parameters: dict[str, Any] = {
            "model": self._config.model,
            "max_tokens": options.max_tokens,
            "messages": _wire_messages(messages),
            "metadata": {"user_id": request.call_id},
            "stream": True,
        }
        cache: dict[str, Any] = {"cache_control": CACHE} if options.cache else {}
        if request.instructions:
            parameters["system"] = [{"type": "text", "text": request.instructions, **cache}]
        tools = [
            {"name": tool.name, "description": tool.description, "input_schema": schema_of(tool.parameters)}
            for tool in request.tools
        ]
        if tools:
            tools[-1] |= cache
            parameters["tools"] = tools
            if not options.parallel_tools:
                parameters["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
        elif used := _tools_used(messages):
            # A conversation that holds tool calls is refused unless tools are declared.
            parameters["tools"] = [{"name": name, "input_schema": schema_of({})} for name in used]
            parameters["tool_choice"] = {"type": "none"}
        if options.thinking != "default":
            parameters["thinking"] = {"type": options.thinking}
        if options.effort:
            parameters["output_config"] = {"effort": options.effort}
        return parameters | options.model_dump(include={"speed", "service_tier"}, exclude_none=True)

    async def _events(self, stream: EventStream) -> AsyncGenerator[LlmEvent]:
        open_calls: dict[int, _OpenCall] = {}
        finished: list[ToolCallDelta] = []
        tokens: dict[str, int] = {}
        spoken = separate = False
        ending: str | None = None
        async with stream:
            async for event in stream:
                match event.get("type"):
                    case "message_start":
                        tokens |= _counted(event["message"].get("usage"))
                    case "content_block_start":
                        block = event["content_block"]
                        separate = spoken and block["type"] == "text"
                        if block["type"] == "tool_use":
                            call = _OpenCall(block["id"], block["name"], block.get("input") or {})
                            open_calls[event["index"]] = call
                    case "content_block_delta":
                        delta = event["delta"]
                        if delta["type"] == "text_delta" and (text := text_of(delta["text"])):
                            if separate:
                                yield TextDelta(" ")  # two blocks of text have nothing between them
                                separate = False
                            spoken = spoken or bool(text.strip())
                            yield TextDelta(text)
                        elif delta["type"] == "input_json_delta" and event["index"] in open_calls:
                            open_calls[event["index"]].written += text_of(delta["partial_json"])
                    case "content_block_stop":
                        if event["index"] in open_calls:
                            finished.append(open_calls.pop(event["index"]).close())
                    case "message_delta":
                        ending = event["delta"].get("stop_reason")
                        tokens |= _counted(event.get("usage"))
                    case "message_stop":
                        if ending != "max_tokens":  # else the last call is cut in the middle of its arguments
                            for finished_call in finished:
                                yield finished_call
                        yield _usage(tokens)
                        await read_out(stream)
                        check_ending(self._config, ending, spoken=spoken and not finished)
                        return
                    case "error":
                        raise error_from_event(self._config, event)
        raise ended_early(self._config)


@dataclasses.dataclass(slots=True)
class _OpenCall:
    """A tool call whose arguments are still being written."""

    id: str
    name: str
    given: dict[str, Any]  #: arguments in the block's start; empty unless the server does not stream them
    written: str = ""

    def close(self) -> ToolCallDelta:
        arguments, malformed = tool_arguments(self.written)
        return ToolCallDelta(ToolCall(id=self.id, name=self.name, arguments=arguments or self.given), malformed)


def _wire_messages(messages: Sequence[UserMessage | AgentMessage | ToolMessage]) -> list[dict[str, Any]]:
    """Content blocks by alternating roles; results of tools are words of the user and come first in its message."""
    wire: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if isinstance(message, AgentMessage) else "user"
        if not wire or wire[-1]["role"] != role:
            wire.append({"role": role, "content": []})
        content: list[dict[str, Any]] = wire[-1]["content"]
        if isinstance(message, ToolMessage):
            content.append(
                {
                    "type": "tool_result",
                    "tool_use_id": message.tool_call_id,
                    "content": message.content,
                    "is_error": message.is_error,
                }
            )
            continue
        if message.text:
            content.append({"type": "text", "text": message.text})
        if isinstance(message, AgentMessage):
            content += [
                {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
                for call in message.tool_calls
            ]
    return wire


def _tools_used(messages: Sequence[UserMessage | AgentMessage | ToolMessage]) -> list[str]:
    calls = (call.name for m in messages if isinstance(m, AgentMessage) for call in m.tool_calls)
    return list(dict.fromkeys(calls))


def _counted(usage: Mapping[str, int | None] | None) -> dict[str, int]:
    """The counters that a usage object sets. `message_delta` repeats those of `message_start`, final."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    return {name: value for name in names if (value := (usage or {}).get(name)) is not None}


def _usage(tokens: dict[str, int]) -> LlmUsage:
    """Anthropic counts cached input beside `input_tokens`; Stayline counts it as a part of the input."""
    cached = tokens.get("cache_read_input_tokens", 0)
    fresh = tokens.get("input_tokens", 0) + tokens.get("cache_creation_input_tokens", 0)
    return LlmUsage(fresh + cached, tokens.get("output_tokens", 0), cached)
