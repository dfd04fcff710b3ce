"""What the fakes of language models share: scripted replies, and server-sent events with things going wrong.

A fake is given `reply`, a function from the request's JSON to the parts of an answer. The default repeats what
the caller said, which is enough for a whole call.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tests.fakes.misbehaviour import FakeServer, Misbehaviour, cut


@dataclasses.dataclass(frozen=True, slots=True)
class Say:
    """Text, streamed word by word. Two of them are two messages (OpenAI) or two blocks (Anthropic)."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A tool call, its arguments streamed in fragments. A string is sent as it is: the model wrote no JSON."""

    name: str
    arguments: dict[str, Any] | str = dataclasses.field(default_factory=dict)
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Go on when the event is set; a client that hangs up meanwhile is noticed at once."""

    until: asyncio.Event


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """Why the reply stopped, by the vendor's own word."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """What the reply is said to have cost; without it, words are counted."""

    input: int
    output: int
    cached: int = 0


Part = Say | Call | Wait | Ending | Tokens
Reply = Callable[[dict[str, Any]], Sequence[Part]]
SseEvent = tuple[str | None, dict[str, Any]]
"""Event name (None: a nameless event) and its JSON."""


def words(text: str) -> list[str]:
    """Tokens of a sort: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def fragments(arguments: dict[str, Any] | str) -> list[str]:
    """A tool call's arguments as they are streamed: an empty piece, then four characters at a time."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ["", *(text[i : i + 4] for i in range(0, len(text), 4))]


class FakeLlm(FakeServer):
    """Base of the fakes. `answered` holds the JSON of each request that was in order."""

    def __init__(self, reply: Reply | None = None, *, key: str = "test-key") -> None:
        super().__init__()
        self.reply: Reply = reply or self.echo
        self.key = key
        self.answered: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()  #: set when a client left in the middle of a reply
        self.ids = 0

    def echo(self, body: dict[str, Any]) -> Sequence[Part]:
        raise NotImplementedError

    def next_id(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}{self.ids:04d}"

    async def send_events(
        self,
        request: web.Request,
        events: Sequence[SseEvent | Wait],
        fault: Misbehaviour | None,
        error: SseEvent,
        *,
        done: bool = False,
    ) -> web.StreamResponse:
        """Stream the events; `error` is the vendor's own for mid-stream, `done` ends with `[DONE]`."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        sent = 0
        try:
            for event in events:
                if isinstance(event, Wait):
                    await self._hold(request, event.until)
                    continue
                if fault is not None and fault.due(sent):
                    if await self._go_wrong(request, response, fault, error):
                        return response
                    fault = None
                await response.write(encoded(event))
                sent += 1
            if done:
                await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.hung_up.set()
            raise
        return response

    async def _hold(self, request: web.Request, until: asyncio.Event) -> None:
        while not until.is_set() and not self.closing.is_set():
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client hung up")
            await asyncio.sleep(0.005)

    async def _go_wrong(
        self, request: web.Request, response: web.StreamResponse, fault: Misbehaviour, error: SseEvent
    ) -> bool:
        """Returns whether the reply ends here."""
        match fault.what:
            case "disconnect":
                cut(request)
            case "half_message":
                await response.write(b'event: half\ndata: {"type": "half a mess')
                cut(request)
            case "garbage":
                await response.write(b"event: garbage\ndata: {not json\n\n")
            case "unknown_message":
                await response.write(encoded(("vendor.news", {"type": "vendor.news", "payload": [1, 2]})))
            case "error":
                await response.write(encoded(error))
                return True
            case "hang":
                await self._hold(request, self.closing)
                return True
        return False


def encoded(event: SseEvent) -> bytes:
    name, body = event
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body)}\n\n".encode()
