"""The caller's turns, as far as Gemini Live tells of them. No I/O; its clock is the caller's audio.

Gemini sends what the caller said (`inputTranscription`) in no fixed order to the answer, mostly without saying
that it was all, and tells neither of the beginning nor of the end of speech: only that an answer was interrupted.
So a turn begins with the first of: an interruption, words, an answer that nobody asked for. It ends when the answer
begins, or when the line has been quiet for a second. Where it begins and ends in the stream is told by the sound.

What comes out: each SpeechStarted has one SpeechStopped and after that one CallerTranscript, whatever Gemini sends.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from media_bridge.audio.loudness import is_loud
from media_bridge.audio.mulaw import BYTES_PER_MS, bytes_to_ms
from media_bridge.providers.base import CallerTranscript, Partial, RealtimeEvent, SpeechStarted, SpeechStopped

FRAME_BYTES: Final = 20 * BYTES_PER_MS
QUIET_MS: Final = 1000
"""Silence after which the caller has ceased to speak, if no answer has come before. Longer than Gemini waits."""
GAP_MS: Final = 600
"""Silence between two bursts of sound."""
SPEECH_MS: Final = 120
"""Loud sound that may be speech."""
FRESH_MS: Final = 3000
"""Loud sound not longer ago than this may be what an interruption was for."""
WORDS_MS: Final = 2000
"""Words that nobody answers are waited for so long after the last of them."""
LOST_WORDS_MS: Final = 6000
"""Words of a turn that was answered are waited for so long."""

_MARK: Final = re.compile(r"<[a-z_ ]+>", re.IGNORECASE)  # "<noise>"


@dataclasses.dataclass(slots=True)
class _Turn:
    text: str = ""  #: settled, piece by piece
    interim: str = ""  #: what may follow it
    touched_ms: int = 0  #: when something was learnt of it
    stopped: bool = False
    answered: bool = False

    @property
    def words(self) -> str:
        """What it says; empty for a mere noise."""
        said = " ".join(_MARK.sub(" ", self.text + self.interim).split())
        return said if any(map(str.isalnum, said)) else ""


class Caller:
    """Takes sound and what Gemini tells; returns events."""

    def __init__(self) -> None:
        self._bytes = 0
        self._burst_ms = 0  #: where the last burst of sound began …
        self._loud_until = -FRESH_MS  #: … and ended
        self._loud_ms = 0  #: loud sound that belongs to no turn yet
        self._turn: _Turn | None = None

    def hear(self, audio: bytes) -> list[RealtimeEvent]:
        """The caller's next audio, μ-law of any length: a voice may begin in its last frame."""
        frames = (audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES))
        return [event for frame in frames for event in self._hear(frame)]

    def _hear(self, frame: bytes) -> list[RealtimeEvent]:
        before = bytes_to_ms(self._bytes)
        self._bytes += len(frame)
        if is_loud(frame):
            if before - self._loud_until > GAP_MS:
                self._burst_ms = before
            self._loud_until = self._now
            self._loud_ms += self._now - before
        return self._time_passes()

    def says(self, text: str, *, finished: bool, interim: bool = False) -> list[RealtimeEvent]:
        """Words of the caller. `interim`: they replace the interim ones before; else they follow the others."""
        events: list[RealtimeEvent] = []
        turn = self._turn
        if turn is not None and turn.answered and turn.text and self._speaks_again(turn):
            events += self._settle(turn)
            turn = None
        if turn is None and text.strip():
            turn = self._open(events, heard=self._loud_ms >= SPEECH_MS)
        if turn is None:
            return events
        turn.touched_ms = self._now
        if interim:
            turn.interim = text
        else:
            turn.text, turn.interim = turn.text + text, ""
        if finished:
            return events + self._settle(turn)
        if turn.words and not turn.answered:
            events.append(Partial(turn.words))
        return events

    def interrupts(self) -> list[RealtimeEvent]:
        """Gemini has stopped an answer because it heard the caller. It errs at times: then nobody has spoken."""
        if self._now - self._loud_until > FRESH_MS or self._loud_ms < SPEECH_MS:
            return []
        return self.begins()

    def begins(self) -> list[RealtimeEvent]:
        """Gemini says that the caller speaks."""
        events: list[RealtimeEvent] = []
        if self._turn is not None and self._turn.answered:
            events += self._settle(self._turn)
        if self._turn is None:
            self._open(events, heard=True)
        return events

    def ceases(self) -> list[RealtimeEvent]:
        """Gemini says that the caller has ceased to speak."""
        events: list[RealtimeEvent] = []
        if self._turn is not None:
            self._stop(self._turn, events)
        return events

    def is_answered(self, *, asked: bool) -> list[RealtimeEvent]:
        """The model begins to speak. `asked`: by us, so it need not be an answer to the caller."""
        events: list[RealtimeEvent] = []
        turn = self._turn
        spoke = self._loud_ms >= SPEECH_MS and not asked
        if spoke and turn is not None and turn.answered:
            events += self._settle(turn)
            turn = None
        if spoke and turn is None:
            turn = self._open(events, heard=True)
        if turn is not None and not turn.answered:
            self._stop(turn, events)
            turn.answered, turn.touched_ms = True, self._now
        self._loud_ms = 0
        return events

    def is_over(self) -> list[RealtimeEvent]:
        """The answer is complete: what the caller had said is known by now, if it ever is."""
        return self._settle_known()

    def is_lost(self) -> list[RealtimeEvent]:
        """The connection is: words of a turn that is being answered are all there will be of it."""
        return self._settle_known()

    def _settle_known(self) -> list[RealtimeEvent]:
        turn = self._turn
        return self._settle(turn) if turn is not None and turn.answered and turn.words else []

    @property
    def _now(self) -> int:
        return bytes_to_ms(self._bytes)

    def _time_passes(self) -> list[RealtimeEvent]:
        turn = self._turn
        if turn is None:
            return []
        events: list[RealtimeEvent] = []
        if not turn.stopped and self._now - max(self._loud_until, turn.touched_ms) >= QUIET_MS:
            self._stop(turn, events)
            turn.touched_ms = self._now
        patience = LOST_WORDS_MS if turn.answered and not turn.words else WORDS_MS
        if turn.stopped and self._now - turn.touched_ms >= patience:
            events += self._settle(turn)
        return events

    def _open(self, events: list[RealtimeEvent], *, heard: bool) -> _Turn:
        """A new turn. Not `heard`: words that came too late for theirs, so nobody has begun to speak."""
        self._turn = turn = _Turn(touched_ms=self._now)
        if heard:
            events.append(SpeechStarted(min(self._burst_ms, self._now)))
            self._loud_ms = 0
        else:
            turn.stopped = turn.answered = True
        return turn

    def _stop(self, turn: _Turn, events: list[RealtimeEvent]) -> None:
        if not turn.stopped:
            turn.stopped = True
            events.append(SpeechStopped(self._loud_until if self._loud_until > 0 else self._now))

    def _settle(self, turn: _Turn) -> list[RealtimeEvent]:
        events: list[RealtimeEvent] = []
        self._stop(turn, events)
        self._turn = None
        events.append(CallerTranscript(turn.words, failed=turn.answered and not turn.words))
        return events

    def _speaks_again(self, turn: _Turn) -> bool:
        """Since the turn was answered: words that come now are of another one."""
        return self._loud_ms >= SPEECH_MS and self._now - turn.touched_ms > GAP_MS
