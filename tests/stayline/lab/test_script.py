"""A caller's script: what is accepted, and what a wrong one is told."""

import wave
from pathlib import Path

import numpy as np
import pytest

from stayline.errors import ConfigError
from stayline.lab.script import After, AgentSpeakingFor, Step, conversation, load_script, parse_script, prepare

SCRIPT = """
- say: What is the status of my order?
  when: greeting_done
- say: Wait.
  when: {agent_speaking_for_ms: 800}
- wav: order.wav
- dtmf: "12#"
- hang_up: true
  when: {after_ms: 2000}
"""


def test_a_script_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "caller.yaml"
    path.write_text(SCRIPT)
    first, second, third, fourth, fifth = load_script(path)
    assert first == Step(say="What is the status of my order?", when="greeting_done")
    assert second.when == AgentSpeakingFor(agent_speaking_for_ms=800)
    assert third.wav == tmp_path / "order.wav"
    assert (fourth.dtmf, fourth.when) == ("12#", "agent_done")
    assert (fifth.hang_up, fifth.when) == (True, After(after_ms=2000))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "list of steps"),
        ({"say": "x"}, "list of steps"),
        ([], "list of steps"),
        ([{"say": "x"}, {}], "Step 2.*exactly one of say, wav, dtmf, hang_up"),
        ([{"say": "x", "dtmf": "1"}], "exactly one"),
        ([{"say": ""}], "Step 1.*say"),
        ([{"says": "x"}], "says"),
        ([{"dtmf": "1E"}], "dtmf"),
        ([{"dtmf": 1}], "dtmf"),
        ([{"say": "x", "when": "later"}], "`when` is greeting_done.*'later'"),
        ([{"say": "x", "when": {"after_ms": -1}}], "`when` is"),
        ([5], "Step 1"),
    ],
)
def test_a_wrong_script_is_told_which_step(raw: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_script(raw)


def test_a_script_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_script(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("- say: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_script(tmp_path / "bad.yaml")


def test_texts_become_a_conversation() -> None:
    assert conversation(["a", "b"]) == (Step(say="a"), Step(say="b"), Step(hang_up=True))


async def test_steps_are_prepared_with_their_sound(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = (np.sin(np.arange(8000) * 2 * np.pi * 440 / 8000) * 8000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    prepared = await prepare([Step(wav=path), Step(dtmf="1"), Step(hang_up=True)])
    assert [p.clip.label if p.clip else None for p in prepared] == ["tone.wav", None, None]
    with pytest.raises(ConfigError, match="There is no file"):
        await prepare([Step(wav=tmp_path / "none.wav")])
