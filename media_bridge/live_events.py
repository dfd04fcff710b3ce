"""What happens in a session this very moment: who speaks, who thinks, how much sound went where.

None of it goes through Temporal, whose record is of turns. A session has one log, and a listener is a place in it:
any number may listen, from the session's start whenever they come, and none can delay another or lose it anything.

What is kept is bounded. Of speech and thought a session keeps its last 4,096 events (hours of talk); a listener
that is further behind misses the oldest. Sound is told as counters that only grow, one a second: where those fill
their room every other one is dropped, which loses nothing but detail.

A bridge that dies takes its logs with it. One that lives keeps those of ended sessions for two minutes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev

AudioKind = Literal["audio_received", "audio_sent"]
LiveKind = (
    Literal["user_speech_start", "user_speech_end", "agent_thinking", "agent_speech_start", "agent_speech_end"]
    | AudioKind
)

KEPT_SPEECH: Final = 4096
KEPT_AUDIO: Final = 1024
AUDIO_EVERY: Final = timedelta(seconds=1)
AUDIO_STEP: Final = 800  #: bytes of sound between two looks at the clock
KEPT_ENDED: Final = timedelta(minutes=2)


@dataclasses.dataclass(frozen=True, slots=True)
class LiveEvent:
    """One moment of a session.

    Attributes:
        seq: its place in the session's log, from 1; growing, not without gaps.
        total_bytes: of the audio events: what the session had received (or sent) by then, μ-law, 8 bytes a
            millisecond.
    """

    seq: int
    type: LiveKind
    at: datetime
    total_bytes: int = 0


class LiveLog:
    """What is kept of one session's moments. Reads no clock."""

    def __init__(self, kept_speech: int = KEPT_SPEECH, kept_audio: int = KEPT_AUDIO) -> None:
        self._speech: deque[LiveEvent] = deque(maxlen=kept_speech)
        self._audio: deque[LiveEvent] = deque()
        self._kept_audio = max(2, kept_audio)
        self.last = 0  #: `seq` of the newest event
        self.last_speech = 0  #: of the newest that is no counter

    def append(self, event: LiveEvent) -> None:
        """Keep an event, newer than all before."""
        self.last = event.seq
        if event.type not in ("audio_received", "audio_sent"):
            self._speech.append(event)
            self.last_speech = event.seq
            return
        self._audio.append(event)
        if len(self._audio) > self._kept_audio:
            self._thin_out()

    def after(self, seq: int) -> list[LiveEvent]:
        """What is kept of everything after `seq`, in order."""
        if seq >= self.last:
            return []
        newer = [*_newer(self._speech, seq), *_newer(self._audio, seq)]
        return sorted(newer, key=lambda event: event.seq)

    def _thin_out(self) -> None:
        """Of each counter drop every other value but the newest: the next one includes it."""
        kept: list[LiveEvent] = []
        for kind in ("audio_received", "audio_sent"):
            values = [event for event in self._audio if event.type == kind]
            kept += values[::-2]
        self._audio = deque(sorted(kept, key=lambda event: event.seq))


def _newer(events: deque[LiveEvent], seq: int) -> list[LiveEvent]:
    """From the end: a listener is rarely far behind."""
    found = []
    for event in reversed(events):
        if event.seq <= seq:
            break
        found.append(event)
    return found


class LiveSession:
    """A session's moments as they happen. Fed by its pipeline, whose events and commands it is shown.

    Args:
        clock: UTC.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.log = LiveLog()
        self.over = False
        self.over_at: datetime | None = None
        self._clock = clock
        self._changed = asyncio.Event()
        self._user_speaks = False
        self._playing: set[int] = set()
        self._bytes: dict[AudioKind, int] = {"audio_received": 0, "audio_sent": 0}
        self._next_look: dict[AudioKind, int] = {"audio_received": 0, "audio_sent": 0}
        self._told: dict[AudioKind, tuple[int, datetime]] = {}  #: bytes and time of the last counter

    async def follow(self, after: int = 0) -> AsyncIterator[list[LiveEvent]]:
        """What is new since `after`, whenever there is something, until the session is over."""
        while True:
            over, changed = self.over, self._changed
            if news := self.log.after(after):
                after = news[-1].seq
                yield news
            elif over:
                return
            else:
                await changed.wait()

    # --- told by the session ---

    def event(self, event: ev.Event) -> None:
        match event:
            case ev.CallerSpoke():
                self._user_began()
            case ev.CallerTurn(text):
                if text:
                    self._user_began()  # not every recogniser tells of the beginning
                self._user_ended()
            case ev.CallerStopped():
                self._user_ended()
            case ev.ResponseBegan():
                self._tell("agent_thinking")
            case ev.SpeechBegan(utterance):
                if not self._playing:
                    self._tell("agent_speech_start")
                self._playing.add(utterance)
            case ev.SpeechEnded(utterance):
                if utterance in self._playing:
                    self._playing.discard(utterance)
                    if not self._playing:
                        self._tell("agent_speech_end")
            case _:
                pass

    def command(self, command: do.Command) -> None:
        if isinstance(command, do.StartReply):
            self._tell("agent_thinking")

    def audio(self, kind: AudioKind, size: int) -> None:
        """So many bytes of sound came, or went."""
        total = self._bytes[kind] = self._bytes[kind] + size
        if total < self._next_look[kind]:
            return
        self._next_look[kind] = total + AUDIO_STEP
        now = self._clock()
        if kind not in self._told or now - self._told[kind][1] >= AUDIO_EVERY:
            self._count(kind, now)

    def close(self) -> None:
        """The session is over."""
        self._user_ended()
        if self._playing:
            self._playing.clear()
            self._tell("agent_speech_end")
        for kind, size in self._bytes.items():
            if size and self._told[kind][0] != size:
                self._count(kind, self._clock())
        self.over = True
        self.over_at = self._clock()
        self._wake()

    def _user_began(self) -> None:
        if not self._user_speaks:
            self._user_speaks = True
            self._tell("user_speech_start")

    def _user_ended(self) -> None:
        if self._user_speaks:
            self._user_speaks = False
            self._tell("user_speech_end")

    def _count(self, kind: AudioKind, now: datetime) -> None:
        self._told[kind] = (self._bytes[kind], now)
        self._tell(kind, self._bytes[kind])

    def _tell(self, kind: LiveKind, total_bytes: int = 0) -> None:
        self.log.append(LiveEvent(self.log.last + 1, kind, self._clock(), total_bytes))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class LiveEvents:
    """The sessions of one bridge, also those that have just ended."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._sessions: OrderedDict[tuple[str, int], LiveSession] = OrderedDict()

    def open(self, call_id: str, session: int) -> LiveSession:
        """The log of a session that begins now."""
        self._forget_old()
        self._sessions[call_id, session] = opened = LiveSession(self._clock)
        return opened

    def find(self, call_id: str, session: int) -> LiveSession | None:
        return self._sessions.get((call_id, session))

    def latest(self, call_id: str) -> LiveSession | None:
        """Of the call's sessions here, the newest."""
        numbers = [number for known, number in self._sessions if known == call_id]
        return self._sessions[call_id, max(numbers)] if numbers else None

    def _forget_old(self) -> None:
        before = self._clock() - KEPT_ENDED
        for key, session in list(self._sessions.items()):
            if session.over_at is not None and session.over_at < before:
                del self._sessions[key]
