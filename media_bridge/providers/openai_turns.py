"""What the messages of an OpenAI transcription session mean when OpenAI finds the turns. No I/O.

`ServerTurns` is for models with a turn detection of their own; `openai_local_turns` for those without. Both keep
what OpenAI has not yet written down, so that a session that ends (they last 60 minutes at most, or break) can be
replaced by a new one, which hears it again.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from media_bridge.audio.mulaw import BYTES_PER_MS, bytes_to_ms, ms_to_bytes
from media_bridge.providers.base import EndOfTurn, SttEvent
from media_bridge.providers.turn_order import Turn, TurnOrder

_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"
DELTA: Final = f"{_TRANSCRIPTION}.delta"
COMPLETED: Final = f"{_TRANSCRIPTION}.completed"
FAILED: Final = f"{_TRANSCRIPTION}.failed"
UNINTELLIGIBLE: Final = "audio_unintelligible"
"""The code of a failure that hearing the turn again would not mend: there were no words in it."""
LOOK_BACK_MS: Final = 1000
"""Audio before "now" that a new session hears again: a turn that began in it may not have been noticed yet."""
KEPT_MS: Final = 5000
"""Audio before "now" that is kept while no turn is known to be under way: OpenAI's word of one may be late."""
LONGEST_MS: Final = 60_000
"""The most that is kept; a turn that is longer loses its beginning if the session is lost in it."""


class TranscriptionFailed(Exception):
    """OpenAI could not write a turn down; `body` is its error object. The turn is still open."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("message")))
        self.body = body


class Item:
    """A turn as the session knows it."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.id = ""  #: OpenAI's; empty while this session has not named it
        self.over = False  #: the caller has finished it
        self.before = ""  #: what a former session had understood of it
        self.end_ms: int | None = None  #: stream position of the end of its audio
        self.speech_end_ms: int | None = None
        self.speech_ms = 0

    @property
    def written(self) -> bool:
        return self.turn.end is not None

    def finish(self, text: str, confidence: float | None = None) -> None:
        self.turn.text = text
        self.turn.end = EndOfTurn(
            text.strip(), confidence, speech_end_ms=self.speech_end_ms, speech_ms=self.speech_ms
        )

    def give_up(self) -> None:
        """End it with what is known of it."""
        self.finish(self.turn.text if self.turn.text.strip() else self.before)

    def again(self) -> None:
        """A new session is to hear it from its beginning."""
        self.before = self.turn.text if self.turn.text.strip() else self.before
        self.turn.text, self.id = "", ""


ItemT = TypeVar("ItemT", bound=Item)


class Turns(Generic[ItemT]):
    """What the two kinds have in common: the items that were not told to their end, in the order of their audio."""

    def __init__(self) -> None:
        self._order = TurnOrder()
        self._items: list[ItemT] = []

    @property
    def quiet(self) -> bool:
        """No turn is under way."""
        return not self._items

    @property
    def answer_due(self) -> bool:
        """Some turn is over for the caller, and its words are not there yet."""
        return any(item.over and not item.written for item in self._items)

    def push(self, audio: bytes) -> None:
        """Take the caller's audio, any length."""
        raise NotImplementedError

    def outgoing(self) -> list[str]:
        """Messages to send now; they count as sent."""
        raise NotImplementedError

    def new_session(self) -> None:
        """A new session begins: what is not settled is to be sent again."""
        raise NotImplementedError

    def handle(self, message: Mapping[str, Any]) -> bool:
        """Take a message; one of a type that does not matter here is ignored.

        Returns:
            Whether it brought an answer that was due nearer.
        Raises:
            TranscriptionFailed: see there.
            KeyError, TypeError, ValueError, AttributeError: it is not as documented.
        """
        if message["type"] not in (DELTA, COMPLETED, FAILED):
            return False
        item = self._find(str(message["item_id"]))
        if item is None or item.written:
            return False  # of a turn that was given up
        if message["type"] == DELTA:
            item.turn.text += str(message.get("delta") or "")
        elif message["type"] == COMPLETED:
            item.finish(str(message["transcript"]), confidence_of(message.get("logprobs")))
        elif message["error"].get("code") == UNINTELLIGIBLE:
            item.finish("")
        else:
            raise TranscriptionFailed(message["error"])
        return True

    def rejected(self, error: Mapping[str, Any]) -> bool:
        """OpenAI refused one of our messages; returns whether that is settled with it."""
        return False

    def out_of_time(self) -> bool:
        """What was due has not come in time. Returns whether the session is to blame for it."""
        return self.answer_due

    def give_up(self) -> None:
        """End what is still open with what is known of it."""
        for item in self._items:
            if not item.written:
                item.give_up()

    def due(self) -> list[SttEvent]:
        """What can be told now. Call it after every change."""
        events = self._order.due()
        while self._items and self._items[0].turn not in self._order.open:
            self._told(self._items.pop(0))
        return events

    def _told(self, item: ItemT) -> None:
        """Everything of this item has been told, and of all before it."""

    def _find(self, item_id: str) -> ItemT | None:
        return next((item for item in self._items if item.id == item_id), None)


class ServerTurns(Turns[Item]):
    """OpenAI hears everything and finds the turns.

    Args:
        prefix_ms, silence_ms: what the detection adds to the speech at either end; None where it does not say.
    """

    def __init__(self, prefix_ms: int | None, silence_ms: int | None) -> None:
        super().__init__()
        self._prefix_ms = prefix_ms or 0
        self._silence_ms = silence_ms
        # Stream positions in bytes: `_audio` holds [_base, _base + len), of which [_base, _sent) has been sent.
        self._audio = bytearray()
        self._base = self._sent = 0
        self._offset_ms = 0  #: stream position at which the session began
        self._told_ms = 0  #: all turns up to this position have been told

    @property
    def answer_due(self) -> bool:
        """Also when a turn of a former session has not been found in this one yet."""
        return super().answer_due or any(not item.id and not item.written for item in self._items)

    def push(self, audio: bytes) -> None:
        self._audio += audio

    def outgoing(self) -> list[str]:
        unsent = bytes(self._audio[self._sent - self._base :])
        self._sent += len(unsent)
        self._forget(KEPT_MS)
        return [append(unsent)] if unsent else []

    def handle(self, message: Mapping[str, Any]) -> bool:
        match message["type"]:
            case "input_audio_buffer.speech_started":
                self._started(str(message["item_id"]), int(message["audio_start_ms"]))
            case "input_audio_buffer.speech_stopped":
                self._stopped(str(message["item_id"]), int(message["audio_end_ms"]))
            case "input_audio_buffer.committed":
                self._committed(str(message["item_id"]), message.get("previous_item_id"))
            case _:
                return super().handle(message)
        return True

    def new_session(self) -> None:
        """Audio from the first open turn on is sent again. Each turn that was not told to its end is found anew,
        also one that is written down but comes after one that is not."""
        self._forget(LOOK_BACK_MS)
        self._sent = self._base
        self._offset_ms = bytes_to_ms(self._base)
        for item in self._items:
            item.again()
            item.over, item.turn.end = False, None

    def out_of_time(self) -> bool:
        """A turn that this session did not find in the same audio was none."""
        for item in self._items:
            if not item.id and not item.written:
                item.give_up()
        return self.answer_due

    def _started(self, item_id: str, audio_start_ms: int) -> None:
        if self._find(item_id) is not None:
            return
        item = next((item for item in self._items if not item.id and not item.written), None)
        if item is None:
            at_ms = min(self._offset_ms + audio_start_ms + self._prefix_ms, bytes_to_ms(self._sent))
            item = Item(self._order.begin(at_ms))
            self._items.append(item)
        item.id = item_id

    def _stopped(self, item_id: str, audio_end_ms: int) -> None:
        item = self._find(item_id)
        if item is None:
            return
        item.over = True
        item.end_ms = self._offset_ms + audio_end_ms
        speech_end_ms = max(item.end_ms - (self._silence_ms or 0), item.turn.at_ms)
        item.speech_ms = speech_end_ms - item.turn.at_ms
        if self._silence_ms is not None:
            item.speech_end_ms = speech_end_ms

    def _committed(self, item_id: str, previous: object) -> None:
        item = self._find(item_id)
        if item is None:  # its beginning was not told
            before = self._find(str(previous)) if previous else None
            item = Item(self._order.begin(bytes_to_ms(self._sent), after=before.turn if before else None))
            item.id = item_id
            self._items.insert(self._items.index(before) + 1 if before else len(self._items), item)
        item.over = True
        if item.end_ms is None:
            item.end_ms = bytes_to_ms(self._sent)

    def _told(self, item: Item) -> None:
        self._told_ms = max(self._told_ms, item.end_ms or 0)

    def _forget(self, before_ms: int) -> None:
        """Drop audio that no session has to hear again: all but so much before the first open turn, or now."""
        first_ms = min([bytes_to_ms(self._sent), *(item.turn.at_ms - self._prefix_ms for item in self._items)])
        wanted_ms = max(first_ms - before_ms, self._told_ms)
        oldest = self._base + len(self._audio) - ms_to_bytes(LONGEST_MS)
        keep = max(self._base, min(ms_to_bytes(wanted_ms), self._sent), oldest)
        keep -= (keep - self._base) % BYTES_PER_MS
        del self._audio[: keep - self._base]
        self._base = keep
        self._sent = max(self._sent, keep)


def append(audio: bytes) -> str:
    """Written by hand: the SDK takes 200 µs for one, and there are fifty in a second of each call."""
    return f'{{"type":"input_audio_buffer.append","audio":"{base64.b64encode(audio).decode()}"}}'


def confidence_of(logprobs: Iterable[Mapping[str, Any]] | None) -> float | None:
    """Mean probability of the tokens (geometric); None without tokens."""
    values = [float(token["logprob"]) for token in logprobs or ()]
    return math.exp(sum(values) / len(values)) if values else None
