"""OpenAI's adapter against a fake that is as strict as OpenAI, over both interfaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.providers.base import LlmUsage, ProviderConfig, TextDelta
from media_bridge.providers.openai_llm import OpenAILlm, least_effort
from stayline.errors import ConfigError, ProviderError
from stayline.models import AgentMessage, ToolCall, ToolMessage, UserMessage
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
from tests.fakes.openai import FakeOpenAI
from tests.media_bridge.providers.llm import CONVERSATION, hear, request

CHAT = {"api": "chat", "effort": "none"}


@contextlib.asynccontextmanager
async def openai(
    reply: Reply | None = None,
    options: dict[str, Any] | None = None,
    *,
    model: str = "gpt-6-luna",
    key: str = "test-key",
    local: bool = False,
) -> AsyncIterator[tuple[OpenAILlm, FakeOpenAI]]:
    async with FakeOpenAI(reply, local=local, unknown_models=["gpt-0"]) as fake:
        llm = OpenAILlm(ProviderConfig("openai", model, api_key=key, base_url=fake.url, options=options or {}))
        try:
            yield llm, fake
        finally:
            await llm.aclose()


both = pytest.mark.parametrize("options", [{}, CHAT], ids=["responses", "chat"])


@both
async def test_text_tools_and_usage(options: dict[str, Any]) -> None:
    parts: list[Part] = [
        Say("One moment, please."),
        Call("get_weather", {"location": "Rome"}, id="call_1"),
        Call("end_call", {}, id="call_2"),
        Tokens(120, 30, cached=64),
    ]
    async with openai(lambda _: parts, options) as (llm, _):
        heard = await hear(llm, request())
    assert heard.text == "One moment, please."
    assert heard.calls == [
        ToolCall(id="call_1", name="get_weather", arguments={"location": "Rome"}),
        ToolCall(id="call_2", name="end_call", arguments={}),
    ]
    assert heard.malformed == [None, None]
    assert heard.usage == [LlmUsage(120, 30, 64)]


@both
@pytest.mark.parametrize("written", ['{"location": "Ro', "[1, 2]", "Rome"])
async def test_arguments_that_are_no_object_are_handed_on_as_written(options: dict[str, Any], written: str) -> None:
    async with openai(lambda _: [Call("get_weather", written)], options) as (llm, _):
        heard = await hear(llm, request())
    assert heard.calls[0].arguments == {}
    assert heard.malformed == [written]


async def test_the_request_carries_the_whole_conversation_and_stores_nothing() -> None:
    async with openai() as (llm, fake):
        await hear(llm, request(*CONVERSATION))
        body = fake.answered[0]
    assert body["store"] is False
    assert body["stream"] is True
    assert body["reasoning"] == {"effort": "none"}
    assert body["metadata"] == {"call_id": "CA123"}
    assert body["safety_identifier"] == body["prompt_cache_key"] == "CA123"
    assert body["instructions"] == "Be brief."
    assert [(tool["type"], tool["name"], tool["strict"]) for tool in body["tools"]] == [
        ("function", "get_weather", False),
        ("function", "end_call", False),
    ]
    assert body["tools"][1]["parameters"] == {"type": "object", "properties": {}}
    assert body["input"] == [
        {"role": "developer", "content": "[The call begins.]"},
        {"role": "assistant", "content": "Hello! How can I help you?"},
        {"role": "user", "content": "What is the weather in Rome, and in Oslo?"},
        {"role": "assistant", "content": "Let me check."},
        {"type": "function_call", "call_id": "call_a", "name": "get_weather", "arguments": '{"location": "Rome"}'},
        {"type": "function_call", "call_id": "call_b", "name": "get_weather", "arguments": '{"location": "Oslo"}'},
        {"type": "function_call_output", "call_id": "call_a", "output": '"sunny"'},
        {"type": "function_call_output", "call_id": "call_b", "output": "no such place"},
        {"role": "assistant", "content": "In Rome it is"},
        {"role": "developer", "content": "[The caller interrupted you there and heard no more than that.]"},
        {"role": "user", "content": "Only Oslo please."},
        {"role": "developer", "content": "[The caller pressed 1.]"},
    ]


async def test_a_tool_call_comes_back_under_the_id_that_openai_gave() -> None:
    def reply(body: dict[str, Any]) -> list[Say | Call]:
        outputs = [item["output"] for item in body["input"] if item.get("type") == "function_call_output"]
        return [Say(f"It is {outputs[0]}.")] if outputs else [Call("get_weather", {"location": "Rome"})]

    async with openai(reply) as (llm, _):
        asked = UserMessage(text="Weather in Rome?")
        (call,) = (await hear(llm, request(asked))).calls
        result = ToolMessage(tool_call_id=call.id, name=call.name, content="sunny")
        heard = await hear(llm, request(asked, AgentMessage(tool_calls=(call,)), result))
    assert heard.text == "It is sunny."


async def test_two_messages_in_one_reply_do_not_run_together() -> None:
    async with openai(lambda _: [Say("Let me see."), Say("It is sunny.")]) as (llm, _):
        assert (await hear(llm, request())).text == "Let me see. It is sunny."


async def test_options_reach_the_wire() -> None:
    options = {
        "effort": "low",
        "verbosity": "low",
        "max_tokens": 300,
        "service_tier": "priority",
        "parallel_tools": False,
    }
    async with openai(None, options) as (llm, fake):
        assert llm.profile.parallel_tools is False
        await hear(llm, request())
        body = fake.answered[0]
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"] == {"verbosity": "low"}
    assert body["max_output_tokens"] == 300
    assert body["service_tier"] == "priority"
    assert body["parallel_tool_calls"] is False


async def test_a_local_server_needs_no_key_and_gets_roles_that_alternate() -> None:
    async with openai(None, {"api": "chat", "max_tokens": 200}, key="", local=True) as (llm, fake):
        await llm.warm()
        await hear(llm, request(*CONVERSATION))
        body = fake.answered[0]
    assert body["max_tokens"] == 200
    assert not {"safety_identifier", "prompt_cache_key", "reasoning_effort"} & set(body)
    assert [m["role"] for m in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
    ]
    assert json.loads(body["messages"][4]["tool_calls"][1]["function"]["arguments"]) == {"location": "Oslo"}


async def test_a_base_url_with_a_path_is_used_as_it_is() -> None:
    async with FakeOpenAI(local=True) as fake:
        config = ProviderConfig("openai", "llama", base_url=f"{fake.url}/v1/", options={"api": "chat"})
        llm = OpenAILlm(config)
        assert (await hear(llm, request(UserMessage(text="Hi")))).text == "You said: Hi"
        await llm.aclose()


@both
async def test_replies_follow_each_other_on_one_connection(options: dict[str, Any]) -> None:
    """A new one would cost the caller the time of its TLS handshake, in each turn."""
    async with openai(lambda _: [Say("One two three.")], options) as (llm, fake):
        for _ in range(3):
            await hear(llm, request())
        assert len(fake.requests) == 3
        assert len({recorded.connection for recorded in fake.requests}) == 1


@both
async def test_leaving_a_reply_in_the_middle_closes_the_connection(options: dict[str, Any]) -> None:
    go_on = asyncio.Event()
    async with openai(lambda _: [Say("One two three."), Wait(go_on), Say("four")], options) as (llm, fake):
        reply = llm.stream(request())
        assert isinstance(await anext(reply), TextDelta)
        await reply.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(fake.hung_up.wait(), 5)


@both
async def test_cancelling_the_task_closes_the_connection(options: dict[str, Any]) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def listen(llm: OpenAILlm) -> None:
        async for _ in llm.stream(request()):
            begun.set()

    async with openai(lambda _: [Say("One two three."), Wait(go_on), Say("four")], options) as (llm, fake):
        task = asyncio.create_task(listen(llm))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(fake.hung_up.wait(), 5)


@both
@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (server_error(503), 503, True),
        (rate_limited(7), 429, True),
        (reset(), None, True),
        (disconnect(after=4), None, True),
        (half_message(after=4), None, True),
        (garbage(after=4), None, True),
        (error(after=4), 500, True),
    ],
    ids=lambda value: value.what if isinstance(value, Misbehaviour) else None,
)
async def test_every_failure_is_a_provider_error(
    options: dict[str, Any], fault: Misbehaviour, status: int | None, retryable: bool
) -> None:
    async with openai(None, options) as (llm, fake):
        fake.misbehave(fault)
        with pytest.raises(ProviderError) as caught:
            await hear(llm, request())
        assert (caught.value.provider, caught.value.status) == ("openai", status)
        assert caught.value.retryable is retryable
        assert caught.value.retry_after == fault.retry_after
        assert (await hear(llm, request())).text == "You said: Hi"  # and the adapter goes on
        assert len(fake.requests) == 2  # it does not retry by itself


@both
async def test_silence_is_noticed(options: dict[str, Any]) -> None:
    async with openai(None, {**options, "read_timeout": 0.2}) as (llm, fake):
        for fault in (hang(), hang(after=3)):
            fake.misbehave(fault)
            with pytest.raises(ProviderError, match="did not answer in time") as caught:
                await hear(llm, request())
            assert caught.value.retryable


async def test_a_message_of_an_unknown_type_is_passed_over() -> None:
    async with openai() as (llm, fake):
        fake.misbehave(unknown_message(after=3))
        assert (await hear(llm, request())).text == "You said: Hi"


async def test_nobody_listens() -> None:
    async with openai() as (llm, fake):
        await fake.refuse_connections()
        with pytest.raises(ProviderError, match="the connection failed"):
            await hear(llm, request())


@pytest.mark.parametrize("ending", ["content_filter", "failed"])
async def test_a_reply_that_openai_stopped_is_an_error(ending: str) -> None:
    async with openai(lambda _: [Say("I will"), Ending(ending)]) as (llm, _):
        with pytest.raises(ProviderError) as caught:
            await hear(llm, request())
    assert caught.value.retryable is (ending == "failed")


@pytest.mark.parametrize(("options", "ending"), [({}, "max_output_tokens"), (CHAT, "length")])
async def test_the_token_limit_shortens_a_reply_but_never_runs_half_a_tool_call(
    options: dict[str, Any], ending: str
) -> None:
    async with openai(lambda _: [Say("A long story"), Ending(ending)], options) as (llm, fake):
        assert (await hear(llm, request())).text == "A long story"
        fake.reply = lambda _: [Ending(ending)]
        with pytest.raises(ProviderError, match="max_tokens"):
            await hear(llm, request())


async def test_a_wrong_key_is_said_without_the_key() -> None:
    async with openai(key="sk-very-secret") as (llm, _):
        for attempt in (hear(llm, request()), llm.warm()):
            with pytest.raises(ProviderError) as caught:
                await attempt
            assert (caught.value.status, caught.value.retryable) == (401, False)
            assert caught.value.fix == "Check OPENAI_API_KEY."
            assert "sk-very-secret" not in f"{caught.value}{caught.value!r}{caught.value.__cause__}"


async def test_a_model_that_does_not_exist_shows_when_warming() -> None:
    async with openai(model="gpt-0") as (llm, _):
        with pytest.raises(ProviderError, match="gpt-0") as caught:
            await llm.warm()
    assert caught.value.status == 404


async def test_many_calls_at_once_share_one_client() -> None:
    async with openai() as (llm, _):
        texts = await asyncio.gather(*(hear(llm, request(UserMessage(text=f"{n}"))) for n in range(5)))
    assert [heard.text for heard in texts] == [f"You said: {n}" for n in range(5)]


def test_the_sdk_is_not_imported_with_the_adapter() -> None:
    check = """
import sys
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.openai_llm import OpenAILlm
OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="k"))
assert not {"openai", "httpx2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_misspelt_option_and_a_missing_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'verbosity'"):
        OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="k", options={"verbosty": "low"}))
    with pytest.raises(ConfigError, match="effort"):
        OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="k", options={"effort": "tiny"}))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAILlm(ProviderConfig("openai", "gpt-6-luna"))


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gpt-6-luna", "none"),
        ("gpt-5.6-terra", "none"),
        ("gpt-5-mini", "minimal"),
        ("o3", "low"),
        ("gpt-4o", None),
    ],
)
async def test_reasoning_is_the_least_that_the_model_takes(model: str, effort: str | None) -> None:
    assert least_effort(model) == effort
    async with openai(model=model) as (llm, fake):
        await hear(llm, request())
        assert fake.answered[0].get("reasoning", {}).get("effort") == effort
