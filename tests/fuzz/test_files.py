"""Files that somebody else wrote: scenarios, callers' scripts, and what an earlier process left in the spool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from media_bridge.providers.offline.scenario_file import load_scenario
from media_bridge.records import SpoolResender
from stayline.errors import ConfigError
from stayline.lab.script import load_script
from tests.fuzz.away import Away
from tests.fuzz.generators import fed, fuzzed, json_values, mutants, texts

SCENARIO: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "examples/demo/scenario.yaml").read_text(encoding="utf-8")
)
SCRIPT: dict[str, Any] = {
    "steps": [
        {"say": "Hello"},
        {"say": "Wait", "when": {"agent_speaking_for_ms": 800}},
        {"dtmf": "1"},
        {"hang_up": True, "when": {"after_ms": 2000}},
    ]
}
RECORD: dict[str, Any] = {
    "session": 1,
    "first_seq": 1,
    "events": [{"type": "user_turn", "at": "2026-11-22T10:00:00Z", "session": 1, "text": "Hello"}],
    "audio_in_ms": 20,
    "audio_out_ms": 20,
}
written = texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@fuzzed(0.3)
@given(content=mutants([SCENARIO]).map(lambda data: json.dumps(data).encode()) | written)
@example(content=b"? [a]\n: b")
@example(content=b"? {a: b}\n: c")
@example(content=b"\xff\xfe")
@example(content=b"a: &a [*a]")
@example(content=b"[" * 1500)
def test_scenarios(place: Path, content: bytes) -> None:
    fed("scenario files")
    path = place / "scenario.yaml"
    path.write_bytes(content)
    try:
        load_scenario(path)
    except ConfigError as error:
        said = str(error)
    else:
        return
    assert "scenario.yaml" in said


@fuzzed(1)
@given(content=mutants([SCRIPT]).map(lambda data: json.dumps(data.get("steps")).encode()) | written)
@example(content=b"[" * 1500)
@example(content=b"- {? [a] : b}")
@example(content=b"- say: 2026-99-99")
def test_callers_scripts(place: Path, content: bytes) -> None:
    fed("callers' scripts")
    path = place / "caller.yaml"
    path.write_bytes(content)
    try:
        load_script(path)
    except ConfigError:
        return


@fuzzed(1)
@given(
    name=st.sampled_from(["CA1.1", "CA1.²", "CA1.x", "CA1", "out-1.2", "..1", "CA1." + "9" * 5000])
    | st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=20),
    content=mutants([RECORD]).map(lambda data: json.dumps(data).encode())
    | json_values.map(lambda data: json.dumps(data).encode())
    | written,
    directory=st.booleans(),
)
@example(name="CA1.²", content=b"{}", directory=False)
@example(name="CA1.1", content=b"[" * 100_000, directory=False)
@example(name="CA1.1", content=b"", directory=True)
def test_spool_files(place: Path, away: Away, name: str, content: bytes, directory: bool) -> None:
    """No file stops the resender: it is sent, left as it is, or set aside."""
    fed("spool files")
    path = place / f"{name}.json"
    try:
        path.mkdir() if directory else path.write_bytes(content)
    except OSError:  # too long a name
        return
    try:
        away.run(SpoolResender(away.client, place)._resend(path))
    finally:
        for left in place.glob("*"):
            left.rmdir() if left.is_dir() else left.unlink()
