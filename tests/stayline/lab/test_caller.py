"""The scripted caller, tick by tick: no clock but the test's."""

import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from media_bridge.audio import mulaw
from stayline.lab.buffer import FRAME_MS, SILENCE
from stayline.lab.caller import ScriptedCaller
from stayline.lab.line import Spoken
from stayline.lab.recording import StereoRecording
from stayline.lab.script import Prepared, Step, parse_script
from stayline.lab.voice import Clip, is_voiced

VOICE = mulaw.encode((np.sin(np.arange(160) / 3) * 6000).astype(np.int16))


def clip(label: str, ms: int = 400) -> Clip:
    """`ms` of voice between two silent frames."""
    return Clip(label, SILENCE + VOICE * (ms // FRAME_MS) + SILENCE, FRAME_MS, ms + FRAME_MS)


def prepared(*steps: dict[str, object]) -> list[Prepared]:
    return [Prepared(s, clip(s.say) if s.say else None) for s in parse_script(list(steps))]


@dataclass
class Line:
    """Runs a caller against scripted agent sound and keeps what came out."""

    caller: ScriptedCaller
    at_ms: int = 0
    spoken: list[tuple[int, Spoken]] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caller.on_event = lambda kind, detail: self.events.append((self.at_ms, kind))

    def run(self, ms: int, heard: bytes = SILENCE, queued_ms: float = 0) -> None:
        for _ in range(ms // FRAME_MS):
            self.spoken.append((self.at_ms, self.caller.tick(heard, at_ms=self.at_ms, queued_ms=queued_ms)))
            self.at_ms += FRAME_MS

    def agent(self, ms: int) -> None:
        self.run(ms, VOICE, queued_ms=500)

    @property
    def voiced(self) -> list[int]:
        return [at for at, spoken in self.spoken if is_voiced(spoken.audio)]

    @property
    def keys(self) -> list[tuple[int, str]]:
        return [(at, spoken.digit) for at, spoken in self.spoken if spoken.digit]

    @property
    def hung_up(self) -> list[int]:
        return [at for at, spoken in self.spoken if spoken.hang_up]


def test_it_waits_for_the_agent_to_finish() -> None:
    line = Line(ScriptedCaller(prepared({"say": "hello", "when": "greeting_done"})))
    line.run(5000)
    assert not line.voiced  # nothing was heard yet
    line.agent(1000)
    line.run(400)
    line.agent(600)  # a pause, not the end
    assert line.at_ms == 7000
    line.run(2000)
    assert line.voiced[0] == 7000 + 700 + FRAME_MS
    assert [kind for _, kind in line.events] == [
        "agent_speaks",
        "agent_done",
        "caller_speaks",
        "caller_done",
    ]
    assert line.caller.done


def test_it_waits_while_the_carrier_still_has_something_to_play() -> None:
    line = Line(ScriptedCaller(prepared({"say": "hello"})))
    line.agent(500)
    line.run(1500, queued_ms=20)
    assert not line.voiced
    line.run(100)
    assert line.voiced


def test_a_click_is_not_an_agent() -> None:
    line = Line(ScriptedCaller(prepared({"say": "hello"})))
    line.run(40, VOICE)
    line.run(3000)
    assert not line.voiced


def test_patience_can_be_given() -> None:
    line = Line(ScriptedCaller(prepared({"say": "hello", "when": {"agent_quiet_for_ms": 2000}})))
    line.agent(500)
    line.run(1980)
    assert not line.voiced
    line.run(100)
    assert line.voiced


def test_it_interrupts_and_measures_how_fast_the_agent_stops() -> None:
    caller = ScriptedCaller(prepared({"say": "wait", "when": {"agent_speaking_for_ms": 800}}, {"say": "thanks"}))
    line = Line(caller)
    line.run(500)
    line.agent(1000)
    (first,) = caller.utterances
    assert first.started_ms == 500 + 800 + FRAME_MS
    assert first.interrupting
    caller.cleared(line.at_ms + 7)
    line.run(900)  # the tail of what was cleared is not an answer
    assert caller.utterances[0].stop_ms == 1507 - first.started_ms
    assert caller.utterances[0].reply_ms is None
    line.agent(300)
    (first,) = caller.utterances
    assert first.reply_ms == 2400 - first.ended_ms
    line.run(2000)
    assert [u.text for u in caller.utterances] == ["wait", "thanks"]
    assert not caller.utterances[1].interrupting


def test_an_agent_that_goes_on_has_not_answered() -> None:
    caller = ScriptedCaller(prepared({"say": "mhm", "when": {"agent_speaking_for_ms": 200}}))
    line = Line(caller)
    line.agent(3000)
    line.run(100)
    line.agent(500)
    assert caller.utterances[0].reply_ms is None
    assert caller.utterances[0].stop_ms is None
    line.run(400)
    line.agent(100)
    assert caller.utterances[0].reply_ms == 4000 - caller.utterances[0].ended_ms


def test_the_reply_is_measured_from_the_last_voiced_sample() -> None:
    caller = ScriptedCaller(prepared({"say": "hello", "when": {"after_ms": 100}}))
    line = Line(caller)
    line.run(1000)
    assert caller.utterances[0].started_ms == 120
    assert caller.utterances[0].ended_ms == 520
    line.agent(100)
    assert caller.utterances[0].reply_ms == 480


def test_a_clear_without_an_interruption_is_not_measured() -> None:
    caller = ScriptedCaller(prepared({"say": "hello", "when": {"after_ms": 0}}))
    caller.cleared(10)
    line = Line(caller)
    line.run(100)
    caller.cleared(100)
    assert caller.utterances[0].stop_ms is None


def test_it_presses_keys_and_hangs_up() -> None:
    caller = ScriptedCaller(
        prepared({"dtmf": "12#", "when": {"after_ms": 100}}, {"hang_up": True, "when": {"after_ms": 500}})
    )
    line = Line(caller)
    line.run(2000)
    assert line.keys == [(100, "1"), (320, "2"), (540, "#")]
    assert line.hung_up == [1060]


def test_it_says_nothing_of_itself_and_repeats_nothing() -> None:
    line = Line(ScriptedCaller(prepared({"say": "hello", "when": {"after_ms": 0}})))
    line.run(1000)
    spoken = line.voiced
    for _ in range(3):
        line.agent(500)
        line.run(1000)
    assert line.voiced == spoken
    assert len(spoken) == 20
    assert not line.hung_up


def test_both_sides_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "call.wav"
    recording = StereoRecording(path)
    caller = ScriptedCaller([Prepared(Step(say="a", when="agent_done"), clip("a"))], recording=recording)
    line = Line(caller)
    line.agent(200)
    line.run(1500)
    caller.close()
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        assert file.getnframes() == line.at_ms * 8
        sides = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(float)
    frames = np.sqrt((sides.reshape(-1, 160, 2) ** 2).mean(axis=1)) > 200
    assert [index * FRAME_MS for index in np.flatnonzero(frames[:, 0])] == line.voiced
    assert list(np.flatnonzero(frames[:, 1])) == list(range(10))
