"""The options of OpenAI's speech to text, what goes together, and the requests they make. No I/O."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.options import Options
from media_bridge.providers.utterances import UtteranceRule
from stayline.errors import ConfigError

Way = Literal["live", "file"]
TurnDetection = Literal["server_vad", "semantic_vad", "local"]

LIVE_ONLY: Final = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Not for files, and without turn detection at OpenAI: `turn_detection` must be null."""
FILE_BY_DEFAULT: Final = ("whisper-1", "gpt-4o-transcribe-diarize")
"""They transcribe whole files; in a live session they would write nothing before the end of a turn either."""
DIARIZE: Final = "gpt-4o-transcribe-diarize"
_KEYWORDS: Final = ("gpt-transcribe", "gpt-live-transcribe")
_NO_PROMPT: Final = ("gpt-realtime-whisper", DIARIZE)
_LOGPROBS: Final = ("gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15")
_KNOWN: Final = {*LIVE_ONLY, *FILE_BY_DEFAULT, *_KEYWORDS, *_LOGPROBS}


class OpenAISttOptions(Options):
    """`options={"stt": {...}}`, by OpenAI's own names; milliseconds where the name says so, else seconds."""

    api: Way | None = None  #: None: live, except for models that are made for files
    turn_detection: TurnDetection | None = None
    """`local`: Silero, here, and OpenAI is told. None: `server_vad` where the model has it, else `local`."""
    threshold: float | None = Field(None, ge=0.1, le=0.95)  #: server_vad and local; None: 0.5
    silence_duration_ms: int | None = Field(None, ge=100, le=5000)  #: that ends a turn; None: 500
    prefix_padding_ms: int | None = Field(None, ge=0, le=2000)  #: sound before speech that is heard too; None: 300
    eagerness: Literal["low", "medium", "high", "auto"] | None = None  #: semantic_vad
    prompt: str = ""
    keywords: tuple[str, ...] = ()  #: gpt-transcribe, gpt-live-transcribe
    languages: tuple[str, ...] = ()  #: the same models: several that may be spoken, instead of the agent's
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None  #: gpt-realtime-whisper
    noise_reduction: Literal["near_field", "far_field"] | None = None  #: live only; None: off
    logprobs: bool = False  #: gpt-4o models: makes a turn's confidence known
    connect_timeout: float = Field(4.0, gt=0, le=4)
    final_timeout: float = Field(5.0, gt=0)  #: from the end of a turn until its words are there

    @property
    def prefix_ms(self) -> int:
        return 300 if self.prefix_padding_ms is None else self.prefix_padding_ms

    @property
    def silence_ms(self) -> int:
        return 500 if self.silence_duration_ms is None else self.silence_duration_ms

    def rule(self) -> UtteranceRule:
        """Our own turn detection."""
        threshold = 0.5 if self.threshold is None else self.threshold
        return UtteranceRule(threshold=threshold, stop_ms=self.silence_ms, pre_roll_ms=self.prefix_ms)


def check(model: str, options: OpenAISttOptions) -> OpenAISttOptions:
    """Decide what was left open, and refuse what OpenAI would refuse. A model that is not known may do anything.

    Returns:
        The options with `api` and `turn_detection` set.
    Raises:
        ConfigError: an option and the model, or two options, do not go together.
    """
    api = options.api or ("file" if model in FILE_BY_DEFAULT else "live")
    _check_turn_detection(model, api, options)
    _check_model(model, options)
    if api == "file" and (options.noise_reduction or options.delay):
        option = "noise_reduction" if options.noise_reduction else "delay"
        raise ConfigError(f"The option {option} is for live sessions.", fix='Set api="live", or leave it out.')
    local = api == "file" or model in LIVE_ONLY
    detection = options.turn_detection or ("local" if local else "server_vad")
    return options.model_copy(update={"api": api, "turn_detection": detection})


def _check_turn_detection(model: str, api: Way, options: OpenAISttOptions) -> None:
    name, wanted = f"openai/{model}", options.turn_detection
    if api == "file" and model in LIVE_ONLY:
        raise ConfigError(f'{name} is for live sessions only, not for api="file".', fix='Use "gpt-transcribe".')
    if wanted not in (None, "local") and (api == "file" or model in LIVE_ONLY):
        raise ConfigError(
            f"{name} has no turn detection {wanted!r} at OpenAI.",
            fix='Leave out turn_detection: "local" is all there is.',
        )
    if options.eagerness and wanted != "semantic_vad":
        raise ConfigError("The option eagerness belongs to semantic_vad.", fix='Set turn_detection="semantic_vad".')
    for option in ("threshold", "silence_duration_ms", "prefix_padding_ms"):
        if wanted == "semantic_vad" and getattr(options, option) is not None:
            raise ConfigError(f"semantic_vad takes no {option}.", fix="Use eagerness.")


def _check_model(model: str, options: OpenAISttOptions) -> None:
    name, known = f"openai/{model}", model in _KNOWN
    for option in ("keywords", "languages"):
        if getattr(options, option) and known and model not in _KEYWORDS:
            raise ConfigError(f"{name} takes no {option}.", fix='Use "gpt-live-transcribe" or "gpt-transcribe".')
    if options.prompt and model in _NO_PROMPT:
        raise ConfigError(f"{name} takes no prompt.", fix='Use "gpt-live-transcribe" or "gpt-transcribe".')
    if options.delay and known and model != "gpt-realtime-whisper":
        raise ConfigError(f"{name} takes no delay.", fix='Only "gpt-realtime-whisper" does.')
    if options.logprobs and known and model not in _LOGPROBS:
        raise ConfigError(f"{name} gives no logprobs.", fix='"gpt-4o-transcribe" does.')


def session_update(config: ProviderConfig, options: OpenAISttOptions) -> dict[str, Any]:
    """The message that configures a live session. μ-law is named without a rate: OpenAI refuses one."""
    transcription: dict[str, Any] = {"model": config.model, **_hints(config, options)}
    if options.delay:
        transcription["delay"] = options.delay
    reduction = {"type": options.noise_reduction} if options.noise_reduction else None
    session: dict[str, Any] = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": reduction,
                "transcription": transcription,
                "turn_detection": _turn_detection(options),
            }
        },
    }
    if options.logprobs:
        session["include"] = ["item.input_audio_transcription.logprobs"]
    return {"type": "session.update", "session": session}


def file_request(config: ProviderConfig, options: OpenAISttOptions) -> dict[str, Any]:
    """What every `audio.transcriptions.create` of these options has in common."""
    request: dict[str, Any] = {"model": config.model, "response_format": "json", **_hints(config, options)}
    if options.logprobs:
        request["include"] = ["logprobs"]
    if config.model == DIARIZE:
        request["chunking_strategy"] = "auto"  # required beyond 30 s
    return request


def _turn_detection(options: OpenAISttOptions) -> dict[str, Any] | None:
    if options.turn_detection == "local":
        return None
    if options.turn_detection == "semantic_vad":
        return {"type": "semantic_vad", **({"eagerness": options.eagerness} if options.eagerness else {})}
    return {
        "type": "server_vad",
        "threshold": 0.5 if options.threshold is None else options.threshold,
        "prefix_padding_ms": options.prefix_ms,
        "silence_duration_ms": options.silence_ms,
    }


def _hints(config: ProviderConfig, options: OpenAISttOptions) -> dict[str, Any]:
    """What is said of the speech beforehand. Languages are ISO 639-1, so "en-US" is "en"."""
    hints: dict[str, Any] = {}
    code = config.language.partition("-")[0].lower()
    if options.languages:
        hints["languages"] = list(options.languages)
    elif len(code) == 2:
        hints["language"] = code
    if options.prompt:
        hints["prompt"] = options.prompt
    if options.keywords:
        hints["keywords"] = list(options.keywords)
    return hints
