"""ElevenLabs' realtime Scribe (`/v1/speech-to-text/realtime`): the request, and what its errors mean. No I/O.

Facts are of the SDK's types of 2026-11 (elevenlabs 2.78, `v_1_speech_to_text_realtime`, `realtime/scribe.py`).
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.options import Options
from media_bridge.providers.utterances import UtteranceRule
from media_bridge.providers.vendor_socket import Query, scrub
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError, ProviderError

PATH: Final = "/v1/speech-to-text/realtime"


class ScribeOptions(Options):
    """Options of the realtime models, by ElevenLabs' own names."""

    commit_strategy: Literal["vad", "turn_prediction", "manual"] = "vad"
    """Who ends a turn: ElevenLabs by silence, or by what was said; `manual`: we do, with Silero."""
    vad_silence_threshold_secs: float = Field(0.5, ge=0.3, le=3)  #: ElevenLabs' own default is 1.5
    vad_threshold: float | None = Field(None, ge=0.1, le=0.9)
    min_speech_duration_ms: int | None = Field(None, ge=50, le=2000)
    min_silence_duration_ms: int | None = Field(None, ge=50, le=2000)
    secondary_languages: tuple[str, ...] = ()  #: others that may be spoken, ISO 639-1 or -3
    keyterms: tuple[Annotated[str, Field(min_length=1, max_length=20)], ...] = Field((), max_length=50)
    no_verbatim: bool | None = None  #: True: no fillers and false starts
    filter_background_audio: bool | None = None  #: goes without timestamps only
    include_timestamps: bool | None = None
    """Times and confidence of the words; they come with a message of their own. None: where they can be had."""
    enable_logging: bool | None = None  #: False: zero retention, where the account may

    @property
    def timed(self) -> bool:
        return not self.filter_background_audio if self.include_timestamps is None else self.include_timestamps

    def rule(self) -> UtteranceRule:
        """Our own turn detection."""
        return utterance_rule(self.vad_threshold, self.vad_silence_threshold_secs, self.min_speech_duration_ms)


def utterance_rule(threshold: float | None, silence_secs: float, min_speech_ms: int | None) -> UtteranceRule:
    rule = UtteranceRule(stop_ms=round(silence_secs * 1000))
    if threshold is not None:
        rule = dataclasses.replace(rule, threshold=threshold)
    if min_speech_ms is not None:
        rule = dataclasses.replace(rule, start_ms=min_speech_ms)
    return rule


def check(options: ScribeOptions) -> None:
    """Refuse what ElevenLabs would refuse.

    Raises:
        ConfigError: two options do not go together.
    """
    if options.filter_background_audio and options.include_timestamps:
        raise ConfigError("filter_background_audio gives no timestamps.", fix="Leave out include_timestamps.")
    if options.commit_strategy == "manual" and options.min_silence_duration_ms is not None:
        raise ConfigError(
            'commit_strategy="manual" takes no min_silence_duration_ms.', fix="Use vad_silence_threshold_secs."
        )


def language(config: ProviderConfig) -> dict[str, str]:
    """ISO 639-1 or -3, so "en-US" is "en"; nothing where it is to be found out ("", "multi")."""
    code = config.language.partition("-")[0].lower()
    return {"language_code": code} if len(code) in (2, 3) else {}


def query(config: ProviderConfig, options: ScribeOptions) -> Query:
    pairs: list[tuple[str, str | int | float | bool]] = [
        ("model_id", config.model),
        ("audio_format", "ulaw_8000"),
        ("include_timestamps", options.timed),
        *language(config).items(),
    ]
    ours = {"include_timestamps"}
    if options.commit_strategy == "manual":
        ours |= {"vad_silence_threshold_secs", "vad_threshold", "min_speech_duration_ms"}
    elif options.commit_strategy == "turn_prediction":
        ours |= {"vad_silence_threshold_secs"} - options.model_fields_set
    for name, value in options.model_dump(exclude=ours, exclude_none=True).items():
        pairs.extend((name, item) for item in (value if isinstance(value, tuple) else (value,)))
    return pairs


# --- messages ----------------------------------------------------------------------------------------------


def chunk(audio: bytes) -> str:
    """A piece of audio. Written by hand: there are fifty in a second of each call."""
    return (
        f'{{"message_type":"input_audio_chunk","audio_base_64":"{base64.b64encode(audio).decode()}",'
        '"commit":false,"sample_rate":8000}'
    )


COMMIT: Final = '{"message_type":"input_audio_chunk","audio_base_64":"","commit":true,"sample_rate":8000}'

_FINAL: Final = frozenset(
    {"auth_error", "quota_exceeded", "unaccepted_terms", "input_error", "invalid_request", "chunk_size_exceeded"}
)
_FULL: Final = frozenset({"rate_limited", "resource_exhausted"})
_SESSION_ENDS: Final = frozenset({"session_time_limit_exceeded", "insufficient_audio_activity"})
_FIXES: Final = {
    "auth_error": f"Check {PROVIDERS['elevenlabs'].key_env}.",
    "quota_exceeded": "The account has no credit left.",
    "unaccepted_terms": "Accept ElevenLabs' terms for this model, in its dashboard.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """An error that ends a session, and what helps: a new session (`reopen`), the same without it counting as a
    loss because ElevenLabs ends sessions so in good order (`renew`), or neither (`give_up`)."""

    error: ProviderError
    then: Literal["reopen", "renew", "give_up"]


def failure(message: Mapping[str, Any], session: str, secret: str) -> Failure | None:
    """What an error message means; None for any other message, and for a commit that came too soon after another
    (`commit_throttled`): the session lives on.

    Args:
        session: ElevenLabs' id of it, by which its support finds it.
    """
    kind = message.get("message_type")
    if not isinstance(kind, str) or "error" not in message or kind == "commit_throttled":
        return None
    said = scrub(str(message["error"]), secret)
    reference = f" (session {session})" if session else ""
    error = ProviderError(
        "elevenlabs",
        f"{kind}: {said}{reference}",
        retryable=kind not in _FINAL,
        fix=_FIXES.get(kind, ""),
    )
    if kind in _SESSION_ENDS:
        return Failure(error, "renew")
    return Failure(error, "give_up" if kind in _FINAL or kind in _FULL else "reopen")
