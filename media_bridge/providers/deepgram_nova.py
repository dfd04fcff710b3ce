"""Deepgram `/v1/listen` (Nova): the request, and which of its messages make a turn. No I/O.

Nova transcribes; it does not know turns. The rule: every `is_final` transcript is kept; the turn ends at
`speech_final` (Deepgram heard silence), or at `UtteranceEnd` (no word for a while, which still fires when
background noise hides the silence), or when results go on with no word in them for as long.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import Field

from media_bridge.providers.base import EndOfTurn, Partial, ProviderConfig, SpeechStarted, SttEvent
from media_bridge.providers.options import Options
from media_bridge.providers.vendor_socket import Query
from stayline.errors import ConfigError

PATH = "/v1/listen"


class NovaOptions(Options):
    """Options of Deepgram's Nova models, by Deepgram's own names; times in milliseconds."""

    endpointing: int | Literal[False] = 300  #: silence that ends speech; Deepgram's own default is 10
    utterance_end_ms: int = Field(1000, ge=1000)  #: time without a word that ends a turn
    vad_events: bool = True
    smart_format: bool = True
    punctuate: bool | None = None
    numerals: bool | None = None
    profanity_filter: bool | None = None
    mip_opt_out: bool | None = None  #: keep the audio out of Deepgram's model improvement
    keyterm: tuple[str, ...] = ()  #: nova-3
    keywords: tuple[str, ...] = ()  #: models before nova-3
    redact: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()  #: besides the call id


def check(config: ProviderConfig, options: NovaOptions) -> None:
    """Refuse what Deepgram would refuse.

    Raises:
        ConfigError: keyterm and keywords belong to different models.
    """
    nova3 = config.model.startswith("nova-3")
    if options.keyterm and not nova3:
        raise ConfigError(f"deepgram/{config.model} takes no keyterm.", fix="Use keywords, or nova-3.")
    if options.keywords and nova3:
        raise ConfigError(f"deepgram/{config.model} takes no keywords.", fix="Use keyterm.")


def query(config: ProviderConfig, options: NovaOptions, call_id: str) -> Query:
    pairs: list[tuple[str, str | int | float | bool]] = [
        ("model", config.model),
        ("encoding", "mulaw"),
        ("sample_rate", 8000),
        ("language", config.language),
        ("interim_results", True),
    ]
    for name, value in options.model_dump(exclude={"tag"}, exclude_none=True).items():
        pairs.extend((name, item) for item in (value if isinstance(value, tuple) else (value,)))
    pairs.extend(("tag", tag) for tag in (call_id, *options.tag))
    return pairs


@dataclasses.dataclass(frozen=True, slots=True)
class _Final:
    """A stretch of transcript that will not change. Stream positions in milliseconds."""

    text: str
    confidence: float
    words: int
    start_ms: int
    end_ms: int


class NovaTurns:
    """Makes turns of one call's messages, over as many connections as it takes.

    Attributes:
        heard_ms: stream position up to which the audio is settled; after a loss, audio from here on is
            what a new connection must hear again.
        wants_finalize: set when the turn should end but words are still open: ask Deepgram to settle them.
    """

    def __init__(self, options: NovaOptions) -> None:
        self._silence_ms = options.utterance_end_ms
        self.heard_ms = 0
        self.wants_finalize = False
        self._offset_ms = 0
        self._finals: list[_Final] = []
        self._interim = ""
        self._started_ms: int | None = None
        self._ending = False

    def reconnected(self, from_ms: int) -> list[SttEvent]:
        """A new connection was opened, whose time 0 is stream position `from_ms`. Settled text is kept."""
        self._offset_ms = self.heard_ms = from_ms
        self._interim = ""
        return []

    def handle(self, message: dict[str, Any]) -> list[SttEvent]:
        """Events of one message; none for a type that is not known.

        Raises:
            KeyError, TypeError, ValueError, IndexError, AttributeError: the message is not as documented.
        """
        match message.get("type"):
            case "Results":
                return self._results(message)
            case "SpeechStarted":
                return self._start(self._position(message["timestamp"]))
            case "UtteranceEnd":
                return self._utterance_end()
            case _:
                return []

    def _position(self, seconds: float) -> int:
        return self._offset_ms + round(seconds * 1000)

    def _start(self, at_ms: int) -> list[SttEvent]:
        if self._started_ms is not None:
            return []
        self._started_ms = at_ms
        return [SpeechStarted(at_ms)]

    def _results(self, message: dict[str, Any]) -> list[SttEvent]:
        best = message["channel"]["alternatives"][0]
        text: str = best["transcript"].strip()
        window_end = self._position(message["start"] + message["duration"])
        is_final = bool(message.get("is_final"))
        events: list[SttEvent] = []
        if text:
            words = best.get("words") or []
            first = self._position(words[0]["start"]) if words else self._position(message["start"])
            last = self._position(words[-1]["end"]) if words else window_end
            events += self._start(first)
            if is_final:
                count = len(words) or len(text.split())
                self._finals.append(_Final(text, float(best.get("confidence", 0.0)), count, first, last))
            self._interim = "" if is_final else text
            events.append(Partial(" ".join([*(f.text for f in self._finals), *filter(None, [self._interim])])))
        elif is_final:
            self._interim = ""
        if is_final:
            self.heard_ms = max(self.heard_ms, window_end)
        if message.get("speech_final") or (self._ending and is_final) or self._gone_quiet(window_end, is_final):
            events += self._end()
        return events

    def _gone_quiet(self, now_ms: int, is_final: bool) -> bool:
        """No word since the last settled one for as long as UtteranceEnd would wait. Needed where no
        UtteranceEnd can come: after a reconnect, and for speech that proved to be noise."""
        if self._interim or self._started_ms is None:
            return False
        if self._finals:
            return now_ms - self._finals[-1].end_ms >= self._silence_ms
        return is_final and now_ms - self._started_ms >= self._silence_ms

    def _utterance_end(self) -> list[SttEvent]:
        if self._interim:  # its words are counted in UtteranceEnd but not yet settled: get them first
            self._ending = self.wants_finalize = True
            return []
        return self._end() if self._finals else []

    def _end(self) -> list[SttEvent]:
        finals, started = self._finals, self._started_ms
        self._finals, self._interim, self._started_ms = [], "", None
        self._ending = self.wants_finalize = False
        if not finals:
            return [] if started is None else [EndOfTurn("")]
        words = sum(final.words for final in finals)
        return [
            EndOfTurn(
                " ".join(final.text for final in finals),
                confidence=sum(final.confidence * final.words for final in finals) / words,
                speech_end_ms=finals[-1].end_ms,
                speech_ms=max(0, finals[-1].end_ms - finals[0].start_ms),
            )
        ]
