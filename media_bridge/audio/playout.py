"""Playout accounting: what the carrier was sent, and what of it the caller has heard. Pure; no I/O, no clock.

Twilio buffers what it is sent, plays it in order, and echoes each `mark` when playback reaches it. After a
`clear` it echoes all outstanding marks at once, so an echo proves hearing only if it carries the current
generation; that number is part of every mark's name.

Positions are bytes of 8 kHz μ-law, 8 to the millisecond, counted from the last `clear`. Times are stream
milliseconds given by the caller of each method.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Final

from media_bridge.audio.mulaw import BYTES_PER_MS

CHUNK: Final = 200 * BYTES_PER_MS
"""A mark follows every 200 ms of audio: the precision of what was heard before interpolation."""
LOOKAHEAD: Final = 1000 * BYTES_PER_MS
"""Audio sent ahead of playback: enough to hide a stalled event loop, little enough to yield the floor."""
MS_PER_CHAR: Final = 65
"""Pace of speech where the vendor has not told yet which audio belongs to which text."""
MARK_GRACE_MS: Final = 3000
"""A carrier that is there and has not echoed a mark so long after its time echoes none: the clock must do."""
STALL_MS: Final = 500
"""Longer without a frame from the carrier, and nothing came through at all, its echoes neither."""


@dataclasses.dataclass(frozen=True, slots=True)
class SendAudio:
    audio: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class SendMark:
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class SendClear:
    pass


Outbound = SendAudio | SendMark | SendClear


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """The first audio of an utterance was sent."""

    utterance: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """An utterance is over. `heard` is the part of its text that was played, cut at a word."""

    utterance: int
    heard: str
    complete: bool
    speech_ms: int


@dataclasses.dataclass(slots=True)
class _Track:
    """One utterance: its text, its audio, and which audio speaks which text."""

    id: int
    text: str = ""
    audio: bytearray = dataclasses.field(default_factory=bytearray)
    sent: int = 0
    start: int | None = None  #: position of its first byte in the current generation
    heard_before: int = 0  #: bytes heard in earlier generations (before a pause)
    anchors: list[tuple[int, int]] = dataclasses.field(default_factory=lambda: [(0, 0)])  #: (bytes, chars)
    voiced: int = 0  #: characters that were known when the latest audio came
    closed: bool = False
    stop_at: int | None = None  #: byte after which it must not go on (end of a sentence)
    started: bool = False

    @property
    def end(self) -> int:
        """Bytes of audio that will be played, as far as known."""
        return len(self.audio) if self.stop_at is None else min(self.stop_at, len(self.audio))

    @property
    def all_sent(self) -> bool:
        return (self.closed and self.sent >= self.end) or (self.stop_at is not None and self.sent >= self.stop_at)

    def chars_at(self, position: int) -> int:
        """Characters spoken when `position` bytes have been played."""
        for (b0, c0), (b1, c1) in zip(self.anchors, self.anchors[1:], strict=False):
            if position <= b1:
                return c0 + (c1 - c0) * (position - b0) // max(1, b1 - b0)
        b0, c0 = self.anchors[-1]
        if self.closed:
            rest, left = len(self.audio) - b0, len(self.text) - c0
            return len(self.text) if rest <= 0 else min(len(self.text), c0 + left * (position - b0) // rest)
        return min(len(self.text), c0 + (position - b0) // (MS_PER_CHAR * BYTES_PER_MS))

    def byte_at(self, chars: int) -> int:
        """Position at which `chars` characters have been spoken: the inverse of `chars_at`."""
        for (b0, c0), (b1, c1) in zip(self.anchors, self.anchors[1:], strict=False):
            if chars <= c1:
                return b0 + (b1 - b0) * (chars - c0) // max(1, c1 - c0)
        b0, c0 = self.anchors[-1]
        if self.closed:
            rest, left = len(self.audio) - b0, len(self.text) - c0
            return len(self.audio) if left <= 0 else b0 + rest * (chars - c0) // left
        return b0 + (chars - c0) * MS_PER_CHAR * BYTES_PER_MS

    def heard(self, position: int) -> str:
        """The text of the first `position` bytes, without a word that was only begun."""
        if self.closed and position >= len(self.audio):
            return self.text.strip()
        chars = self.chars_at(position)
        if chars >= len(self.text):
            return self.text.strip()
        cut = self.text[:chars]
        if not self.text[chars].isspace() and not cut.endswith(" "):
            cut = cut.rpartition(" ")[0]
        return cut.strip()


class Playout:
    """The carrier's buffer as we know it. Feed utterances in, take `due` messages out, report mark echoes."""

    def __init__(self) -> None:
        self._tracks: deque[_Track] = deque()
        self._generation = 0
        self._sent = 0
        self._marks: deque[int] = deque()  #: positions of marks that were sent and not echoed yet
        self._played = 0  #: position proven by the last echo (or by a start on an empty buffer)
        self._played_at = 0
        self._frame_at = 0  #: when the carrier sent its last frame
        self._waited_ms = 0  #: since `_played_at`, without the time in which nothing came
        self._markless = False  #: the carrier echoes no marks
        self._paused = False
        self.heard_ms = 0  #: all agent audio that was played, over the session

    # --- utterances in ---

    def add_text(self, utterance: int, text: str) -> bool:
        """Append a clause; True when it opened the utterance."""
        track = self._find(utterance)
        if track is not None:
            track.text += text
            return False
        self._tracks.append(_Track(utterance, text))
        return True

    def add_audio(self, utterance: int, audio: bytes, chars: int | None) -> None:
        """Append synthesised audio; `chars`: characters of the utterance spoken at its end, where known."""
        track = self._find(utterance)
        if track is None:
            return
        track.audio += audio
        track.voiced = len(track.text)
        if chars is not None and len(track.audio) > track.anchors[-1][0]:
            track.anchors.append((len(track.audio), min(max(chars, track.anchors[-1][1]), len(track.text))))

    def close(self, utterance: int, *, cut: bool = False) -> None:
        """No more audio will come for this utterance. `cut`: it was broken off, and text that was ahead of its
        audio is never said."""
        track = self._find(utterance)
        if track is not None:
            track.closed = True
            if cut:
                track.text = track.text[: track.voiced]

    # --- the carrier's side ---

    def frame(self, now_ms: int) -> None:
        """The carrier sent a frame of the caller, so the echo of a mark could have come as well."""
        self._waited_ms += min(now_ms - self._frame_at, STALL_MS)
        self._frame_at = now_ms
        if self._marks and self._waited_ms > (self._marks[0] - self._played) // BYTES_PER_MS + MARK_GRACE_MS:
            self._markless = True

    def played(self, now_ms: int) -> int:
        """Position that playback has reached: the last echoed mark, plus time since, up to the next mark."""
        if self._markless:
            return min(self._played + self._waited_ms * BYTES_PER_MS, self._sent)
        limit = self._marks[0] if self._marks else self._sent
        return min(self._played + max(0, now_ms - self._played_at) * BYTES_PER_MS, limit)

    def due(self, now_ms: int) -> tuple[list[Outbound], list[Started | Ended]]:
        """What to send now to stay `LOOKAHEAD` ahead, and what began or ended meanwhile."""
        out: list[Outbound] = []
        news: list[Started | Ended] = []
        if not self._tracks:
            return out, news
        if self._overrun(now_ms):
            out, ended = self._drop_stopped(now_ms)
            news += ended
        news += self._ended(now_ms)
        while not self._paused:
            track = next((t for t in self._tracks if not t.all_sent), None)
            if track is None or self._sent - self.played(now_ms) >= LOOKAHEAD:
                break
            chunk = bytes(track.audio[track.sent : min(track.sent + CHUNK, track.end)])
            if not chunk:
                break
            if self._sent == self.played(now_ms):  # the buffer was empty: playback starts with this chunk
                self._prove(self._sent, now_ms)
            if track.start is None:
                track.start = self._sent
                if not track.started:
                    track.started = True
                    news.append(Started(track.id))
            track.sent += len(chunk)
            self._sent += len(chunk)
            self._marks.append(self._sent)
            out += [SendAudio(chunk), SendMark(f"{self._generation}:{self._sent}")]
        return out, news + self._ended(now_ms)

    def mark(self, name: str, now_ms: int) -> None:
        """The carrier echoed a mark. Echoes of an earlier generation prove nothing and are ignored."""
        generation, _, position = name.partition(":")
        if generation != str(self._generation) or not position.isdigit():
            return
        reached = int(position)
        self._markless = False
        while self._marks and self._marks[0] <= reached:
            self._marks.popleft()
            self._prove(reached, now_ms)

    # --- yielding the floor ---

    def pause(self, now_ms: int) -> list[Outbound]:
        """Stop at once but keep what was not heard, for `resume` or `drop`."""
        if self._paused or not self._tracks:
            return []
        played = self.played(now_ms)
        sent_something = self._sent > played
        for track in self._tracks:
            if track.start is not None:
                heard_here = max(0, min(played - track.start, track.sent - track.heard_before))
                self.heard_ms += heard_here // BYTES_PER_MS
                track.heard_before += heard_here
                track.sent = track.heard_before
                track.start = None
        self._reset(now_ms)
        self._paused = True
        return [SendClear()] if sent_something else []

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        self._paused = False

    def drop(self, now_ms: int) -> tuple[list[Outbound], list[Ended]]:
        """Give up all utterances; says how much of each was heard."""
        out = self.pause(now_ms)
        ended = [self._ending(track, min(track.heard_before, track.end)) for track in self._tracks]
        self._tracks.clear()
        self._paused = False
        return out, ended

    def stop_after_sentence(self, now_ms: int) -> None:
        """Let the sentence that is being spoken end, and nothing after it."""
        played = self.played(now_ms)
        current = next(
            (t for t in self._tracks if t.start is None or t.start + t.end - t.heard_before > played), None
        )
        for track in list(self._tracks):
            if current is None or track.id > current.id:
                track.stop_at = 0
        if current is None:
            return
        start = played if current.start is None else current.start
        spoken = current.chars_at(current.heard_before + max(0, played - start))
        current.stop_at = current.byte_at(_sentence_end(current.text, spoken))

    @property
    def idle(self) -> bool:
        return not self._tracks

    def _drop_stopped(self, now_ms: int) -> tuple[list[Outbound], list[Ended]]:
        """As `drop`, but what was begun after `stop_after_sentence` is still to be played."""
        later = [track for track in self._tracks if track.stop_at is None]
        out, ended = self.drop(now_ms)
        self._tracks.extend(later)
        return out, [item for item in ended if all(item.utterance != track.id for track in later)]

    # --- inside ---

    def _overrun(self, now_ms: int) -> bool:
        """True when playback has passed a `stop_after_sentence` point and audio after it was sent already."""
        track = next((t for t in self._tracks if t.stop_at is not None), None)
        if track is None or track.stop_at is None or track.start is None or track.sent <= track.stop_at:
            return False
        return self.played(now_ms) - track.start + track.heard_before >= track.stop_at

    def _ended(self, now_ms: int) -> list[Started | Ended]:
        """Take out utterances that were played to their end: their last mark was echoed, if marks are at all."""
        news: list[Started | Ended] = []
        played = self.played(now_ms) if self._markless else self._played
        while self._tracks and not self._paused:
            track = self._tracks[0]
            if not track.all_sent:
                break
            length = track.sent - track.heard_before
            if track.start is not None:
                if played < track.start + length:
                    break
                self.heard_ms += length // BYTES_PER_MS
            while self._marks and self._marks[0] <= played:
                self._marks.popleft()  # of a carrier that echoes none
            self._tracks.popleft()
            news.append(self._ending(track, track.sent))
        return news

    @staticmethod
    def _ending(track: _Track, heard: int) -> Ended:
        complete = track.closed and heard >= len(track.audio)
        return Ended(track.id, track.heard(heard) if heard else "", complete, heard // BYTES_PER_MS)

    def _prove(self, position: int, now_ms: int) -> None:
        """Playback is just there."""
        self._played, self._played_at, self._waited_ms = position, now_ms, 0

    def _reset(self, now_ms: int) -> None:
        self._generation += 1
        self._sent = 0
        self._prove(0, now_ms)
        self._marks.clear()

    def _find(self, utterance: int) -> _Track | None:
        return next((t for t in self._tracks if t.id == utterance), None)


def _sentence_end(text: str, position: int) -> int:
    """Index after the end of the sentence that contains `position`."""
    for index in range(max(0, position - 1), len(text)):
        if text[index] in ".!?" and (index + 1 >= len(text) or text[index + 1].isspace()):
            return index + 1
    return len(text)
