"""Real sessions of OpenAI Realtime, recorded by others, played to the adapter over a local server.

Any recording of the same kind that is put into the folder is tested too: it configures a session, adds items, asks
for responses, and answers tool calls. What is expected is read from OpenAI's own summary of each
response. The recordings' sound is 24 kHz PCM; it passes through as it is.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from media_bridge.providers.base import LlmUsage, ProviderConfig, ResponseDone, ResponseStarted
from media_bridge.providers.openai_realtime import OpenAIRealtime
from stayline.models import AgentMessage, Message, ToolMessage, UserMessage
from tests.fakes.recorded_socket import Frame, RecordedSocket, read_recording
from tests.media_bridge.providers.realtime import audio_of, calls_of, hear, session_request, text_of

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "recordings" / "openai-realtime"
Json = dict[str, Any]


def recordings() -> list[Any]:
    found = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    missing = pytest.mark.skip(reason=f"NO RECORDINGS of OpenAI Realtime in {FOLDER.parent.name}/{FOLDER.name}")
    return found or [pytest.param(FOLDER, id="none", marks=missing)]


def same(recorded: Json, sent: Json) -> bool | None:
    if recorded.get("item", {}).get("type") == "function_call_output":
        return None  # others answer when the arguments are complete, we when the call is
    return bool(recorded["type"] == sent.get("type"))


@pytest.mark.parametrize("path", recordings())
async def test_a_recorded_session_means_what_openai_says_of_it(path: Path) -> None:
    frames = read_recording(path)
    outputs = {item["call_id"]: item["output"] for item in _sent_items(frames, "function_call_output")}
    async with RecordedSocket(frames, same) as player:
        config = ProviderConfig("openai", "gpt-realtime", api_key="test-key", base_url=player.url)
        session = await OpenAIRealtime(config).connect(session_request(*_conversation(frames)))
        await session.respond()
        for response in _responses(frames):
            events = await hear(session, ResponseDone)
            assert events[0] == ResponseStarted(response["id"])
            assert events[-1] == ResponseDone(response["id"])
            assert text_of(events, response["id"]) == _text(response)
            assert audio_of(events, response["id"]) == _audio(frames, response["id"])
            assert [e for e in events if isinstance(e, LlmUsage)] == [_usage(response)]
            calls = calls_of(events)
            assert [(c.call.id, c.call.name, c.call.arguments) for c in calls] == _calls(response)
            assert not any(call.malformed for call in calls)
            for number, call in enumerate(calls, start=1):
                result = ToolMessage(tool_call_id=call.call.id, name=call.call.name, content=outputs[call.call.id])
                await session.tool_result(result, respond=number == len(calls))
        await player.played.wait()
        await session.aclose()
    assert [m["item"] for m in player.sent if m["type"] == "conversation.item.create"] == _sent_items(frames)


def _sent_items(frames: list[Frame], kind: str = "") -> list[Json]:
    items = [f.data["item"] for f in frames if f.direction == "sent" and "item" in f.data]
    return [item for item in items if kind in ("", item["type"])]


def _conversation(frames: list[Frame]) -> list[Message]:
    """What the recorded client told the model before it asked for anything."""
    messages: list[Message] = []
    for item in _sent_items(frames, "message"):
        text = item["content"][0]["text"]
        messages.append(AgentMessage(text=text) if item["role"] == "assistant" else UserMessage(text=text))
    return messages


def _responses(frames: list[Frame]) -> list[Json]:
    return [f.data["response"] for f in frames if f.data["type"] == "response.done"]


def _text(response: Json) -> str:
    parts = [part for item in response["output"] for part in item.get("content", [])]
    return "".join(part.get("transcript") or part.get("text") or "" for part in parts)


def _audio(frames: list[Frame], response: str) -> bytes:
    deltas = [f.data for f in frames if f.data["type"] == "response.output_audio.delta"]
    return b"".join(base64.b64decode(d["delta"]) for d in deltas if d["response_id"] == response)


def _calls(response: Json) -> list[tuple[str, str, Json]]:
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [(call["call_id"], call["name"], json.loads(call["arguments"])) for call in calls]


def _usage(response: Json) -> LlmUsage:
    usage = response["usage"]
    return LlmUsage(usage["input_tokens"], usage["output_tokens"], usage["input_token_details"]["cached_tokens"])
