"""The Voice Gateway Guide's own configuration: what is wrong with it today is said before a caller finds out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from stayline import Agent, ConfigError, Gateway, GatewayConfig
from stayline.agent import load_agents
from stayline.checks import check_agent
from stayline.commands import probes
from stayline.commands.doctor import run_doctor
from stayline.dev_server import DevServer
from stayline.gateway.plan import plan
from stayline.models import AgentSpec
from stayline.settings import Settings
from tests.fakes.gemini import FakeGemini
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import VoiceModel

TODAY = date(2026, 11, 22)
PREVIEW = "gpt-4o-realtime-preview-2024-12-17"
KEYS = {
    f"{vendor}_API_KEY": "a-key-for-the-tests"
    for vendor in ("DEEPGRAM", "OPENAI", "ANTHROPIC", "ELEVENLABS", "GOOGLE")
}
AGENTS = """
from stayline import Agent

SAY = "You are a helpful voice assistant. Keep responses brief."

text = Agent(
    instructions=SAY,
    stt="deepgram/nova-2",
    llm="anthropic/claude-sonnet-4-20250514",
    tts="elevenlabs/eleven_flash_v2_5",
    voice="21m00Tcm4TlvDq8ikWAM",
    numbers=["+15551234567"],
)
openai_live = Agent(
    mode="realtime",
    realtime="openai/gpt-4o-realtime-preview-2024-12-17",
    voice="alloy",
    instructions=SAY,
    numbers=["+15551234568"],
)
gemini_live = Agent(
    mode="realtime",
    realtime="google/gemini-2.0-flash-live",
    voice="Puck",
    instructions=SAY,
    numbers=["+15551234569"],
)
"""
NAMED: list[tuple[str, str, str, str]] = [  # role, the guide's model, what to write, severity on TODAY
    ("llm", "anthropic/claude-sonnet-4", "claude-sonnet-5-5", "error"),
    ("llm", "anthropic/claude-sonnet-4-20250514", "claude-sonnet-5-5", "error"),
    ("llm", "anthropic/claude-opus-4", "claude-opus-5-5", "error"),
    ("llm", "openai/gpt-4-turbo", "gpt-6-luna", "error"),
    ("llm", "openai/gpt-4o", "gpt-6-luna", "warning"),
    ("stt", "openai/whisper-1", "gpt-transcribe", "warning"),
    ("stt", "elevenlabs/scribe", "scribe_v2_realtime", "warning"),
    ("realtime", f"openai/{PREVIEW}", "gpt-realtime-2.1", "error"),
    ("realtime", "google/gemini-2.0-flash-live", "gemini-3.8-live", "error"),
]
GATEWAY: dict[str, Any] = {
    "account_sid": "AC" + "0" * 32,
    "auth_token": "your-token",
    "phone_number": "+15551234567",
    "public_url": "https://your-server.com",
    "listen_addr": ":8080",
    "environment": KEYS,
}
TEXT: dict[str, Any] = {
    "stt_provider": "deepgram",
    "stt_model": "nova-2",
    "stt_language": "en",
    "llm_provider": "anthropic",
    "llm_model": "claude-sonnet-4-20250514",
    "llm_system_prompt": "You are a helpful voice assistant. Keep responses brief.",
    "tts_provider": "elevenlabs",
    "tts_voice_id": "21m00Tcm4TlvDq8ikWAM",
    "greeting": "Hello! Thank you for calling. How can I help you today?",
    "max_session_duration": timedelta(minutes=15),
    "interruption_mode": "immediate",
}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-the-guide.md"


def realtime(provider: str, model: str, voice: str) -> dict[str, Any]:
    return {"mode": "realtime", "realtime_config": {"provider": provider, "model": model, "voice": voice}}


def agent(role: str, ref: str) -> Agent:
    if role == "realtime":
        return Agent(name="guide", mode="realtime", realtime=ref)
    refs = {"stt": "deepgram/nova-2", "llm": "openai/gpt-6-luna", "tts": "deepgram/aura-2-thalia-en", role: ref}
    return Agent(name="guide", **refs)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


@pytest.mark.parametrize(("role", "ref", "use", "severity"), NAMED, ids=lambda value: value)
def test_every_old_model_of_the_guide_is_named_with_its_successor(
    role: str, ref: str, use: str, severity: str
) -> None:
    (problem,) = check_agent(agent(role, ref).spec(), KEYS, today=TODAY)
    assert (problem.severity, problem.fix) == (severity, f'Use {role}="{ref.partition("/")[0]}/{use}".')
    assert ref in problem.message
    successor = f"{ref.partition('/')[0]}/{use}"
    assert [p for p in check_agent(agent(role, successor).spec(), KEYS, today=TODAY) if p.severity == "error"] == []


@pytest.mark.parametrize("ref", ["deepgram/nova-2", "elevenlabs/scribe_v2"])
def test_what_is_still_served_is_no_problem(ref: str) -> None:
    assert check_agent(agent("stt", ref).spec(), KEYS, today=TODAY) == []


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        (TEXT, 'Use llm="anthropic/claude-sonnet-5-5".'),
        (
            realtime("openai", PREVIEW, "alloy"),
            'Use realtime="openai/gpt-realtime-2.1".',
        ),
        (realtime("gemini", "gemini-2.0-flash-live", "Puck"), 'Use realtime="google/gemini-3.8-live".'),
    ],
    ids=["text", "openai", "gemini"],
)
def test_the_guides_gateways_are_refused_with_the_successor(fields: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Gateway(GatewayConfig(**GATEWAY, **fields))
    assert refused.value.fix == fix


def test_with_the_successors_they_are_made() -> None:
    made = plan(GatewayConfig(**GATEWAY, **{**TEXT, "llm_model": "claude-sonnet-5-5"}))
    assert made.agent.spec().stt == ("deepgram/nova-2",)
    assert made.warnings == ()
    for fields in (realtime("openai", "gpt-realtime-2.1", "alloy"), realtime("gemini", "gemini-3.8-live", "Puck")):
        assert plan(GatewayConfig(**GATEWAY, **fields)).warnings == ()


@pytest.mark.parametrize("voice", ["fable", "onyx", "nova"])
def test_voices_that_realtime_models_never_had(voice: str) -> None:
    with pytest.raises(ConfigError, match=voice):
        Gateway(GatewayConfig(**GATEWAY, **realtime("openai", "gpt-realtime-2.1", voice)))


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def guide(tmp_path: Path) -> Iterator[list[str]]:
    (tmp_path / "guide.py").write_text(AGENTS)
    yield [f"{tmp_path / 'guide.py'}:{name}" for name in ("text", "openai_live", "gemini_live")]
    sys.modules.pop("guide", None)


async def test_doctor_says_what_the_page_shows(
    temporal_server: DevServer,
    tmp_path: Path,
    guide: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    settings = Settings(carrier="lab", data_dir=tmp_path / "data", listen_addr="127.0.0.1:1")
    assert list(load_agents(guide)) == ["text", "openai_live", "gemini_live"]
    assert await run_doctor(guide, settings, as_json=False) == 1
    printed = capsys.readouterr().out.splitlines()
    shown: list[str] = []
    for line, following in zip(printed, [*printed[1:], ""], strict=True):
        if line.startswith("✗ agent"):
            shown += [line.rstrip(), following.rstrip()]
    (block,) = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert block.splitlines() == shown


async def test_a_realtime_model_is_tried_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOpenAI(realtime=VoiceModel()) as openai, FakeGemini() as gemini:
        monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
        monkeypatch.setenv("GOOGLE_BASE_URL", gemini.url)
        for provider, model, key in (
            ("openai", "gpt-realtime-2.1", openai.key),
            ("google", "gemini-3.8-live", gemini.api_key),
        ):
            spec = AgentSpec(name="guide", mode="realtime", realtime=(f"{provider}/{model}",))
            for given, status in ((key, "ok"), ("sk-other", "fail")):
                monkeypatch.setenv(f"{provider.upper()}_API_KEY", given)
                found = await probes.probe_provider("realtime", spec.realtime[0], spec)
                assert found.status == status, found
                assert "sk-other" not in found.message
