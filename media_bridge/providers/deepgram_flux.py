"""Deepgram `/v2/listen` (Flux): the request, and what its turn messages mean. No I/O.

Flux decides the turns itself: StartOfTurn, Update …, (EagerEndOfTurn, TurnResumed) …, EndOfTurn, each with the
whole text of the turn so far.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    ProviderConfig,
    SpeechStarted,
    SttEvent,
    TurnResumed,
)
from media_bridge.providers.options import Options
from media_bridge.providers.vendor_socket import Query

PATH = "/v2/listen"
_CARRIED_SILENCE_MS = 1000  #: silence that ends a turn whose words were heard on a connection now lost
_UNTOLD_MS = 1000  #: the latest sound, in which a word may have begun that no message tells of yet


class FluxOptions(Options):
    """Options of Deepgram's Flux models, by Deepgram's own names; times in milliseconds."""

    eot_threshold: float = Field(0.7, ge=0.5, le=1.0)
    eager_eot_threshold: float | None = Field(None, ge=0.3, le=0.9)  #: None: no eager turns
    eot_timeout_ms: int = Field(5000, ge=500, le=60000)
    keyterm: tuple[str, ...] = ()
    language_hint: tuple[str, ...] = ()  #: flux-general-multi
    numerals: bool | None = None
    profanity_filter: bool | None = None
    redact: tuple[str, ...] = ()
    mip_opt_out: bool | None = None
    tag: tuple[str, ...] = ()  #: besides the call id


def query(config: ProviderConfig, options: FluxOptions, call_id: str) -> Query:
    pairs: list[tuple[str, str | int | float | bool]] = [
        ("model", config.model),
        ("encoding", "mulaw"),
        ("sample_rate", 8000),
    ]
    for name, value in options.model_dump(exclude={"tag"}, exclude_none=True).items():
        pairs.extend((name, item) for item in (value if isinstance(value, tuple) else (value,)))
    pairs.extend(("tag", tag) for tag in (call_id, *options.tag))
    return pairs


class FluxTurns:
    """Makes turns of one call's messages, over as many connections as it takes. As `NovaTurns`.

    The text of an open turn lags behind the audio, and its last word may be half a one: a new connection hears the
    audio from that word on again, where Flux tells when it began.
    """

    wants_finalize = False  #: Flux settles turns by itself

    def __init__(self) -> None:
        self.heard_ms = 0
        self._offset_ms = 0
        self._carried = ""  #: text of the open turn from connections that were lost
        self._text = ""  #: text of the open turn on this one
        self._last_word_ms: int | None = None  #: where the last word of that began, if that is known
        self._interrupted = False  #: a connection was lost in the open turn
        self._started_ms: int | None = None
        self._eager = False

    def reconnected(self, from_ms: int) -> list[SttEvent]:
        self._offset_ms = self.heard_ms = from_ms
        if self._last_word_ms is not None and from_ms <= self._last_word_ms:
            self._text = " ".join(self._text.split()[:-1])  # it is heard again
        self._carried, self._text, self._last_word_ms = self._joined(), "", None
        self._interrupted = self._started_ms is not None
        if self._eager:
            self._eager = False
            return [TurnResumed()]
        return []

    def handle(self, message: dict[str, Any]) -> list[SttEvent]:
        if message.get("type") != "TurnInfo":
            return []
        event = message["event"]
        text: str = message["transcript"].strip()
        window_end = self._position(message["audio_window_end"])
        if event == "EndOfTurn":
            self._text, self.heard_ms = text, max(self.heard_ms, window_end)
            return self._end(message, window_end)
        last_word = message["words"][-1].get("start") if text and message["words"] else None
        self._last_word_ms = None if last_word is None else self._position(last_word)
        if self._last_word_ms is not None:
            self.heard_ms = max(self.heard_ms, self._last_word_ms)
        else:
            self.heard_ms = max(self.heard_ms, window_end if text else window_end - _UNTOLD_MS)
        events: list[SttEvent] = []
        if event == "StartOfTurn" or (text and self._started_ms is None):
            events += self._start(self._first_word(message))
        changed = text != self._text
        self._text = text
        match event:
            case "EagerEndOfTurn":
                self._eager = True
                events.append(EagerEndOfTurn(self._joined()))
            case "TurnResumed":
                self._eager = False
                events.append(TurnResumed())
            case _ if changed and text:
                events.append(Partial(self._joined()))
            case _ if self._interrupted and not text and window_end - self._offset_ms >= _CARRIED_SILENCE_MS:
                events += self._end(message, window_end)
            case _:
                pass
        return events

    def _position(self, seconds: float) -> int:
        return self._offset_ms + round(seconds * 1000)

    def _first_word(self, message: dict[str, Any]) -> int:
        start = next((word["start"] for word in message["words"] if word.get("start") is not None), None)
        return self._position(message["audio_window_start"] if start is None else start)

    def _start(self, at_ms: int) -> list[SttEvent]:
        if self._started_ms is not None:
            return []
        self._started_ms = at_ms
        return [SpeechStarted(at_ms)]

    def _joined(self) -> str:
        return " ".join(filter(None, [self._carried, self._text]))

    def _end(self, message: dict[str, Any], window_end: int) -> list[SttEvent]:
        text, started, carried = self._joined(), self._started_ms, self._carried
        self._carried = self._text = ""
        self._started_ms, self._last_word_ms = None, None
        self._eager = self._interrupted = False
        if not text and started is None:
            return []
        words = message["words"]
        ends = [word["end"] for word in words if word.get("end") is not None]
        end_ms = self._position(ends[-1]) if ends else None
        if carried and not words:
            end_ms = self._offset_ms
        return [
            EndOfTurn(
                text,
                confidence=sum(float(word["confidence"]) for word in words) / len(words) if words else None,
                speech_end_ms=end_ms,
                speech_ms=0 if started is None else max(0, (window_end if end_ms is None else end_ms) - started),
            )
        ]
