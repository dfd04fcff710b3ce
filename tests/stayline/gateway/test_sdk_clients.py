"""A vendor's SDK client as `llm_client`: used as it was configured, and never closed by us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from media_bridge.providers.loading import load_provider
from stayline import ConfigError
from stayline.gateway.sdk_clients import adapter_for, is_sdk_client
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.openai import FakeOpenAI
from tests.media_bridge.providers.llm import hear, request
from tests.stayline.gateway.own import Parrot
from tests.stayline.gateway.test_config import planned


async def test_anthropic() -> None:
    async with FakeAnthropic() as fake:
        client = anthropic.AsyncAnthropic(api_key=fake.key, base_url=fake.url, max_retries=0)
        made = planned(llm_client=client, llm_model="claude-sonnet-5-5", options={"llm": {"max_tokens": 300}})
        spec = made.agent.spec()
        llm = load_provider("llm", spec.llm[0], spec, made.environment)
        await llm.warm()
        assert (await hear(llm, request())).text == "You said: Hi"
        await llm.aclose()
        assert (fake.answered[0]["model"], fake.answered[0]["max_tokens"]) == ("claude-sonnet-5-5", 300)
        assert not client.is_closed()
        await client.close()


async def test_openai() -> None:
    async with FakeOpenAI() as fake:
        client = openai.AsyncOpenAI(api_key=fake.key, base_url=f"{fake.url}/v1", max_retries=0)
        llm = adapter_for(client, "", {})
        assert (await hear(llm, request())).text == "You said: Hi"
        await llm.aclose()
        assert fake.answered[0]["model"] == "gpt-6-luna", "the default"
        assert not client.is_closed()
        await client.close()


@pytest.mark.parametrize("make", [openai.OpenAI, anthropic.Anthropic])
def test_a_client_that_would_block_the_audio(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=rf"Give an Async{make.__name__}"):  # type: ignore[attr-defined]
        planned(llm_client=make(api_key="k"))


def test_options_are_checked_as_ever() -> None:
    client = openai.AsyncOpenAI(api_key="k")
    with pytest.raises(ConfigError, match="Did you mean 'max_tokens'"):
        planned(llm_client=client, options={"llm": {"max_token": 3}})


def test_other_objects_are_none() -> None:
    assert not is_sdk_client(Parrot())
    assert not is_sdk_client(openai.NotGiven())
