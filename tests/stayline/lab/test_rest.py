"""The lab's REST interface, through Twilio's own client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from media_bridge.carriers import twiml
from media_bridge.carriers.twilio_stream import Stop
from stayline.lab.call import Behaviour, LabCall
from stayline.lab.carrier import LabCarrier
from stayline.lab.rest import Fault
from stayline.names import NEXT_PATH

from .bridge import ACCOUNT_SID, AUTH_TOKEN, Bridge, Socket


def client_of(carrier: LabCarrier, token: str = AUTH_TOKEN, timeout: float = 10) -> Client:
    client = Client(ACCOUNT_SID, token, http_client=TwilioHttpClient(timeout=timeout))
    client.api.base_url = carrier.rest_url
    return client


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with Bridge() as running:
        yield running


@pytest.fixture
async def carrier(bridge: Bridge) -> AsyncIterator[LabCarrier]:
    behaviour = Behaviour(say_aloud=False)
    async with LabCarrier(bridge.url, ACCOUNT_SID, AUTH_TOKEN, behaviour=behaviour) as running:
        yield running


@pytest.fixture
async def call(carrier: LabCarrier) -> LabCall:
    call = await carrier.place_call("+15550100001", "+15550100002")
    await carrier.log.wait_for("stream_opened")
    return call


async def update(carrier: LabCarrier, sid: str, client: Client | None = None, **values: str) -> Any:
    calls = (client or client_of(carrier)).calls
    return await asyncio.to_thread(lambda: calls(sid).update(**values))


async def refusal(carrier: LabCarrier, sid: str, client: Client | None = None, **values: str) -> tuple[int, int]:
    with pytest.raises(TwilioRestException) as caught:
        await update(carrier, sid, client, **values)
    assert caught.value.code is not None
    return caught.value.status, caught.value.code


async def test_a_call_is_read(carrier: LabCarrier, call: LabCall) -> None:
    calls = client_of(carrier).calls
    fetched = await asyncio.to_thread(lambda: calls(call.sid).fetch())
    assert (fetched.sid, fetched.status, fetched.to) == (call.sid, "in-progress", "+15550100002")
    assert fetched.start_time is not None
    assert fetched.end_time is None


async def test_a_call_is_hung_up(bridge: Bridge, carrier: LabCarrier, call: LabCall) -> None:
    updated = await update(carrier, call.sid, status="completed")
    assert updated.status == "completed"
    await call.wait()
    assert (call.ended_by, call.status) == ("rest", "completed")
    assert bridge.posted(NEXT_PATH) == []
    request = carrier.requests[-1]
    assert (request.method, request.form, request.status) == ("POST", {"Status": "completed"}, 200)
    assert request.path.endswith(f"/Calls/{call.sid}.json")


async def test_a_call_is_redirected_in_mid_stream(bridge: Bridge, carrier: LabCarrier, call: LabCall) -> None:
    bridge.answers[NEXT_PATH] = [lambda form: bridge.connect(token="second")]
    await update(carrier, call.sid, url=bridge.url + NEXT_PATH, method="POST")
    await carrier.log.wait_for("stream_opened", count=2)
    assert len(carrier.log.of("stream_stopped")) == 1
    call.hang_up()
    await call.wait()
    assert len(bridge.posted(NEXT_PATH)) == 1
    assert [start.parameters["token"] for start in bridge.starts] == ["t", "second"]
    assert bridge.starts[0].stream_sid != bridge.starts[1].stream_sid


async def test_a_redirected_stream_hears_stop(bridge: Bridge, carrier: LabCarrier) -> None:
    stopped = asyncio.Event()

    async def on_stream(socket: Socket) -> None:
        await socket.until(Stop)
        stopped.set()

    bridge.on_stream = on_stream
    call = await carrier.place_call("+15550100001", "+15550100002")
    await carrier.log.wait_for("stream_opened")
    await update(carrier, call.sid, twiml=twiml.hang_up("Bye."))
    await call.wait()
    assert stopped.is_set()
    assert call.ended_by == "bridge"
    assert [e.detail for e in carrier.log.of("twiml", call.sid)] == ["Connect", "Say", "Hangup"]


async def test_what_twilio_refuses(carrier: LabCarrier, call: LabCall) -> None:
    assert await refusal(carrier, "CA" + "0" * 32, status="completed") == (404, 20404)
    assert await refusal(carrier, call.sid, client_of(carrier, "wrong"), status="completed") == (401, 20003)
    assert await refusal(carrier, call.sid, status="paused") == (400, 20001)
    assert await refusal(carrier, call.sid, url="nowhere") == (400, 21205)
    assert not call.over
    call.hang_up()
    await call.wait()
    assert await refusal(carrier, call.sid, status="completed") == (400, 21220)
    assert await refusal(carrier, call.sid, twiml="<Response/>") == (400, 21220)


async def test_cancelling_leaves_a_call_in_progress_alone(carrier: LabCarrier, call: LabCall) -> None:
    assert (await update(carrier, call.sid, status="canceled")).status == "in-progress"
    assert not call.over


async def test_it_misbehaves_when_told_to(carrier: LabCarrier, call: LabCall) -> None:
    carrier.faults.extend([Fault(429, retry_after=1), Fault(500), Fault(503, applied=True)])
    assert await refusal(carrier, call.sid, status="completed") == (429, 20429)
    assert await refusal(carrier, call.sid, status="completed") == (500, 20500)
    assert not call.over
    assert await refusal(carrier, call.sid, status="completed") == (503, 20500)
    assert call.ended_by == "rest"
    assert [request.status for request in carrier.requests] == [429, 500, 503]


async def test_it_hangs_when_told_to(carrier: LabCarrier, call: LabCall) -> None:
    carrier.faults.append(Fault(delay=60))
    client = client_of(carrier, timeout=0.2)
    with pytest.raises(Exception, match="timed out"):
        await update(carrier, call.sid, client, status="completed")
    assert not call.over
