"""What a realtime conversation keeps account of: wishes, responses, and the caller's turns in their order."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal

from media_bridge.conversation.history import History
from stayline.timeline import AgentSource, AgentTurn, TimelineEvent, TurnLatency, UserTurn

INAUDIBLE: Final = "(inaudible)"
"""Stands for a turn that was answered but could not be written down."""
AFTER_TURN_MS: Final = 200
"""Where a turn ends is known to within this."""


@dataclasses.dataclass(slots=True)
class Wish:
    """Something that the model is to say word for word."""

    text: str
    source: AgentSource
    tries: int = 0
    given_up: bool = False  #: it is asked for already, and not wanted any more


@dataclasses.dataclass(slots=True, eq=False)
class Response:
    """A response of the model: from its beginning until it has been played or dropped."""

    name: str
    number: int
    source: AgentSource
    wish: Wish | None = None
    muted: bool = False  #: nobody is to hear it
    lost: bool = False  #: the connection that gave it is gone
    utterance: int | None = None
    text: str = ""
    status: Literal["completed", "cancelled", "failed"] | None = None
    heard: str | None = None  #: set when it was cut before the model had ended it
    speech_end_ms: int | None = None
    turn_ms: int | None = None
    latency: TurnLatency | None = None
    calls: list[str] = dataclasses.field(default_factory=list)

    def sounds(self, now: int) -> None:
        """Its first sound is sent."""
        if self.latency is not None or self.source != "reply":
            return
        end, turn = self.speech_end_ms, self.turn_ms
        self.latency = TurnLatency(
            endpoint_ms=None if end is None or turn is None else max(0, turn - end),
            llm_ms=None if turn is None else max(0, now - turn),
            total_ms=None if end is None else max(0, now - end),
        )

    def record(self, at: datetime, heard: str, speech_ms: int, *, cut: bool) -> AgentTurn:
        """What the caller heard of it."""
        return AgentTurn(
            at=at,
            text=heard,
            generated=self.text.strip() if cut else None,
            interrupted=cut,
            source=self.source,
            speech_ms=speech_ms,
            latency=self.latency,
            tool_calls=tuple(self.calls),
        )


@dataclasses.dataclass(slots=True, eq=False)
class Turn:
    """A turn of the caller, from the end of its sound until its words and its answer are there."""

    start_ms: int
    end_ms: int
    speech_ms: int
    during_speech: bool  #: the agent was speaking when it began
    since_ms: int  #: when its words began to be waited for
    put_words: Callable[[str], None]
    text: str | None = None  #: None: the words have not come; "": it was none
    answer: Response | None = None
    lost: bool = False  #: it is to be heard again on a new connection


class Turns:
    """The caller's turns: which of them want an answer, which lack their words, and the record in order.

    Words often come when the answer to them is already heard. What is recorded after a turn waits for its words.

    Args:
        epoch: UTC time of stream position 0.
    """

    def __init__(self, history: History, epoch: datetime) -> None:
        self._history = history
        self._epoch = epoch
        self._wordless: deque[Turn] = deque()
        self._unanswered: list[Turn] = []
        self._queue: deque[Turn | TimelineEvent] = deque()
        self._settled_ms = 0  #: end of the last turn whose words are known

    @property
    def unanswered(self) -> bool:
        return bool(self._unanswered)

    @property
    def understood(self) -> bool:
        """The words of a turn that was not answered are known."""
        return any(turn.text for turn in self._unanswered)

    @property
    def open(self) -> bool:
        """One lacks its words or its answer."""
        return bool(self._wordless or self._unanswered)

    @property
    def open_since(self) -> int | None:
        """Stream time of the first turn that a new connection must hear again; None: there is none."""
        return min((turn.start_ms for turn in self._wordless if not _is_settled(turn)), default=None)

    @property
    def settled_until(self) -> int:
        """Stream time up to which no new connection must hear the caller: it would answer again."""
        ends = (turn.end_ms + AFTER_TURN_MS for turn in self._wordless if _is_settled(turn))
        return max(ends, default=self._settled_ms)

    def stopped(self, start_ms: int, end_ms: int, speech_ms: int, now: int, *, during_speech: bool) -> Turn:
        """The caller ceased to speak. A turn that is heard again keeps its place."""
        again = [turn for turn in self._wordless if turn.lost and turn.start_ms < end_ms]
        for merged in again[1:]:
            self.settle(merged, "")
        if again:
            turn = again[0]
            turn.lost, turn.since_ms = False, now
        else:
            turn = Turn(start_ms, end_ms, speech_ms, during_speech, now, self._history.open_turn())
            self._wordless.append(turn)
            self._queue.append(turn)
        self._unanswered.append(turn)
        return turn

    def next_wordless(self) -> Turn | None:
        """The turn that words which come now belong to."""
        heard = (turn for turn in self._wordless if not turn.lost)
        return next(heard, self._wordless[0] if self._wordless else None)

    def settle(self, turn: Turn, text: str) -> None:
        """Its words are known; "": it was none."""
        turn.text = text
        turn.put_words(text)
        self._wordless.remove(turn)
        if turn.start_ms < turn.end_ms:
            self._settled_ms = max(self._settled_ms, turn.end_ms + AFTER_TURN_MS)
        if not text and turn in self._unanswered:
            self._unanswered.remove(turn)

    def answered(self, response: Response) -> None:
        """The model begins to answer all that was said."""
        for turn in self._unanswered:
            turn.answer = response
        self._unanswered.clear()

    def need_no_answer(self, turn: Turn | None = None) -> None:
        """This one; without it: none of them."""
        self._unanswered = [other for other in self._unanswered if turn is not None and other is not turn]

    def give_up_words(self, since_ms: int | None = None, *, lost: bool = False) -> None:
        """No words come any more: what was answered was a turn, the rest was none.

        Args:
            since_ms: only of those that have been waiting since then or longer.
            lost: only of those that were not heard again.
        """
        for turn in list(self._wordless):
            if (since_ms is None or turn.since_ms <= since_ms) and (turn.lost or not lost):
                self.settle(turn, INAUDIBLE if turn.answer is not None else "")

    @property
    def words_since(self) -> int | None:
        """Since when words have been waited for; None: they are not."""
        return min((turn.since_ms for turn in self._wordless if not turn.lost), default=None)

    def lost(self) -> bool:
        """The connection is gone. Whether a turn is to be heard again on the next one."""
        for turn in list(self._wordless):
            if _is_settled(turn):
                self.settle(turn, INAUDIBLE)
                continue
            turn.lost = True
            if turn in self._unanswered:
                self._unanswered.remove(turn)
        return bool(self._wordless)

    def record(self, event: TimelineEvent) -> None:
        self._queue.append(event)

    def recordable(self) -> list[TimelineEvent]:
        """What may be recorded now, in order."""
        out: list[TimelineEvent] = []
        while self._queue:
            first = self._queue[0]
            if isinstance(first, Turn):
                if first.text is None:
                    break
                if first.text:
                    at = self._epoch + timedelta(milliseconds=max(0, first.end_ms))
                    out.append(UserTurn(at=at, text=first.text, speech_ms=first.speech_ms))
            else:
                out.append(first)
            self._queue.popleft()
        return out


def _is_settled(turn: Turn) -> bool:
    """Whether the model has answered it to the end, so that only its words are missing."""
    return turn.answer is not None and turn.answer.status == "completed"
