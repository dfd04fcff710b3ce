"""What is refused before the first call, and what is said of it."""

from __future__ import annotations

import importlib.util
from datetime import date
from typing import Any

import pytest

from stayline import checks
from stayline.catalog import PROVIDERS
from stayline.checks import Problem, check_agent, check_settings, refuse_if_wrong
from stayline.errors import ConfigError
from stayline.models import AgentSpec, ToolSpec
from stayline.retired import RETIRED
from stayline.settings import Settings, TwilioCredentials

KEYS = {info.key_env: "key" for info in PROVIDERS.values() if info.key_env}
TODAY = date(2026, 11, 22)


def spec(**values: Any) -> AgentSpec:
    defaults: dict[str, Any] = {
        "name": "agent",
        "stt": ("deepgram/nova-3",),
        "llm": ("anthropic/claude-haiku-5-5",),
        "tts": ("elevenlabs/eleven_flash_v2_5",),
        "voice": "21m00Tcm4TlvDq8ikWAM",
    }
    return AgentSpec(**{**defaults, **values})


def problems(environment: dict[str, str] | None = None, **values: Any) -> list[Problem]:
    return check_agent(spec(**values), KEYS if environment is None else environment, today=TODAY)


def test_a_good_agent_has_no_problems() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("values", "message", "fix"),
    [
        ({"llm": ("opnai/gpt-6-luna",)}, "no provider 'opnai'", "Did you mean 'openai'?"),
        ({"llm": ("elevenlabs/x",)}, "elevenlabs does no llm", "openai"),
        ({"llm": ()}, "has no llm", "provider/model"),
        ({"stt": ("offline/moonshin",)}, "has no model 'moonshin'", "Did you mean 'moonshine'?"),
        ({"llm": ("openai/gpt-4-turbo",)}, "was switched off", 'Use llm="openai/gpt-6-luna".'),
        (
            {"llm": ("anthropic/claude-sonnet-4-20250514",)},
            "on 2026-06-15",
            'Use llm="anthropic/claude-sonnet-5-5".',
        ),
        ({"options": {"llm": {"max_token": 5}}}, "has no llm option 'max_token'", "Did you mean 'max_tokens'?"),
        ({"options": {"lm": {}}}, "options for 'lm'", "Did you mean 'llm'?"),
        ({"voice": ""}, "needs a voice", "voice="),
        ({"transfers": {"support": "555-1234"}}, "no carrier can dial", "+15551234567"),
        ({"transfers": {"": "+15551234567"}}, "without a name", "Name it"),
        ({"silence_prompt": 60.0}, "not before silence_timeout", "shorter"),
        ({"ring_timeout": 0.0}, "ring_timeout must be above 0", "seconds"),
        ({"transfer_ring_timeout": 900}, "above 600 s", "No carrier"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str, fix: str) -> None:
    (problem,) = problems(**values)
    assert problem.severity == "error"
    assert message in problem.message
    assert fix in problem.fix


@pytest.mark.parametrize("target", ["+15551234567", "sip:desk@example.com", "sips:desk@example.com:5061"])
def test_numbers_and_sip_addresses_can_be_transferred_to(target: str) -> None:
    assert problems(transfers={"support": target}) == []


def test_every_missing_key_is_named_and_options_are_checked_all_the_same() -> None:
    found = problems({}, options={"llm": {"max_token": 5}})
    assert [p.fix.split()[1] for p in found if p.fix.startswith("Set ")] == [
        "DEEPGRAM_API_KEY",
        "ANTHROPIC_API_KEY",
        "ELEVENLABS_API_KEY",
    ]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("role", "name"), [(role, info.name) for info in PROVIDERS.values() if info.key_env for role in info.roles]
)
def test_no_provider_is_used_without_its_key(role: Any, name: str) -> None:
    mode: dict[str, Any] = {"mode": "realtime", "stt": (), "llm": (), "tts": ()} if role == "realtime" else {}
    found = problems({**KEYS, PROVIDERS[name].key_env: ""}, **{**mode, role: (f"{name}/some-model",)})
    assert f"Set {PROVIDERS[name].key_env} in the environment." in [problem.fix for problem in found]


def test_a_model_server_of_ones_own_needs_no_key() -> None:
    own = {**KEYS, "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:11434"}
    assert problems(own, llm=("openai/llama",), options={"llm": {"api": "chat"}}) == []
    assert len(problems(own, llm=("openai/llama",))) == 1


def test_a_process_that_runs_tools_needs_no_keys() -> None:
    assert check_agent(spec(), {}, today=TODAY, providers=False) == []


def test_a_model_that_will_retire_is_a_warning_until_it_has() -> None:
    name, retired = next((name, r) for name, r in RETIRED.items() if name == "openai/gpt-4o")
    agent = spec(llm=(name,))
    (before,) = check_agent(agent, KEYS, today=date(2027, 1, 13))
    assert before.severity == "warning"
    assert retired.on
    assert retired.on in before.message
    assert retired.use in before.fix
    (after,) = check_agent(agent, KEYS, today=date.fromisoformat(retired.on))
    assert after.severity == "error"


def test_the_guides_realtime_models_are_refused_with_their_successors() -> None:
    for old, new in (
        ("openai/gpt-4o-realtime-preview-2024-12-17", "openai/gpt-realtime-2.1"),
        ("google/gemini-2.0-flash-live", "google/gemini-3.8-live"),
    ):
        found = problems(mode="realtime", stt=(), llm=(), tts=(), realtime=(old,), voice="")
        assert found[0].severity == "error"
        assert found[0].fix == f'Use realtime="{new}".'


@pytest.mark.parametrize("name", [name for name in RETIRED if name.partition("/")[0] in PROVIDERS])
def test_a_retired_name_leads_to_one_that_works(name: str) -> None:
    assert f"{name.partition('/')[0]}/{RETIRED[name].use}" not in RETIRED


def test_a_missing_engine_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = problems(stt=("offline/moonshine",))
    assert "moonshine_voice" in problem.message
    assert "stayline[offline]" in problem.fix


def test_a_tools_limits_must_fit_each_other() -> None:
    tool = ToolSpec(
        name="book",
        description="",
        parameters={},
        attempt_timeout=60,
        total_timeout=30,
        heartbeat_timeout=90,
        needs_approval=True,
        approval_timeout=4000,
    )
    assert [p.severity for p in problems(tools=(tool,))] == ["error", "warning", "warning"]
    assert [p.severity for p in problems(max_duration=5 * 3600.0)] == ["warning"]


def test_refusing_lists_every_error_and_no_warning() -> None:
    refuse_if_wrong([Problem("warning", "Meh.")])
    with pytest.raises(ConfigError) as one:
        refuse_if_wrong([Problem("error", "A.", "Do a."), Problem("warning", "Meh.")])
    assert (one.value.message, one.value.fix) == ("A.", "Do a.")
    with pytest.raises(ConfigError) as two:
        refuse_if_wrong([Problem("error", "A.", "Do a."), Problem("warning", "Meh."), Problem("error", "B.")])
    assert str(two.value) == "2 things must be put right first:\n- A. Do a.\n- B."


# --- settings --------------------------------------------------------------------------------------------

TWILIO = {"account_sid": "AC" + "0" * 32, "auth_token": "token", "phone_number": "+15551234567"}
GOOD = {"listen_addr": "0.0.0.0:8080", "public_url": "https://calls.example.com", "carrier": "twilio"}


def found(settings: dict[str, Any], twilio: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    credentials = TwilioCredentials(**(TWILIO if twilio is None else twilio))
    return [(p.severity, f"{p.message} {p.fix}") for p in check_settings(Settings(**settings), credentials)]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_PHONE_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def test_good_settings_have_no_problems() -> None:
    assert found(GOOD) == []
    assert found({"carrier": "lab"}, {}) == []


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({"public_url": ""}, "error", "STAYLINE_PUBLIC_URL"),
        ({"public_url": "", "listen_addr": "127.0.0.1:8080"}, "warning", "cannot reach"),
        ({"public_url": "http://calls.example.com"}, "error", "wss"),
        ({"validate_signatures": False}, "warning", "anybody"),
        ({"carrier": "lab"}, "warning", "lab carrier is open"),
        ({"max_calls": 0}, "error", "STAYLINE_MAX_CALLS"),
        ({"max_loop_lag_ms": -1}, "error", "STAYLINE_MAX_LOOP_LAG_MS"),
        ({"promote_build": True}, "error", "STAYLINE_BUILD_ID"),
        ({"metrics_addr": "0.0.0.0:8080"}, "error", "Two things would listen on 0.0.0.0:8080"),
        ({"database_url": "mysql://db/calls"}, "error", "database_url"),
    ],
)
def test_what_is_wrong_with_settings(change: dict[str, Any], severity: str, says: str) -> None:
    ((got, text),) = found({**GOOD, **change})
    assert got == severity
    assert says in text


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({"account_sid": ""}, "error", "TWILIO_ACCOUNT_SID is not set"),
        ({"account_sid": "SK123"}, "warning", "does not look like one"),
        ({"phone_number": "5551234567"}, "error", "E.164"),
    ],
)
def test_what_is_wrong_with_credentials(change: dict[str, str], severity: str, says: str) -> None:
    ((got, text),) = found(GOOD, {**TWILIO, **change})
    assert got == severity
    assert says in text


def test_signatures_cannot_be_validated_without_a_token() -> None:
    texts = {text.split(",")[0]: severity for severity, text in found(GOOD, {})}
    assert texts["Twilio's signatures are to be validated"] == "error"


def test_engines_are_checked_for_every_offline_provider_that_needs_one() -> None:
    offline = PROVIDERS["offline"]
    assert set(checks.ENGINES) == {("offline", role) for role in offline.roles if role != "llm"}
