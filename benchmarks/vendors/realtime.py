"""OpenAI Realtime (GA): answers each utterance at once, with the whole of its sound."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

from benchmarks.sound import BYTES_PER_MS, END_MS, MS_PER_CHAR, QUESTION, speech_of
from benchmarks.vendors.hearing import Hearing
from benchmarks.vendors.ledger import Ledger
from benchmarks.vendors.socket import VendorSocket
from media_bridge.audio import mulaw

DELTA_MS = 200


@functools.cache
def _deltas(reply: str, pcm: bool) -> tuple[str, ...]:
    """The reply's sound in pieces: μ-law, or 24 kHz PCM (each sample three times: nobody listens)."""
    sound = speech_of(len(reply) * MS_PER_CHAR)
    step = DELTA_MS * BYTES_PER_MS
    pieces = [sound[at : at + step] for at in range(0, len(sound), step)]
    if pcm:
        pieces = [mulaw.decode(piece).repeat(3).tobytes() for piece in pieces]
    return tuple(base64.b64encode(piece).decode() for piece in pieces)


class Realtime(VendorSocket):
    """
    Args:
        call: the caller's number, from the address: resampled sound does not carry it.
    """

    def __init__(self, ledger: Ledger, call: int | None, reply: str) -> None:
        self._reply = reply
        self._line = ledger.line("realtime", call)
        self._pcm = False
        self._hearing = Hearing(self._line, "mulaw")
        self._items = 0
        self._previous: str | None = None
        self._session: dict[str, Any] = {"type": "realtime", "id": "sess_1", "model": "gpt-realtime-2.1"}

    def opened(self) -> None:
        self._send("session.created", session=self._session)

    def text(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "input_audio_buffer.append":
                for happened in self._hearing.feed(base64.b64decode(message["audio"])):
                    self._began() if happened == "began" else self._ended()
            case "session.update":
                self._configure(message["session"])
            case "conversation.item.create":
                self._add({"id": self._new("item"), "status": "completed", **message["item"]})
            case "conversation.item.truncate":
                fields = {key: message[key] for key in ("item_id", "content_index", "audio_end_ms")}
                self._send("conversation.item.truncated", **fields)
            case "response.create":
                self._respond(message.get("response", {}).get("metadata"))
            case "response.cancel":
                error = {
                    "type": "invalid_request_error",
                    "code": "response_cancel_not_active",
                    "message": "Cancellation failed: no active response found",
                    "param": None,
                    "event_id": message.get("event_id"),
                }
                self._send("error", error=error)

    def _configure(self, session: dict[str, Any]) -> None:
        self._session |= session
        sound = session.get("audio", {})
        kind = sound.get("input", {}).get("format", {}).get("type", "audio/pcm")
        self._pcm = sound.get("output", {}).get("format", {}).get("type", "audio/pcm") == "audio/pcm"
        self._hearing = Hearing(self._line, "mulaw" if kind == "audio/pcmu" else "pcm24k")
        self._send("session.updated", session=self._session)

    def _began(self) -> None:
        self._item = self._new("item")
        self._line.note("began")
        began = self._hearing.utterances.began_ms
        self._send("input_audio_buffer.speech_started", audio_start_ms=began, item_id=self._item)

    def _ended(self) -> None:
        ended = self._hearing.utterances.position_ms - END_MS
        self._send("input_audio_buffer.speech_stopped", audio_end_ms=ended, item_id=self._item)
        self._send("input_audio_buffer.committed", previous_item_id=self._previous, item_id=self._item)
        content = [{"type": "input_audio", "transcript": None}]
        self._add({"id": self._item, "type": "message", "role": "user", "content": content})
        self._send(
            "conversation.item.input_audio_transcription.completed",
            item_id=self._item,
            content_index=0,
            transcript=QUESTION,
            usage={"type": "duration", "seconds": 1},
        )
        self._respond(None)

    def _respond(self, metadata: dict[str, str] | None) -> None:
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": self._new("resp"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": "conv_1",
            "output_modalities": ["audio"],
            "metadata": metadata,
            "usage": None,
        }
        self._send("response.created", response=response)
        item: dict[str, Any] = {
            "id": self._new("item"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        of = {"response_id": response["id"], "output_index": 0}
        self._send("response.output_item.added", **of, item=item)
        self._add(item)
        place = {**of, "item_id": item["id"], "content_index": 0}
        part = {"type": "audio", "transcript": ""}
        self._send("response.content_part.added", **place, part=part)
        self._send("response.output_audio_transcript.delta", **place, delta=self._reply)
        self._line.note("final")
        where = json.dumps({"type": "response.output_audio.delta", "event_id": "event_1", **place})[:-1]
        for delta in _deltas(self._reply, self._pcm):
            self.send(f'{where},"delta":"{delta}"}}')
        self._send("response.output_audio.done", **place)
        self._send("response.output_audio_transcript.done", **place, transcript=self._reply)
        part = {"type": "audio", "transcript": self._reply}
        self._send("response.content_part.done", **place, part=part)
        item = {**item, "status": "completed", "content": [{**part, "type": "output_audio"}]}
        self._send("response.output_item.done", **of, item=item)
        details = {"text_tokens": 10, "audio_tokens": 0}
        usage = {
            "total_tokens": 20,
            "input_tokens": 10,
            "output_tokens": 10,
            "input_token_details": {**details, "cached_tokens": 0},
            "output_token_details": details,
        }
        done = {**response, "status": "completed", "output": [item], "usage": usage}
        self._send("response.done", response=done)

    def _add(self, item: dict[str, Any]) -> None:
        self._send("conversation.item.added", previous_item_id=self._previous, item=item)
        self._send("conversation.item.done", previous_item_id=self._previous, item=item)
        self._previous = item["id"]

    def _new(self, kind: str) -> str:
        self._items += 1
        return f"{kind}_{self._items}"

    def _send(self, kind: str, **fields: Any) -> None:
        self.send_json({"type": kind, "event_id": "event_1", **fields})
