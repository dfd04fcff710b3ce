"""What the messages of an OpenAI transcription session mean when we find the turns. No I/O.

Only the caller's utterances are sent, and each is committed; silence between them is neither sent nor paid. OpenAI
answers commits in their order, but may finish the later turn first.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from media_bridge.providers.openai_turns import Item, Turns, append
from media_bridge.providers.turn_order import Turn
from media_bridge.providers.utterances import (
    UtteranceAudio,
    UtteranceFinder,
    UtteranceOver,
    UtteranceRule,
    UtteranceStarted,
)

COMMIT_EMPTY: Final = "input_audio_buffer_commit_empty"
"""The code of a refused commit: less than 100 ms."""


class Utterance(Item):
    """A turn whose audio we have."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn)
        self.audio = bytearray()
        self.sent = 0  #: bytes of it
        self.commit = ""  #: the event id by which it was committed; empty: it was not yet
        self.committed = False  #: OpenAI has confirmed that


class LocalTurns(Turns[Utterance]):
    """We find the turns. `load_vad` must have run before."""

    def __init__(self, rule: UtteranceRule) -> None:
        super().__init__()
        self._finder = UtteranceFinder(rule)
        self._commits = 0
        self._past: deque[str] = deque(maxlen=100)  #: ids of turns that were told: what comes of them is late

    def push(self, audio: bytes) -> None:
        for event in self._finder.push(audio):
            match event:
                case UtteranceStarted(at_ms):
                    self._items.append(Utterance(self._order.begin(at_ms)))
                case UtteranceAudio(piece):
                    self._items[-1].audio += piece
                case UtteranceOver():
                    item = self._items[-1]
                    item.over, item.speech_end_ms, item.speech_ms = True, event.speech_end_ms, event.speech_ms

    def outgoing(self) -> list[str]:
        messages: list[str] = []
        for item in self._items:
            if item.written:
                continue
            if item.sent < len(item.audio):
                messages.append(append(bytes(item.audio[item.sent :])))
                item.sent = len(item.audio)
            if item.over and not item.commit:
                self._commits += 1
                item.commit = f"commit_{self._commits}"
                messages.append(json.dumps({"type": "input_audio_buffer.commit", "event_id": item.commit}))
        return messages

    def handle(self, message: Mapping[str, Any]) -> bool:
        if message["type"] != "input_audio_buffer.committed":
            return super().handle(message)
        item = self._unconfirmed()
        if item is not None:
            item.id, item.committed = str(message["item_id"]), True
        return item is not None

    def rejected(self, error: Mapping[str, Any]) -> bool:
        """A commit was refused: there was nothing in it."""
        event_id = error.get("event_id")
        item = self._unconfirmed()
        if item is None or not (item.commit == event_id or (not event_id and error.get("code") == COMMIT_EMPTY)):
            return False
        item.give_up()
        return True

    def new_session(self) -> None:
        for item in self._items:
            if not item.written:
                item.again()
                item.sent, item.commit, item.committed = 0, "", False

    def _told(self, item: Utterance) -> None:
        self._past.append(item.id)

    def _unconfirmed(self) -> Utterance | None:
        """The oldest commit that OpenAI has not answered."""
        waiting = (item for item in self._items if item.commit and not item.committed and not item.written)
        return next(waiting, None)

    def _find(self, item_id: str) -> Utterance | None:
        """Words may come before the commit, which is when the item's id is told: they are of the oldest utterance
        under way that has none."""
        known = super()._find(item_id)
        if known is not None or item_id in self._past:
            return known
        item = next((item for item in self._items if item.sent and not item.id and not item.written), None)
        if item is not None:
            item.id = item_id
        return item
