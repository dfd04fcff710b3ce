"""Valid messages of each vendor, in about the order of a conversation: what the fuzz tests mutate."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
SOUND: Final = "f39/f39/f39/f39/"


def _nova(text: str, start: float, duration: float, **flags: bool) -> Json:
    words = [
        {"word": word, "start": start + 0.1 * n, "end": start + 0.1 * n + 0.08, "confidence": 0.97}
        for n, word in enumerate(text.split())
    ]
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "start": start,
        "duration": duration,
        "is_final": False,
        "speech_final": False,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.98, "words": words}]},
        **flags,
    }


NOVA: Final[list[Json]] = [
    {"type": "Metadata", "request_id": "r", "duration": 0.0, "channels": 1},
    {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.3},
    _nova("hello", 0.3, 0.5),
    _nova("hello there", 0.3, 0.9, is_final=True),
    _nova("my order", 1.2, 0.6, is_final=True, speech_final=True),
    _nova("", 1.8, 1.0, is_final=True),
    {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.7},
    _nova("noise", 3.0, 0.4),
    _nova("", 3.4, 2.0, is_final=True),
]


def _flux(event: str, text: str, end: float) -> Json:
    words = [
        {"word": w, "confidence": 0.9, "start": 0.2 * n, "end": 0.2 * n + 0.1} for n, w in enumerate(text.split())
    ]
    return {
        "type": "TurnInfo",
        "request_id": "r",
        "sequence_id": 3,
        "event": event,
        "turn_index": 0,
        "audio_window_start": 0.0,
        "audio_window_end": end,
        "transcript": text,
        "words": words,
        "end_of_turn_confidence": 0.7,
    }


FLUX: Final[list[Json]] = [
    {"type": "Connected", "request_id": "r", "sequence_id": 0},
    _flux("Update", "", 0.24),
    _flux("StartOfTurn", "hello", 0.5),
    _flux("Update", "hello there", 0.8),
    _flux("EagerEndOfTurn", "hello there", 1.2),
    _flux("TurnResumed", "hello there my", 1.6),
    _flux("EndOfTurn", "hello there my order", 2.4),
    _flux("Update", "", 3.0),
]

_TIMED: Final[Json] = {
    "message_type": "committed_transcript_with_timestamps",
    "text": "Hello there.",
    "language_code": "en",
    "words": [
        {"text": "Hello", "start": 0.1, "end": 0.4, "type": "word", "logprob": -0.1, "characters": ["H"]},
        {"text": " ", "start": 0.4, "end": 0.5, "type": "spacing", "logprob": 0.0},
        {"text": "there.", "start": 0.5, "end": 0.9, "type": "word", "logprob": -0.2},
    ],
}
SCRIBE: Final[list[Json]] = [
    {"message_type": "session_started", "session_id": "s1", "config": {"model_id": "scribe_v2_realtime"}},
    {"message_type": "partial_transcript", "text": "Hello"},
    {"message_type": "partial_transcript", "text": "Hello there"},
    {"message_type": "committed_transcript", "text": "Hello there."},
    _TIMED,
    {"message_type": "committed_transcript", "text": ""},
    {**_TIMED, "text": "", "words": []},
    {"message_type": "commit_throttled", "error": "too soon"},
    {"message_type": "warning", "warning": "slow"},
    {"message_type": "rate_limited", "error": "too many"},
]

ALIGNMENT: Final[list[Json]] = [
    {"chars": list("Hello there. "), "charStartTimesMs": [60 * n for n in range(13)], "charDurationsMs": [60] * 13},
    {"chars": list("My order"), "charStartTimesMs": [50 * n for n in range(8)], "charDurationsMs": [50] * 8},
]
CLIP_ALIGNMENT: Final[list[Json]] = [
    {
        "characters": list("Hello there. "),
        "character_start_times_seconds": [0.06 * n for n in range(13)],
        "character_end_times_seconds": [0.06 * n + 0.06 for n in range(13)],
    }
]

_WRITTEN: Final = "conversation.item.input_audio_transcription"
OPENAI_TURNS: Final[list[Json]] = [
    {"type": "session.created", "session": {"id": "sess"}},
    {"type": "input_audio_buffer.speech_started", "event_id": "e", "audio_start_ms": 300, "item_id": "i1"},
    {"type": f"{_WRITTEN}.delta", "item_id": "i1", "content_index": 0, "delta": "Hel"},
    {"type": "input_audio_buffer.speech_stopped", "event_id": "e", "audio_end_ms": 900, "item_id": "i1"},
    {"type": "input_audio_buffer.committed", "item_id": "i1", "previous_item_id": None},
    {
        "type": f"{_WRITTEN}.completed",
        "item_id": "i1",
        "transcript": "Hello.",
        "logprobs": [{"token": "Hello", "logprob": -0.1}],
    },
    {"type": "input_audio_buffer.speech_started", "event_id": "e", "audio_start_ms": 1300, "item_id": "i2"},
    {"type": "input_audio_buffer.speech_stopped", "event_id": "e", "audio_end_ms": 1900, "item_id": "i2"},
    {"type": "input_audio_buffer.committed", "item_id": "i2", "previous_item_id": "i1"},
    {"type": f"{_WRITTEN}.failed", "item_id": "i2", "error": {"code": "audio_unintelligible", "message": "?"}},
    {"type": f"{_WRITTEN}.failed", "item_id": "i3", "error": {"code": "server_error", "message": "?"}},
    {
        "type": "error",
        "error": {"type": "invalid_request_error", "code": "x", "message": "no", "event_id": "ask_1"},
    },
]

OPENAI_TALK: Final[list[Json]] = [
    {
        "type": "response.created",
        "response": {"id": "r1", "status": "in_progress", "metadata": {"call_id": "CA1", "ask": "ask_1"}},
    },
    {"type": "response.output_audio_transcript.delta", "response_id": "r1", "item_id": "a1", "delta": "Good "},
    {
        "type": "response.output_audio.delta",
        "response_id": "r1",
        "item_id": "a1",
        "content_index": 0,
        "delta": SOUND,
    },
    {
        "type": "response.output_item.done",
        "response_id": "r1",
        "item": {
            "id": "a2",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "find",
            "arguments": '{"n": 1}',
        },
    },
    {
        "type": "response.done",
        "response": {
            "id": "r1",
            "status": "completed",
            "status_details": None,
            "usage": {"input_tokens": 10, "output_tokens": 5, "input_token_details": {"cached_tokens": 2}},
        },
    },
    *OPENAI_TURNS[1:9],
    {"type": "response.created", "response": {"id": "r2", "metadata": None}},
    {
        "type": "response.output_audio.delta",
        "response_id": "r2",
        "item_id": "b1",
        "content_index": 0,
        "delta": SOUND,
    },
    {
        "type": "response.done",
        "response": {
            "id": "r2",
            "status": "cancelled",
            "status_details": {"type": "cancelled", "reason": "turn_detected"},
        },
    },
    {
        "type": "error",
        "error": {"code": "conversation_already_has_active_response", "message": "busy", "event_id": "ask_2"},
    },
    {"type": "error", "error": {"code": "session_expired", "message": "old"}},
    {
        "type": "response.done",
        "response": {
            "id": "r3",
            "status": "failed",
            "status_details": {"error": {"code": "server_error", "message": "?"}},
        },
    },
    {
        "type": "response.done",
        "response": {"id": "r3", "status": "incomplete", "status_details": {"reason": "max_output_tokens"}},
    },
]

GEMINI: Final[list[Json]] = [
    {"setupComplete": {}},
    {"sessionResumptionUpdate": {"newHandle": "h1", "resumable": True}},
    {"voiceActivity": {"voiceActivityType": "ACTIVITY_START"}},
    {"serverContent": {"inputTranscription": {"text": "Hello"}}},
    {"serverContent": {"interimInputTranscription": {"text": " there"}}},
    {"voiceActivity": {"voiceActivityType": "ACTIVITY_END"}},
    {"serverContent": {"outputTranscription": {"text": "Good day."}}},
    {
        "serverContent": {
            "modelTurn": {"parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": SOUND}}]}
        }
    },
    {"toolCall": {"functionCalls": [{"id": "c1", "name": "find", "args": {"n": 1}}]}},
    {"toolCallCancellation": {"ids": ["c1"]}},
    {"serverContent": {"generationComplete": True}},
    {"serverContent": {"interrupted": True}},
    {
        "serverContent": {"turnComplete": True, "turnCompleteReason": "MALFORMED_FUNCTION_CALL"},
        "usageMetadata": {"promptTokenCount": 12, "responseTokenCount": 7, "thoughtsTokenCount": 3},
    },
    {"goAway": {"timeLeft": "50s"}},
]


def _chunk(delta: Json, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


CHAT: Final[list[Json]] = [
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"content": "Hello "}),
    _chunk(
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "find", "arguments": ""}}
            ]
        }
    ),
    _chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"n": 1}'}}]}),
    _chunk({}, "tool_calls"),
    {
        **_chunk({}),
        "choices": [],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    },
]

_ITEM: Final[Json] = {
    "id": "f1",
    "type": "function_call",
    "status": "completed",
    "call_id": "c1",
    "name": "find",
    "arguments": '{"n": 1}',
}
RESPONSES: Final[list[Json]] = [
    {
        "type": "response.created",
        "sequence_number": 0,
        "response": {"id": "r", "status": "in_progress", "output": []},
    },
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": {"id": "m1", "type": "message", "role": "assistant", "status": "in_progress", "content": []},
    },
    {
        "type": "response.output_text.delta",
        "sequence_number": 2,
        "item_id": "m1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello ",
        "logprobs": [],
    },
    {
        "type": "response.output_item.added",
        "sequence_number": 3,
        "output_index": 1,
        "item": {**_ITEM, "status": "in_progress"},
    },
    {"type": "response.output_item.done", "sequence_number": 4, "output_index": 1, "item": _ITEM},
    {
        "type": "response.completed",
        "sequence_number": 5,
        "response": {
            "id": "r",
            "status": "completed",
            "output": [],
            "usage": {
                "input_tokens": 9,
                "output_tokens": 4,
                "total_tokens": 13,
                "input_tokens_details": {"cached_tokens": 1},
            },
        },
    },
    {
        "type": "response.incomplete",
        "sequence_number": 6,
        "response": {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}},
    },
    {
        "type": "response.failed",
        "sequence_number": 7,
        "response": {"id": "r", "error": {"code": "server_error", "message": "?"}},
    },
    {"type": "error", "sequence_number": 8, "code": "rate_limit_exceeded", "message": "slow down", "param": None},
]

ANTHROPIC: Final[list[Json]] = [
    {
        "type": "message_start",
        "message": {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "c",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello "}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "c1", "name": "find", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"n": 1}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}},
    {"type": "message_stop"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
]
