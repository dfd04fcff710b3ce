"""Replies of language models, mutated, through the vendors' own SDKs: events, or a ProviderError."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import example, given
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_http import provider_errors
from media_bridge.providers.openai_chat import chat_events
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.errors import ProviderError
from tests.fuzz import vendor_messages as valid
from tests.fuzz.event_types import assert_well_typed
from tests.fuzz.generators import Raw, fed, fuzzed, scripts

OPENAI = ProviderConfig("openai", "gpt-6-luna", api_key="k" * 20)
ANTHROPIC = ProviderConfig("anthropic", "claude", api_key="k" * 20)
REQUEST = httpx2.Request("POST", "http://127.0.0.1/")


@pytest.fixture(scope="module")
def loop() -> Any:
    with asyncio.Runner() as runner:
        yield runner


def body(script: list[Raw], *, named: bool) -> bytes:
    """Server-sent events. Anthropic's are named."""
    lines: list[bytes] = []
    for raw in script:
        data = raw if isinstance(raw, bytes) else raw.encode("utf-8", "replace")
        if named:
            try:
                kind = json.loads(raw)["type"]
            except (ValueError, TypeError, LookupError, RecursionError):
                kind = "message_delta"
            lines.append(b"event: " + str(kind).encode("utf-8", "replace"))
        lines += [b"data: " + data, b""]
    return b"\n".join([*lines, b""])


def read(
    loop: asyncio.Runner,
    name: str,
    script: list[Raw],
    config: ProviderConfig,
    events_of: Callable[[httpx2.Response], AsyncIterator[Any]],
) -> None:
    fed(name, len(script))
    response = httpx2.Response(200, content=body(script, named=config is ANTHROPIC), request=REQUEST)
    events: list[Any] = []

    async def reading() -> None:
        with provider_errors(config):
            async for event in events_of(response):
                events.append(event)

    with contextlib.suppress(ProviderError):
        loop.run(reading())
    assert_well_typed(events)


@fuzzed(0.2)
@given(script=scripts(valid.CHAT))
@example(script=['{"choices": [{"delta": {"content": "\\ud83d"}}]}'])
def test_openai_chat(loop: asyncio.Runner, script: list[Raw]) -> None:
    client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1")

    def events_of(response: httpx2.Response) -> AsyncIterator[Any]:
        stream = openai.AsyncStream(cast_to=ChatCompletionChunk, response=response, client=client)
        return chat_events(OPENAI, stream)

    read(loop, "openai chat", script, OPENAI, events_of)


@fuzzed(0.2)
@given(script=scripts(valid.RESPONSES))
@example(script=['{"type": "response.output_text.delta", "delta": "\\ud83d"}'])
def test_openai_responses(loop: asyncio.Runner, script: list[Raw]) -> None:
    client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1")
    adapter = OpenAILlm(OPENAI)

    def events_of(response: httpx2.Response) -> AsyncIterator[Any]:
        stream = openai.AsyncStream(cast_to=ResponseStreamEvent, response=response, client=client)
        return adapter._response_events(stream)

    read(loop, "openai responses", script, OPENAI, events_of)


@fuzzed(0.2)
@given(script=scripts(valid.ANTHROPIC))
def test_anthropic(loop: asyncio.Runner, script: list[Raw]) -> None:
    client = anthropic.AsyncAnthropic(api_key="k", base_url="http://127.0.0.1")
    adapter = AnthropicLlm(ANTHROPIC)

    def events_of(response: httpx2.Response) -> AsyncIterator[Any]:
        stream = anthropic.AsyncStream(cast_to=RawMessageStreamEvent, response=response, client=client)
        return adapter._events(stream)

    read(loop, "anthropic", script, ANTHROPIC, events_of)
