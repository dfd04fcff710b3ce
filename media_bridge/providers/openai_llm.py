"""OpenAI language models over the Responses API, and servers that speak OpenAI's chat interface.

Nothing is stored at OpenAI (`store=False`): each request carries the whole conversation, which is Stayline's to
keep. `api="chat"` is for model servers of one's own; OpenAI's chat interface refuses tools for its present
models unless reasoning is switched off, so Responses is the default.
"""

from __future__ import annotations

import contextlib
import os
import re
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
from media_bridge.providers.llm_history import in_vendor_order, note_text
from media_bridge.providers.llm_http import (
    LlmOptions,
    check_ending,
    ended_early,
    error_from_body,
    error_from_event,
    provider_errors,
    text_of,
    tool_arguments,
)
from media_bridge.providers.openai_chat import called, chat_events, chat_messages, function
from media_bridge.providers.options import read_options
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

ACCOUNT_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
"""Header and environment variable, for keys that belong to several; as OpenAI's SDK has them."""


class OpenAIOptions(LlmOptions):
    """`options={"llm": {...}}` of an agent that uses OpenAI."""

    api: Literal["responses", "chat"] = "responses"
    effort: Effort | Literal["default"] | None = None  #: reasoning; None: the least that the model takes
    max_tokens: int | None = Field(default=None, gt=0)  #: of a reply, reasoning included; None: the model's limit
    temperature: float | None = Field(default=None, ge=0, le=2)  #: reasoning models take their default only
    verbosity: Literal["low", "medium", "high"] | None = None
    service_tier: Literal["auto", "default", "flex", "fast", "priority"] | None = None


class OpenAILlm:
    """See `LlmProvider`.

    Args:
        client: default: one of its own. Who gives one closes it.
    """

    def __init__(self, config: ProviderConfig, client: LlmClient | None = None) -> None:
        self._config = config
        self._options = read_options(OpenAIOptions, config, "llm")
        origin = config.base_url or PROVIDERS["openai"].default_base_url
        self._own_server = self._options.api == "chat" and origin != PROVIDERS["openai"].default_base_url
        if not config.api_key and not self._own_server:
            raise ConfigError("OpenAI has no key.", fix="Set OPENAI_API_KEY.")
        headers = {name: os.environ.get(variable, "") for name, variable in ACCOUNT_HEADERS.items()}
        headers["Authorization"] = f"Bearer {config.api_key or 'none'}"
        self._client = client or HttpClient(
            config, _with_version(origin), {name: value for name, value in headers.items() if value}, self._options
        )
        self.profile = LlmProfile(parallel_tools=self._options.parallel_tools)

    async def warm(self) -> None:
        """Open a connection; asks OpenAI for the model, so a wrong key or name shows here."""
        with provider_errors(self._config):
            await self._client.check("/models" if self._own_server else f"/models/{quote(self._config.model)}")

    async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        with provider_errors(self._config):
            events: AsyncGenerator[LlmEvent]
            if self._options.api == "chat":
                chat = await self._client.reply("/chat/completions", self._chat_parameters(request))
                events = chat_events(self._config, chat)
            else:
                reply = await self._client.reply("/responses", self._response_parameters(request))
                events = self._response_events(reply)
            # A generator that is left in the middle closes its connection when it is told to, not when it is lost.
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event

    async def aclose(self) -> None:
        await self._client.aclose()

    def _effort(self) -> str | None:
        effort = self._options.effort
        if effort is None and not self._own_server:
            return least_effort(self._config.model)
        return None if effort == "default" else effort

    def _response_parameters(self, request: LlmRequest) -> dict[str, Any]:
        options = self._options
        parameters: dict[str, Any] = {
            "model": self._config.model,
            "input": _items(request.messages),
            "stream": True,
            "store": False,
            "metadata": {"call_id": request.call_id},
            "safety_identifier": request.call_id[:128],
            "prompt_cache_key": request.call_id[:64],
        }
        if request.instructions:
            parameters["instructions"] = request.instructions
        if request.tools:
            parameters["tools"] = [
                {"type": "function", **function(tool), "strict": False} for tool in request.tools
            ]
            if not options.parallel_tools:
                parameters["parallel_tool_calls"] = False
        if effort := self._effort():
            parameters["reasoning"] = {"effort": effort}
        if options.verbosity:
            parameters["text"] = {"verbosity": options.verbosity}
        if options.max_tokens:
            parameters["max_output_tokens"] = options.max_tokens
        return parameters | options.model_dump(include={"temperature", "service_tier"}, exclude_none=True)

    async def _response_events(self, stream: EventStream) -> AsyncGenerator[LlmEvent]:
        spoken = separate = calling = False
        async with stream:
            async for event in stream:
                match event.get("type"):
                    case "response.output_item.added":
                        kind = event["item"]["type"]
                        separate = spoken and kind == "message"
                        calling = calling or kind == "function_call"
                    case "response.output_text.delta" | "response.refusal.delta":
                        delta = text_of(event["delta"])
                        if separate:
                            # A reply may hold two messages (commentary, final answer) with nothing between.
                            yield TextDelta(" ")
                            separate = False
                        spoken = spoken or bool(delta.strip())
                        if delta:
                            yield TextDelta(delta)
                    case "response.output_item.done":
                        item = event["item"]
                        if item["type"] == "function_call" and item.get("status") != "incomplete":
                            arguments, malformed = tool_arguments(text_of(item["arguments"]))
                            call = ToolCall(id=item["call_id"], name=item["name"], arguments=arguments)
                            yield ToolCallDelta(call, malformed)
                    case "response.completed":
                        yield _usage(event["response"])
                        await read_out(stream)
                        return
                    case "response.incomplete":
                        response = event["response"]
                        yield _usage(response)
                        reason = (response.get("incomplete_details") or {}).get("reason") or "incomplete"
                        check_ending(self._config, reason, spoken=spoken and not calling)
                        return
                    case "response.failed":
                        raise error_from_body(self._config, event["response"].get("error") or {})
                    case kind if kind == "error" or event.get("error"):
                        # {"code", "message"} by the documentation; some errors come as {"error": {...}}
                        raise error_from_event(self._config, event)
        raise ended_early(self._config)

    def _chat_parameters(self, request: LlmRequest) -> dict[str, Any]:
        options = self._options
        parameters: dict[str, Any] = {
            "model": self._config.model,
            "messages": chat_messages(request.instructions, request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not self._own_server:
            parameters["safety_identifier"] = request.call_id[:128]
            parameters["prompt_cache_key"] = request.call_id[:64]
        if request.tools:
            parameters["tools"] = [{"type": "function", "function": function(tool)} for tool in request.tools]
            if not options.parallel_tools:
                parameters["parallel_tool_calls"] = False
        if effort := self._effort():
            parameters["reasoning_effort"] = effort
        if options.max_tokens:
            # Servers of one's own know the older name; OpenAI's reasoning models refuse it.
            parameters["max_tokens" if self._own_server else "max_completion_tokens"] = options.max_tokens
        return parameters | options.model_dump(
            include={"temperature", "service_tier", "verbosity"}, exclude_none=True
        )


def least_effort(model: str) -> Effort | None:
    """The least reasoning that a model takes; None where it takes no such parameter at all.

    gpt-5 (the first) knows "minimal" and refuses "none", gpt-5.1 and later the other way round; the o series begins
    at "low"; gpt-4 and earlier refuse the parameter.
    """
    if re.match(r"gpt-[34]", model):
        return None
    if re.match(r"o\d", model):
        return "low"
    if re.match(r"gpt-5(-|$)", model):
        return "minimal"
    return "none"


def _with_version(origin: str) -> str:
    """Add `/v1` to an origin; an address that already has a path is left as it is."""
    origin = origin.rstrip("/")
    return origin if "/" in origin.partition("://")[2] else f"{origin}/v1"


def _items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for message in in_vendor_order(messages):
        if isinstance(message, ToolMessage):
            items.append(
                {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}
            )
        elif isinstance(message, AgentMessage):
            if message.text:
                items.append({"role": "assistant", "content": message.text})
            items += [{"type": "function_call", "call_id": call.id, **called(call)} for call in message.tool_calls]
        elif isinstance(message, NoteMessage):
            items.append({"role": "developer", "content": note_text(message.text)})
        else:
            items.append({"role": "user", "content": message.text})
    return items


def _usage(response: Mapping[str, Any]) -> LlmUsage:
    usage = response.get("usage")
    if not usage:
        return LlmUsage()
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
    return LlmUsage(usage["input_tokens"], usage["output_tokens"], cached)
