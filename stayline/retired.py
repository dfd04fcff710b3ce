"""Model names that fail, or soon will, and what to write instead.

As of 2026-11-22, from the vendors' SDKs (their docstrings and deprecation lists) and deprecation pages. A name that
is not here may be anything: vendors add models every week, and nothing is hard-wired.
"""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True)
class Retired:
    """Why a name should not be used.

    Attributes:
        use: the successor, of the same vendor and role.
        on: ISO date from which requests fail; None: its vendor names no date yet.
    """

    use: str
    on: str | None


def _all(on: str | None, use: str, *names: str) -> dict[str, Retired]:
    return {name: Retired(use, on) for name in names}


RETIRED: Final[dict[str, Retired]] = {
    **_all(
        "2026-10-23", "gpt-6-luna", "openai/gpt-4-turbo", "openai/gpt-4", "openai/gpt-3.5-turbo", "openai/o4-mini"
    ),
    **_all(
        "2027-01-14", "gpt-6-luna", "openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4.1", "openai/gpt-4.1-mini"
    ),
    **_all(
        "2026-05-07",
        "gpt-realtime-2.1",
        "openai/gpt-4o-realtime-preview",
        "openai/gpt-4o-realtime-preview-2024-10-01",
        "openai/gpt-4o-realtime-preview-2024-12-17",
        "openai/gpt-4o-realtime-preview-2025-06-03",
    ),
    **_all("2026-05-07", "gpt-realtime-2.1-mini", "openai/gpt-4o-mini-realtime-preview"),
    **_all("2027-01-20", "gpt-realtime-2.1", "openai/gpt-realtime", "openai/gpt-realtime-2025-08-28"),
    **_all(
        "2027-01-20",
        "gpt-realtime-2.1-mini",
        "openai/gpt-realtime-mini",
        "openai/gpt-realtime-mini-2025-12-15",
        "openai/gpt-audio-mini",
    ),
    **_all(
        "2027-02-26",
        "gpt-transcribe",
        "openai/whisper-1",
        "openai/gpt-4o-transcribe",
        "openai/gpt-4o-mini-transcribe",
        "openai/gpt-4o-transcribe-diarize",
    ),
    # No model remains for the speech endpoint; OpenAI itself points to Realtime.
    **_all(
        "2027-01-06",
        "gpt-realtime-2.1-mini",
        "openai/tts-1",
        "openai/tts-1-hd",
        "openai/gpt-4o-mini-tts",
        "openai/gpt-4o-mini-tts-2025-12-15",
    ),
    **_all("2026-06-15", "claude-sonnet-5-5", "anthropic/claude-sonnet-4", "anthropic/claude-sonnet-4-20250514"),
    **_all("2026-06-15", "claude-opus-5-5", "anthropic/claude-opus-4", "anthropic/claude-opus-4-20250514"),
    **_all("2026-11-30", "claude-sonnet-5-5", "anthropic/claude-sonnet-4-5"),
    **_all(
        "2025-12-09",
        "gemini-3.8-live",
        "google/gemini-2.0-flash-live",
        "google/gemini-2.0-flash-live-001",
        "google/gemini-live-2.5-flash-preview",
    ),
    **_all(None, "scribe_v2", "elevenlabs/scribe_v1"),
    **_all(None, "scribe_v2_realtime", "elevenlabs/scribe"),  # as the guide writes it; no model has just this name
    **_all(None, "eleven_flash_v2_5", "elevenlabs/eleven_turbo_v2_5"),
}
"""By "provider/model"."""
