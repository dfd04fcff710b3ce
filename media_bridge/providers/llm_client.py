"""How the language-model adapters reach their vendor: one pool of connections, replies as a stream of JSON objects.

Requests go out by aiohttp and not by the vendors' SDKs. The adapters write the requests and read the events
themselves, and what was left of the SDKs took 2 ms of a busy event loop for each reply and 2 s of each start.
A client of an SDK that the application brings along is used as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Protocol, Self, cast

import aiohttp
import orjson

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_http import LlmOptions, error_from_status
from media_bridge.providers.vendor_socket import is_loopback, tls_context
from stayline.errors import ProviderError

KEEPALIVE: Final = 120.0
"""Seconds that an idle connection is kept: longer than most turns of a caller."""
CONNECTIONS: Final = 200
READ_OUT_SECONDS: Final = 0.1
"""How long the end of a reply that is complete is waited for; as a rule it is there with the last event."""
LONGEST_EVENT: Final = 4 * 2**20  #: bytes
LONGEST_ERROR: Final = 64 * 2**10  #: bytes
USER_AGENT: Final = "stayline"


class EventStream(Protocol):
    """Events of a reply as the vendor wrote them: JSON objects. Left before its end, it closes its connection."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...


class LlmClient(Protocol):
    """Requests to one vendor. Raises ProviderError, or what `provider_errors` makes one of."""

    async def check(self, path: str) -> None:
        """Ask for something small: opens a connection, and shows whether key and model are right."""

    async def reply(self, path: str, body: Mapping[str, Any]) -> EventStream:
        """Ask for a streamed reply; returns when the vendor has begun to answer."""

    async def aclose(self) -> None: ...


async def read_out(stream: EventStream) -> None:
    """Read what follows the last event: a connection that is left before its end is not used again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_OUT_SECONDS):
            async for _ in stream:
                pass


class HttpClient:
    """See `LlmClient`. Connects when it is first asked something.

    Args:
        base_url: what paths are added to.
        headers: of every request: key, version.
    """

    def __init__(
        self, config: ProviderConfig, base_url: str, headers: Mapping[str, str], options: LlmOptions
    ) -> None:
        self._config = config
        self._base_url = base_url
        self._headers = {
            **headers,
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a compressed stream comes in pieces of the compressor's choice
        }
        self._timeout = aiohttp.ClientTimeout(sock_connect=options.connect_timeout, sock_read=options.read_timeout)
        self._session: aiohttp.ClientSession | None = None

    async def check(self, path: str) -> None:
        async with await self._ask("GET", path) as response:
            await response.read()

    async def reply(self, path: str, body: Mapping[str, Any]) -> EventStream:
        return _Reply(await self._ask("POST", path, _written(body)))

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> aiohttp.ClientResponse:
        """
        Raises:
            ProviderError: the vendor refused.
        """
        for _ in range(2):
            trace = SimpleNamespace(reused=False)
            try:
                response = await self._opened().request(
                    method,
                    self._base_url + path,
                    data=body,
                    allow_redirects=False,  # would carry the key along to another host
                    trace_request_ctx=trace,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not trace.reused:
                    raise
                continue  # it was closed while nobody spoke, and has taken nothing
            if response.status == 200:
                return response
            async with response:
                body_of_error = await _beginning(response.content, LONGEST_ERROR)
                raise error_from_status(self._config, response.status, body_of_error, response.headers)
        raise ProviderError(self._config.provider, "the connection failed", retryable=True)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            secure = self._base_url.startswith("https:")
            traces = aiohttp.TraceConfig()
            traces.on_connection_reuseconn.append(_reused)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=KEEPALIVE, ssl=tls_context() if secure else True
                ),
                headers=self._headers,
                timeout=self._timeout,
                trace_configs=[traces],
                trust_env=not is_loopback(self._base_url),
            )
        return self._session


async def _beginning(stream: aiohttp.StreamReader, most: int) -> bytes:
    data = b""
    while len(data) < most and (piece := await stream.read(most - len(data))):
        data += piece
    return data


async def _reused(session: aiohttp.ClientSession, request: Any, _: aiohttp.TraceConnectionReuseconnParams) -> None:
    request.trace_request_ctx.reused = True


def _written(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # half a surrogate pair, which a model may write
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


class _Reply:
    """See `EventStream`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._events = events(response.content.iter_any())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._events.aclose()
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._events


async def events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The JSON objects of server-sent events (WHATWG HTML, 9.2). What comes after `[DONE]` is passed over.

    Raises:
        ValueError: an event is no JSON object, or has no end.
    """
    rest, data, done = b"", b"", False
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) + len(data) > LONGEST_EVENT:
            raise ValueError("an event without an end")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data += b"\n" + line[5:] if data else line[5:]
            elif not line and data:
                done = done or data.strip() == b"[DONE]"
                if not done:
                    yield _event(data)
                data = b""


def _event(data: bytes) -> dict[str, Any]:
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("an event is no object")
    return event


class SdkClient:
    """See `LlmClient`: a client of the vendor's SDK that somebody else has made, and closes."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def check(self, path: str) -> None:
        await self._client.get(path, cast_to=object)

    async def reply(self, path: str, body: Mapping[str, Any]) -> EventStream:
        """The SDKs' typed methods walk through each request and build a tree of models from each event: 5 ms of a
        busy event loop for a short reply, before anybody hears a word."""
        module = importlib.import_module(type(self._client).__module__.partition(".")[0])
        reply = await self._client.post(
            path, body=body, cast_to=object, stream=True, stream_cls=module.AsyncStream[object]
        )
        return cast(EventStream, reply)

    async def aclose(self) -> None:
        pass
