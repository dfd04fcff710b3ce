"""What somebody gains who has seen, guessed or repeats what is not his: nothing, and nothing is told of others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
import structlog
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from media_bridge import admission
from media_bridge.carriers import signature
from media_bridge.server import stream, webhooks
from stayline import logs, names
from stayline.dev_server import DevServer
from stayline.settings import Settings
from tests.whole_call.house import TOKEN, Scene, client_of, scene, vendor_agent
from tests.whole_call.test_bad_input import CONNECTED, media, sent_and_closed, socket, start, while_talking
from tests.whole_call.webhook import Webhook

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "+15550177123"
WORDS = "marmalade"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    client = await client_of(temporal_server)
    agent = vendor_agent(greeting="Hello there.")
    async with scene(client, tmp_path_factory.mktemp("security"), agent, max_calls=4) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def webhook(stage: Scene) -> AsyncIterator[Webhook]:
    async with aiohttp.ClientSession() as http:
        yield Webhook(stage.home.settings.public, http)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    structlog.reset_defaults()
    monkeypatch.setattr(logs, "_seen", OrderedDict())
    with capture_logs() as lines:
        yield lines


async def test_a_call_that_is_named_by_somebody_else(stage: Scene, webhook: Webhook, said: list[Any]) -> None:
    """`?call=` is a part of what is signed, and names only calls that we placed; a stream's parameter needs the
    token of the very call. A parameter that is no call id is not even asked about, nor written to the log."""

    async def attack(live: str) -> None:
        others = await webhook.stream_token("CAattacker")
        form = {"CallSid": "CAattacker", "CallStatus": "completed"}
        for path in (names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH):
            for called in (live, "../x", "out-../x", "out-" + "a" * 100):
                status, _ = await webhook.post(f"{path}?{urlencode({'call': called})}", form)
                assert status in (400, 403)  # 403: the address is read otherwise than it was signed
            signed = signature.sign_webhook(TOKEN, webhook.url + path, form)
            async with (
                aiohttp.ClientSession(headers={signature.HEADER: signed}) as http,
                http.post(f"{webhook.url}{path}?call=out-1", data=form) as answer,
            ):
                assert answer.status == 403
        for parameter in (live, "out-1", "../x", f"{WORDS}\n{WORDS}", "out-" + "a" * 5000):
            message = start("CAattacker", others).replace('"token"', f'"call": {json.dumps(parameter)}, "token"')
            assert await sent_and_closed(stage, CONNECTED, message, media()) == 1008
        assert (await stage.home.snapshot("CAattacker")).session == 0

    await while_talking(stage, attack)
    assert WORDS not in str(said)


async def test_what_is_sent_again(stage: Scene, webhook: Webhook) -> None:
    """Webhooks and start messages, repeated word for word while the call goes on. Twilio's signatures hold for
    ever, so only what they do can be made harmless: there is no second call, no spent token is good again, and
    the session of the call stays."""

    async def attack(live: str) -> None:
        verb = next(e.data["verb"] for e in stage.carrier.log.of("twiml", live) if e.detail == "Connect")
        form = {"CallSid": live, "From": "+1555", "To": "+1556", "Direction": "inbound"}
        for _ in range(3):
            status, _ = await webhook.post(names.INBOUND_PATH, form)
            assert status == 200
            assert await sent_and_closed(stage, CONNECTED, start(live, verb.parameters["token"]), media()) == 1008
        runs = [w async for w in stage.home.client.list_workflows(f"WorkflowId = 'call-{live}'")]
        assert len({run.run_id for run in runs}) <= 1

    await while_talking(stage, attack)
    token = await webhook.stream_token("CAonce")
    ours = await socket(stage)
    await ours.send(CONNECTED)
    await ours.send(start("CAonce", token))
    await stage.home.until("CAonce", "session_opened")
    assert await sent_and_closed(stage, CONNECTED, start("CAonce", token, stream="MZ2")) == 1008
    assert (await stage.home.snapshot("CAonce")).session == 1
    await ours.close()
    over = {"CallSid": "CAonce", "CallStatus": "completed"}
    await webhook.post(names.STATUS_PATH, over)
    events = await stage.home.over("CAonce")
    for path in (names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH):
        assert "<Stream" not in (await webhook.post(path, over | {"To": "+1555"}))[1]
    assert await stage.home.timeline("CAonce") == events


async def test_addresses_that_come_from_outside(stage: Scene, webhook: Webhook) -> None:
    """No address in a header or a form is asked, or told to the carrier: all are made of STAYLINE_PUBLIC_URL."""
    asked: list[str] = []

    async def canary(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("asked")
        writer.close()

    async with await asyncio.start_server(canary, "127.0.0.1", 0) as server:
        trap = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        fields = ("RecordingUrl", "StatusCallback", "ForwardedFrom", "ReferTo", "ParentCallSid", "From", "url")
        form = {"CallSid": "CAtrap", "To": "+1555", **dict.fromkeys(fields, trap)}
        headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
        for path in (names.INBOUND_PATH, names.NEXT_PATH):
            signed = signature.sign_webhook(TOKEN, webhook.url + path, form)
            async with (
                aiohttp.ClientSession(headers={signature.HEADER: signed, **headers}) as http,
                http.post(webhook.url + path, data=form) as answer,
            ):
                assert answer.status == 200
                twiml = await answer.text()
            assert "evil.example" not in twiml
            assert trap not in twiml
            assert stage.home.settings.public.removeprefix("http") in twiml
        await webhook.post(names.STATUS_PATH, form | {"CallStatus": "completed"})
        await stage.home.over("CAtrap")
    assert asked == []


async def test_a_body_that_does_not_come(stage: Scene, monkeypatch: pytest.MonkeyPatch, said: list[Any]) -> None:
    """Slow bodies are given up; a request line without an end is aiohttp's, or better a proxy's, to give up."""
    monkeypatch.setattr(webhooks, "BODY_WITHIN", 0.3)
    host, port = stage.home.settings.listen

    async def attack(_: str) -> None:
        async def slow() -> bytes:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"POST {names.INBOUND_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n".encode())
            writer.write(b"Content-Type: application/x-www-form-urlencoded\r\n\r\nCallSid=")
            answer = await reader.readline()
            writer.close()
            return answer

        assert {line.split()[1] for line in await asyncio.gather(*(slow() for _ in range(20)))} == {b"408"}
        async with aiohttp.ClientSession() as http:
            body = {f"field{n}": "x" for n in range(webhooks.MAX_FIELDS + 1)}
            async with http.post(stage.home.settings.public + names.INBOUND_PATH, data=body) as answer:
                assert answer.status == 400

    await while_talking(stage, attack)
    assert [line for line in said if line["event"] == "request_failed"] == []


async def test_sockets_that_crowd_the_door(
    stage: Scene, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, said: list[Any]
) -> None:
    """More sockets without a call than a bridge could use are refused; they do not count when they are gone."""
    monkeypatch.setattr(stream, "START_TIMEOUT", 60.0)
    crowd: list[ClientConnection] = []
    with contextlib.suppress(InvalidStatus):
        while len(crowd) < 100:
            crowd.append(await socket(stage))
    assert len(crowd) == stream.CROWD * stage.home.settings.max_calls
    for _ in range(2):
        with pytest.raises(InvalidStatus) as refused:
            await socket(stage)
        assert refused.value.response.status_code == 503
    assert [line["reason"] for line in said if line["event"] == "stream_refused"] == [
        "too many sockets without a call"
    ]
    await asyncio.gather(*(one.close() for one in crowd))
    caller = await stage.greeted()
    await caller.leaves()
    await stage.home.over(caller.sid)


async def test_what_the_log_and_the_list_of_calls_tell(
    stage: Scene, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    """At `debug`: no word that was said, no number, no token, no key. The search attribute is a keyed hash."""
    before = logging.getLogger().level
    logs.configure_logging(Settings(log_level="debug", log_format="json"))
    try:
        token = await webhook.stream_token("CAprivate", From=CALLER)
        caller = await stage.greeted()
        await caller.asks(WORDS)
        await caller.leaves()
        await stage.home.over(caller.sid)
        assert await sent_and_closed(stage, CONNECTED, start("CAprivate", f"{token}x")) == 1008
        snapshot = await stage.home.snapshot("CAprivate")
        await webhook.post(names.STATUS_PATH, {"CallSid": "CAprivate", "CallStatus": "completed"})
        await stage.home.over("CAprivate")
    finally:
        for handler in [h for h in logging.getLogger().handlers if h.get_name() == "stayline"]:
            logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(before)
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert "session_opened" in written
    keys = (stage.deepgram.api_key, stage.openai.key, stage.elevenlabs.api_key)
    for private in (WORDS, "You said", CALLER, CALLER[1:], token, admission.token_hash(token), TOKEN, *keys):
        assert private not in written, private
    assert snapshot.call.from_number == CALLER
    described = await stage.home.client.get_workflow_handle("call-CAprivate").describe()
    told = str(described.typed_search_attributes) + str(described.static_summary)
    assert CALLER[1:] not in told
    history = await stage.home.client.get_workflow_handle("call-CAprivate").fetch_history()
    assert token not in history.to_json()


async def test_nothing_is_written_outside(stage: Scene) -> None:
    """After all of the above: recordings and records, under names made of call ids and nothing else."""
    root = stage.home.settings.data_dir
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    odd = [name for name in left if not name.startswith(("recordings/CA", "calls.db", "spool/CA"))]
    assert odd == []
