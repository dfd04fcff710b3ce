"""What a fake vendor can be asked to do wrong, and the small server that all fakes stand on.

    async with FakeDeepgram() as fake:
        fake.misbehave(rate_limited(retry_after=2))     # the next request only; then it behaves again
        fake.misbehave(disconnect(after=3), disconnect(after=3))   # the next two
        fake.always = unauthorized()                    # until told otherwise
        await fake.refuse_connections()                 # nobody listens on the port any more

Each request (or websocket) takes one misbehaviour when it begins: `fault = await self.begin(request)`. What has
to happen before the answer (`status`, `hang`, `slow`, `reset`) has then happened already; what happens within
the answer is the fake's own business, with `fault.due(messages_sent)`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import TYPE_CHECKING, Literal, Self

from aiohttp import web
from aiohttp.typedefs import Handler

if TYPE_CHECKING:
    from tests.fakes.socket import FakeSocket

What = Literal[
    "reset",  # the connection is cut before any answer
    "status",  # an HTTP error instead of an answer
    "hang",  # no answer, or silence from then on
    "slow",  # the answer comes late
    "half_message",  # a message begins, and the connection is cut within it
    "unknown_message",  # one message of a type that nobody knows, then all is well
    "garbage",  # one message that is not of the protocol at all, then all is well
    "disconnect",  # the connection is cut between two messages
    "error",  # the vendor's own error message in the stream, then it closes
]


@dataclasses.dataclass(frozen=True, slots=True)
class Misbehaviour:
    what: What
    after: int = 0  #: messages (or audio chunks, or SSE events) that are sent properly first
    status: int = 500
    retry_after: float | None = None  #: seconds; the Retry-After header
    seconds: float = 0.0  #: of `slow`

    def due(self, sent: int) -> bool:
        """Whether it is time: `sent` messages have been sent."""
        return sent >= self.after


def reset() -> Misbehaviour:
    return Misbehaviour("reset")


def unauthorized() -> Misbehaviour:
    return Misbehaviour("status", status=401)


def rate_limited(retry_after: float | None = None) -> Misbehaviour:
    return Misbehaviour("status", status=429, retry_after=retry_after)


def server_error(status: int = 503) -> Misbehaviour:
    return Misbehaviour("status", status=status)


def hang(after: int = 0) -> Misbehaviour:
    """Never answer; with `after`, fall silent after so many messages."""
    return Misbehaviour("hang", after=after)


def slow(seconds: float) -> Misbehaviour:
    """The first byte comes late."""
    return Misbehaviour("slow", seconds=seconds)


def half_message(after: int = 0) -> Misbehaviour:
    return Misbehaviour("half_message", after=after)


def unknown_message(after: int = 0) -> Misbehaviour:
    return Misbehaviour("unknown_message", after=after)


def garbage(after: int = 0) -> Misbehaviour:
    return Misbehaviour("garbage", after=after)


def disconnect(after: int = 0) -> Misbehaviour:
    return Misbehaviour("disconnect", after=after)


def error(after: int = 0) -> Misbehaviour:
    return Misbehaviour("error", after=after)


@dataclasses.dataclass(slots=True)
class Recorded:
    """One request as the fake saw it. For a websocket, `messages` grows while it lasts."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]  #: names in lower case
    body: bytes = b""
    messages: list[object] = dataclasses.field(default_factory=list)
    """What the client sent on a websocket: dicts (JSON text frames) and bytes."""
    connection: object = None  #: the client's address: the same for requests over one connection

    def param(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]


class FakeServer:
    """An HTTP and websocket server on a port from the OS. Subclasses give `routes` and the vendor's error body."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Recorded] = []
        self.sockets: list[FakeSocket] = []  #: one per websocket, in the order they were opened
        self.always: Misbehaviour | None = None
        self._next: list[Misbehaviour] = []
        self._held: socket.socket | None = None
        self.closing = asyncio.Event()  #: set when the fake ends: whoever hangs may go

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        """The vendor's own way to refuse a request."""
        raise NotImplementedError

    def misbehave(self, *faults: Misbehaviour) -> None:
        """One for each of the coming requests, in order."""
        self._next.extend(faults)

    def fault_of(self, request: web.Request) -> Misbehaviour | None:
        """What a request meets that nothing was ordered for by `misbehave`."""
        return self.always

    async def begin(self, request: web.Request) -> tuple[Recorded, Misbehaviour | None]:
        """Record the request and do what goes wrong before an answer.

        Raises:
            ConnectionResetError, web.HTTPException: the answer is the misbehaviour; let it pass.
        """
        recorded = Recorded(
            request.method,
            request.path,
            list(request.query.items()),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read() if request.can_read_body else b"",
            connection=request.transport.get_extra_info("peername") if request.transport else None,
        )
        self.requests.append(recorded)
        fault = self._next.pop(0) if self._next else self.fault_of(request)
        if fault is None:
            return recorded, None
        if fault.what == "reset":
            cut(request)
        if fault.what == "status":
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            raise _Refusal(self.error_response(fault.status, headers))
        if fault.what == "hang" and fault.after == 0:
            await self.closing.wait()
            cut(request)
        if fault.what == "slow":
            await asyncio.sleep(fault.seconds)
        return recorded, fault

    async def refuse_connections(self) -> None:
        """Stop listening, and hold the port so that no other server answers there. Open connections live on."""
        await self._site.stop()
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", self._port))

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[_refusals])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing.set()
        await self._runner.cleanup()
        if self._held is not None:
            self._held.close()


class _Refusal(Exception):
    def __init__(self, response: web.Response) -> None:
        self.response = response


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refusal as refusal:
        return refusal.response
    except (asyncio.CancelledError, web.HTTPException):
        raise
    except ConnectionError:
        cut_transport(request)
        return web.Response(status=500)  # goes nowhere: the connection is gone


def refuse(response: web.Response) -> None:
    """End the request with this response, from wherever the fake found the fault in it."""
    raise _Refusal(response)


def cut_transport(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def cut(request: web.Request) -> None:
    """Cut the connection under the client (TCP reset, no goodbye) and end the handler."""
    cut_transport(request)
    raise ConnectionResetError("misbehaviour")


async def cut_within_message(request: web.Request) -> None:
    """Send the first half of a websocket text frame, then cut the connection (FIN, so that the half arrives)."""
    transport = request.transport
    if transport is not None:
        transport.write(b"\x81\x7e\x01\x00" + b'{"type":"half a mess')
        transport.close()
    raise ConnectionResetError("misbehaviour")
