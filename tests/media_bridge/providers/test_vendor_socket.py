"""What all vendors' websockets share: addresses, secrets, closes."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from media_bridge.providers.vendor_socket import (
    is_loopback,
    lost,
    open_socket,
    send_frame,
    send_now,
    socket_url,
    warm_origin,
)
from stayline.errors import ProviderError
from tests.fakes.misbehaviour import FakeServer


class Refusing(FakeServer):
    """Answers everything with one HTTP response."""

    def __init__(self, status: int, text: str = "", **headers: str) -> None:
        super().__init__()
        self._answer = {"status": status, "text": text, "headers": headers}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/{path:.*}", self._refuse)]

    async def _refuse(self, request: web.Request) -> web.Response:
        await self.begin(request)
        return web.Response(**self._answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://api.deepgram.com", "wss://api.deepgram.com/v1/x?a=true&b=1.5&a=two+words"),
        ("http://127.0.0.1:9000/", "ws://127.0.0.1:9000/v1/x?a=true&b=1.5&a=two+words"),
        ("http://proxy.test/deepgram/", "ws://proxy.test/deepgram/v1/x?a=true&b=1.5&a=two+words"),
    ],
)
def test_the_address_is_derived_from_the_origin(origin: str, url: str) -> None:
    assert socket_url(origin, "/v1/x", [("a", True), ("b", 1.5), ("a", "two words")]) == url


@pytest.mark.parametrize("origin", ["", "api.deepgram.com", "ftp://x", "https://"])
async def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await open_socket("deepgram", origin, "/v1/x", headers={})
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("ws://127.0.0.1:1/x", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("wss://api.deepgram.com", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_only_loopback_goes_past_a_proxy(url: str, answer: bool) -> None:
    assert is_loopback(url) is answer


@pytest.mark.parametrize(
    ("code", "retryable"), [(None, True), (1000, True), (1011, True), (1013, True), (1008, False), (1003, False)]
)
def test_what_a_close_means(code: int | None, retryable: bool) -> None:
    error = lost("deepgram", ConnectionClosedError(Close(code, "NET-0001") if code else None, None))
    assert (error.status, error.retryable) == (code, retryable)
    assert ("NET-0001" in str(error)) == (code is not None)


async def test_a_redirect_is_not_followed_because_the_key_would_go_along() -> None:
    async with Refusing(200) as elsewhere:
        location = f"{elsewhere.url}/v1/x".replace("http", "ws")
        async with Refusing(302, Location=location) as fake:
            with pytest.raises(ProviderError) as caught:
                await open_socket("elevenlabs", fake.url, "/v1/x", headers={"xi-api-key": "secret"})
        assert (caught.value.status, caught.value.retryable) == (302, False)
        assert elsewhere.requests == []


async def test_no_key_is_repeated_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Refusing(401, "the key top-secret is no good") as fake:
        with pytest.raises(ProviderError, match=r"the key \*\*\* is no good") as caught:
            await open_socket(
                "elevenlabs", fake.url, "/v1/x", headers={"xi-api-key": "top-secret"}, secret="top-secret"
            )
    assert "top-secret" not in str(caught.value) + caplog.text


async def test_warming_needs_nobody_to_be_there() -> None:
    await warm_origin("http://127.0.0.1:9")
    await warm_origin("https://nobody.invalid")


class Echoing(FakeServer):
    """A websocket that sends back what it is sent, as text or as bytes."""

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/x", self._echo)]

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        await self.begin(request)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if isinstance(message.data, str):
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket


@pytest.mark.parametrize("size", [0, 1, 125, 126, 160, 0xFFFF, 0x10000])
async def test_frames_of_our_own_arrive_as_they_were(size: int) -> None:
    data = bytes(97 + place % 26 for place in range(size))
    async with Echoing() as fake:
        socket = await open_socket("deepgram", fake.url, "/v1/x", headers={})
        assert send_now(socket, data) == (size <= 0xFFFF)
        if size <= 0xFFFF:
            assert await socket.recv() == data
        await send_frame(socket, data, text=True)
        assert await socket.recv() == data.decode()
        await socket.close()
        assert not send_now(socket, data)
