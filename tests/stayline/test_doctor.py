"""`stayline doctor` against a real Temporal server, a real database, and fakes of the carrier and the providers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import encode_basic_auth, web

from activities.records_db.migrate import upgrade
from media_bridge.carriers.signature import HEADER, check_webhook
from stayline import names
from stayline.commands import probes
from stayline.commands.doctor import run_doctor
from stayline.dev_server import DevServer
from stayline.models import AgentSpec
from stayline.settings import Settings, TwilioCredentials
from tests.fakes.anthropic import FakeAnthropic

SID = "AC" + "0" * 32
TOKEN = "token"
NUMBER = "+15551234567"

AGENT = """
from stayline import Agent
agent = Agent(
    instructions="Be brief.",
    stt="deepgram/nova-3", llm={llm!r}, tts="elevenlabs/eleven_flash_v2_5", voice="v",
)
"""


@contextlib.asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def twilio_routes(voice_url: str | None, *, status: str = "active") -> list[web.RouteDef]:
    account = f"/2010-04-01/Accounts/{SID}"

    def check(request: web.Request) -> None:
        if request.headers["Authorization"] != encode_basic_auth(SID, TOKEN):
            raise web.HTTPUnauthorized

    async def fetch(request: web.Request) -> web.Response:
        check(request)
        return web.json_response({"sid": SID, "status": status})

    async def numbers(request: web.Request) -> web.Response:
        check(request)
        assert request.query["PhoneNumber"] == NUMBER
        found = [] if voice_url is None else [{"phone_number": NUMBER, "voice_url": voice_url}]
        return web.json_response({"incoming_phone_numbers": found})

    return [web.get(f"{account}.json", fetch), web.get(f"{account}/IncomingPhoneNumbers.json", numbers)]


def bridge_routes(
    public: list[str], *, token: str = TOKEN, validate: bool = True, why: str = ""
) -> list[web.RouteDef]:
    """A bridge as seen from outside; `public` holds the address that it believes to have."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "bridge": "b1", "calls": 0})

    async def status(request: web.Request) -> web.Response:
        url = public[0] + request.path_qs
        if validate and not check_webhook(token, url, await request.post(), request.headers.get(HEADER)):
            raise web.HTTPForbidden
        raise web.HTTPBadRequest  # CallStatus is none that there is

    async def ready(_: web.Request) -> web.Response:
        state = {"why": why, "calls": 5, "max_calls": 5, "loop_lag_ms": 1.5}
        return web.json_response(state, status=503 if why else 200)

    return [web.get("/health", health), web.get("/ready", ready), web.post(names.STATUS_PATH, status)]


async def collected(findings: AsyncIterator[probes.Finding]) -> list[tuple[str, str]]:
    return [(finding.status, f"{finding.message} {finding.fix}") async for finding in findings]


def credentials(base_url: str = "", **values: str) -> TwilioCredentials:
    given: dict[str, Any] = {"account_sid": SID, "auth_token": TOKEN, "phone_number": NUMBER, "base_url": base_url}
    return TwilioCredentials(**{**given, **values})


# --- the carrier and the bridge --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voice_url", "expected"),
    [
        ("https://calls.example.com/voice/inbound", [("ok", "accepts"), ("ok", "go to this bridge")]),
        ("https://old.example.com/", [("ok", "accepts"), ("warn", "https://calls.example.com/voice/inbound")]),
        (None, [("ok", "accepts"), ("fail", "not of this account")]),
    ],
)
async def test_twilio_is_asked_for_the_account_and_the_number(
    voice_url: str | None, expected: list[tuple[str, str]]
) -> None:
    settings = Settings(public_url="https://calls.example.com")
    async with serving(*twilio_routes(voice_url)) as url:
        found = await collected(probes.probe_twilio(settings, credentials(url)))
    assert [status for status, _ in found] == [status for status, _ in expected]
    assert all(words in text for (_, text), (_, words) in zip(found, expected, strict=True))


async def test_a_wrong_token_a_suspended_account_and_an_absent_twilio() -> None:
    settings = Settings()
    async with serving(*twilio_routes(None, status="suspended")) as url:
        (wrong,) = await collected(probes.probe_twilio(settings, credentials(url, auth_token="other")))
        (suspended,) = await collected(probes.probe_twilio(settings, credentials(url, phone_number="")))
    (away,) = await collected(probes.probe_twilio(settings, credentials(url)))
    (none,) = await collected(probes.probe_twilio(settings, credentials(auth_token="")))
    assert [wrong[0], suspended[0], away[0], none[0]] == ["fail", "fail", "fail", "warn"]
    assert "other" not in wrong[1]


async def test_the_public_address_leads_to_a_bridge_that_checks_signatures() -> None:
    public = [""]
    async with serving(*bridge_routes(public)) as url:
        public[0] = url
        settings = Settings(public_url=url)
        found = await collected(probes.probe_bridge(settings, credentials()))
        assert [status for status, _ in found] == ["ok", "ok", "ok"]
        public[0] = "https://elsewhere.example.com"  # as behind a proxy that the bridge was not told of
        assert (
            "refuses a webhook that is signed"
            in (await collected(probes.probe_bridge(settings, credentials())))[2][1]
        )
    async with serving(*bridge_routes(public, validate=False)) as url:
        found = await collected(probes.probe_bridge(Settings(public_url=url), credentials()))
        assert found[2][0] == "fail"
        assert "nobody signed" in found[2][1]


async def test_a_bridge_without_room_says_why() -> None:
    async with serving(*bridge_routes([""], why="full")) as url:
        found = await collected(probes.probe_bridge(Settings(public_url=url, carrier="lab"), credentials()))
    assert found[1] == (
        "warn",
        "takes no new calls: full (5 of 5 calls, event loop 1.5 ms late) "
        "Start another bridge, or raise STAYLINE_MAX_CALLS.",
    )


async def test_an_address_that_leads_nowhere_or_elsewhere() -> None:
    async with serving() as url:
        (elsewhere,) = await collected(probes.probe_bridge(Settings(public_url=url), credentials()))
    (nowhere,) = await collected(probes.probe_bridge(Settings(public_url=url), credentials()))
    local = Settings(listen_addr=url.removeprefix("http://"))
    (not_started,) = await collected(probes.probe_bridge(local, credentials()))
    assert (elsewhere[0], nowhere[0], not_started[0]) == ("fail", "fail", "warn")


# --- what is kept ----------------------------------------------------------------------------------------


async def test_the_database_before_and_after_its_tables(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    assert [status for status, _ in await collected(probes.probe_data(settings))] == ["ok", "warn"]
    assert not settings.data_dir.exists()
    await upgrade(settings.database)
    assert [status for status, _ in await collected(probes.probe_data(settings))] == ["ok", "ok"]


async def test_a_database_that_cannot_be_reached_is_told_without_its_password(tmp_path: Path) -> None:
    async with serving() as url:  # a port that was free a moment ago
        port = url.rpartition(":")[2]
    settings = Settings(data_dir=tmp_path, database_url=f"postgresql://me:secret@127.0.0.1:{port}/calls")
    found = await collected(probes.probe_data(settings))
    assert found[1][0] == "fail"
    assert "secret" not in found[1][1]


# --- Temporal --------------------------------------------------------------------------------------------


async def test_temporal_is_asked_for_all_that_calls_need(
    temporal_server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "default")
    found = await collected(probes.probe_temporal(Settings()))
    assert found[0][0] == "ok"
    assert ("ok", "knows the search attributes ") in found
    assert any("finished calls" in text for _, text in found)
    assert any("queue 'stayline'" in text for _, text in found)

    monkeypatch.setenv("TEMPORAL_NAMESPACE", "nowhere")
    found = await collected(probes.probe_temporal(Settings()))
    assert found[-1][0] == "fail"
    assert "nowhere" in found[-1][1]


# --- the whole -------------------------------------------------------------------------------------------


@pytest.fixture
def agent_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "doctored_agent.py"
    yield path
    sys.modules.pop(path.stem, None)


async def test_the_report_as_json(
    temporal_server: DevServer,
    tmp_path: Path,
    agent_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent_file.write_text(AGENT.format(llm=["anthropic/claude-haiku-5-5", "openai/gpt-4-turbo"]))
    for name in ("DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    settings = Settings(carrier="lab", data_dir=tmp_path / "data", listen_addr="127.0.0.1:1")
    assert await run_doctor([f"{agent_file}:agent"], settings, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    failed = [f["message"] + f["fix"] for f in report["findings"] if f["status"] == "fail"]
    for words in ("DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY", "OPENAI_API_KEY", "gpt-6-luna"):
        assert any(words in text for text in failed)
    assert {f["area"] for f in report["findings"]} == {
        "settings",
        "agent",
        "temporal",
        "bridge",
        "data",
        "database",
    }


async def test_a_provider_is_used_as_a_call_would(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeAnthropic() as fake:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", fake.url)
        for key, status in ((fake.key, "ok"), ("sk-other", "fail")):
            monkeypatch.setenv("ANTHROPIC_API_KEY", key)
            found = await probes.probe_provider("llm", "anthropic/claude-haiku-5-5", AgentSpec(name="a"))
            assert found.status == status
            assert "sk-other" not in found.message
    assert found.fix == "Check ANTHROPIC_API_KEY."


async def test_the_report_for_people(
    tmp_path: Path,
    temporal_server: DevServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    settings = Settings(carrier="lab", data_dir=tmp_path / "data", listen_addr="127.0.0.1:1")
    assert await run_doctor([], settings, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "✓ settings" in printed
    assert "! agent" in printed
    assert "Everything that is needed works." in printed
