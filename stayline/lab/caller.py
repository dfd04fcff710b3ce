"""A caller who follows a script: listens, speaks in turn, interrupts, presses keys, hangs up. No I/O, no clock.

The caller hears the agent by its sound alone, so what it measures is what a person would have noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from stayline.lab.buffer import FRAME_BYTES, FRAME_MS
from stayline.lab.line import Spoken, quiet_frame
from stayline.lab.recording import StereoRecording
from stayline.lab.script import QUIET_MS, After, AgentQuietFor, AgentSpeakingFor, Prepared
from stayline.lab.voice import Clip, is_voiced
from stayline.models import Model

_HEARD_MS: Final = 60  # less voice than this is a click, not speech
_PAUSE_MS: Final = 300  # a pause that long is not a gap between words
_KEY_FRAMES: Final = 10  # a key and the pause after it: 200 ms

CallerEvent = Literal["caller_speaks", "caller_done", "agent_speaks", "agent_done"]


class Utterance(Model):
    """One thing that the caller said, and how the agent took it. Times in milliseconds since the answer."""

    text: str
    started_ms: int  #: first voiced sample
    ended_ms: int  #: after the last voiced sample
    interrupting: bool  #: the agent was speaking, or had more to say
    reply_ms: int | None = None
    """Last voiced caller sample -> first voiced agent sample of the answer; None: it was not heard."""
    stop_ms: int | None = None
    """Speech onset -> `clear`; None: the agent was not interrupted, or did not stop."""


class Ear:
    """Follows the agent's speech by its energy.

    Attributes:
        since_ms: where the present (or last) stretch of speech began; pauses below `QUIET_MS` do not end it.
        last_ms: end of the last voiced frame.
    """

    def __init__(self) -> None:
        self.since_ms = 0
        self.last_ms = -(10**9)
        self.voiced_ms = 0
        self._seen_ms = 0
        self.speaking = False

    def hear(self, frame: bytes, at_ms: int) -> CallerEvent | None:
        """Returns what begins or ends with this frame."""
        if is_voiced(frame):
            begins = at_ms - self.last_ms >= QUIET_MS
            if begins:
                self.since_ms = at_ms
                self._seen_ms = 0
            self.last_ms = at_ms + FRAME_MS
            self.voiced_ms += FRAME_MS
            self._seen_ms += FRAME_MS
            if not self.speaking and self._seen_ms >= _HEARD_MS:
                self.speaking = True
                return "agent_speaks"
        elif self.speaking and self.quiet_ms(at_ms) >= QUIET_MS:
            self.speaking = False
            return "agent_done"
        return None

    def quiet_ms(self, at_ms: int) -> int:
        return at_ms - self.last_ms

    def forget(self) -> None:
        """From now on, only what comes next counts as heard."""
        self.voiced_ms = 0


class ScriptedCaller:
    """Follows prepared steps, one after the other, and measures.

    Args:
        steps: with their sound (`stayline.lab.script.prepare`).
        recording: written as the call goes, closed when it ends.
        on_event: told who speaks.
    """

    def __init__(
        self,
        steps: Sequence[Prepared],
        *,
        recording: StereoRecording | None = None,
        on_event: Callable[[CallerEvent, str], None] | None = None,
    ) -> None:
        self.utterances: list[Utterance] = []
        self.on_event = on_event
        self._steps = list(steps)
        self._recording = recording
        self._ear = Ear()
        self._free_ms = 0  # when the step before ended
        self._clip: Clip | None = None
        self._frame = 0
        self._keys = ""
        self._key_wait = 0
        self._silence_before_reply = False

    @property
    def done(self) -> bool:
        """All steps were taken."""
        return not self._steps and self._clip is None and not self._keys

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        event = self._ear.hear(heard, at_ms)
        if event is not None:
            self._tell(event)
        self._measure_reply(heard, at_ms)
        spoken = self._act(at_ms, queued_ms)
        if self._recording is not None:
            self._recording.add(spoken.audio, heard)
        return spoken

    def cleared(self, at_ms: int) -> None:
        if not self.utterances:
            return
        last = self.utterances[-1]
        if last.interrupting and last.stop_ms is None and at_ms >= last.started_ms:
            self.utterances[-1] = last.model_copy(update={"stop_ms": at_ms - last.started_ms})
            self._silence_before_reply = True

    def close(self) -> None:
        if self._recording is not None:
            self._recording.close()

    # --- what the caller does

    def _act(self, at_ms: int, queued_ms: float) -> Spoken:
        if self._clip is not None:
            return self._speak(self._clip, at_ms)
        if self._keys:
            return self._press(at_ms)
        if not self._steps or not self._ready(self._steps[0], at_ms, queued_ms):
            return Spoken(quiet_frame(at_ms))
        prepared = self._steps.pop(0)
        if prepared.step.hang_up:
            return Spoken(quiet_frame(at_ms), hang_up=True)
        if prepared.clip is not None:
            self._begin(prepared.clip, at_ms, queued_ms)
            return self._speak(prepared.clip, at_ms)
        self._keys = prepared.step.dtmf or ""
        return self._press(at_ms)

    def _ready(self, prepared: Prepared, at_ms: int, queued_ms: float) -> bool:
        match prepared.step.when:
            case After(after_ms=wait):
                return at_ms - self._free_ms >= wait
            case AgentSpeakingFor(agent_speaking_for_ms=wait):
                if not self._ear.speaking or self._ear.quiet_ms(at_ms) > _PAUSE_MS:
                    return False
                return at_ms - max(self._ear.since_ms, self._free_ms) >= wait
            case AgentQuietFor(agent_quiet_for_ms=patience):
                return self._agent_finished(at_ms, queued_ms, patience)
            case _:
                return self._agent_finished(at_ms, queued_ms, QUIET_MS)

    def _agent_finished(self, at_ms: int, queued_ms: float, patience_ms: int) -> bool:
        return self._ear.voiced_ms >= _HEARD_MS and not queued_ms and self._ear.quiet_ms(at_ms) >= patience_ms

    def _begin(self, clip: Clip, at_ms: int, queued_ms: float) -> None:
        self._clip, self._frame = clip, 0
        speaking = self._ear.speaking and self._ear.quiet_ms(at_ms) < _PAUSE_MS
        self._silence_before_reply = not speaking
        self.utterances.append(
            Utterance(
                text=clip.label,
                started_ms=at_ms + clip.onset_ms,
                ended_ms=at_ms + clip.end_ms,
                interrupting=speaking or queued_ms > 0,
            )
        )
        self._tell("caller_speaks", clip.label)

    def _speak(self, clip: Clip, at_ms: int) -> Spoken:
        audio = clip.audio[self._frame * FRAME_BYTES : (self._frame + 1) * FRAME_BYTES]
        self._frame += 1
        if self._frame >= clip.frames:
            self._clip = None
            self._tell("caller_done", clip.label)
            self._step_ended(at_ms)
        return Spoken(audio)

    def _press(self, at_ms: int) -> Spoken:
        if self._key_wait:
            self._key_wait -= 1
            return Spoken(quiet_frame(at_ms))
        digit, self._keys = self._keys[0], self._keys[1:]
        if self._keys:
            self._key_wait = _KEY_FRAMES
        else:
            self._step_ended(at_ms)
        return Spoken(quiet_frame(at_ms), digit=digit)

    def _step_ended(self, at_ms: int) -> None:
        self._free_ms = at_ms + FRAME_MS
        self._ear.forget()

    # --- what the caller notices

    def _measure_reply(self, heard: bytes, at_ms: int) -> None:
        """The answer begins with the first voice after a silence that came after the caller's onset."""
        if not self.utterances or self.utterances[-1].reply_ms is not None:
            return
        last = self.utterances[-1]
        if not is_voiced(heard):
            if self._ear.quiet_ms(at_ms) >= _PAUSE_MS:
                self._silence_before_reply = True
        elif self._silence_before_reply:
            if at_ms < last.ended_ms:  # it talks into the caller's speech: not an answer
                self._silence_before_reply = False
            else:
                self.utterances[-1] = last.model_copy(update={"reply_ms": at_ms - last.ended_ms})

    def _tell(self, event: CallerEvent, detail: str = "") -> None:
        if self.on_event is not None:
            self.on_event(event, detail)
