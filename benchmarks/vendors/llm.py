"""OpenAI's language model over HTTP: `/v1/responses`, `/v1/chat/completions` and `/v1/models`.

Every reply is the same, made beforehand, one event a word, and leaves in one write: the model thinks for no time.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final, cast

from benchmarks.vendors.ledger import Ledger

MODEL: Final = "gpt-6-luna"
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+\s*")


def _stream(events: list[bytes]) -> bytes:
    """A response of server-sent events; each is a chunk of its own (RFC 9112, section 7.1)."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in (*events, b""))


def _json(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
    return head + data


def _responses(reply: str) -> bytes:
    words = _WORD.findall(reply)
    events: list[bytes] = []

    def add(name: str, **fields: Any) -> None:
        data = json.dumps({"type": name, "sequence_number": len(events), **fields})
        events.append(f"event: {name}\ndata: {data}\n\n".encode())

    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": MODEL,
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    item: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    add("response.created", response=response)
    add("response.in_progress", response=response)
    add("response.output_item.added", output_index=0, item={**item, "content": []})
    add("response.content_part.added", **place, part=part)
    for word in words:
        add("response.output_text.delta", **place, delta=word, logprobs=[])
    add("response.output_text.done", **place, text=reply, logprobs=[])
    part = {**part, "text": reply}
    add("response.content_part.done", **place, part=part)
    item = {**item, "status": "completed", "content": [part]}
    add("response.output_item.done", output_index=0, item=item)
    usage = {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": len(words),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 40 + len(words),
    }
    add("response.completed", response={**response, "status": "completed", "output": [item], "usage": usage})
    return _stream(events)


def _chat(reply: str) -> bytes:
    words = _WORD.findall(reply)
    events: list[bytes] = []

    def add(choices: list[dict[str, Any]], **more: Any) -> None:
        data = {"id": "c_1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
        events.append(f"data: {json.dumps({**data, **more})}\n\n".encode())

    def choice(delta: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": reason}]

    add(choice({"role": "assistant", "content": ""}))
    for word in words:
        add(choice({"content": word}))
    add(choice({}, "stop"))
    add([], usage={"prompt_tokens": 40, "completion_tokens": len(words), "total_tokens": 40 + len(words)})
    events.append(b"data: [DONE]\n\n")
    return _stream(events)


Answers = list[tuple[bytes, bytes]]


def answers(reply: str) -> Answers:
    """By the beginning of a request, the whole response."""
    return [
        (b"POST /v1/responses", _responses(reply)),
        (b"POST /v1/chat/completions", _chat(reply)),
        (b"GET /v1/models/", _json({"id": MODEL, "object": "model", "created": 1, "owned_by": "openai"})),
        (b"GET /v1/models", _json({"object": "list", "data": []})),
    ]


_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Llm(asyncio.Protocol):
    """One connection, kept alive: HTTP/1.1 as far as OpenAI's clients need it."""

    def __init__(self, ledger: Ledger, answers: Answers) -> None:
        self._line = ledger.line("llm")
        self._answers = answers
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            del self._received[:whole]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"POST"):
            self._line.note("asked")
        self._transport.write(
            next((answer for start, answer in self._answers if head.startswith(start)), _NOT_FOUND)
        )
