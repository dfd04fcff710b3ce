"""Replies of language models, mutated: events, or a ProviderError."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest
from hypothesis import example, given

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_client import events
from media_bridge.providers.llm_http import provider_errors
from media_bridge.providers.openai_chat import chat_events
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.errors import ProviderError
from tests.fuzz import vendor_messages as valid
from tests.fuzz.event_types import assert_well_typed
from tests.fuzz.generators import Raw, fed, fuzzed, scripts

OPENAI = ProviderConfig("openai", "gpt-6-luna", api_key="k" * 20)
ANTHROPIC = ProviderConfig("anthropic", "claude", api_key="k" * 20)


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


class Reply:
    """See `EventStream`: of bytes that come in pieces."""

    def __init__(self, data: bytes) -> None:
        self._events = events(self._pieces(data))

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._events.aclose()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._events


def read(
    loop: asyncio.Runner,
    name: str,
    script: list[Raw],
    config: ProviderConfig,
    events_of: Callable[[Reply], AsyncIterator[Any]],
) -> None:
    fed(name, len(script))
    found: list[Any] = []

    async def reading() -> None:
        with provider_errors(config):
            async for event in events_of(Reply(body(script, named=config is ANTHROPIC))):
                found.append(event)

    with contextlib.suppress(ProviderError):
        loop.run(reading())
    assert_well_typed(found)


def test_what_is_fed_is_read(loop: asyncio.Runner) -> None:
    """Else all that is mutated below would be refused unread."""
    for config, script, events_of in (
        (OPENAI, valid.CHAT, lambda reply: chat_events(OPENAI, reply)),
        (OPENAI, valid.RESPONSES, OpenAILlm(OPENAI)._response_events),
        (ANTHROPIC, valid.ANTHROPIC, AnthropicLlm(ANTHROPIC)._events),
    ):
        messages = [json.dumps(message) for message in script]

        async def texts(events_of: Any = events_of, data: bytes = body(messages, named=config is ANTHROPIC)) -> int:
            return len([event async for event in events_of(Reply(data))])

        assert loop.run(texts()) > 2


@fuzzed(0.2)
@given(script=scripts(valid.CHAT))
@example(script=['{"choices": [{"delta": {"content": "\\ud83d"}}]}'])
def test_openai_chat(loop: asyncio.Runner, script: list[Raw]) -> None:
    read(loop, "openai chat", script, OPENAI, lambda reply: chat_events(OPENAI, reply))


@fuzzed(0.2)
@given(script=scripts(valid.RESPONSES))
@example(script=['{"type": "response.output_text.delta", "delta": "\\ud83d"}'])
def test_openai_responses(loop: asyncio.Runner, script: list[Raw]) -> None:
    read(loop, "openai responses", script, OPENAI, OpenAILlm(OPENAI)._response_events)


@fuzzed(0.2)
@given(script=scripts(valid.ANTHROPIC))
def test_anthropic(loop: asyncio.Runner, script: list[Raw]) -> None:
    read(loop, "anthropic", script, ANTHROPIC, AnthropicLlm(ANTHROPIC)._events)
