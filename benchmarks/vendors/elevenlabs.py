"""ElevenLabs' multi-context websocket: speaks at once whatever is flushed, 40 ms a character."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any
from urllib.parse import parse_qs

from benchmarks.sound import MS_PER_CHAR, speech_of
from benchmarks.vendors.socket import VendorSocket
from media_bridge.audio import mulaw

CHARS_PER_MESSAGE = 12


@functools.lru_cache(256)
def _spoken(text: str, pcm: bool, aligned: bool) -> tuple[str, ...]:
    """The messages of a text, each without its last field, the context's id."""
    messages = []
    for begin in range(0, len(text), CHARS_PER_MESSAGE):
        piece = text[begin : begin + CHARS_PER_MESSAGE]
        audio = speech_of(len(piece) * MS_PER_CHAR)
        if pcm:
            audio = mulaw.decode(audio).tobytes()
        alignment = {
            "chars": list(piece),
            "charStartTimesMs": [at * MS_PER_CHAR for at in range(len(piece))],
            "charDurationsMs": [MS_PER_CHAR] * len(piece),
        }
        shown = alignment if aligned else None
        message = {
            "audio": base64.b64encode(audio).decode(),
            "isFinal": None,
            "alignment": shown,
            "normalizedAlignment": shown,
        }
        messages.append(json.dumps(message, separators=(",", ":"))[:-1])
    return tuple(messages)


class ElevenLabs(VendorSocket):
    def __init__(self, query: str) -> None:
        asked = parse_qs(query)
        output = asked.get("output_format", ["ulaw_8000"])[0]
        if output not in ("ulaw_8000", "pcm_8000"):
            raise ValueError(f"output_format {output}")
        self._pcm = output == "pcm_8000"
        self._aligned = asked.get("sync_alignment") == ["true"]
        self._at_once = asked.get("auto_mode") == ["true"]
        self._texts: dict[str, str] = {}

    def text(self, message: dict[str, Any]) -> None:
        if message.get("close_socket"):
            self.close()
            return
        context = message.get("context_id")
        if context is None:  # a sign of life for the connection
            return
        if message.get("close_context"):
            self._texts.pop(context, None)
            self.send(f'{{"audio":null,"isFinal":true,"contextId":"{context}"}}')
            return
        text = self._texts.get(context, "") + message.get("text", "").lstrip()
        if text and (message.get("flush") or self._at_once):
            for spoken in _spoken(text, self._pcm, self._aligned):
                self.send(f'{spoken},"contextId":"{context}"}}')
            text = ""
        self._texts[context] = text
