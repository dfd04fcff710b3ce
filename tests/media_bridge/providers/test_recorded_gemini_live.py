"""Real conversations with Gemini Live, recorded by others, played to the adapter over a local server.

Any recording of the same kind that is put into the folder is played too. What the recorded client did, the adapter
is made to do: its setup is `connect`, content that wants an answer is `say`, other content before it is the
conversation so far, a tool's response is `tool_result`. What is expected is read from the frames themselves.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from media_bridge.providers.base import (
    LlmUsage,
    ProviderConfig,
    RealtimeEvent,
    RealtimeRequest,
    RealtimeSession,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    ToolCallDelta,
)
from media_bridge.providers.gemini_live import GeminiLive
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, UserMessage
from tests.fakes.recorded_socket import Frame, RecordedSocket, read_recording
from tests.fakes.sound import silence
from tests.media_bridge.providers.gemini import own_tasks, until

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "recordings" / "gemini-live"


def recordings() -> list[Any]:
    found = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    missing = pytest.mark.skip(reason=f"NO RECORDINGS of Gemini Live in {FOLDER.parent.name}/{FOLDER.name}")
    return found or [pytest.param(FOLDER, id="none", marks=missing)]


@pytest.mark.parametrize("path", recordings())
async def test_a_recorded_conversation_is_understood(path: Path) -> None:
    frames = [Frame(frame.direction, camel(frame.data)) for frame in read_recording(path)]
    async with RecordedSocket(frames, same, binary=True) as player:
        model = frames[0].data["setup"]["model"].removeprefix("models/")
        provider = GeminiLive(ProviderConfig("google", model, api_key="test-key", base_url=player.url))
        session = await provider.connect(RealtimeRequest("Be brief.", before(frames), (), "CA1"))
        events = await act(session, frames)
        await session.aclose()
    heard, wanted = Heard.of(events), Heard.expected(frames)
    assert heard == wanted
    assert heard.text or heard.calls
    assert not own_tasks()


def camel(value: Any) -> Any:
    """Google takes names in both spellings; recordings have both. A tool's arguments keep their own."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = ("args", "response", "parameters")
    return {spelled(name): item if name in kept else camel(item) for name, item in value.items()}


def spelled(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def same(recorded: dict[str, Any], sent: dict[str, Any]) -> bool | None:
    if "audio" in recorded.get("realtimeInput", {}):
        return None
    if "clientContent" in recorded and "clientContent" in sent:
        return wants_answer(recorded) == wants_answer(sent)
    return set(recorded) == set(sent)


def wants_answer(message: dict[str, Any]) -> bool:
    return bool(message["clientContent"].get("turnComplete"))


def before(frames: Sequence[Frame]) -> list[Message]:
    """The conversation that the recorded client told before anything was said."""
    messages: list[Message] = []
    for frame in frames:
        if "clientContent" in frame.data and not wants_answer(frame.data):
            messages += [
                (AgentMessage if turn["role"] == "model" else UserMessage)(text=part["text"])
                for turn in frame.data["clientContent"]["turns"]
                for part in turn["parts"]
            ]
        elif frame.direction == "received" and "setupComplete" not in frame.data:
            break
    return messages


async def act(session: RealtimeSession, frames: Sequence[Frame]) -> list[RealtimeEvent]:
    """Do what the recorded client did, each after what it had heard by then; returns everything heard."""
    events: list[RealtimeEvent] = []
    called = 0
    for frame in frames:
        content = frame.data.get("clientContent")
        if frame.direction == "received":
            called += len(frame.data.get("toolCall", {}).get("functionCalls", []))
        elif content and wants_answer(frame.data):
            await session.say(" ".join(part["text"] for turn in content["turns"] for part in turn["parts"]))
        elif response := frame.data.get("toolResponse"):
            missing = called - sum(isinstance(event, ToolCallDelta) for event in events)
            if missing:
                events += await until(session, ToolCallDelta, missing)
            for result in response["functionResponses"]:
                text = json.dumps(result["response"])
                answer = ToolMessage(tool_call_id=result["id"], name=result["name"], content=text)
                await session.tool_result(answer, respond=True)
        elif "realtimeInput" in frame.data:
            await session.send(silence(20))
    turns = sum("usageMetadata" in frame.data for frame in received(frames))
    return events + await until(session, LlmUsage, turns)


def received(frames: Sequence[Frame]) -> Iterator[Frame]:
    return (frame for frame in frames if frame.direction == "received")


@dataclasses.dataclass
class Heard:
    text: str = ""
    audio: list[int] = dataclasses.field(default_factory=list)  #: samples of each response that was not cancelled
    calls: list[ToolCall] = dataclasses.field(default_factory=list)
    cancelled: int = 0
    usage: list[LlmUsage] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[RealtimeEvent]) -> Heard:
        heard = cls()
        samples: dict[str, int] = {}
        for event in events:
            match event:
                case ResponseText(_, text):
                    heard.text += text
                case ResponseAudio(response, audio):
                    samples[response] = samples.get(response, 0) + len(audio)
                case ToolCallDelta(call):
                    heard.calls.append(call)
                case ResponseDone(response, "cancelled"):
                    heard.cancelled += 1
                    samples.pop(response, None)  # it ends where it ends
                case LlmUsage():
                    heard.usage.append(event)
                case _:
                    pass
        heard.audio = list(samples.values())
        return heard

    @classmethod
    def expected(cls, frames: Sequence[Frame]) -> Heard:
        wanted = cls()
        pcm = 0
        for frame in received(frames):
            spoken = frame.data.get("serverContent", {})
            wanted.text += spoken.get("outputTranscription", {}).get("text", "")
            for part in spoken.get("modelTurn", {}).get("parts", []):
                pcm += len(base64.b64decode(part.get("inlineData", {}).get("data", "")))
            calls = frame.data.get("toolCall", {}).get("functionCalls", [])
            wanted.calls += [ToolCall(id=c["id"], name=c["name"], arguments=c.get("args", {})) for c in calls]
            if pcm and (calls or spoken.keys() & {"generationComplete", "turnComplete", "interrupted"}):
                if spoken.get("interrupted"):
                    wanted.cancelled += 1
                else:
                    wanted.audio.append(-(-(pcm // 2) // 3))  # 24 kHz to 8 kHz
                pcm = 0
            if counts := frame.data.get("usageMetadata"):
                spent = counts.get("responseTokenCount", 0) + counts.get("thoughtsTokenCount", 0)
                wanted.usage.append(LlmUsage(counts.get("promptTokenCount", 0), spent))
        return wanted
