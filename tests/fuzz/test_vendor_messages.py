"""Vendors' messages, mutated: an adapter ignores them or fails with what its shell makes a ProviderError of."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from media_bridge.providers import elevenlabs_alignment
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.deepgram_flux import FluxTurns
from media_bridge.providers.deepgram_nova import NovaOptions, NovaTurns
from media_bridge.providers.elevenlabs_scribe import failure, utterance_rule
from media_bridge.providers.elevenlabs_scribe_turns import LocalTurns, VendorTurns
from media_bridge.providers.gemini_talk import Talk as GeminiTalk
from media_bridge.providers.openai_realtime_talk import SessionFailed
from media_bridge.providers.openai_realtime_talk import Talk as OpenAITalk
from media_bridge.providers.openai_realtime_turns import CallerTurns
from media_bridge.providers.openai_transcription_stream import refusal
from media_bridge.providers.openai_turns import ServerTurns, TranscriptionFailed
from media_bridge.providers.vendor_socket import MALFORMED, parsed
from stayline.errors import ProviderError
from stayline.models import ToolMessage
from tests.fuzz import vendor_messages as valid
from tests.fuzz.event_types import assert_well_typed
from tests.fuzz.generators import Raw, fed, fuzzed, mutants, scripts

CONFIG = ProviderConfig("openai", "m", api_key="k" * 20)
FRAME = bytes(160)
SOUND = json.dumps(valid.GEMINI[7])


def called(arguments: str) -> str:
    """OpenAI's word of a tool call with such arguments."""
    item = {"type": "function_call", "call_id": "c1", "name": "find", "arguments": arguments}
    return json.dumps({"type": "response.output_item.done", "response_id": "r1", "item": item})


def hear(name: str, script: list[Raw], handle: Callable[[dict[str, Any]], list[Any]]) -> list[Any]:
    """As the shells do: parse, handle, leave out what is malformed."""
    fed(name, len(script))
    events: list[Any] = []
    for raw in script:
        try:
            events += handle(parsed(raw))
        except MALFORMED:
            continue
    assert_well_typed(events)
    return events


@fuzzed()
@given(script=scripts(valid.NOVA))
@example(script=['{"type": "SpeechStarted", "timestamp": 1e999}', "[" * 100_000])
@example(
    script=[
        '{"type": "Results", "start": 0, "duration": 1, "channel": {"alternatives": [{"transcript": "\\ud800"}]}}'
    ]
)
def test_deepgram_nova(script: list[Raw]) -> None:
    turns = NovaTurns(NovaOptions())
    hear("deepgram nova", script, turns.handle)
    turns.reconnected(turns.heard_ms)
    assert type(turns.heard_ms) is int
    hear("deepgram nova", script[:3], turns.handle)


@fuzzed()
@given(script=scripts(valid.FLUX))
def test_deepgram_flux(script: list[Raw]) -> None:
    turns = FluxTurns()
    hear("deepgram flux", script, turns.handle)
    assert_well_typed(turns.reconnected(turns.heard_ms))
    assert type(turns.heard_ms) is int
    hear("deepgram flux", script[:3], turns.handle)


@fuzzed()
@given(script=scripts(valid.SCRIBE), timed=st.booleans(), local=st.booleans())
@example(
    script=[
        '{"message_type": "committed_transcript_with_timestamps", "text": "a", "words": '
        '[{"type": "word", "start": 0, "end": 1, "logprob": 1e9}]}'
    ],
    timed=True,
    local=False,
)
def test_elevenlabs_scribe(script: list[Raw], timed: bool, local: bool) -> None:
    turns = LocalTurns(timed, utterance_rule(None, 0.5, None)) if local else VendorTurns(timed, 500)
    sent_ms = 0

    def take(message: dict[str, Any]) -> list[Any]:
        nonlocal sent_ms
        sent_ms += 20
        if failure(message, "s1", "secret-key") is not None:
            return []
        match message.get("message_type"):
            case "partial_transcript":
                return turns.partial(message["text"].strip(), sent_ms)
            case "committed_transcript" | "committed_transcript_with_timestamps":
                return [e for piece in turns.commits.take(message) for e in turns.committed(piece, sent_ms)]
            case "commit_throttled":
                turns.throttled(sent_ms)
        return []

    hear("elevenlabs scribe", script, take)
    released = [e for piece in turns.commits.release() for e in turns.committed(piece, sent_ms)]
    assert_well_typed(released)
    assert type(turns.needed_from_ms(sent_ms)) is int
    turns.new_session(turns.needed_from_ms(sent_ms))


@fuzzed(4)
@given(
    alignment=mutants(valid.ALIGNMENT),
    clip=mutants(valid.CLIP_ALIGNMENT),
    text=st.text(max_size=30),
    size=st.integers(0, 9000),
)
@example(alignment={"chars": ["a", " "], "charStartTimesMs": [0, float("inf")]}, clip={}, text="a ", size=9)
def test_elevenlabs_alignment(alignment: Any, clip: Any, text: str, size: int) -> None:
    """Whatever it says, all of the audio is there, in order, and no text is counted that is not there."""
    fed("elevenlabs alignment", 2)
    audio = Random(size).randbytes(size)
    for split in (
        lambda: elevenlabs_alignment.split(audio, alignment, text, 0),
        lambda: elevenlabs_alignment.ClipAlignment(text).split(audio, clip),
    ):
        try:
            pieces = split()
        except MALFORMED:
            continue
        assert b"".join(piece for piece, _ in pieces) == audio
        assert all(chars is None or 0 <= chars <= len(text) for _, chars in pieces)


@fuzzed()
@given(script=scripts(valid.OPENAI_TURNS))
@example(
    script=["[" * 100_000, '{"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 1e999}']
)
def test_openai_turns(script: list[Raw]) -> None:
    turns = ServerTurns(300, 500)
    refused: list[ProviderError] = []

    def take(message: dict[str, Any]) -> list[Any]:
        turns.push(FRAME)
        turns.outgoing()
        try:
            if str(message.get("type")) == "error":
                turns.rejected(message["error"])
            else:
                turns.handle(message)
        except TranscriptionFailed as failed:
            refused.append(refusal(CONFIG, failed.body))
        return turns.due()

    hear("openai transcription", script, take)
    turns.new_session()
    turns.outgoing()
    turns.out_of_time()
    turns.give_up()
    assert_well_typed(turns.due())


@fuzzed()
@given(script=scripts(valid.OPENAI_TALK), by_itself=st.booleans())
@example(
    script=['{"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 1e999}'],
    by_itself=True,
)
@example(script=['{"type": "response.created", "response": {"id": "\\udfff x"}}'], by_itself=True)
@example(script=[called('{"a": "\\ud800"}'), called('{"a":' * 300 + "1" + "}" * 300)], by_itself=True)
@example(
    script=[
        '{"type": "response.done", "response": {"id": "r", "status": "completed", "usage": {"input_tokens": "9"}}}'
    ],
    by_itself=True,
)
def test_openai_realtime(script: list[Raw], by_itself: bool) -> None:
    turns = CallerTurns(300, 500, str)
    talk = OpenAITalk("CA1", turns, answers=by_itself, clean=str)
    asks = 0
    refused: list[ProviderError] = []

    def take(message: dict[str, Any]) -> list[Any]:
        nonlocal asks
        asks += 1
        turns.sent += len(FRAME)
        match asks % 9:
            case 1:
                talk.say("Hello.")
            case 3:
                talk.respond()
            case 5:
                talk.tool_result(ToolMessage(tool_call_id="c1", name="find", content="1"), respond=True)
            case 7:
                talk.cancel()
                talk.truncate("r1", 20)
        try:
            return talk.handle(message)
        except SessionFailed as failed:
            refused.append(refusal(CONFIG, failed.body))
            return []

    hear("openai realtime", script, take)
    for sent in talk.outbox:
        sent.encode()


@fuzzed()
@given(script=scripts(valid.GEMINI), blocking=st.booleans())
@example(script=['{"toolCallCancellation": {"ids": [null, "\\ud800"]}}'], blocking=True)
@example(script=['{"sessionResumptionUpdate": {"newHandle": [1], "resumable": true}}'], blocking=True)
@example(script=['{"serverContent": {"outputTranscription": {"text": [1]}}}'], blocking=True)
@example(script=[SOUND.replace("24000", rate) for rate in ("0", "1", "999999999", "9" * 5000)], blocking=True)
def test_gemini_live(script: list[Raw], blocking: bool) -> None:
    talk = GeminiTalk(blocking=blocking)
    asks = 0

    def take(message: dict[str, Any]) -> list[Any]:
        nonlocal asks
        asks += 1
        match asks % 9:
            case 1:
                talk.say("Hello.")
            case 3:
                talk.respond()
            case 5:
                talk.tool_result(ToolMessage(tool_call_id="c1", name="find", content="1"), respond=True)
            case 7:
                talk.note("A key was pressed.")
        return [*talk.hear(FRAME), *talk.handle_message(message)]

    hear("gemini live", script, take)
    assert type(talk.handle) is str
    for sent in talk.outbox:
        sent.encode()
