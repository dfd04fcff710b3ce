"""Log lines: call id and session on them, and neither phone numbers nor credentials in them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from stayline import logs
from stayline.settings import Settings

NUMBER = "+14155550123"


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    output = captured.readouterr()
    assert output.out == ""
    return [json.loads(line) for line in output.err.splitlines()]


def _configure(**settings: Any) -> None:
    logs.configure_logging(Settings(log_format="json", **settings), "worker")


async def test_call_and_session_are_on_every_line_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    _configure()
    log = structlog.get_logger("stayline.bridge")

    async def one(call_id: str, session: int) -> None:
        logs.bind_call(call_id, session)
        await asyncio.sleep(0)
        log.info("opened", codec="mulaw")
        logging.getLogger("somebody.else").warning("odd %s", "frame")

    await asyncio.gather(one("CA1", 1), one("CA2", 2))
    log.info("outside")
    lines = _lines(capsys)
    assert {(line.get("call_id"), line.get("session"), line["event"]) for line in lines} == {
        ("CA1", 1, "opened"),
        ("CA1", 1, "odd frame"),
        ("CA2", 2, "opened"),
        ("CA2", 2, "odd frame"),
        (None, None, "outside"),
    }
    assert lines[0] == lines[0] | {
        "level": "info",
        "logger": "stayline.bridge",
        "process": "worker",
        "codec": "mulaw",
    }


@pytest.mark.parametrize("pii", [False, True])
def test_personal_keys_and_numbers(capsys: pytest.CaptureFixture[str], pii: bool) -> None:
    _configure(telemetry_pii=pii)
    log = structlog.get_logger("stayline.bridge")
    log.info(f"dialled {NUMBER}", pii_text="hello", to=[NUMBER], held={"stayline.pii.user_text": "hello", "n": 1})
    try:
        raise ValueError(f"nobody at {NUMBER}")
    except ValueError:
        logging.getLogger("temporalio.activity").warning("failed", exc_info=True)
    first, second = _lines(capsys)
    text = json.dumps([first, second])
    assert (NUMBER in text) == pii
    assert ("hello" in text) == pii
    assert first["held"]["n"] == 1
    assert "ValueError: nobody at" in second["exception"]


@pytest.mark.parametrize("pii", [False, True])
def test_credentials_never_appear(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pii: bool
) -> None:
    secret = "1f2e3d4c5b6a79881f2e3d4c"
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", secret)
    _configure(telemetry_pii=pii, hash_key="a-hash-key-of-mine")
    log = structlog.get_logger("stayline.bridge")
    log.warning("refused", token="abc", headers={"Authorization": "Bearer abcdefgh12345678"}, api_key="k")
    log.warning(f"GET https://user:{secret}@api.example/x with sk-abcdefgh12345678 and a-hash-key-of-mine")
    log.info("usage", input_tokens=12)
    first, second, third = _lines(capsys)
    assert (first["token"], first["headers"], first["api_key"]) == ("***", {"Authorization": "***"}, "***")
    assert secret not in second["event"]
    assert "sk-" not in second["event"]
    assert "mine" not in second["event"]
    assert third["input_tokens"] == 12


def test_libraries_that_print_bodies_are_kept_quiet_even_when_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    _configure(log_level="debug")
    logging.getLogger("websockets.client").debug("> TEXT 'hello'")
    logging.getLogger("twilio.http_client").info("POST data: To=…")
    logging.getLogger("openai._base_client").debug("Request options: …")
    structlog.get_logger("stayline").debug("ours")
    assert [line["event"] for line in _lines(capsys)] == ["ours"]


def test_what_temporal_says_names_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    _configure()
    about = {"workflow_id": "call-CA9", "activity_type": "book", "attempt": 2, "namespace": "default"}
    logging.getLogger("temporalio.activity").warning("failed", extra={"temporal_activity": about})
    logging.getLogger("temporalio.workflow").warning(
        "odd", extra={"temporal_workflow": {"workflow_id": "bridge-1"}}
    )
    activity, workflow = _lines(capsys)
    assert (activity["call_id"], activity["activity_type"], activity["attempt"]) == ("CA9", "book", 2)
    assert workflow["workflow_id"] == "bridge-1"


def test_configured_twice_a_line_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    _configure()
    _configure(log_level="warning")
    structlog.get_logger("stayline").info("hidden")
    structlog.get_logger("stayline").warning("shown")
    assert [line["event"] for line in _lines(capsys)] == ["shown"]


def test_the_console_form_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging(Settings(log_format="console"))
    structlog.get_logger("stayline").info("opened", codec="mulaw", to=NUMBER)
    (line,) = capsys.readouterr().err.splitlines()
    assert "opened" in line
    assert "codec=mulaw" in line
    assert NUMBER not in line


def test_once() -> None:
    assert logs.once("stream-1:bad-json")
    assert not logs.once("stream-1:bad-json")
    assert logs.once("stream-2:bad-json")
    for number in range(5000):
        logs.once(f"noise-{number}")
    assert logs.once("stream-1:bad-json")
