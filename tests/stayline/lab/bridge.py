"""A small bridge for the lab's own tests: says what the test tells it to, and checks every signature."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from aiohttp import WSMsgType, web
from multidict import MultiDictProxy

from media_bridge.carriers import twilio_stream, twiml
from media_bridge.carriers.signature import HEADER, check_stream, check_webhook
from media_bridge.carriers.twilio_stream import Message, Start, StreamProtocol
from stayline.names import INBOUND_PATH, NEXT_PATH, STATUS_PATH, STREAM_PATH

ACCOUNT_SID = "AC" + "1" * 32
AUTH_TOKEN = "2" * 32


M = TypeVar("M", bound=Message)


class Socket:
    """The bridge's end of a media stream."""

    def __init__(self, websocket: web.WebSocketResponse, request: web.Request) -> None:
        self.websocket = websocket
        self.request = request
        self.protocol = StreamProtocol()

    @property
    def sid(self) -> str:
        assert self.protocol.start is not None
        return self.protocol.start.stream_sid

    async def receive(self) -> Message:
        frame = await self.websocket.receive()
        if frame.type is not WSMsgType.TEXT:
            raise ConnectionError(frame.type.name)
        return self.protocol.receive(frame.data)

    async def until(self, kind: type[M]) -> M:
        """The next message of a kind; others are passed over."""
        while not isinstance(message := await self.receive(), kind):
            pass
        return message

    async def play(self, audio: bytes, mark: str = "") -> None:
        await self.websocket.send_str(twilio_stream.media(self.sid, audio))
        if mark:
            await self.websocket.send_str(twilio_stream.mark(self.sid, mark))

    async def clear(self) -> None:
        await self.websocket.send_str(twilio_stream.clear(self.sid))

    async def send(self, message: Any) -> None:
        await self.websocket.send_str(json.dumps(message))

    async def close(self, code: int = 1000) -> None:
        await self.websocket.close(code=code)

    def break_off(self) -> None:
        """What a SIGKILL does to the connection: no close frame."""
        assert self.request.transport is not None
        self.request.transport.abort()


Answer = str | int | Callable[[MultiDictProxy[Any]], str]


class Bridge:
    """Answers `/voice/...` from lists, the last answer again and again; a number is a status."""

    def __init__(self, public_url: str = "") -> None:
        self.url = ""
        self.public_url = public_url
        self.answers: dict[str, list[Answer]] = {
            INBOUND_PATH: [lambda form: self.connect()],
            NEXT_PATH: [twiml.hang_up()],
        }
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.queries: list[dict[str, str]] = []  #: of the same requests
        self.headers: list[dict[str, str]] = []
        self.starts: list[Start] = []
        self.on_stream: Callable[[Socket], Awaitable[None]] = self.hold
        self.content_type = "text/xml"
        self.healthy = True
        self.ready = True
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", STREAM_PATH, self._stream)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_route("*", "/{path:.*}", self._webhook)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self.public_url = self.public_url or self.url
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        for failure in self.failures:
            raise failure

    def connect(self, path: str = STREAM_PATH, **parameters: str) -> str:
        return twiml.connect(
            "ws" + self.public_url.removeprefix("http") + path,
            parameters or {"token": "t"},
            self.public_url + NEXT_PATH,
        )

    def posted(self, path: str) -> list[dict[str, str]]:
        return [form for at, form in self.forms if at == path]

    async def hold(self, socket: Socket) -> None:
        """The default stream: listens to the end."""
        await socket.until(twilio_stream.Stop)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy and self.ready else 503)

    async def _webhook(self, request: web.Request) -> web.Response:
        form = await request.post()
        url = self.public_url + str(request.rel_url)
        if not check_webhook(AUTH_TOKEN, url, form, request.headers.get(HEADER)):
            return web.Response(status=403)
        values = {name: str(value) for name, value in (form or request.query).items()}
        self.forms.append((request.path, values))
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        if request.path == STATUS_PATH:
            return web.Response(status=204)
        answers = self.answers[request.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            return web.Response(status=answer)
        text = answer if isinstance(answer, str) else answer(form)
        return web.Response(text=text, content_type=self.content_type)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        url = "ws" + self.public_url.removeprefix("http") + request.path
        if not check_stream(AUTH_TOKEN, url, request.headers.get(HEADER)):
            return web.Response(status=403)
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        socket = Socket(websocket, request)
        try:
            self.starts.append(await socket.until(Start))
            await self.on_stream(socket)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as failure:  # a failed assertion belongs to the test, not to the server's log
            self.failures.append(failure)
        return websocket
