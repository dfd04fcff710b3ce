"""ElevenLabs' realtime Scribe, for clients that find the ends of turns themselves (`commit_strategy=manual`)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

from benchmarks.sound import HALF, QUESTION
from benchmarks.vendors.hearing import Hearing
from benchmarks.vendors.ledger import Ledger
from benchmarks.vendors.socket import VendorSocket

PARTIAL_MS = 100  #: between two partial transcripts


class Scribe(VendorSocket):
    def __init__(self, ledger: Ledger, query: str) -> None:
        self._line = ledger.line("scribe")
        self._hearing = Hearing(self._line, "mulaw")
        self._told_ms = 0
        self._timed = parse_qs(query).get("include_timestamps") == ["true"]

    def opened(self) -> None:
        self._send("session_started", session_id="sess_1", config={"audio_format": "ulaw_8000"})

    def text(self, message: dict[str, Any]) -> None:
        for happened in self._hearing.feed(base64.b64decode(message["audio_base_64"])):
            if happened == "began":
                self._line.note("began")
                self._told_ms = 0
        now = self._hearing.utterances.position_ms
        if self._hearing.utterances.open and now - self._told_ms >= PARTIAL_MS:
            self._told_ms = now
            self._send("partial_transcript", text=HALF)
        if message["commit"]:
            self._commit()

    def _commit(self) -> None:
        self._line.note("final")
        self._send("committed_transcript", text=QUESTION)
        if self._timed:
            end = self._hearing.utterances.position_ms / 1000
            words = [
                {"text": word, "start": end - 0.5, "end": end, "type": "word", "logprob": -0.02}
                for word in QUESTION.split()
            ]
            self._send("committed_transcript_with_timestamps", text=QUESTION, language_code="en", words=words)

    def _send(self, kind: str, **fields: object) -> None:
        self.send_json({"message_type": kind, **fields})
