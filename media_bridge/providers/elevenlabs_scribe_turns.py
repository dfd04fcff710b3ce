"""What the messages of realtime Scribe sessions mean for the turns of a call. No I/O and no clock.

`partial_transcript` is what the open segment says so far; a commit ends the segment. With timestamps every commit
is answered twice, by `committed_transcript` and by `committed_transcript_with_timestamps`, mostly in this order;
`Commits` makes one of the two. Scribe does not tell when the caller begins to speak: in `VendorTurns` a turn begins
with its first words. `LocalTurns` hear with Silero where it begins and ends, and ask for the commit.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from media_bridge.audio.mulaw import BYTES_PER_MS
from media_bridge.providers.base import EndOfTurn, Partial, SpeechStarted, SttEvent
from media_bridge.providers.turn_order import Turn, TurnOrder
from media_bridge.providers.utterances import UtteranceFinder, UtteranceOver, UtteranceRule, UtteranceStarted

LOOK_BACK_MS: Final = 2000
"""Audio before "now" that a new session hears again: speech in it may not have been told yet."""
AGAIN_MS: Final = 400
"""Audio after which a commit that was refused is asked for again; ElevenLabs wants 300 ms between two."""
MISSES: Final = 2  #: commits in a row without their timestamps, after which these are not waited for


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """A segment that will not change."""

    text: str
    words: Sequence[Mapping[str, Any]] = ()  #: `start`, `end` in seconds of the session's audio; `logprob`


class Commits:
    """One `Committed` for each commit.

    Args:
        timed: whether commits are answered twice.
    """

    def __init__(self, timed: bool) -> None:
        self._timed = timed
        self._misses = 0
        self._plain: str | None = None
        self._owed: deque[tuple[str, str]] = deque(maxlen=4)  #: twins that are no news any more: type, text

    @property
    def holding(self) -> bool:
        """A plain commit waits for its twin; `release` it after a moment."""
        return self._plain is not None

    def take(self, message: Mapping[str, Any]) -> list[Committed]:
        """
        Raises:
            KeyError, TypeError, AttributeError: the message is not as documented.
        """
        kind, text = str(message["message_type"]), message["text"].strip()
        if (kind, _letters(text)) in self._owed:
            self._owed.remove((kind, _letters(text)))
            return []
        if kind == "committed_transcript":
            done = self.release()
            self._plain = text
            if not self._timed or self._misses >= MISSES:
                done += self.release()
            return done
        self._misses = 0
        if self._plain is None:
            self._owed.append(("committed_transcript", _letters(text)))
        self._plain = None
        return [Committed(text, [word for word in message.get("words") or () if word.get("type") == "word"])]

    def release(self) -> list[Committed]:
        if self._plain is None:
            return []
        text, self._plain = self._plain, None
        if self._timed:
            self._misses += 1
            self._owed.append(("committed_transcript_with_timestamps", _letters(text)))
        return [Committed(text)]

    def forget(self) -> None:
        """A new session owes nothing."""
        self._owed.clear()


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


class Turns(Protocol):
    """What the two kinds have in common, as the stream sees it. Positions are of the call's audio, unless said."""

    commits: Commits
    wanted: deque[int]  #: positions, in bytes, at which a commit is to be sent

    @property
    def answer_due(self) -> bool:
        """Something must come from ElevenLabs before long."""

    def push(self, audio: bytes) -> list[SttEvent]:
        """Audio came from the caller."""

    def needed_from_ms(self, sent_ms: int) -> int:
        """A new session would have to hear the audio from here on."""

    def partial(self, text: str, sent_ms: int) -> list[SttEvent]: ...

    def committed(self, segment: Committed, sent_ms: int) -> list[SttEvent]: ...

    def throttled(self, sent_ms: int) -> None:
        """ElevenLabs refused a commit, because it came too soon after another."""

    def new_session(self, from_ms: int) -> None:
        """A session begins whose audio begins at this position."""

    def inserted(self, ms: int) -> None:
        """So much silence was sent that is not of the call."""


class _Clock:
    """The session's time as the call's: where its audio began, less what we put in to keep it alive."""

    def __init__(self) -> None:
        self._offset_ms = 0

    def new_session(self, from_ms: int) -> None:
        self._offset_ms = from_ms

    def inserted(self, ms: int) -> None:
        self._offset_ms -= ms

    def _position(self, seconds: float) -> int:
        return self._offset_ms + round(seconds * 1000)

    def _span(self, segment: Committed) -> tuple[int, int] | None:
        """Where the first word begins and the last one ends."""
        if not segment.words:
            return None
        return self._position(segment.words[0]["start"]), self._position(segment.words[-1]["end"])


class VendorTurns(_Clock):
    """ElevenLabs finds the turns: every commit ends one.

    Args:
        silence_ms: how long the caller has been silent, at least, when ElevenLabs commits.
    """

    def __init__(self, timed: bool, silence_ms: int) -> None:
        super().__init__()
        self.commits = Commits(timed)
        self.wanted: deque[int] = deque()
        self._silence_ms = silence_ms
        self._started_ms: int | None = None
        self._settled_ms = 0

    @property
    def answer_due(self) -> bool:
        return self._started_ms is not None

    def push(self, audio: bytes) -> list[SttEvent]:
        return []

    def needed_from_ms(self, sent_ms: int) -> int:
        now = sent_ms if self._started_ms is None else self._started_ms
        return max(self._settled_ms, now - LOOK_BACK_MS)

    def throttled(self, sent_ms: int) -> None:
        """We ask for none."""

    def new_session(self, from_ms: int) -> None:
        super().new_session(from_ms)
        self.commits.forget()

    def partial(self, text: str, sent_ms: int) -> list[SttEvent]:
        return [*self._start(sent_ms), Partial(text)] if text else []

    def committed(self, segment: Committed, sent_ms: int) -> list[SttEvent]:
        span = self._span(segment)
        self._settled_ms = max(self._settled_ms, span[1] if span else sent_ms - self._silence_ms)
        if not segment.text:
            events: list[SttEvent] = [] if self._started_ms is None else [EndOfTurn("")]
        else:
            events = self._start(span[0] if span else sent_ms)
            events.append(_end(segment, span))
        self._started_ms = None
        return events

    def _start(self, at_ms: int) -> list[SttEvent]:
        if self._started_ms is not None:
            return []
        self._started_ms = at_ms
        return [SpeechStarted(at_ms)]


@dataclasses.dataclass(slots=True, eq=False)
class _Utterance:
    turn: Turn
    from_ms: int  #: where its audio begins
    commit_at: int | None = None  #: position in bytes; None while the caller speaks
    over: UtteranceOver | None = None
    settled: list[Committed] = dataclasses.field(default_factory=list)


class LocalTurns(_Clock):
    """We find the turns, in the sound, and ask for a commit at the end of each."""

    def __init__(self, timed: bool, rule: UtteranceRule) -> None:
        super().__init__()
        self.commits = Commits(timed)
        self.wanted: deque[int] = deque()
        self._finder = UtteranceFinder(rule)
        self._order = TurnOrder()
        self._open: deque[_Utterance] = deque()  #: not written down yet

    @property
    def answer_due(self) -> bool:
        return bool(self._open) and self._open[0].commit_at is not None

    def push(self, audio: bytes) -> list[SttEvent]:
        for event in self._finder.push(audio):
            if isinstance(event, UtteranceStarted):
                self._open.append(_Utterance(self._order.begin(event.at_ms), event.audio_from_ms))
            elif isinstance(event, UtteranceOver) and self._open and self._open[-1].commit_at is None:
                self._open[-1].over = event
                self._open[-1].commit_at = self._finder.now_ms * BYTES_PER_MS
                self.wanted.append(self._finder.now_ms * BYTES_PER_MS)
        return self._order.due()

    def needed_from_ms(self, sent_ms: int) -> int:
        return self._open[0].from_ms if self._open else sent_ms - LOOK_BACK_MS

    def throttled(self, sent_ms: int) -> None:
        if self.answer_due:
            self.wanted.appendleft((sent_ms + AGAIN_MS) * BYTES_PER_MS)

    def new_session(self, from_ms: int) -> None:
        super().new_session(from_ms)
        self.commits.forget()
        self.wanted = deque(item.commit_at for item in self._open if item.commit_at is not None)
        for item in self._open:
            item.settled.clear()

    def partial(self, text: str, sent_ms: int) -> list[SttEvent]:
        if self._open:
            item = self._open[0]
            item.turn.text = " ".join([*(piece.text for piece in item.settled), text])
        return self._order.due()

    def committed(self, segment: Committed, sent_ms: int) -> list[SttEvent]:
        if not self._open:  # ElevenLabs commits by itself now and then; mostly it was silence
            if segment.text:
                self._order.begin(sent_ms).end = _end(segment, self._span(segment))
        elif self._open[0].commit_at is None:
            if segment.text:
                self._open[0].settled.append(segment)
        else:
            self._write_down(self._open.popleft(), segment)
        return self._order.due()

    def _write_down(self, item: _Utterance, segment: Committed) -> None:
        assert item.over is not None
        pieces = [piece for piece in (*item.settled, segment) if piece.text]
        whole = Committed(" ".join(piece.text for piece in pieces), [w for piece in pieces for w in piece.words])
        item.turn.end = EndOfTurn(whole.text, _confidence(whole), item.over.speech_end_ms, item.over.speech_ms)


def _end(segment: Committed, span: tuple[int, int] | None) -> EndOfTurn:
    if span is None:
        return EndOfTurn(segment.text, _confidence(segment))
    return EndOfTurn(segment.text, _confidence(segment), speech_end_ms=span[1], speech_ms=max(0, span[1] - span[0]))


def _confidence(segment: Committed) -> float | None:
    """Mean probability of the words (geometric)."""
    logprobs = [word["logprob"] for word in segment.words if word.get("logprob") is not None]
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else None
