"""What strangers and broken carriers send: refused, said once in the log, and a call beside it notices nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest
import pytest_asyncio
import structlog
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from media_bridge.carriers import signature
from stayline import logs, names
from stayline.dev_server import DevServer
from tests.whole_call.house import ACCOUNT, TOKEN, Scene, client_of, scene, vendor_agent
from tests.whole_call.webhook import Webhook

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    client = await client_of(temporal_server)
    agent = vendor_agent(greeting="Hello there.")
    async with scene(client, tmp_path_factory.mktemp("bad"), agent, stream_idle_timeout=IDLE) as running:
        yield running


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the bridge logs, as if it had just been started."""
    structlog.reset_defaults()
    monkeypatch.setattr(logs, "_seen", OrderedDict())
    with capture_logs() as lines:
        yield lines


@pytest_asyncio.fixture(loop_scope="module")
async def webhook(stage: Scene) -> AsyncIterator[Webhook]:
    async with aiohttp.ClientSession() as http:
        yield Webhook(stage.home.settings.public, http)


def address(stage: Scene) -> str:
    return "ws" + stage.home.settings.public.removeprefix("http") + names.STREAM_PATH


async def socket(stage: Scene) -> ClientConnection:
    """A properly signed media socket: whoever opened it knows our secret, or replays an old upgrade."""
    url = address(stage)
    headers = {signature.HEADER: signature.sign_stream(TOKEN, url)}
    return await connect(url, additional_headers=headers, compression=None, proxy=None, max_size=None)


CONNECTED = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})


def start(call_id: object, token: str = "forged", account: str = ACCOUNT, stream: str = "MZ1") -> str:
    return json.dumps(
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": stream,
            "start": {
                "accountSid": account,
                "streamSid": stream,
                "callSid": call_id,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"token": token},
            },
        }
    )


def media(number: int = 2, payload: object = "/////w==", stream: str = "MZ1", **more: object) -> str:
    body = {"track": "inbound", "chunk": str(number), "timestamp": "0", "payload": payload, **more}
    return json.dumps({"event": "media", "sequenceNumber": str(number), "streamSid": stream, "media": body})


DTMF = json.dumps({"event": "dtmf", "sequenceNumber": "2", "streamSid": "MZ1", "dtmf": {"digit": "1"}})
MARK = json.dumps({"event": "mark", "sequenceNumber": "2", "streamSid": "MZ1", "mark": {"name": "0:1"}})
STOP = json.dumps({"event": "stop", "sequenceNumber": "2", "streamSid": "MZ1", "stop": {}})
BEFORE_START: dict[str, list[str | bytes]] = {
    "no JSON": ["{"],
    "no object": ["[1, 2]"],
    "deeply nested": ["[" * 30_000],
    "no event": ["{}"],
    "an event that is a number": ['{"event": 5}'],
    "media before start": [CONNECTED, media()],
    "a key before start": [CONNECTED, DTMF],
    "a mark before start": [CONNECTED, MARK],
    "stop before start": [CONNECTED, STOP],
    "start before connected": [start("CA1")],
    "connected twice": [CONNECTED, CONNECTED],
    "a binary frame": [CONNECTED, b"\x00\x01"],
    "a frame of 70 kB": [CONNECTED, "x" * 70_000],
    "a frame of 1 MB": ["x" * 2**20],
    "a call id that is a number": [CONNECTED, start(7)],
    "a call id that is a path": [CONNECTED, start("../../etc")],
    "half a surrogate pair": [CONNECTED, start("CA1", token="\ud800")],
    "another codec": [CONNECTED, start("CA1").replace("x-mulaw", "x-opus")],
}
AFTER_START: dict[str, list[str | bytes]] = {
    "two starts": [start("CA1")],
    "connected again": [CONNECTED],
    "a payload that is no text": [media(payload=5)],
    "a payload that is no base64": [media(payload="!!!")],
    "a number that is no text": [media(chunk=5)],
    "media of another stream": [media(stream="MZ2")],
    "a track that is not the caller's": [media(track="outbound")],
    "a key that no telephone has": [DTMF.replace('"1"}', '"x"}')],
    "a binary frame": [b"\xff"],
    "a frame of 70 kB": ["x" * 70_000],
    "a message after stop": [STOP, media()],
}


async def sent_and_closed(stage: Scene, *messages: str | bytes) -> int | None:
    """Send it all; wait until the bridge has closed. Returns the close code, None when there was none."""
    ours = await socket(stage)
    try:
        async with asyncio.timeout(20):
            for message in messages:
                await ours.send(message)
            while True:
                await ours.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    finally:
        await ours.close()


async def while_talking(stage: Scene, attack: Callable[[str], Any]) -> None:
    """Run an attack beside a call, which must not notice."""
    caller = await stage.greeted()
    attacking = asyncio.ensure_future(attack(caller.sid))
    rounds = 0
    while not attacking.done() or rounds < 2:
        rounds += 1
        await caller.asks(f"number {rounds}")
    await attacking
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    snapshot = await stage.home.snapshot(caller.sid)
    told = [event.text for event in events if event.type in ("user_turn", "agent_turn")]
    expected = ["Hello there."]
    for number in range(1, rounds + 1):
        expected += [f"number {number}", f"You said: number {number}"]
    assert told == expected
    assert [event.type for event in events if event.type in ("error", "gap", "interruption")] == []
    assert (snapshot.outcome, snapshot.metrics.session_count) == ("caller_hung_up", 1)
    assert stage.carrier.log.of("stream_broken", caller.sid) == []


def assert_said_once(lines: list[Any]) -> None:
    """Each warning stands once in the log, however often its cause came."""
    warnings = [
        (line["event"], line.get("reason"), line.get("path")) for line in lines if line["log_level"] != "info"
    ]
    assert warnings
    repeated = {warning: count for warning, count in Counter(warnings).items() if count > 1}
    assert repeated == {}
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []


@pytest.mark.parametrize("path", [names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH])
async def test_webhooks_that_are_not_the_carriers(
    stage: Scene, webhook: Webhook, path: str, said: list[Any]
) -> None:
    form = {"CallSid": "CA" + "5" * 32, "From": "+1555", "To": "+1556", "CallStatus": "completed"}
    for token in (None, "another-token"):
        for _ in range(2):
            assert (await webhook.post(path, form, token))[0] == 403
    signed = signature.sign_webhook(TOKEN, webhook.url + path, form)
    async with aiohttp.ClientSession(headers={signature.HEADER: signed}) as http:
        for changed in (form | {"To": "+1557"}, {}):
            async with http.post(webhook.url + path, data=changed) as answer:
                assert answer.status == 403
        async with http.post(f"{webhook.url}{path}?held=9", data=form) as answer:
            assert answer.status == 403
        async with http.post(webhook.url + path, json=form) as answer:
            assert answer.status == 403
        upload = aiohttp.FormData()
        upload.add_field("CallSid", b"x", filename="x.bin")
        async with http.post(webhook.url + path, data=upload) as answer:
            assert answer.status == 403
        async with http.get(webhook.url + path) as answer:
            assert answer.status == 405
        async with http.post(webhook.url + path, data={"x": "x" * 70_000}) as answer:
            assert answer.status == 413
    assert_said_once(said)


async def test_signed_webhooks_with_nonsense(stage: Scene, webhook: Webhook) -> None:
    """The carrier's own signature does not make a call id a file name, nor a number markup."""
    for call_id in ("", "../../etc/passwd", "CA 1", "CA" + "9" * 100):
        for path in (names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH):
            form = {"CallSid": call_id, "CallStatus": "completed", "To": "+1555"}
            assert (await webhook.post(path, form))[0] == 400, (path, call_id)
    assert (await webhook.post(names.STATUS_PATH, {"CallSid": "CA1", "CallStatus": "exploded"}))[0] == 400
    assert (await webhook.post(names.INBOUND_PATH, {"CallSid": "CA1", "To": "x" * 70_000}))[0] == 413
    status, twiml = await webhook.post(names.NEXT_PATH, {"CallSid": "CAunknown"})
    assert (status, [e.tag for e in ElementTree.fromstring(twiml)]) == (200, ["Hangup"])

    odd = "</Parameter><Hangup/>&\"'\x01"
    call_id = "CAmetacharacters"
    token = await webhook.stream_token(call_id, From=odd, To=odd, CallerName=odd)
    assert token
    snapshot = await stage.home.snapshot(call_id)
    assert snapshot.call.from_number.startswith("</Parameter>")
    await webhook.post(names.STATUS_PATH, {"CallSid": call_id, "CallStatus": "completed"})
    await stage.home.over(call_id)


async def test_upgrades_that_are_not_the_carriers(stage: Scene, said: list[Any]) -> None:
    url = address(stage)
    for headers in ({}, {signature.HEADER: "x"}, {signature.HEADER: signature.sign_stream("another-token", url)}):
        for _ in range(2):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers, proxy=None)
            assert refused.value.response.status_code == 403
    assert_said_once(said)


async def test_sockets_that_break_the_protocol(stage: Scene, webhook: Webhook, said: list[Any]) -> None:
    """Every fault closes its own socket; after `start`, with a token that was good, it ends its own session."""

    async def attack(_: str) -> None:
        for _again in range(2):
            await asyncio.gather(*(sent_and_closed(stage, *messages) for messages in BEFORE_START.values()))
            await asyncio.gather(
                *(sent_and_closed(stage, CONNECTED, start("CA1"), *messages) for messages in AFTER_START.values())
            )
        token = await webhook.stream_token("CAbroken")
        ours = await socket(stage)
        await ours.send(CONNECTED)
        await ours.send(start("CAbroken", token))
        await stage.home.until("CAbroken", "session_opened")
        await ours.send("nonsense")
        await ours.wait_closed()
        await stage.home.until("CAbroken", "session_closed")

    await while_talking(stage, attack)
    events = await stage.home.timeline("CAbroken")
    assert [event.reason for event in events if event.type == "session_closed"] == ["lost"]
    assert_said_once(said)


async def test_streams_without_a_right_to_the_call(stage: Scene, webhook: Webhook, said: list[Any]) -> None:
    """A forged token, a used one, one of another call, no call at all: the live call keeps its session."""

    async def attack(live: str) -> None:
        verb = next(e.data["verb"] for e in stage.carrier.log.of("twiml", live) if e.detail == "Connect")
        used = verb.parameters["token"]
        others = await webhook.stream_token("CAother")
        for _ in range(2):
            codes = await asyncio.gather(
                sent_and_closed(stage, CONNECTED, start(live)),
                sent_and_closed(stage, CONNECTED, start(live, used), media()),
                sent_and_closed(stage, CONNECTED, start(live, others)),
                sent_and_closed(stage, CONNECTED, start("CAnobody", others)),
                sent_and_closed(stage, CONNECTED, start("CAother", others, account="AC" + "1" * 32)),
            )
            assert set(codes) == {1008}
        assert (await stage.home.snapshot("CAother")).session == 0

    await while_talking(stage, attack)
    assert_said_once(said)


async def test_sockets_that_say_nothing(stage: Scene, webhook: Webhook, said: list[Any]) -> None:
    """One that never starts, and one that was let in and then falls silent: both are closed after the limit."""

    async def attack(_: str) -> None:
        token = await webhook.stream_token("CAsilent")
        await asyncio.gather(
            sent_and_closed(stage),
            sent_and_closed(stage, CONNECTED),
            sent_and_closed(stage, CONNECTED, start("CAsilent", token)),
        )
        await stage.home.until("CAsilent", "session_closed")

    await while_talking(stage, attack)
    events = await stage.home.timeline("CAsilent")
    assert [event.reason for event in events if event.type == "session_closed"] == ["lost"]
    assert_said_once(said)
