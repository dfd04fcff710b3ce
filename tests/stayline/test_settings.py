"""Settings: one name in code, file and environment; which of them wins; and what an unknown one is answered."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from stayline.errors import ConfigError
from stayline.settings import Settings, TwilioCredentials, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment that says nothing to Stayline."""
    for name in os.environ:
        if name.upper().startswith(("STAYLINE_", "TWILIO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_serve_one_machine(folder: Path) -> None:
    settings = load_settings()
    assert settings.listen == ("127.0.0.1", 8080)
    assert settings.public == "http://127.0.0.1:8080"
    assert settings.database == f"sqlite+aiosqlite:///{folder / '.stayline' / 'calls.db'}"
    assert settings.recordings_dir == Path(".stayline/recordings")
    assert settings.spool_dir == Path(".stayline/spool")
    assert load_settings().bridge_id != settings.bridge_id, "every process is another bridge"


def test_code_wins_over_the_environment_and_the_environment_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stayline.toml").write_text('max_calls = 1\nlog_level = "debug"\npublic_url = "https://file.test"\n')
    monkeypatch.setenv("STAYLINE_MAX_CALLS", "2")
    monkeypatch.setenv("STAYLINE_LOG_LEVEL", "error")
    settings = load_settings(max_calls=3)
    assert (settings.max_calls, settings.log_level, settings.public_url) == (3, "error", "https://file.test")
    assert load_settings(max_calls=None).max_calls == 2, "None: not given"


def test_the_file_is_the_one_in_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "stayline.toml").write_text("max_calls = 7\n")
    below = folder / "below"
    below.mkdir()
    assert load_settings().max_calls == 7
    monkeypatch.chdir(below)
    assert load_settings().max_calls == 50


def test_lists_in_file_and_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "stayline.toml").write_text('agents = ["desk:agent", "sales:agent"]\n')
    assert load_settings().agents == ("desk:agent", "sales:agent")
    monkeypatch.setenv("STAYLINE_AGENTS", '["my_agent:agent"]')
    assert load_settings().agents == ("my_agent:agent",)


def test_the_public_origin_has_no_slash_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAYLINE_PUBLIC_URL", "https://calls.example.com/")
    assert load_settings().public == "https://calls.example.com"


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAYLINE_HASH_KEY", "very secret")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "very secret")
    monkeypatch.setenv("TWILIO_SOMETHING_ELSE", "is none of our business")
    assert "very secret" not in repr((load_settings(), TwilioCredentials()))


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("STAYLINE_LISTN_ADDR", "Did you mean 'STAYLINE_LISTEN_ADDR'?"),
        ("stayline_max_call", "Did you mean 'STAYLINE_MAX_CALLS'?"),
        ("STAYLINE_WHAT_THE_AGENT_SAYS_TO_A_SILENT_CALLER", "Known: STAYLINE_ADMISSION_TIMEOUT, "),
    ],
)
def test_an_unknown_variable(monkeypatch: pytest.MonkeyPatch, name: str, fix: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.message == f"There is no setting {name} (environment)."
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("max_call = 3", "There is no setting 'max_call' (stayline.toml or code).", "Did you mean 'max_calls'?"),
        ("[bridge]\nmax_calls = 3", "There is no setting 'bridge'", "Did you mean 'bridge_id'?"),
        ("max_calls =", "stayline.toml is not TOML", ""),
        (
            'max_calls = "many"',
            "Setting 'max_calls' (STAYLINE_MAX_CALLS): Input should be a valid integer",
            "'many'",
        ),
        ("agents = [3]", "Setting 'agents.0' (STAYLINE_AGENTS): Input should be a valid string.", "It was 3."),
    ],
)
def test_a_wrong_file(folder: Path, text: str, message: str, fix: str) -> None:
    (folder / "stayline.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_CALLS", "", "Setting 'max_calls' (STAYLINE_MAX_CALLS): Input should be a valid integer"),
        ("CARRIER", "twillio", "Setting 'carrier' (STAYLINE_CARRIER): Input should be 'twilio' or 'lab'."),
        ("LISTEN_ADDR", "localhost", "(STAYLINE_LISTEN_ADDR): write host:port, e.g. 127.0.0.1:8080."),
        ("LISTEN_ADDR", "127.0.0.1:99999", "(STAYLINE_LISTEN_ADDR): write host:port"),
        ("METRICS_ADDR", "127.0.0.1:http", "(STAYLINE_METRICS_ADDR): write host:port"),
        ("PUBLIC_URL", "calls.example.com", "(STAYLINE_PUBLIC_URL): write a URL that begins with https://"),
        ("OTLP_ENDPOINT", "127.0.0.1:4318", "(STAYLINE_OTLP_ENDPOINT): write a URL"),
        ("RECORD_AUDIO", "perhaps", "(STAYLINE_RECORD_AUDIO): Input should be a valid boolean"),
        ("LOG_LEVEL", "loud", "(STAYLINE_LOG_LEVEL): Input should be 'debug'"),
    ],
)
def test_a_wrong_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"STAYLINE_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert message in caught.value.message
    assert caught.value.fix == f"It was {value!r}."


def test_a_list_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAYLINE_AGENTS", "my_agent:agent")
    with pytest.raises(ConfigError, match=re.escape('is JSON, e.g. ["my_agent:agent"]')) as caught:
        load_settings()
    assert "agents" in caught.value.message


def test_an_unknown_name_in_code() -> None:
    values: dict[str, Any] = {"max_cals": 3}
    with pytest.raises(ConfigError, match=r"There is no setting 'max_cals' .*Did you mean 'max_calls'\?"):
        load_settings(**values)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().max_calls = 3  # type: ignore[misc]
