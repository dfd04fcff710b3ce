"""The conversation that a fake OpenAI Realtime keeps, and its responses: events in OpenAI's order, as recorded."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from typing import TYPE_CHECKING, Any

from tests.fakes.llm import Call, Ending, Part, Say, Tokens, Wait, fragments, words
from tests.fakes.openai_realtime_wire import Refused
from tests.fakes.sound import BYTES_PER_MS

if TYPE_CHECKING:
    from tests.fakes.openai_realtime import VoiceSession

DELTA_BYTES = 200 * BYTES_PER_MS


@dataclasses.dataclass(slots=True)
class Item:
    id: str
    type: str
    role: str = ""
    text: str = ""  #: of a message, the arguments of a call, the output of a tool
    status: str = "completed"
    name: str = ""
    call_id: str = ""
    heard: str | None = None  #: it is sound, and this is what it says
    audio_ms: int = 0

    @classmethod
    def created(cls, item_id: str, item: dict[str, Any]) -> Item:
        """An item that a client has added."""
        text = (
            item["content"][0]["text"] if item["type"] == "message" else item.get("arguments", item.get("output"))
        )
        return cls(
            item.get("id", item_id),
            item["type"],
            item.get("role", ""),
            str(text),
            name=item.get("name", ""),
            call_id=item.get("call_id", ""),
        )

    def truncate(self, end_ms: int, ms_per_char: float) -> None:
        self.audio_ms = end_ms
        self.text = self.text[: int(end_ms / ms_per_char)]

    def wire(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": self.id, "type": self.type, "status": self.status}
        match self.type:
            case "function_call":
                return {**shown, "name": self.name, "call_id": self.call_id, "arguments": self.text}
            case "function_call_output":
                return {**shown, "call_id": self.call_id, "output": self.text}
        if self.heard is not None:
            content: dict[str, Any] = {"type": "input_audio", "transcript": None}
        elif self.audio_ms:
            content = {"type": "output_audio", "transcript": self.text}
        else:
            content = {"type": "output_text" if self.role == "assistant" else "input_text", "text": self.text}
        empty = self.status == "in_progress"
        return {**shown, "role": self.role, "content": [] if empty else [content]}


class Conversation:
    """What the model knows, in order."""

    def __init__(self, ms_per_char: float) -> None:
        self.items: list[Item] = []
        self.ms_per_char = ms_per_char

    @property
    def memory(self) -> list[tuple[str, str]]:
        return [(item.role or item.type, item.text) for item in self.items]

    @property
    def call_ids(self) -> set[str]:
        return {item.call_id for item in self.items if item.type == "function_call"}

    @property
    def open_calls(self) -> set[str]:
        """Tool calls without a result."""
        return self.call_ids - {item.call_id for item in self.items if item.type == "function_call_output"}

    @property
    def last_id(self) -> str | None:
        return self.items[-1].id if self.items else None

    def find(self, item_id: str) -> Item:
        for item in self.items:
            if item.id == item_id:
                return item
        raise Refused(f"Item with item_id '{item_id}' does not exist.", "item_not_found")

    def add(self, item: Item) -> str | None:
        """Returns the id of the item before it."""
        previous = self.last_id
        self.items.append(item)
        return previous


class Speaker:
    """One response."""

    def __init__(self, session: VoiceSession, metadata: dict[str, str] | None, parts: list[Part]) -> None:
        self.id = session.new_id("resp")
        self._session = session
        self._conversation = session.conversation
        self._metadata = metadata
        self._parts = parts
        self._output: list[Item] = []
        self.over = asyncio.Event()
        self._stopped = asyncio.Event()
        self._reason = ""

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._stopped.set()

    async def speak(self) -> None:
        await self._session.send("response.created", response=self._wire("in_progress"))
        for part in self._parts:
            if self._stopped.is_set():
                break
            if isinstance(part, Wait):
                await self._wait(part.until)
            elif isinstance(part, Say):
                await self._say(part.text)
            elif isinstance(part, Call):
                await self._call(part)
        ending = next((part.reason for part in self._parts if isinstance(part, Ending)), "completed")
        response = self._wire("cancelled" if self._stopped.is_set() else ending)
        self._session.response_over()
        await self._session.send("response.done", response=response)
        self.over.set()

    async def _wait(self, until: asyncio.Event) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in (until, self._stopped)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._session.send(kind, response_id=self.id, **fields)
        await asyncio.sleep(0)

    async def _begin(self, item: Item) -> str | None:
        self._output.append(item)
        previous = self._conversation.add(item)
        await self._send("response.output_item.added", output_index=len(self._output) - 1, item=item.wire())
        await self._session.send("conversation.item.added", previous_item_id=previous, item=item.wire())
        return previous

    async def _end(self, item: Item, previous: str | None) -> None:
        item.status = "incomplete" if self._stopped.is_set() else "completed"
        await self._session.send("conversation.item.done", previous_item_id=previous, item=item.wire())
        await self._send("response.output_item.done", output_index=len(self._output) - 1, item=item.wire())

    async def _say(self, text: str) -> None:
        item = Item(self._session.new_id("item"), "message", "assistant", status="in_progress")
        previous = await self._begin(item)
        place = {"item_id": item.id, "output_index": len(self._output) - 1, "content_index": 0}
        await self._send("response.content_part.added", **place, part={"type": "audio", "transcript": ""})
        ms_per_char = self._conversation.ms_per_char
        sound = self._session.voice.sound(text, ms_per_char)
        for word in words(text):
            if self._stopped.is_set():
                break
            await self._send("response.output_audio_transcript.delta", **place, delta=word)
            begun = round(len(item.text) * ms_per_char) * BYTES_PER_MS
            item.text += word
            ends = round(len(item.text) * ms_per_char) * BYTES_PER_MS
            for begin in range(begun, ends, DELTA_BYTES):
                piece = sound[begin : min(begin + DELTA_BYTES, ends)]
                item.audio_ms += len(piece) // BYTES_PER_MS
                await self._send("response.output_audio.delta", **place, delta=base64.b64encode(piece).decode())
        await self._send("response.output_audio.done", **place)
        await self._send("response.output_audio_transcript.done", **place, transcript=item.text)
        part = {"type": "audio", "transcript": item.text}
        await self._send("response.content_part.done", **place, part=part)
        await self._end(item, previous)

    async def _call(self, call: Call) -> None:
        item = Item(
            self._session.new_id("item"),
            "function_call",
            status="in_progress",
            name=call.name,
            call_id=call.id or self._session.new_id("call"),
        )
        previous = await self._begin(item)
        place = {"item_id": item.id, "output_index": len(self._output) - 1, "call_id": item.call_id}
        for piece in fragments(call.arguments):
            if self._stopped.is_set():
                break
            item.text += piece
            await self._send("response.function_call_arguments.delta", **place, delta=piece)
        done = "response.function_call_arguments.done"
        await self._send(done, **place, name=item.name, arguments=item.text)
        await self._end(item, previous)

    def _wire(self, ending: str) -> dict[str, Any]:
        """`ending`: a status, the reason why it is incomplete, or the code of an error."""
        details: dict[str, Any] | None = None
        status = ending
        if ending == "cancelled":
            details = {"type": "cancelled", "reason": self._reason}
        elif ending in ("max_output_tokens", "content_filter"):
            status, details = "incomplete", {"type": "incomplete", "reason": ending}
        elif ending not in ("in_progress", "completed"):
            error = {"type": "server_error", "code": ending, "message": f"It failed ({ending})."}
            status, details = "failed", {"type": "failed", "error": error}
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [item.wire() for item in self._output],
            "conversation_id": "conv_0001",
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": {"type": "audio/pcmu"}, "voice": "alloy"}},
            "usage": None if status == "in_progress" else self._usage(),
            "metadata": self._metadata,
        }

    def _usage(self) -> dict[str, Any]:
        said = sum(len(words(item.text)) for item in self._output if item.type == "message")
        tokens = next((part for part in self._parts if isinstance(part, Tokens)), Tokens(100, said))
        return {
            "total_tokens": tokens.input + tokens.output,
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
            "input_token_details": {"text_tokens": tokens.input, "audio_tokens": 0, "cached_tokens": tokens.cached},
            "output_token_details": {"text_tokens": tokens.output, "audio_tokens": 0},
        }
