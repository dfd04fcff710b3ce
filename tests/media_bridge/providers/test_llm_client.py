"""The language models' connection: server-sent events, and connections that the other side has closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_client import HttpClient, events
from media_bridge.providers.llm_http import LlmOptions
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.errors import ProviderError
from stayline.models import UserMessage
from tests.fakes.openai import FakeOpenAI
from tests.media_bridge.providers.llm import hear, request

CONFIG = ProviderConfig("openai", "gpt-6-luna", api_key="k")
ANSWER = b'data: {"n": 1}\n\n'


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(*data: bytes) -> list[dict[str, Any]]:
    return [event async for event in events(pieces(*data))]


async def test_events_wherever_they_are_cut() -> None:
    wire = (
        b': a comment\r\n\r\nevent: one\r\nid: 7\r\ndata: {"n": 1,\r\ndata: "m": 2}\r\n\r\n'
        b'\n\ndata:{"n": 2}\n\ndata: [DONE]\n\ndata: after the end\n\n'
    )
    wanted = [{"n": 1, "m": 2}, {"n": 2}]
    assert await read(wire) == wanted
    assert await read(*(wire[n : n + 1] for n in range(len(wire)))) == wanted


async def test_an_event_that_has_not_ended_is_none() -> None:
    assert await read(b'data: {"n": 1}\n\ndata: {"n": 2}\n') == [{"n": 1}]


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b"data: hello\n\n", b"data: " + b"x" * 5_000_000])
async def test_what_is_no_event_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own among them
        await read(data)


class Server:
    """Answers requests on a connection, so many, then closes it: whether or not it has said that it would."""

    def __init__(self, each: int) -> None:
        self._each = each
        self.connections: list[int] = []  #: requests that each has brought
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.connections)
        self.connections.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while self.connections[number] < self._each:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                self.connections[number] += 1
                status = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                writer.write(status + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
                await writer.drain()
        writer.close()
        self.closed.set()


@contextlib.asynccontextmanager
async def served(each: int) -> AsyncIterator[tuple[HttpClient, Server]]:
    server = Server(each)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = HttpClient(CONFIG, f"http://127.0.0.1:{port}", {}, LlmOptions())
    try:
        yield client, server
    finally:
        await client.aclose()
        listening.close()


async def ask(client: HttpClient) -> list[dict[str, Any]]:
    async with await client.reply("/", {"stream": True}) as stream:
        return [event async for event in stream]


async def test_a_connection_that_was_closed_meanwhile_costs_no_reply() -> None:
    async with served(each=2) as (client, server):
        for _ in range(5):
            assert await ask(client) == [{"n": 1}]
        assert server.connections == [2, 2, 1]


async def test_a_server_that_takes_nothing_is_asked_once() -> None:
    async with served(each=0) as (client, server):
        with pytest.raises(aiohttp.ClientError):
            await ask(client)
        assert server.connections == [0]


async def test_half_a_character_in_the_history_does_not_stop_the_call() -> None:
    async with FakeOpenAI() as fake:
        llm = OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="test-key", base_url=fake.url))
        assert (await hear(llm, request(UserMessage(text="Hi \ud83d there")))).text == "You said: Hi ? there"
        await llm.aclose()


async def test_no_key_is_carried_to_another_host() -> None:
    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.2:9/v1\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    llm = OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="k", base_url=address))
    with pytest.raises(ProviderError, match=r"307: sent on to http://127\.0\.0\.2") as caught:
        await llm.warm()
    assert not caught.value.retryable
    await llm.aclose()
    listening.close()


async def test_the_account_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_1")
    async with FakeOpenAI() as fake:
        llm = OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="test-key", base_url=fake.url))
        await hear(llm, request())
        await llm.aclose()
        headers = fake.requests[-1].headers
    assert headers["openai-project"] == "proj_1"
    assert "openai-organization" not in headers
    assert json.loads(fake.requests[-1].body)["stream"] is True
