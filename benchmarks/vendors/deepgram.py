"""Deepgram `/v1/listen`: an interim transcript when speech begins, the final one 100 ms after it ends.

With `endpointing=false` the final transcript waits for `Finalize`, as with clients that find the end themselves.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from benchmarks.sound import HALF, QUESTION
from benchmarks.vendors.hearing import Encoding, Hearing
from benchmarks.vendors.ledger import Ledger
from benchmarks.vendors.socket import VendorSocket

SILENT_RESULT_MS = 1000
"""Deepgram sends results in silence too, about one a second."""
_ENCODINGS: dict[tuple[str, str], Encoding] = {
    ("mulaw", "8000"): "mulaw",
    ("linear16", "8000"): "pcm8k",
    ("linear16", "16000"): "pcm16k",
    ("linear16", "24000"): "pcm24k",
}
_ID = "5c1f0d6e-0000-4000-8000-000000000001"


class Deepgram(VendorSocket):
    def __init__(self, ledger: Ledger, query: str) -> None:
        asked = parse_qs(query)
        self._line = ledger.line("deepgram")
        encoding = _ENCODINGS[asked["encoding"][0], asked["sample_rate"][0]]
        self._hearing = Hearing(self._line, encoding)
        self._by_itself = asked.get("endpointing") != ["false"]
        self._vad_events = asked.get("vad_events") == ["true"]
        self._owed = False  #: words were heard and not settled yet
        self._settled_ms = 0

    def binary(self, message: bytes) -> None:
        for happened in self._hearing.feed(message):
            self._began() if happened == "began" else self._ended()
        if not self._owed and self._now - self._settled_ms >= SILENT_RESULT_MS:
            self._results("", final=True)

    def text(self, message: dict[str, Any]) -> None:
        if message["type"] == "Finalize":
            if self._owed:
                self._settle(from_finalize=True)
            else:
                self._results("", final=True, from_finalize=True)
        elif message["type"] == "CloseStream":
            self.send_json({"type": "Metadata", "request_id": _ID, "duration": self._now / 1000, "channels": 1})
            self.close()

    @property
    def _now(self) -> int:
        return self._hearing.utterances.position_ms

    def _began(self) -> None:
        self._owed = True
        self._line.note("began")
        if self._vad_events:
            began = self._hearing.utterances.began_ms / 1000
            self.send_json({"type": "SpeechStarted", "channel": [0], "timestamp": began})
        self._results(HALF, final=False)

    def _ended(self) -> None:
        if self._by_itself and self._owed:
            self._settle()

    def _settle(self, *, from_finalize: bool = False) -> None:
        self._owed = False
        self._line.note("final")
        self._results(QUESTION, final=True, speech_final=not from_finalize, from_finalize=from_finalize)

    def _results(self, text: str, *, final: bool, speech_final: bool = False, from_finalize: bool = False) -> None:
        begin, now, words = self._settled_ms / 1000, self._now / 1000, text.split()
        spoken = self._hearing.utterances.began_ms / 1000
        step = (now - spoken) / max(1, len(words))
        timed = [
            {
                "word": word,
                "start": round(spoken + at * step, 3),
                "end": round(spoken + (at + 1) * step, 3),
                "confidence": 0.98,
                "punctuated_word": word,
            }
            for at, word in enumerate(words)
        ]
        if final:
            self._settled_ms = self._now
        self.send_json(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "duration": round(now - begin, 3),
                "start": begin,
                "is_final": final,
                "speech_final": speech_final,
                "from_finalize": from_finalize,
                "channel": {
                    "alternatives": [{"transcript": text, "confidence": 0.98 if words else 0.0, "words": timed}]
                },
                "metadata": {
                    "request_id": _ID,
                    "model_uuid": _ID,
                    "model_info": {"name": "general-nova-3", "version": "2026-01-01.0", "arch": "nova-3"},
                },
            }
        )
