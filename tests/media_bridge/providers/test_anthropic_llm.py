"""Anthropic's adapter against a fake that is as strict as Anthropic."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import LlmUsage, ProviderConfig, TextDelta
from stayline.errors import ConfigError, ProviderError
from stayline.models import AgentMessage, ToolCall, ToolMessage, UserMessage
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import Call, Ending, Part, Reply, Say, Tokens, Wait
from tests.fakes.misbehaviour import (
    Misbehaviour,
    disconnect,
    error,
    garbage,
    half_message,
    hang,
    rate_limited,
    reset,
    server_error,
    unknown_message,
)
from tests.media_bridge.providers.llm import CONVERSATION, hear, request

CACHED = {"cache_control": {"type": "ephemeral"}}


@contextlib.asynccontextmanager
async def anthropic(
    reply: Reply | None = None,
    options: dict[str, Any] | None = None,
    *,
    model: str = "claude-haiku-5-5",
    key: str = "test-key",
) -> AsyncIterator[tuple[AnthropicLlm, FakeAnthropic]]:
    async with FakeAnthropic(reply, unknown_models=["claude-0"]) as fake:
        config = ProviderConfig("anthropic", model, api_key=key, base_url=fake.url, options=options or {})
        llm = AnthropicLlm(config)
        try:
            yield llm, fake
        finally:
            await llm.aclose()


async def test_text_tools_and_usage() -> None:
    parts: list[Part] = [
        Say("One moment, please."),
        Call("get_weather", {"location": "Rome"}, id="toolu_1"),
        Call("end_call", {}, id="toolu_2"),
        Tokens(120, 30, cached=64),
    ]
    async with anthropic(lambda _: parts) as (llm, _):
        heard = await hear(llm, request())
    assert heard.text == "One moment, please."
    assert heard.calls == [
        ToolCall(id="toolu_1", name="get_weather", arguments={"location": "Rome"}),
        ToolCall(id="toolu_2", name="end_call", arguments={}),
    ]
    assert heard.malformed == [None, None]
    assert heard.usage == [LlmUsage(120, 30, 64)]


@pytest.mark.parametrize("written", ['{"location": "Ro', "[1, 2]", "Rome"])
async def test_arguments_that_are_no_object_are_handed_on_as_written(written: str) -> None:
    async with anthropic(lambda _: [Call("get_weather", written)]) as (llm, _):
        heard = await hear(llm, request())
    assert heard.calls[0].arguments == {}
    assert heard.malformed == [written]


async def test_the_request_is_what_anthropic_takes() -> None:
    async with anthropic() as (llm, fake):
        await hear(llm, request(*CONVERSATION))
        body, headers = fake.answered[0], fake.requests[0].headers
    assert "temperature" not in body
    assert body["thinking"] == {"type": "disabled"}
    assert body["metadata"] == {"user_id": "CA123"}
    assert body["system"] == [{"type": "text", "text": "Be brief.", **CACHED}]
    assert [set(tool) & {"cache_control"} for tool in body["tools"]] == [set(), {"cache_control"}]
    assert "traceparent" not in headers
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "[The call begins.]"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello! How can I help you?"}]},
        {"role": "user", "content": [{"type": "text", "text": "What is the weather in Rome, and in Oslo?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me check."},
                {"type": "tool_use", "id": "call_a", "name": "get_weather", "input": {"location": "Rome"}},
                {"type": "tool_use", "id": "call_b", "name": "get_weather", "input": {"location": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_a", "content": '"sunny"', "is_error": False},
                {"type": "tool_result", "tool_use_id": "call_b", "content": "no such place", "is_error": True},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "In Rome it is"}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "text",
                    "text": "[The caller interrupted you there and heard no more than that.]\n"
                    "Only Oslo please.\n[The caller pressed 1.]",
                }
            ],
        },
    ]


async def test_a_result_and_words_of_the_caller_share_a_message_the_result_first() -> None:
    call = ToolCall(id="toolu_1", name="get_weather", arguments={})
    result = ToolMessage(tool_call_id="toolu_1", name="get_weather", content="sunny")
    async with anthropic() as (llm, fake):
        await hear(llm, request(AgentMessage(tool_calls=(call,)), result, UserMessage(text="And?")))
        last = fake.answered[0]["messages"][-1]
    assert [block["type"] for block in last["content"]] == ["tool_result", "text"]


async def test_a_tool_that_still_runs_is_answered() -> None:
    call = ToolCall(id="scripted:1", name="get_weather", arguments={})
    async with anthropic() as (llm, fake):
        asked = request(UserMessage(text="Rome?"), AgentMessage(tool_calls=(call,)), UserMessage(text="Hello?"))
        assert (await hear(llm, asked)).text == "You said: Hello?"
        assert fake.answered[0]["messages"][2]["content"][0]["tool_use_id"] == "scripted_1"


async def test_a_conversation_with_tool_calls_may_go_on_without_tools() -> None:
    call = ToolCall(id="a", name="get_weather", arguments={})
    async with anthropic() as (llm, fake):
        await hear(llm, request(UserMessage(text="Rome?"), AgentMessage(tool_calls=(call,)), tools=()))
        assert fake.answered[0]["tool_choice"] == {"type": "none"}


async def test_a_tool_call_comes_back_under_the_id_that_anthropic_gave() -> None:
    def reply(body: dict[str, Any]) -> list[Say | Call]:
        blocks = [b for m in body["messages"] for b in m["content"] if b["type"] == "tool_result"]
        return [Say(f"It is {blocks[0]['content']}.")] if blocks else [Call("get_weather", {"location": "Rome"})]

    async with anthropic(reply) as (llm, _):
        asked = UserMessage(text="Weather in Rome?")
        (call,) = (await hear(llm, request(asked))).calls
        result = ToolMessage(tool_call_id=call.id, name=call.name, content="sunny")
        heard = await hear(llm, request(asked, AgentMessage(tool_calls=(call,)), result))
    assert heard.text == "It is sunny."


async def test_two_blocks_of_text_do_not_run_together() -> None:
    async with anthropic(lambda _: [Say("Let me see."), Say("It is sunny.")]) as (llm, _):
        assert (await hear(llm, request())).text == "Let me see. It is sunny."


async def test_options_reach_the_wire() -> None:
    options = {
        "max_tokens": 300,
        "thinking": "default",
        "effort": "low",
        "cache": False,
        "parallel_tools": False,
        "speed": "fast",
        "service_tier": "standard_only",
    }
    async with anthropic(None, options) as (llm, fake):
        assert llm.profile.parallel_tools is False
        await hear(llm, request())
        body = fake.answered[0]
    assert "thinking" not in body
    assert "cache_control" not in str(body)
    assert body["max_tokens"] == 300
    assert body["output_config"] == {"effort": "low"}
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert (body["speed"], body["service_tier"]) == ("fast", "standard_only")


async def test_replies_follow_each_other_on_one_connection() -> None:
    """A new one would cost the caller the time of its TLS handshake, in each turn."""
    async with anthropic(lambda _: [Say("One two three.")]) as (llm, fake):
        for _ in range(3):
            await hear(llm, request())
        assert len(fake.requests) == 3
        assert len({recorded.connection for recorded in fake.requests}) == 1


async def test_leaving_a_reply_in_the_middle_closes_the_connection() -> None:
    go_on = asyncio.Event()
    async with anthropic(lambda _: [Say("One two three."), Wait(go_on), Say("four")]) as (llm, fake):
        reply = llm.stream(request())
        assert isinstance(await anext(reply), TextDelta)
        await reply.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(fake.hung_up.wait(), 5)


async def test_cancelling_the_task_closes_the_connection() -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def listen(llm: AnthropicLlm) -> None:
        async for _ in llm.stream(request()):
            begun.set()

    async with anthropic(lambda _: [Say("One two three."), Wait(go_on), Say("four")]) as (llm, fake):
        task = asyncio.create_task(listen(llm))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(fake.hung_up.wait(), 5)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (server_error(529), 529),
        (rate_limited(7), 429),
        (reset(), None),
        (disconnect(after=4), None),
        (half_message(after=4), None),
        (garbage(after=4), None),
        (error(after=4), 529),
    ],
    ids=lambda value: value.what if isinstance(value, Misbehaviour) else None,
)
async def test_every_failure_is_a_provider_error(fault: Misbehaviour, status: int | None) -> None:
    async with anthropic() as (llm, fake):
        fake.misbehave(fault)
        with pytest.raises(ProviderError) as caught:
            await hear(llm, request())
        assert (caught.value.provider, caught.value.status) == ("anthropic", status)
        assert caught.value.retryable
        assert caught.value.retry_after == fault.retry_after
        assert (await hear(llm, request())).text == "You said: Hi"  # and the adapter goes on
        assert len(fake.requests) == 2  # it does not retry by itself


async def test_silence_is_noticed() -> None:
    async with anthropic(None, {"read_timeout": 0.2}) as (llm, fake):
        for fault in (hang(), hang(after=3)):
            fake.misbehave(fault)
            with pytest.raises(ProviderError, match="did not answer in time") as caught:
                await hear(llm, request())
            assert caught.value.retryable


async def test_a_message_of_an_unknown_type_is_passed_over() -> None:
    async with anthropic() as (llm, fake):
        fake.misbehave(unknown_message(after=3))
        assert (await hear(llm, request())).text == "You said: Hi"


async def test_a_request_that_anthropic_refuses_is_final() -> None:
    async with anthropic(model="claude-0") as (llm, _):
        for attempt in (hear(llm, request()), llm.warm()):
            with pytest.raises(ProviderError, match="claude-0") as caught:
                await attempt
            assert (caught.value.status, caught.value.retryable) == (404, False)


@pytest.mark.parametrize("ending", ["refusal", "model_context_window_exceeded"])
async def test_a_reply_that_anthropic_stopped_is_an_error(ending: str) -> None:
    async with anthropic(lambda _: [Say("I will"), Ending(ending)]) as (llm, _):
        with pytest.raises(ProviderError, match=ending):
            await hear(llm, request())


async def test_the_token_limit_shortens_a_reply_but_never_runs_half_a_tool_call() -> None:
    async with anthropic(lambda _: [Say("A long story"), Ending("max_tokens")]) as (llm, fake):
        assert (await hear(llm, request())).text == "A long story"
        cut: list[list[Part]] = [[Ending("max_tokens")], [Say("So:"), Call("end_call"), Ending("max_tokens")]]
        for parts in cut:
            fake.reply = functools.partial(lambda parts, _: parts, parts)
            with pytest.raises(ProviderError, match="max_tokens"):
                await hear(llm, request())


async def test_a_wrong_key_is_said_without_the_key() -> None:
    async with anthropic(key="sk-very-secret") as (llm, _):
        for attempt in (hear(llm, request()), llm.warm()):
            with pytest.raises(ProviderError) as caught:
                await attempt
            assert (caught.value.status, caught.value.retryable) == (401, False)
            assert caught.value.fix == "Check ANTHROPIC_API_KEY."
            assert "sk-very-secret" not in f"{caught.value}{caught.value!r}{caught.value.__cause__}"


def test_the_sdk_is_not_imported_with_the_adapter() -> None:
    check = """
import sys
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.anthropic_llm import AnthropicLlm
AnthropicLlm(ProviderConfig("anthropic", "claude-haiku-5-5", api_key="k"))
assert not {"anthropic", "httpx2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_misspelt_option_and_a_missing_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'max_tokens'"):
        AnthropicLlm(ProviderConfig("anthropic", "claude-haiku-5-5", api_key="k", options={"max_token": 1}))
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        AnthropicLlm(ProviderConfig("anthropic", "claude-haiku-5-5"))
