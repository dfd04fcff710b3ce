"""Plays a recorded websocket conversation: what a vendor once sent is sent again.

    frames = read_recording(path)        # YAML: `interactions`, each a message with `direction` and `data`
    async with RecordedSocket(frames, same=same_kind) as player:
        ... Adapter(ProviderConfig(..., base_url=player.url)) ...
        await player.played.wait()

The player stands for any address. It sends on until the recording has something from the client; there it waits
until the client has sent a message that is the `same`. Whatever else the client sends is kept in `sent` and stops
nothing. `same` gives None for a recorded message that is not waited for (a frame of audio, say).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from aiohttp import WSMsgType, web

from tests.fakes.misbehaviour import FakeServer

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    direction: Literal["sent", "received"]  #: by the client
    data: Message


Same = Callable[[Message, Message], bool | None]
"""Whether what the client sent (second) stands for what the recorded client sent (first); None: do not wait."""


def read_recording(path: Path) -> list[Frame]:
    interactions = yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]
    return [Frame(i["direction"], i["data"]) for i in interactions if i.get("kind", "message") == "message"]


class RecordedSocket(FakeServer):
    """One websocket server that plays `frames` to each client. `binary`: the vendor sends binary frames."""

    def __init__(self, frames: Sequence[Frame], same: Same, *, binary: bool = False) -> None:
        super().__init__()
        self.frames = list(frames)
        self.same = same
        self.binary = binary
        self.sent: list[Message] = []  #: by the client
        self.played = asyncio.Event()  #: all of it

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/{path:.*}", self._play)]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        return web.Response(status=status, headers=headers)

    async def _play(self, request: web.Request) -> web.WebSocketResponse:
        await self.begin(request)
        socket = web.WebSocketResponse(compress=False, max_msg_size=2**24)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):
            for frame in self.frames:
                if frame.direction == "received":
                    await self._send(socket, frame.data)
                elif not await self._client_says(socket, frame.data):
                    return socket
            self.played.set()
            while await self._receive(socket) is not None:
                pass
        return socket

    async def _send(self, socket: web.WebSocketResponse, data: Message) -> None:
        text = json.dumps(data)
        if self.binary:
            await socket.send_bytes(text.encode())
        else:
            await socket.send_str(text)

    async def _client_says(self, socket: web.WebSocketResponse, recorded: Message) -> bool:
        """Wait for its like; False when the client has gone."""
        if self.same(recorded, {}) is None:
            return True
        while (message := await self._receive(socket)) is not None:
            if self.same(recorded, message):
                return True
        return False

    async def _receive(self, socket: web.WebSocketResponse) -> Message | None:
        """The client's next message; None when it has gone."""
        while True:
            message = await socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return None
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.sent.append(json.loads(message.data))
                return self.sent[-1]
