from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.audio.recording import BACKLOG, BLOCK, StereoRecorder

LOUD = mulaw.encode(np.full(160, 8000, np.int16))  # 20 ms
QUIET = mulaw.silence(20)


def sides(path: Path) -> tuple[list[int], list[int]]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return frames[:, 0].tolist(), frames[:, 1].tolist()


async def test_the_caller_is_left_and_the_agent_right(tmp_path: Path) -> None:
    recorder = StereoRecorder(tmp_path / "new" / "folder" / "call.wav")
    for _ in range(75):
        recorder.write(LOUD, QUIET)
    recorder.write(QUIET, LOUD)
    await recorder.aclose()
    left, right = sides(recorder.path)
    assert len(left) == 76 * 160
    assert left == mulaw.decode(LOUD * 75 + QUIET).tolist()
    assert right == mulaw.decode(QUIET * 75 + LOUD).tolist()
    assert not recorder.failed
    assert recorder.path.stat().st_mode & 0o077 == 0  # what people said is nobody else's


async def test_closing_twice_and_writing_afterwards_is_harmless(tmp_path: Path) -> None:
    recorder = StereoRecorder(tmp_path / "call.wav")
    recorder.write(LOUD, QUIET)
    recorder.close()
    recorder.write(LOUD, QUIET)
    await recorder.aclose()
    await recorder.aclose()
    assert len(sides(recorder.path)[0]) == 160


async def test_a_call_without_sound_leaves_an_empty_recording(tmp_path: Path) -> None:
    recorder = StereoRecorder(tmp_path / "call.wav")
    await recorder.aclose()
    assert sides(recorder.path) == ([], [])


def test_sides_must_be_equally_long(tmp_path: Path) -> None:
    recorder = StereoRecorder(tmp_path / "call.wav")
    with pytest.raises(ValueError, match="unequal"):
        recorder.write(LOUD, b"")
    recorder.close()


CHILD = """
import sys
from pathlib import Path
from media_bridge.audio.recording import StereoRecorder
recorder = StereoRecorder(Path(sys.argv[1]))
while True:
    if sys.stdin.buffer.read(1) == b"k":
        recorder.write(b"\\x00" * 160, b"\\xff" * 160)
"""


def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path) -> None:
    """The process is killed without a chance to close anything; all but the last second is there."""
    path = tmp_path / "call.wav"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE)
    assert child.stdin is not None
    try:
        child.stdin.write(b"k" * (3 * BLOCK // 160 + 10))
        child.stdin.flush()
        deadline = time.monotonic() + 60
        while (not path.exists() or path.stat().st_size < 44 + 3 * BLOCK * 4) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
    left, _ = sides(path)
    assert len(left) in (2 * BLOCK, 3 * BLOCK)  # killed before or after the header of the last second
    assert set(left) == {-32124}


async def test_an_existing_recording_is_never_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"precious")
    recorder = StereoRecorder(path)
    await recorder.aclose()
    assert recorder.failed
    assert path.read_bytes() == b"precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
async def test_a_full_disk_stops_the_recording_once_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "media_bridge.audio.recording._private", lambda path, flags: os.open("/dev/full", os.O_WRONLY)
    )
    recorder = StereoRecorder(tmp_path / "call.wav")
    for _ in range(500):
        recorder.write(LOUD, QUIET)
    await recorder.aclose()
    assert recorder.failed
    complaints = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(complaints) == 1
    assert "No space left" in complaints[0].getMessage()


async def test_a_disk_that_hangs_costs_the_call_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr("media_bridge.audio.recording._write_at", lambda file, data, offset: answers.wait(60))
    recorder = StereoRecorder(tmp_path / "call.wav")
    second = LOUD * 50, QUIET * 50
    for _ in range(BACKLOG + 2):
        recorder.write(*second)
    assert recorder.failed
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    recorder.write(*second)
    answers.set()
    await recorder.aclose()
    assert len(caplog.records) == 1
