"""The recogniser's side of Deepgram's `/v1/listen` (Nova) and `/v2/listen` (Flux).

It hears bursts of sound by their energy; each burst is the next line of its script, whatever the sound was.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tests.fakes.misbehaviour import Recorded
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import BYTES_PER_MS, Bursts, Frame

REQUEST_ID = "5c1f0d6e-0000-4000-8000-000000000001"
INTERIM_MS = 500
SILENT_RESULT_MS = 1000
NET_0001 = ProtocolError(
    1011, "Deepgram did not receive audio data or a text message within the timeout window. (NET-0001)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What one burst of sound turns out to say. Empty text: it was noise."""

    text: str
    confidence: float = 0.98
    pieces: int = 1  #: Nova: results that settle it
    ends_by: Literal["speech_final", "utterance_end", "finalize"] = "speech_final"
    """Nova: how the turn ends. `utterance_end`: noise hides the silence from the endpointing;
    `finalize`: moreover, the words stay unsettled until the client asks."""


Script = list[str | Heard]


class _Listener:
    """What both have in common: the script, the burst, the words."""

    def __init__(self, socket: FakeSocket, recorded: Recorded, lines: Script) -> None:
        self.socket = socket
        self.recorded = recorded
        self.bursts = Bursts()
        self.audio_bytes = 0
        self._lines = lines
        self.heard: Heard | None = None

    def begin(self) -> None:
        line = self._lines.pop(0) if self._lines else ""
        self.heard = line if isinstance(line, Heard) else Heard(line)

    def give_back(self) -> None:
        """The connection broke before the burst was settled: the next connection hears it."""
        heard = self.heard
        if heard is not None:  # plain words as they were: the script may be another fake's too
            self._lines.insert(0, heard.text if heard == Heard(heard.text) else heard)

    def words(self) -> list[dict[str, Any]]:
        """The burst's words, spread evenly over its sound."""
        assert self.heard is not None
        tokens = self.heard.text.split()
        begin = self.bursts.begun_ms or 0
        step = (self.bursts.last_loud_ms - begin) / max(1, len(tokens)) / 1000
        return [
            {
                "word": token.lower().strip(".,!?"),
                "start": round(begin / 1000 + i * step, 3),
                "end": round(begin / 1000 + (i + 1) * step, 3),
                "confidence": self.heard.confidence,
                "punctuated_word": token,
            }
            for i, token in enumerate(tokens)
        ]

    def words_so_far(self) -> list[dict[str, Any]]:
        """About one word per 300 ms of sound; never all of them, if there are several."""
        words = self.words()
        spoken_ms = self.bursts.last_loud_ms - (self.bursts.begun_ms or 0)
        return words[: min(max(1, spoken_ms // 300), max(1, len(words) - 1))]


class NovaListener(_Listener):
    def __init__(self, socket: FakeSocket, recorded: Recorded, lines: Script) -> None:
        super().__init__(socket, recorded, lines)
        value = (recorded.param("endpointing") or ["10"])[0]
        self._endpointing_ms = None if value == "false" else int(value)
        self._utterance_end_ms = int((recorded.param("utterance_end_ms") or ["0"])[0])
        self._vad_events = recorded.param("vad_events") == ["true"]
        self._settled_ms = 0  #: end of the last final result
        self._told_ms = 0  #: position of the last result of any kind
        self._last_word_end: float | None = None  #: of a burst that has ended without UtteranceEnd yet
        self._unsettled: list[dict[str, Any]] | None = None  #: words that only Finalize settles

    async def talk(self) -> None:
        try:
            async for message in self.socket.messages(10.0, NET_0001):
                if isinstance(message, bytes):
                    self.audio_bytes += len(message)
                    for frame in self.bursts.feed(message):
                        await self._frame(frame)
                elif message == {"type": "CloseStream"}:
                    await self._close()
                    return
                elif message == {"type": "Finalize"}:
                    await self._finalize()
                elif message != {"type": "KeepAlive"}:
                    raise ProtocolError(
                        1008,
                        "DATA-0000",
                        {
                            "type": "Error",
                            "variant": "SchemaError",
                            "description": "Could not deserialize last text message",
                            "message": "unknown variant",
                        },
                    )
        finally:
            self.give_back()

    async def _frame(self, frame: Frame) -> None:
        if frame.starts:
            self.begin()
            if self._vad_events:
                await self.socket.send(
                    {"type": "SpeechStarted", "channel": [0], "timestamp": (frame.begun_ms or 0) / 1000}
                )
        heard = self.heard
        if heard is None:
            await self._quiet(frame)
        elif self._endpointing_ms is not None and frame.silent_ms >= self._endpointing_ms:
            if heard.ends_by == "finalize":
                self._unsettled = self.words()
                await self._results(self._unsettled, is_final=False)
                self._burst_over(self._unsettled)
            else:
                await self._settle(heard, heard.ends_by == "speech_final")
        elif heard.text and frame.at_ms - self._told_ms >= INTERIM_MS:
            await self._results(self.words_so_far(), is_final=False)

    async def _quiet(self, frame: Frame) -> None:
        if self._last_word_end is not None and self._utterance_end_ms:
            if frame.at_ms - self._last_word_end * 1000 >= self._utterance_end_ms:
                last, self._last_word_end = self._last_word_end, None
                await self.socket.send({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last})
        elif frame.at_ms - self._told_ms >= SILENT_RESULT_MS and self._unsettled is None:
            await self._results([], is_final=True)

    async def _settle(self, heard: Heard, speech_final: bool, from_finalize: bool = False) -> None:
        words = self.words()
        size = max(1, -(-len(words) // heard.pieces))
        pieces = [words[i : i + size] for i in range(0, len(words), size)] or [[]]
        for piece in pieces:
            last = piece is pieces[-1]
            await self._results(
                piece, is_final=True, speech_final=speech_final and last, from_finalize=from_finalize and last
            )
        self._burst_over(words)

    def _burst_over(self, words: list[dict[str, Any]]) -> None:
        self._last_word_end = words[-1]["end"] if words else None
        self.heard = None
        self.bursts.end()

    async def _finalize(self) -> None:
        if self._unsettled is not None:
            words, self._unsettled = self._unsettled, None
            await self._results(words, is_final=True, from_finalize=True)
        elif self.heard is not None:
            await self._settle(self.heard, speech_final=False, from_finalize=True)
        else:
            await self._results([], is_final=True, from_finalize=True)

    async def _close(self) -> None:
        if self.heard is not None:
            await self._settle(self.heard, speech_final=False)
        await self.socket.send(
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": REQUEST_ID,
                "sha256": "0" * 64,
                "created": "2026-11-22T12:00:00.000Z",
                "duration": self.audio_bytes / BYTES_PER_MS / 1000,
                "channels": 1,
            }
        )

    async def _results(
        self,
        words: list[dict[str, Any]],
        *,
        is_final: bool,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> None:
        now = self.bursts.at_ms
        confidence = sum(word["confidence"] for word in words) / len(words) if words else 0.0
        message = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": (now - self._settled_ms) / 1000,
            "start": self._settled_ms / 1000,
            "is_final": is_final,
            "speech_final": speech_final,
            "channel": {
                "alternatives": [
                    {
                        "transcript": " ".join(word["punctuated_word"] for word in words),
                        "confidence": confidence,
                        "words": words,
                    }
                ]
            },
            "metadata": {
                "request_id": REQUEST_ID,
                "model_info": {"name": "general-nova-3", "version": "2026-01-01.0", "arch": "nova-3"},
                "model_uuid": "5c1f0d6e-0000-4000-8000-000000000002",
            },
            "from_finalize": from_finalize,
        }
        self._told_ms = now
        if is_final:
            self._settled_ms = now
        await self.socket.send(message)


class FluxListener(_Listener):
    EAGER_MS = 200
    END_MS = 600
    UPDATE_MS = 240

    def __init__(self, socket: FakeSocket, recorded: Recorded, lines: Script) -> None:
        super().__init__(socket, recorded, lines)
        self._eager_wanted = bool(recorded.param("eager_eot_threshold"))
        self._eager = False
        self._sequence = 0
        self._turn = 0
        self._window_ms = 0
        self._told_ms = 0

    async def talk(self) -> None:
        try:
            await self._send({"type": "Connected"})
            async for message in self.socket.messages(60.0, ProtocolError(1011, "NET-0001")):
                if isinstance(message, bytes):
                    self.audio_bytes += len(message)
                    for frame in self.bursts.feed(message):
                        await self._frame(frame)
                elif message == {"type": "CloseStream"}:
                    return
                else:
                    raise ProtocolError(
                        1008,
                        "",
                        {
                            "type": "Error",
                            "sequence_id": self._sequence,
                            "code": "UNPARSABLE_CLIENT_MESSAGE",
                            "description": "Could not parse the last message",
                        },
                    )
        finally:
            self.give_back()

    async def _frame(self, frame: Frame) -> None:
        if frame.starts:
            self.begin()
            await self._turn_info("StartOfTurn", self.words_so_far())
        elif self.heard is None:
            if frame.at_ms - self._told_ms >= self.UPDATE_MS:
                await self._turn_info("Update", [])
        elif self._eager and frame.loud:
            self._eager = False
            await self._turn_info("TurnResumed", self.words())
        elif self._eager_wanted and not self._eager and frame.silent_ms == self.EAGER_MS:
            self._eager = True
            await self._turn_info("EagerEndOfTurn", self.words())
        elif frame.silent_ms >= self.END_MS:
            await self._turn_info("EndOfTurn", self.words())
            self.heard, self._eager = None, False
            self._turn += 1
            self._window_ms = frame.at_ms
            self.bursts.end()
        elif not self._eager and frame.at_ms - self._told_ms >= self.UPDATE_MS:
            await self._turn_info("Update", self.words_so_far())

    async def _turn_info(self, event: str, words: list[dict[str, Any]]) -> None:
        self._told_ms = self.bursts.at_ms
        message: dict[str, Any] = {
            "type": "TurnInfo",
            "event": event,
            "turn_index": self._turn,
            "audio_window_start": self._window_ms / 1000,
            "audio_window_end": self.bursts.at_ms / 1000,
            "transcript": " ".join(word["punctuated_word"] for word in words),
            "words": [
                {"word": w["punctuated_word"], "confidence": w["confidence"], "start": w["start"], "end": w["end"]}
                for w in words
            ],
            "end_of_turn_confidence": 0.9 if event == "EndOfTurn" else 0.3,
        }
        if event == "EndOfTurn":
            message["trigger"] = "model"
        await self._send(message)

    async def _send(self, message: dict[str, Any]) -> None:
        await self.socket.send({**message, "request_id": REQUEST_ID, "sequence_id": self._sequence})
        self._sequence += 1
