"""What Scribe refuses in a request: parameters of its realtime websocket, and forms that come with a file."""

from __future__ import annotations

from tests.fakes.misbehaviour import Recorded

LONGEST_BATCH_KEYTERM = 50


def _within(value: str, low: float, high: float) -> bool:
    try:
        return low <= float(value) <= high
    except ValueError:
        return False


def wrong_in_query(recorded: Recorded) -> str:
    """What is wrong with the parameters; empty: nothing."""

    def one(name: str) -> str:
        values = recorded.param(name)
        return values[0] if len(values) == 1 else ""

    for name, value in recorded.query:
        match name:
            case "model_id":
                fine = value in ("scribe_v2_realtime", "scribe_v3_live")
            case "audio_format":
                fine = value == "ulaw_8000"
            case "commit_strategy":
                fine = value in ("manual", "vad", "turn_prediction")
            case "vad_silence_threshold_secs":
                fine = _within(value, 0.3, 3.0) and one("commit_strategy") != "manual"
            case "vad_threshold":
                fine = _within(value, 0.1, 0.9) and one("commit_strategy") != "manual"
            case "min_speech_duration_ms" | "min_silence_duration_ms":
                fine = _within(value, 50, 2000) and value.isdigit() and one("commit_strategy") != "manual"
            case "language_code" | "secondary_languages":
                fine = value.isalpha() and value.islower() and len(value) in (2, 3)
            case "keyterms":
                fine = 1 <= len(value) <= 20 and len(recorded.param("keyterms")) <= 50
            case "include_timestamps" | "no_verbatim" | "filter_background_audio" | "enable_logging":
                fine = value in ("true", "false")
            case _:
                fine = False
        if not fine:
            return f"Invalid {name}: {value}"
    if not (one("model_id") and one("audio_format")):
        return "model_id and audio_format are required."
    if one("filter_background_audio") == "true" and one("include_timestamps") == "true":
        return "filter_background_audio cannot be combined with include_timestamps."
    return ""


def form_of(recorded: Recorded) -> dict[str, list[bytes]]:
    """The fields of a multipart form (RFC 7578)."""
    boundary = recorded.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    fields: dict[str, list[bytes]] = {}
    for part in recorded.body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        fields.setdefault(name, []).append(value.removesuffix(b"\r\n"))
    return fields


def wrong_in_form(recorded: Recorded, form: dict[str, list[bytes]]) -> str:
    """What is wrong with a form; empty: nothing."""
    known = {
        "model_id",
        "file",
        "file_format",
        "language_code",
        "tag_audio_events",
        "timestamps_granularity",
        "no_verbatim",
        "temperature",
        "keyterms",
        "webhook_metadata",  # the SDK sends these three as the text "null"
        "entity_detection",
        "entity_redaction",
    }
    if set(form) - known or {name for name, _ in recorded.query} - {"enable_logging"}:
        return f"Unknown field among {sorted(form)}."
    model = form.get("model_id", [b""])[0]
    if not model.startswith(b"scribe_") or b"realtime" in model or b"live" in model:
        return "Unknown model."
    if form.get("file_format") != [b"pcm_s16le_16"] or len(form.get("file", [b"?"])[0]) % 2:
        return "This fake takes pcm_s16le_16 only."
    if any(not 1 <= len(term) <= LONGEST_BATCH_KEYTERM for term in form.get("keyterms", [])):
        return "Invalid keyterm."
    return ""
