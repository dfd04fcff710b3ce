"""What a simulated caller does, as data: steps in YAML or in code, checked before the call is placed.

```yaml
- say: What is the status of my order?
- say: Wait, I meant something else.
  when: {agent_speaking_for_ms: 800}
- dtmf: "1"
- hang_up: true
  when: {after_ms: 2000}
```
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stayline.errors import ConfigError
from stayline.lab.voice import Clip, load_wav, speak

QUIET_MS = 700
"""A listener takes the agent to have finished after so much silence with nothing left to play."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentSpeakingFor(_Strict):
    """In the middle of the agent's speech: the caller interrupts."""

    agent_speaking_for_ms: int = Field(ge=0)


class AgentQuietFor(_Strict):
    """Like `agent_done`, with another patience: the caller waits through the agent's pauses."""

    agent_quiet_for_ms: int = Field(ge=20)


class After(_Strict):
    """So long after the step before has ended; for the first step, after the call is answered."""

    after_ms: int = Field(ge=0)


When = Literal["greeting_done", "agent_done"] | AgentSpeakingFor | AgentQuietFor | After


class Step(_Strict):
    """One thing that the caller does, and what it waits for.

    `greeting_done` and `agent_done`: since the caller's last step ended the agent was heard, and has been
    silent for 700 ms with nothing left to play.
    """

    say: str | None = Field(default=None, min_length=1)
    wav: Path | None = None
    dtmf: str | None = Field(default=None, pattern=r"^[0-9*#A-D]+$")
    hang_up: bool = False
    when: When = "agent_done"

    @model_validator(mode="after")
    def _one_action(self) -> Step:
        if sum((self.say is not None, self.wav is not None, self.dtmf is not None, self.hang_up)) != 1:
            raise ValueError("give exactly one of say, wav, dtmf, hang_up")
        return self


def load_script(path: Path) -> tuple[Step, ...]:
    """Read steps from a YAML file; WAV paths in it are relative to the file.

    Raises:
        ConfigError: with the number of the step that is wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The caller's script {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"The caller's script {path} is not YAML: {error}.") from error
    steps = parse_script(raw)
    return tuple(
        step.model_copy(update={"wav": path.parent / step.wav}) if step.wav is not None else step for step in steps
    )


def parse_script(raw: Any) -> tuple[Step, ...]:
    """Check a list of steps.

    Raises:
        ConfigError: with the number of the step that is wrong.
    """
    if not isinstance(raw, list) or not raw:
        raise ConfigError("A caller's script is a list of steps.", fix="e.g. `- say: Hello`")
    steps = []
    for number, item in enumerate(raw, start=1):
        try:
            steps.append(item if isinstance(item, Step) else Step.model_validate(item))
        except ValidationError as error:
            raise ConfigError(f"Step {number} of the caller's script: {_reason(error)}") from error
    return tuple(steps)


def conversation(texts: Sequence[str]) -> tuple[Step, ...]:
    """Steps that say each text when the agent has finished, listen to the last answer and hang up."""
    return (*(Step(say=text) for text in texts), Step(hang_up=True))


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A step with its sound, so that nothing is synthesised while the call runs."""

    step: Step
    clip: Clip | None = None


async def prepare(
    steps: Sequence[Step], *, voice: str = "en-US", speed: float = 1.0, pitch: float = 1.0
) -> tuple[Prepared, ...]:
    """Synthesise and load what the steps need.

    Raises:
        ConfigError: see `speak` and `load_wav`.
    """
    prepared = []
    for step in steps:
        clip = None
        if step.say is not None:
            clip = await speak(step.say, voice=voice, speed=speed, pitch=pitch)
        elif step.wav is not None:
            clip = load_wav(step.wav)
        prepared.append(Prepared(step, clip))
    return tuple(prepared)


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = str(first["loc"][0]) if first["loc"] else ""
    if where == "when":
        return (
            "`when` is greeting_done, agent_done, {agent_speaking_for_ms: N}, {agent_quiet_for_ms: N} "
            f"or {{after_ms: N}}, not {first['input']!r}."
        )
    return f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}."
