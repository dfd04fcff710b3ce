"""The codec server as Temporal's UI (a browser) and command line ask it."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload, Payloads

from stayline.commands.codec import LOCAL_UI, CodecServer
from stayline.commands.local import LabAccount, LocalStack
from stayline.encryption import ENCODING, Encryption
from stayline.errors import ConfigError
from stayline.settings import Settings

KEYS = SecretStr(f"2026a:{base64.b64encode(bytes(32)).decode()}")
CLEAR = [Payload(metadata={"encoding": b"json/plain"}, data=b'"hello"'), Payload(data=b"\x00\xff")]
UI = LOCAL_UI[0]
EVIL = "http://evil.example:8234"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, CodecServer]]:
    values = Settings(encryption_keys=KEYS, **settings)
    async with CodecServer(values, port=0) as server, aiohttp.ClientSession(server.url) as http:
        yield http, server


def as_json(payloads: list[Payload]) -> dict[str, Any]:
    """Protobuf's JSON: every `bytes` is base64."""
    body: dict[str, Any] = json_format.MessageToDict(Payloads(payloads=payloads))
    return body


async def payloads_of(answer: aiohttp.ClientResponse) -> list[Payload]:
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "application/json"
    return list(json_format.Parse(await answer.text(), Payloads()).payloads)


async def test_it_decodes_what_workers_encrypt_and_encodes_what_people_send() -> None:
    codec = Encryption.of(KEYS)
    async with serving() as (http, _):
        answer = await http.post("/decode", json=as_json([*await codec.encode(CLEAR), CLEAR[0]]))
        assert await payloads_of(answer) == [*CLEAR, CLEAR[0]]
        answer = await http.post("/encode", json=as_json(CLEAR))
        encoded = await payloads_of(answer)
        assert [p.metadata["encoding"] for p in encoded] == [ENCODING] * 2
        assert await codec.decode(encoded) == CLEAR
        assert await payloads_of(await http.post("/decode", json={"payloads": []})) == []


async def test_only_the_ui_may_ask_from_a_browser() -> None:
    async with serving() as (http, server):
        for origin in LOCAL_UI:
            asked = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-namespace",
            }
            preflight = await http.options("/decode", headers=asked)
            assert preflight.status == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == origin
            assert "x-namespace" in preflight.headers["Access-Control-Allow-Headers"]
            headers = {"Origin": origin, "X-Namespace": "default"}
            answer = await http.post("/decode", json=as_json(CLEAR), headers=headers)
            assert await payloads_of(answer) == CLEAR
            assert answer.headers["Access-Control-Allow-Origin"] == origin
        for origin in (EVIL, "null", server.url, "http://127.0.0.1:82330"):
            for path in ("/encode", "/decode"):
                assert (await http.options(path, headers={"Origin": origin})).status == 403
                answer = await http.post(path, json=as_json(CLEAR), headers={"Origin": origin})
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers

    async with serving(codec_origin="https://temporal.example.com/") as (http, _):
        assert (await http.options("/decode", headers={"Origin": UI})).status == 403
        assert (await http.options("/decode", headers={"Origin": "https://temporal.example.com"})).status == 204


async def test_a_token_is_asked_for_where_one_is_set() -> None:
    async with serving(codec_token=SecretStr("sesame")) as (http, _):
        for given in (None, "sesame", "Bearer", "Bearer wrong", "Basic sesame", "Bearer sésame"):
            headers = {} if given is None else {"Authorization": given}
            assert (await http.post("/decode", json=as_json(CLEAR), headers=headers)).status == 401
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} sesame"}
            assert await payloads_of(await http.post("/decode", json=as_json(CLEAR), headers=headers)) == CLEAR
        # A browser asks beforehand without it, and must be able to read that it was refused.
        assert (await http.options("/decode", headers={"Origin": UI})).status == 204
        refused = await http.post("/decode", json=as_json(CLEAR), headers={"Origin": UI})
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, UI)


async def test_what_it_cannot_do_is_said() -> None:
    other = Encryption.of(SecretStr(f"2019:{base64.b64encode(b'x' * 32).decode()}"))
    async with serving() as (http, _):
        answer = await http.post("/decode", json=as_json(await other.encode(CLEAR)), headers={"Origin": UI})
        assert answer.status == 400
        assert "the key '2019'" in await answer.text()
        assert answer.headers["Access-Control-Allow-Origin"] == UI
        json_type = {"Content-Type": "application/json"}
        for body in (b"", b"{", b'{"payloads": "x"}', b'{"payloads": [{"data": 1}]}', b'{"what": 1}', b"\xff"):
            answer = await http.post("/decode", data=body, headers=json_type)
            assert answer.status == 400, body
        assert (await http.post("/decode", data={"payloads": "x"})).status == 415
        assert (await http.get("/decode")).status == 405
        assert (await http.post("/", json={})).status == 404


def test_it_does_not_start_where_it_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="not encrypted: there is nothing to decode"):
        CodecServer(Settings())
    with pytest.raises(ConfigError, match=r"reaches 0\.0\.0\.0:8234 could read every call"):
        CodecServer(Settings(encryption_keys=KEYS, codec_addr="0.0.0.0:8234"))
    CodecServer(Settings(encryption_keys=KEYS, codec_addr="0.0.0.0:8234", codec_token=SecretStr("sesame")))


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {address}"):
            async with CodecServer(Settings(encryption_keys=KEYS, codec_addr=address)):
                pass


async def test_the_dev_servers_ui_is_told_where_it_is_and_may_ask(tmp_path: Path) -> None:
    values = Settings(encryption_keys=KEYS, data_dir=tmp_path)
    stack = LocalStack(values, [], LabAccount.of(tmp_path), "", temporal_port=0)
    async with stack, aiohttp.ClientSession() as http:
        await stack.start_temporal()
        endpoint, ui = stack.dev_server.codec_endpoint, stack.dev_server.ui_url
        async with http.get(f"{ui}/api/v1/settings") as answer:
            assert (await answer.json())["Codec"]["Endpoint"] == endpoint
        sealed = await Encryption.of(KEYS).encode(CLEAR)
        for origin in (ui, ui.replace("127.0.0.1", "localhost")):
            answer = await http.post(f"{endpoint}/decode", json=as_json(sealed), headers={"Origin": origin})
            assert await payloads_of(answer) == CLEAR
        # A second stack on this machine takes another port.
        async with LocalStack(
            values.model_copy(
                update={"data_dir": tmp_path / "other", "codec_addr": endpoint.removeprefix("http://")}
            ),
            [],
            LabAccount.of(tmp_path),
            "",
            temporal_port=0,
        ) as other:
            await other.start_temporal()
            assert other.dev_server.codec_endpoint not in ("", endpoint)
