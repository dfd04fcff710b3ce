"""`stayline demo --crash` as a person runs it: in a terminal, with real speech and a bridge that is killed."""

from __future__ import annotations

import asyncio
import difflib
import importlib.util
import re
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
import yaml

from activities.records_db import CallStore
from stayline.checks import ENGINES
from stayline.commands.demo import demo_folder
from stayline.tether import tethered
from stayline.timeline import CallRecord
from tests.stayline.commands.children import surroundings

DEMO = demo_folder()
MISSING = sorted(
    package
    for package in {*(name for names in ENGINES.values() for name in names), "py_nanotts"}
    if importlib.util.find_spec(package) is None
)

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (stayline[offline])"),
]


class Run:
    """The finished command: what it printed, and what it left."""

    def __init__(self, folder: Path, code: int, output: bytes, shown: bytes) -> None:
        self.folder = folder
        self.code = code
        self.output = output.decode()
        self.shown = re.sub(r"\s+", " ", shown.decode())  # as read, whatever the width of the terminal


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """The demo with a crash. In a session of its own, so that whatever it left running could be seen."""
    folder = tmp_path_factory.mktemp("demo")
    process = await asyncio.create_subprocess_exec(
        *tethered([sys.executable, "-m", "stayline", "demo", "--crash", "--json"]),
        cwd=folder,
        env=surroundings(STAYLINE_DATA_DIR=str(folder / "data")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, shown = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    yield Run(folder, process.returncode, output, shown)


@pytest.fixture
def record(run: Run) -> CallRecord:
    return CallRecord.model_validate_json(run.output)


def events(record: CallRecord, kind: str) -> list[Any]:
    return [entry.event for entry in record.timeline if entry.event.type == kind]


async def test_the_command_succeeds_and_the_call_is_completed(run: Run, record: CallRecord) -> None:
    assert run.code == 0, run.shown
    assert record.snapshot.outcome == "completed"
    assert record.snapshot.status == "ended"
    assert events(record, "gap") == []
    assert events(record, "error") == []


async def test_the_call_went_on_with_another_bridge(run: Run, record: CallRecord) -> None:
    assert record.snapshot.metrics.session_count == 2
    first, second = events(record, "session_opened")
    assert (first.resumed, second.resumed) == (False, True)
    assert first.bridge_id != second.bridge_id
    assert [closed.reason for closed in events(record, "session_closed")] == ["bridge_lost", "closed"]
    assert "the bridge that holds the call is gone" in run.shown


async def test_the_tool_failed_twice_and_succeeded(run: Run, record: CallRecord) -> None:
    (lookup,) = [tool for tool in record.snapshot.tools if tool.call.name == "lookup_order"]
    assert lookup.call.arguments == {"number": "74291"}
    assert lookup.outcome is not None
    assert lookup.outcome.status == "succeeded"
    assert [attempt.error is None for attempt in lookup.outcome.attempts] == [False, False, True]
    assert "attempt 1 failed" in run.shown, "retries are shown as they happen"
    assert "attempt 2 failed" in run.shown


async def test_every_turn_is_there_once(record: CallRecord) -> None:
    """The recogniser may mishear a word; it may not drop or repeat what the caller said."""
    turns = [turn.text for turn in events(record, "user_turn")]
    lines = [step["say"] for step in yaml.safe_load((DEMO / "caller.yaml").read_text())]
    assert len(turns) == len(lines) == len(set(turns)), turns
    for heard, line in zip(turns, lines, strict=True):
        assert difflib.SequenceMatcher(None, heard.lower(), line.lower()).ratio() > 0.7, turns


async def test_the_agent_was_interrupted_once(record: CallRecord) -> None:
    (interruption,) = events(record, "interruption")
    (cut,) = [turn for turn in events(record, "agent_turn") if turn.interrupted]
    assert cut.generated is not None
    assert cut.generated.startswith(cut.text)
    assert len(cut.text) < len(cut.generated)
    assert interruption.heard == cut.text


async def test_the_link_to_the_call_is_shown(run: Run, record: CallRecord) -> None:
    assert re.search(
        rf"http://127\.0\.0\.1:\d+/namespaces/default/workflows/call-{record.snapshot.call.call_id}", run.shown
    )


async def test_recordings_are_stereo_and_both_sides_speak(run: Run, record: CallRecord) -> None:
    bridges_own = Path(events(record, "session_closed")[-1].recording)
    for path in (run.folder / "data/recordings/demo-caller.wav", bridges_own):
        with wave.open(str(path)) as recording:
            assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
            sound = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2)
        caller, agent = np.abs(sound.astype(np.int32)).max(axis=0)
        assert caller > 2000, path
        assert agent > 2000, path


async def test_what_it_printed_is_the_record_and_the_database_has_the_same(run: Run, record: CallRecord) -> None:
    async with CallStore(f"sqlite:///{run.folder / 'data/calls.db'}") as store:
        kept = await store.get_call(record.snapshot.call.call_id)
    assert kept is not None
    assert [e.event.type for e in kept.timeline] == [e.event.type for e in record.timeline]


async def test_nothing_keeps_running(run: Run) -> None:
    mine = str(run.folder)
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "environ"])
        if mine in (process.info["environ"] or {}).get("STAYLINE_DATA_DIR", "")
    ]
    assert left == []
