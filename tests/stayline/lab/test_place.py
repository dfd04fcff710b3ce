"""A whole lab call: a scripted caller against a bridge that speaks, listens and is interrupted."""

import wave
from pathlib import Path

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.carriers import twiml
from media_bridge.carriers.twilio_stream import DtmfPressed, Mark, Media, Stop
from stayline.errors import ConfigError
from stayline.lab.call import Behaviour
from stayline.lab.events import LabEvent
from stayline.lab.place import LabResult, place_call
from stayline.lab.script import parse_script
from stayline.lab.voice import is_voiced
from stayline.names import INBOUND_PATH

from .bridge import ACCOUNT_SID, AUTH_TOKEN, Bridge, Socket

QUIET_BEHAVIOUR = Behaviour(say_aloud=False)


def sound(ms: int) -> bytes:
    return mulaw.encode((np.sin(np.arange(ms * 8) / 3) * 6000).astype(np.int16))


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(mulaw.decode(sound(300)).astype("<i2").tobytes())
    return path


async def answering(socket: Socket) -> None:
    """Greets, then answers everything that is said, as soon as the caller is quiet, until `stop`."""
    await socket.play(sound(200), "greeting")
    spoken = quiet = 0
    while not isinstance(message := await socket.receive(), Stop):
        if isinstance(message, Media):
            spoken, quiet = (spoken + 1, 0) if is_voiced(message.audio) else (spoken, quiet + 1)
            if spoken and quiet >= 5:
                spoken = 0
                await socket.play(sound(200), "answer")


async def test_a_conversation(question: Path, tmp_path: Path) -> None:
    seen: list[LabEvent] = []
    async with Bridge() as bridge:
        bridge.on_stream = answering
        result = await place_call(
            bridge.url,
            ACCOUNT_SID,
            AUTH_TOKEN,
            wav=question,
            recording=tmp_path / "call.wav",
            behaviour=QUIET_BEHAVIOUR,
            on_event=seen.append,
        )
    assert (result.ended_by, result.status, result.script_done) == ("caller", "completed", True)
    (said,) = result.utterances
    assert said.text == "question.wav"
    assert said.reply_ms is not None
    assert said.reply_ms >= 100
    assert (result.marks, result.clears, result.streams, result.protocol_errors) == (2, 0, 1, 0)
    kinds = [event.kind for event in seen]
    talk = ["agent_speaks", "agent_done", "caller_speaks", "caller_done", "agent_speaks", "agent_done"]
    assert [kind for kind in kinds if kind in talk] == talk
    assert kinds[0] == "call"
    assert kinds[-1] == "ended"
    assert result.recording is not None
    with wave.open(str(result.recording)) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() > 8000
    assert LabResult.model_validate_json(result.model_dump_json()) == result


async def test_an_interruption(question: Path) -> None:
    async def on_stream(socket: Socket) -> None:
        await socket.play(sound(20_000), "story")
        while not is_voiced((await socket.until(Media)).audio):
            pass
        await socket.clear()
        await socket.until(Mark)
        assert (await socket.until(DtmfPressed)).digit == "1"
        await socket.close()

    steps = [
        {"wav": question, "when": {"agent_speaking_for_ms": 100}},
        {"dtmf": "1", "when": {"after_ms": 40}},
    ]
    async with Bridge() as bridge:
        bridge.on_stream = on_stream
        result = await place_call(bridge.url, ACCOUNT_SID, AUTH_TOKEN, steps=parse_script(steps))
    (said,) = result.utterances
    assert said.interrupting
    assert said.stop_ms is not None
    assert (result.clears, result.marks, result.ended_by) == (1, 0, "bridge")


async def test_a_call_that_does_not_end_is_ended() -> None:
    async with Bridge() as bridge:
        result = await place_call(bridge.url, ACCOUNT_SID, AUTH_TOKEN, max_seconds=0.2)
        assert len(bridge.starts) == 1
    assert (result.ended_by, result.utterances) == ("timeout", ())


async def test_what_the_carrier_says_is_heard() -> None:
    pytest.importorskip("py_nanotts", reason="the carrier's voice is not installed")
    seen: list[LabEvent] = []
    async with Bridge() as bridge:
        bridge.answers[INBOUND_PATH] = [twiml.hang_up("No.")]
        result = await place_call(bridge.url, ACCOUNT_SID, AUTH_TOKEN, on_event=seen.append)
    assert "agent_speaks" in [event.kind for event in seen]
    assert result.ended_by == "bridge"


async def test_a_script_is_checked_before_anybody_is_called(tmp_path: Path) -> None:
    async with Bridge() as bridge:
        with pytest.raises(ConfigError, match="no file"):
            await place_call(bridge.url, ACCOUNT_SID, AUTH_TOKEN, wav=tmp_path / "none.wav")
        with pytest.raises(ConfigError, match="more than one"):
            await place_call(bridge.url, ACCOUNT_SID, AUTH_TOKEN, wav=tmp_path / "a.wav", say=["b"])
        assert bridge.forms == []
