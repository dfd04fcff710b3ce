"""Every key that telemetry may carry. A key that is not here is dropped on export (see `privacy`).

Keys that hold what people said or who they are have a `pii` segment; they leave the process only when
`telemetry_pii` is on. Values of all other keys are ids, names from configuration, codes and numbers: never
free text, never a phone number.
"""

from __future__ import annotations

from typing import Final

# --- span names ------------------------------------------------------------------------------------------

SPAN_CALL: Final = "call"  #: admission; its context is the call's root, stored as `CallStart.traceparent`
SPAN_SESSION: Final = "session"
SPAN_TURN: Final = "turn"
SPAN_STT: Final = "stt"
SPAN_LLM: Final = "llm"
SPAN_TOOL: Final = "tool"
SPAN_TTS: Final = "tts"
SPAN_PLAYOUT: Final = "playout"
SPAN_REALTIME: Final = "realtime"

# --- attributes of spans ---------------------------------------------------------------------------------

CALL_ID: Final = "stayline.call.id"  #: the carrier's call SID
DIRECTION: Final = "stayline.call.direction"
CARRIER: Final = "stayline.call.carrier"
OUTCOME: Final = "stayline.call.outcome"
SESSION: Final = "stayline.session.number"  #: 1, 2, …
RESUMED: Final = "stayline.session.resumed"
CLOSE_REASON: Final = "stayline.session.close_reason"
BRIDGE_ID: Final = "stayline.bridge.id"
AGENT: Final = "stayline.agent"
MODE: Final = "stayline.mode"
TURN: Final = "stayline.turn.number"
TURN_SOURCE: Final = "stayline.turn.source"
INTERRUPTED: Final = "stayline.turn.interrupted"
INTERRUPTION_MODE: Final = "stayline.interruption.mode"
ENDPOINT_MS: Final = "stayline.latency.endpoint_ms"
LLM_MS: Final = "stayline.latency.llm_ms"
TTS_MS: Final = "stayline.latency.tts_ms"
TOTAL_MS: Final = "stayline.latency.total_ms"
AUDIO_MS: Final = "stayline.audio_ms"
CHARACTERS: Final = "stayline.characters"  #: length of a text, never the text
ROLE: Final = "stayline.role"  #: stt, llm, tts, realtime
PROVIDER: Final = "stayline.provider"
VOICE: Final = "stayline.voice"
FAILOVER: Final = "stayline.failover"
TOOL: Final = "stayline.tool.name"
TOOL_CALL_ID: Final = "stayline.tool.call_id"
TOOL_STATUS: Final = "stayline.tool.status"
TOOL_ATTEMPT: Final = "stayline.tool.attempt"
REASON: Final = "stayline.reason"  #: a code, e.g. "bad_token"
STATUS: Final = "stayline.status"  #: an HTTP status or a websocket close code
ERROR_TYPE: Final = "error.type"
GEN_AI_MODEL: Final = "gen_ai.request.model"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_ESCAPED: Final = "exception.escaped"

# Temporal's own, as its OpenTelemetry interceptor writes them.
TEMPORAL_WORKFLOW_ID: Final = "temporalWorkflowID"
TEMPORAL_RUN_ID: Final = "temporalRunID"
TEMPORAL_ACTIVITY_ID: Final = "temporalActivityID"
TEMPORAL_ACTIVITY_TYPE: Final = "temporalActivityType"
TEMPORAL_UPDATE_ID: Final = "temporalUpdateID"

# What people said and who they are.
PII_FROM_NUMBER: Final = "stayline.pii.from_number"
PII_TO_NUMBER: Final = "stayline.pii.to_number"
PII_USER_TEXT: Final = "stayline.pii.user_text"
PII_AGENT_TEXT: Final = "stayline.pii.agent_text"
PII_TOOL_ARGUMENTS: Final = "stayline.pii.tool_arguments"
PII_TOOL_RESULT: Final = "stayline.pii.tool_result"
PII_TRANSFER_TO: Final = "stayline.pii.transfer_to"
PII_ERROR: Final = "stayline.pii.error"  #: an error's message, which may quote any of the above

# OpenTelemetry's own keys for an exception's text: treated as if they were named pii.
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# --- labels of metrics -----------------------------------------------------------------------------------

LABEL_AGENT: Final = "agent"
LABEL_MODE: Final = "mode"
LABEL_OUTCOME: Final = "outcome"
LABEL_RESUMED: Final = "resumed"
LABEL_REASON: Final = "reason"
LABEL_PART: Final = "part"
LABEL_PROVIDER: Final = "provider"
LABEL_TOOL: Final = "tool"
LABEL_STATUS: Final = "status"
LABEL_ROLE: Final = "role"


def _values(*, prefix: str = "", without: tuple[str, ...] = ()) -> frozenset[str]:
    return frozenset(
        value
        for name, value in globals().items()
        if name.isupper() and isinstance(value, str) and name.startswith(prefix) and not name.startswith(without)
    )


SPAN_KEYS: Final = _values(without=("SPAN_", "LABEL_"))
LABELS: Final = _values(prefix="LABEL_")
_TEXT_OF_EXCEPTIONS: Final = frozenset({EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE})


def is_pii(key: str) -> bool:
    """Whether a key holds what people said or who they are: it has a segment `pii` (parted by `.` or `_`)."""
    return "pii" in key.lower().replace("_", ".").split(".") or key in _TEXT_OF_EXCEPTIONS
