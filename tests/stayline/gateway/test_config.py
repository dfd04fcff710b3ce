"""A gateway's configuration: the guide's fields, what is left out, and what is refused before anything listens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from stayline import ConfigError, Gateway, GatewayConfig, RealtimeConfig, ToolDefinition, tool
from stayline.gateway.config import GatewayOptions
from stayline.gateway.plan import Plan, plan
from stayline.gateway.prompt import DEFAULT_PROMPT
from tests.stayline.gateway.own import Parrot, RealtimeParrot

KEYS = {
    "DEEPGRAM_API_KEY": "dg",
    "OPENAI_API_KEY": "oa",
    "ANTHROPIC_API_KEY": "an",
    "ELEVENLABS_API_KEY": "el",
    "GOOGLE_API_KEY": "go",
}
GUIDE: dict[str, Any] = {
    "account_sid": "AC" + "0" * 32,
    "auth_token": "the-auth-token",
    "phone_number": "+15551234567",
    "public_url": "https://your-server.com",
    "stt_provider": "deepgram",
    "llm_provider": "anthropic",
    "tts_provider": "elevenlabs",
    "environment": KEYS,
}


def config(**fields: Any) -> GatewayConfig:
    return GatewayConfig(**{**GUIDE, **fields})


def planned(**fields: Any) -> Plan:
    return plan(config(**fields))


@pytest.fixture(autouse=True)
def a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_PHONE_NUMBER", *KEYS):
        monkeypatch.delenv(name, raising=False)


# --- what a configuration becomes ------------------------------------------------------------------------


def test_the_guides_text_mode() -> None:
    made = planned(
        llm_system_prompt="Be brief.",
        greeting="Hello!",
        max_session_duration=timedelta(minutes=15),
        interruption_mode="after_sentence",
        stt_language="de",
    )
    spec = made.agent.spec()
    assert (spec.stt, spec.llm, spec.tts) == (
        ("deepgram/nova-3",),
        ("anthropic/claude-sonnet-5-5",),
        ("elevenlabs/eleven_flash_v2_5",),
    )
    assert (spec.voice, spec.language) == ("21m00Tcm4TlvDq8ikWAM", "de")
    assert (spec.instructions, spec.greeting) == ("Be brief.", "Hello!")
    assert (spec.max_duration, spec.turn_taking.interruption) == (900.0, "after_sentence")
    assert made.twilio.account_sid == "AC" + "0" * 32
    assert made.twilio.auth_token.get_secret_value() == "the-auth-token"
    assert made.twilio.phone_number == "+15551234567"
    assert (made.settings.public, made.settings.carrier) == ("https://your-server.com", "twilio")
    assert made.warnings == ()


def test_what_is_left_out() -> None:
    made = plan(GatewayConfig(public_url="https://a.example", account_sid=GUIDE["account_sid"], auth_token="t" * 32,
                              environment=KEYS))  # fmt: skip
    spec = made.agent.spec()
    assert spec.llm == ("openai/gpt-6-luna",)
    assert spec.tts == ("openai/gpt-4o-mini-tts", "openai/gpt-realtime-2.1-mini")
    assert (spec.voice, spec.instructions, spec.greeting) == ("alloy", DEFAULT_PROMPT, "")
    assert (spec.max_duration, spec.turn_taking.interruption) == (1800.0, "immediate")
    assert made.settings.listen == ("0.0.0.0", 8080), "without a host: every interface, as in the guide"


def test_credentials_and_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "1" * 32)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "from the environment")
    monkeypatch.setenv("STAYLINE_PUBLIC_URL", "https://env.example")
    monkeypatch.setenv("STAYLINE_LISTEN_ADDR", "127.0.0.1:9090")
    monkeypatch.setenv("STAYLINE_MAX_CALLS", "7")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    made = plan(GatewayConfig(stt_provider="deepgram", llm_provider="anthropic", tts_provider="deepgram"))
    assert made.twilio.account_sid == "AC" + "1" * 32
    assert made.settings.listen == ("127.0.0.1", 9090)
    assert (made.settings.public, made.settings.max_calls) == ("https://env.example", 7)
    given = plan(config(listen_addr="127.0.0.1:1234", public_url="https://code.example", settings={"max_calls": 3}))
    assert given.settings.listen == ("127.0.0.1", 1234)
    assert (given.settings.public, given.settings.max_calls) == ("https://code.example", 3)


def test_a_key_serves_its_role_only() -> None:
    made = planned(stt_provider="openai", stt_api_key="one", llm_provider="openai", llm_api_key="two")
    assert (made.environment["STT_OPENAI_API_KEY"], made.environment["LLM_OPENAI_API_KEY"]) == ("one", "two")
    assert "two" not in repr(config(llm_api_key="two"))
    assert "the-auth-token" not in repr(config())


def test_the_whisper_of_the_guide_is_openai() -> None:
    assert planned(stt_provider="whisper", stt_model="whisper-1").agent.spec().stt == ("openai/whisper-1",)


def test_where_a_voice_is_a_model() -> None:
    for fields in ({"tts_voice_id": "aura-2-apollo-en"}, {"tts_model": "aura-2-apollo-en"}):
        spec = planned(tts_provider="deepgram", **fields).agent.spec()
        assert (spec.tts, spec.voice) == (("deepgram/aura-2-apollo-en",), "")


def test_realtime_mode_with_an_own_model() -> None:
    spec = planned(
        mode="realtime",
        realtime_provider=RealtimeParrot(),
        realtime_config=RealtimeConfig(instructions="Be brief."),
    ).agent.spec()
    assert (spec.mode, spec.realtime, spec.stt) == ("realtime", ("injected/RealtimeParrot",), ())
    assert spec.instructions == "Be brief."


def test_tools_of_both_kinds() -> None:
    @tool
    async def get_weather(location: str) -> str:
        """Get the weather."""
        return location

    schedule = ToolDefinition(
        name="schedule",
        description="Schedule it.",
        parameters={"type": "object", "properties": {"date": {"type": "string"}}, "required": ["date"]},
    )
    made = planned(tools=[get_weather, schedule], tool_handlers={"schedule": lambda arguments: "done"})
    assert list(made.agent.tools) == ["get_weather", "schedule"]


def test_further_arguments_of_the_agent() -> None:
    made = planned(agent={"name": "desk", "transfers": {"support": "+15550001111"}, "silence_timeout": 90})
    assert (made.agent.name, made.agent.spec().silence_timeout) == ("desk", 90)


def test_options_reach_the_adapters() -> None:
    assert planned(options={"stt": {"keyterm": ["Stayline"]}}).agent.spec().options["stt"] == {
        "keyterm": ["Stayline"]
    }


# --- objects of one's own --------------------------------------------------------------------------------


def test_an_own_language_model_needs_no_provider_and_no_key() -> None:
    made = planned(llm_client=Parrot(), llm_provider="openai", llm_api_key="ignored")
    assert made.agent.spec().llm[0].startswith("injected/Parrot")
    assert "LLM_OPENAI_API_KEY" not in made.environment


def test_a_class_gets_the_model_and_an_object_has_it_already() -> None:
    spec = planned(llm_client=Parrot, llm_model="grey").agent.spec()
    assert spec.options["llm"] == {"model": "grey"}
    with pytest.raises(ConfigError, match="llm_model='grey' comes too late: the Parrot is made already"):
        planned(llm_client=Parrot(), llm_model="grey")


def test_an_object_that_is_no_language_model() -> None:
    with pytest.raises(ConfigError, match="object is no llm provider"):
        planned(llm_client=object())


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message", "fix"),
    [
        ({"stt_providr": "deepgram"}, "GatewayConfig has no field 'stt_providr'.", "Did you mean 'stt_provider'?"),
        ({"STTProvider": "deepgram"}, "has no field 'STTProvider'.", "Did you mean 'stt_provider'?"),
        ({"LLMAPIKey": "x"}, "has no field 'LLMAPIKey'.", "Did you mean 'llm_api_key'?"),
        ({"api_key": "x"}, "has no field 'api_key'.", "Did you mean 'auth_token'?"),
        ({"mode": "voice"}, "GatewayConfig, mode: Input should be 'text' or 'realtime'.", "It was 'voice'."),
        ({"interruption_mode": "never"}, "GatewayConfig, interruption_mode: ", "It was 'never'."),
        ({"max_session_duration": 0}, "max_session_duration: must be above 0.", "It was 0."),
        ({"max_session_duration": "soon"}, "GatewayConfig, max_session_duration: ", "It was 'soon'."),
        ({"realtime_config": {"voic": "alloy"}}, "RealtimeConfig has no field 'voic'.", "Did you mean 'voice'?"),
        ({"realtime_config": {"functions": []}}, "RealtimeConfig has no field 'functions'.", "tools=[…]"),
        ({"temporal_client": "localhost"}, "GatewayConfig, temporal_client: ", ""),
    ],
)
def test_fields_that_are_none(fields: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**fields)
    assert message in caught.value.message
    assert fix in caught.value.fix


def test_a_secret_is_not_repeated_in_what_is_said_about_it() -> None:
    with pytest.raises(ConfigError) as caught:
        config(auth_token=["my secret"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"stt_provider": "deepgam"}, "there is no provider 'deepgam'. Did you mean 'deepgram'?"),
        ({"tts_provider": "anthropic"}, "anthropic does no tts."),
        ({"llm_model": "claude-sonnet-4-20250514"}, 'Use llm="anthropic/claude-sonnet-5-5".'),
        ({"llm_model": "claude-opus-4"}, 'Use llm="anthropic/claude-opus-5-5".'),
        ({"llm_provider": "openai", "llm_model": "gpt-4-turbo"}, 'Use llm="openai/gpt-6-luna".'),
        ({"environment": {}}, "needs DEEPGRAM_API_KEY. Set DEEPGRAM_API_KEY"),
        ({"options": {"stt": {"keyterms": []}}}, "Did you mean 'keyterm'?"),
        ({"tts_provider": "deepgram", "tts_model": "a", "tts_voice_id": "b"}, "contradict each other"),
        ({"tools": [ToolDefinition(name="f", description="f")]}, "Tool 'f' has no handler."),
        ({"tools": ["f"]}, "'f' is not a tool."),
        ({"tool_handlers": {"f": print}}, "The tool handler 'f' has no ToolDefinition."),
        ({"agent": {"greeting": "Hi"}}, "'greeting' has a field of its own."),
        ({"agent": {"silence_timout": 9}}, "Did you mean 'silence_timeout'?"),
        ({"settings": {"max_cals": 9}}, "Did you mean 'max_calls'?"),
        ({"public_url": ""}, "public_url is not set"),
        ({"public_url": "http://your-server.com"}, "Twilio streams audio to secure addresses"),
        ({"phone_number": "12"}, "TWILIO_PHONE_NUMBER is '12'."),
        ({"stt_provider": Parrot()}, "Parrot is no stt provider"),
        (
            {"mode": "realtime", "realtime_provider": "openai", "realtime_config": {"provider": "gemini"}},
            "realtime_provider='openai', but realtime_config says 'gemini'.",
        ),
        (
            {"mode": "realtime", "realtime_provider": RealtimeParrot(), "realtime_config": {"api_key": "x"}},
            "realtime_config.api_key is given, but an object of your own takes no key.",
        ),
    ],
)
def test_a_gateway_that_would_fail_on_a_call_is_not_made(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Gateway(config(**fields))
    assert says in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Gateway(config(environment={}, phone_number="12"))
    assert "4 things must be put right first" in str(caught.value)


def test_options_by_keyword_are_the_fields() -> None:
    assert set(get_type_hints(GatewayOptions)) == set(GatewayConfig.model_fields) - {"carrier"}
