"""From an agent to its adapters."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.loading import load_provider, load_providers, provider_config
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError
from stayline.models import AgentSpec
from tests.fakes.openai import FakeOpenAI
from tests.media_bridge.providers.llm import hear, request

KEYS = {info.key_env: f"{name}-key" for name, info in PROVIDERS.items() if info.key_env}


def spec(**values: Any) -> AgentSpec:
    defaults: dict[str, Any] = {
        "name": "agent",
        "stt": ("deepgram/nova-3",),
        "llm": ("anthropic/claude-haiku-5-5", "openai/gpt-6-luna"),
        "tts": ("elevenlabs/eleven_flash_v2_5", "deepgram/aura-2-thalia-en"),
        "voice": "21m00Tcm4TlvDq8ikWAM",
    }
    return AgentSpec(**{**defaults, **values})


async def test_providers_come_in_order_of_preference_and_close() -> None:
    providers = load_providers(spec(), KEYS)
    assert [type(member.provider) for member in providers.llm.members] == [AnthropicLlm, OpenAILlm]
    assert [member.ref for member in providers.tts.members] == list(spec().tts)
    assert len(providers.all) == 5
    await providers.aclose()


async def test_key_and_origin_come_from_the_environment() -> None:
    async with FakeOpenAI(key="openai-key") as fake:
        environment = {**KEYS, "OPENAI_BASE_URL": fake.url}
        llm = load_provider("llm", "openai/gpt-6-luna", spec(), environment)
        assert (await hear(llm, request())).text == "You said: Hi"
        await llm.aclose()


def test_what_an_adapter_is_made_of() -> None:
    agent = spec(language="de", options={"stt": {"keyterm": ["Stayline"]}})
    config = provider_config("stt", "deepgram/nova-3", agent, KEYS)
    assert (config.provider, config.model, config.api_key) == ("deepgram", "nova-3", "deepgram-key")
    assert (config.base_url, config.language, config.voice) == ("https://api.deepgram.com", "de", "")
    assert config.options == {"keyterm": ["Stayline"]}


def test_options_may_be_nested_under_a_vendor() -> None:
    agent = spec(
        options={"llm": {"read_timeout": 5, "openai": {"verbosity": "low"}, "anthropic": {"read_timeout": 7}}}
    )
    assert provider_config("llm", "openai/gpt-6-luna", agent, KEYS).options == {
        "read_timeout": 5,
        "verbosity": "low",
    }
    assert provider_config("llm", "anthropic/claude-haiku-5-5", agent, KEYS).options == {"read_timeout": 7}
    with pytest.raises(ConfigError, match="must be a dict"):
        load_provider("llm", "openai/gpt-6-luna", spec(options={"llm": {"openai": "low"}}), KEYS)


def test_the_voice_is_of_the_first_vendor_unless_one_is_nested() -> None:
    def voices(agent: AgentSpec) -> list[str]:
        return [provider_config("tts", ref, agent, KEYS).voice for ref in agent.tts]

    assert voices(spec()) == ["21m00Tcm4TlvDq8ikWAM", ""]
    nested = spec(options={"tts": {"deepgram": {"voice": "aura-2-apollo-en"}}})
    assert voices(nested) == ["21m00Tcm4TlvDq8ikWAM", "aura-2-apollo-en"]


@pytest.mark.parametrize(
    ("role", "ref", "says"),
    [
        ("llm", "opnai/gpt-6-luna", "Did you mean 'openai'"),
        ("llm", "deepgram/nova-3", "deepgram does no llm"),
        ("llm", "openai", "names no model"),
    ],
)
def test_a_wrong_reference_is_refused(role: Any, ref: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_provider(role, ref, spec(), KEYS)


def test_loading_imports_no_sdk() -> None:
    check = """
import sys
from media_bridge.providers.loading import load_providers
from stayline.models import AgentSpec
spec = AgentSpec(name="a", llm=("openai/m", "anthropic/m"), stt=("deepgram/nova-3",))
load_providers(spec, {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "DEEPGRAM_API_KEY": "k"})
assert not {"openai", "anthropic", "deepgram", "elevenlabs", "httpx2", "onnxruntime"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True)
