"""The caller's turns in an OpenAI Realtime session: where they begin and end, and their words. No I/O, no clock.

The model hears; another one writes down, at its own pace. So the words of a turn may come when it is answered
already, and after those of the next one.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from media_bridge.audio.mulaw import bytes_to_ms
from media_bridge.providers.base import CallerTranscript, Partial, RealtimeEvent, SpeechStarted, SpeechStopped

log = logging.getLogger(__name__)

_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."


@dataclasses.dataclass(slots=True)
class _Turn:
    """A turn that is over."""

    item: str
    words: CallerTranscript | None = None


class CallerTurns:
    """Tells of each turn once that it is over, and once what its words are, in the turns' order.

    Args:
        prefix_ms, silence_ms: what OpenAI's positions have beside the speech.
        clean: makes an error text fit to be shown.
    """

    def __init__(self, prefix_ms: int, silence_ms: int, clean: Callable[[str], str]) -> None:
        self.sent = 0  #: bytes of audio, counted by who sends it
        self.speaking = ""  #: id of the item that the caller is speaking; empty in silence
        self._prefix_ms = prefix_ms
        self._silence_ms = silence_ms
        self._clean = clean
        self._words = ""
        self._turns: deque[_Turn] = deque()

    def handle(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        """As `Talk.handle`."""
        match message["type"]:
            case "input_audio_buffer.speech_started":
                self.speaking, self._words = str(message["item_id"]), ""
                at_ms = int(message["audio_start_ms"]) + self._prefix_ms
                return [SpeechStarted(min(at_ms, bytes_to_ms(self.sent)))]
            case "input_audio_buffer.speech_stopped":
                self.speaking = ""
                at_ms = int(message["audio_end_ms"]) - self._silence_ms
                return [SpeechStopped(max(0, at_ms)), *self._over(str(message["item_id"]))]
            case "input_audio_buffer.committed":
                return self._over(str(message["item_id"]))
            case str(kind) if kind.startswith(_TRANSCRIPTION):
                return self._transcription(kind.removeprefix(_TRANSCRIPTION), message)
        return []

    def _over(self, item: str) -> list[RealtimeEvent]:
        if all(turn.item != item for turn in self._turns):
            self._turns.append(_Turn(item))
        return self._due()

    def _transcription(self, kind: str, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        item = str(message["item_id"])
        if kind == "delta":
            if item != self.speaking:
                return []  # half of what is said already must not pass for new speech
            self._words += str(message.get("delta") or "")
            return [Partial(self._words.strip())] if self._words.strip() else []
        turn = next((turn for turn in self._turns if turn.item == item), None)
        if turn is not None and kind == "completed":
            turn.words = CallerTranscript(str(message["transcript"]).strip())
        elif turn is not None and kind == "failed":
            error = message.get("error") or {}
            log.warning("openai realtime: a turn was not written down: %s", self._clean(str(error.get("message"))))
            turn.words = CallerTranscript("", failed=True)
        return self._due()

    def _due(self) -> list[RealtimeEvent]:
        """A turn is given up when the next one has its words and yet another one is over."""
        due: list[RealtimeEvent] = []
        while self._turns:
            words = self._turns[0].words
            if words is None and len(self._turns) > 2 and self._turns[1].words is not None:
                words = CallerTranscript("", failed=True)
            if words is None:
                break
            due.append(words)
            self._turns.popleft()
        return due
