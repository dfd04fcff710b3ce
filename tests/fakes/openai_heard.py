"""What OpenAI's recognisers are said to understand, and what each can do. Shared by live sessions and files."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from tests.fakes.llm import words

NO_VAD = {"gpt-live-transcribe", "gpt-realtime-whisper"}
FILES = {"whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"}
ONLY_FOR = {
    "delay": {"gpt-realtime-whisper"},
    "keywords": {"gpt-transcribe", "gpt-live-transcribe"},
    "languages": {"gpt-transcribe", "gpt-live-transcribe"},
    "prompt": {*NO_VAD, *FILES} - {"gpt-realtime-whisper", "gpt-4o-transcribe-diarize"},
    "logprobs": {"gpt-4o-transcribe", "gpt-4o-mini-transcribe"},
}
LEAST_MS = 100  #: of audio


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What one turn turns out to say. Empty text: it was noise.

    Attributes:
        failed: it cannot be written down; the error's code.
        again: what it says when it is sent again after that; None: it is not expected to be.
        until: it is written down only when this is set.
    """

    text: str
    logprob: float = -0.1
    failed: str = ""
    again: str | Heard | None = None
    until: asyncio.Event | None = None


class Script:
    """What coming turns say, whatever they sound like; add to `lines` at any time."""

    def __init__(self) -> None:
        self.lines: list[str | Heard] = []

    def next(self) -> Heard:
        line = self.lines.pop(0) if self.lines else ""
        return line if isinstance(line, Heard) else Heard(line)

    def failed(self, heard: Heard) -> None:
        if heard.again is not None:
            self.lines.insert(0, heard.again)


def logprobs(heard: Heard) -> list[dict[str, Any]]:
    return [{"token": word, "logprob": heard.logprob, "bytes": list(word.encode())} for word in words(heard.text)]
