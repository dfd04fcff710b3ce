"""`stayline call`, the real command, against a bridge that runs here: what its caller does, and what it prints."""

from __future__ import annotations

import importlib.util
import socket
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from temporalio.client import Client

from media_bridge.audio import mulaw
from stayline.commands.local import LabAccount
from stayline.lab.place import LabResult
from tests.fakes.sound import tone
from tests.stayline.commands.children import Finished, stayline
from tests.whole_call.house import ACCOUNT, TOKEN, Scene, scene, vendor_agent

needs_a_voice = pytest.mark.skipif(
    importlib.util.find_spec("py_nanotts") is None, reason="not installed: py-nanotts (stayline[offline])"
)


@pytest.fixture
async def home(client: Client, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(client, tmp_path / "house", vendor_agent(greeting="Hello!")) as running:
        yield running


async def call(home: Scene, folder: Path, *arguments: str) -> Finished:
    return await stayline(
        "call",
        *("--bridge", home.home.settings.public, "--max-seconds", "40"),
        *arguments,
        folder=folder,
        TWILIO_ACCOUNT_SID=ACCOUNT,
        TWILIO_AUTH_TOKEN=TOKEN,
    )


def write_tone(path: Path, ms: int = 600) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(mulaw.decode(tone(ms)).tobytes())


@needs_a_voice
async def test_a_caller_who_speaks_typed_text(home: Scene, tmp_path: Path) -> None:
    home.deepgram.script.append("hello")
    done = await call(home, tmp_path, "--say", "Hello")
    assert done.code == 0, done.err
    shown = [line.split(maxsplit=1)[1] for line in done.out.splitlines() if line[:7].strip()[:1].isdigit()]
    for expected in ("stream opened", "agent speaks", "caller", "call ended"):
        assert any(line.startswith(expected) for line in shown), done.out
    sid = done.out.split("stayline calls show ")[1].strip()
    events = await home.home.over(sid)
    assert [e.text for e in events if e.type == "user_turn"] == ["hello"]
    assert [e.outcome for e in events if e.type == "call_ended"] == ["caller_hung_up"]


async def test_a_script_with_json_for_programs_and_a_recording(home: Scene, tmp_path: Path) -> None:
    """The file's WAV paths are its own; what people read goes to standard error."""
    home.deepgram.script.append("where is my order")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    write_tone(scripts / "question.wav")
    (scripts / "caller.yaml").write_text(
        "- wav: question.wav\n  when: greeting_done\n- dtmf: '1'\n- hang_up: true\n"
    )
    recording = tmp_path / "both.wav"
    numbers = ("--from", "+15557770001", "--to", "+15557770002")
    done = await call(
        home, tmp_path, "--script", "scripts/caller.yaml", "--json", "--record", str(recording), *numbers
    )
    assert done.code == 0, done.err
    result = LabResult.model_validate_json(done.out)
    assert (result.status, result.ended_by, result.streams, result.script_done) == ("completed", "caller", 1, True)
    assert result.protocol_errors == 0
    assert len(result.reply_ms) == 1
    assert "agent speaks" in done.err
    events = await home.home.over(result.call_sid)
    assert [e.text for e in events if e.type == "user_turn"] == ["where is my order"]
    assert [e.digit for e in events if e.type == "dtmf"] == ["1"]
    info = (await home.home.snapshot(result.call_sid)).call
    assert (info.from_number, info.to_number, info.carrier) == ("+15557770001", "+15557770002", "lab")
    with wave.open(str(recording)) as file:
        assert file.getnchannels() == 2
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    assert (np.abs(sound.astype(np.int32)).max(axis=0) > 2000).all()


# --- what ends it early ----------------------------------------------------------------------------------


@pytest.fixture
def closed() -> str:
    """An origin where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_a_bridge_that_is_not_there(closed: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "hum.wav")
    done = await stayline("call", "--bridge", closed, "--wav", "hum.wav", "--json", folder=tmp_path)
    assert done.code == 1
    result = LabResult.model_validate_json(done.out)
    assert (result.status, result.error, result.streams) == ("failed", 11200, 0)
    assert f"error: No bridge at {closed} took the call." in done.err
    assert "stayline dev" in done.err
    plain = await stayline("call", "--bridge", closed, "--wav", "hum.wav", folder=tmp_path)
    assert plain.code == 1
    assert "calls show" not in plain.out, "there is nothing to show"


async def test_a_bridge_with_another_token(home: Scene, tmp_path: Path) -> None:
    write_tone(tmp_path / "hum.wav")
    done = await stayline("call", "--bridge", home.home.settings.public, "--wav", "hum.wav", folder=tmp_path)
    assert done.code == 1
    assert "403" in done.out
    assert "took the call" in done.err


async def test_two_calls_at_once_on_one_account(closed: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "hum.wav")
    account = LabAccount.of(tmp_path / ".stayline")
    with socket.socket() as other:
        other.bind(("127.0.0.1", account.rest_port))
        other.listen()
        done = await stayline("call", "--bridge", closed, "--wav", "hum.wav", folder=tmp_path)
    assert done.code == 1
    assert f"error: The carrier's port {account.rest_port} is taken" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The caller has nothing to say."),
        (["--wav", "nowhere.wav"], "There is no file nowhere.wav."),
        (["--script", "nowhere.yaml"], "The caller's script nowhere.yaml cannot be read"),
        (["--script", "wrong.yaml"], "Step 2 of the caller's script"),
        (["--say", "Hello", "--wav", "hum.wav"], "The caller has more than one script."),
    ],
)
async def test_callers_who_cannot_be_played(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "hum.wav")
    (tmp_path / "wrong.yaml").write_text("- wav: hum.wav\n- shout: Hello\n")
    done = await stayline("call", *arguments, folder=tmp_path)
    assert done.code == 2
    assert f"error: {message}" in done.err
    assert "Traceback" not in done.err
