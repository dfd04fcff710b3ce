"""Calls that the lab places when its REST interface is asked to, through Twilio's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from media_bridge.carriers import twiml
from stayline.lab.call import Behaviour
from stayline.lab.callee import Callee
from stayline.lab.carrier import LabCarrier
from stayline.lab.outbound import OutboundCall
from stayline.names import INBOUND_PATH, STATUS_PATH

from .bridge import ACCOUNT_SID, AUTH_TOKEN, Bridge

NUMBER = "+15551234567"
OURS = "+15550100002"


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with Bridge() as running:
        yield running


@pytest.fixture
async def carrier(bridge: Bridge) -> AsyncIterator[LabCarrier]:
    async with LabCarrier(bridge.url, ACCOUNT_SID, AUTH_TOKEN, behaviour=Behaviour(say_aloud=False)) as running:
        yield running


def client_of(carrier: LabCarrier) -> Client:
    client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=TwilioHttpClient(timeout=10))
    client.api.base_url = carrier.rest_url
    return client


async def placed(bridge: Bridge, carrier: LabCarrier, to: str = NUMBER, **options: Any) -> OutboundCall:
    values: dict[str, Any] = {
        "to": to,
        "from_": OURS,
        "url": f"{bridge.url}{INBOUND_PATH}?call=out-1",
        "status_callback": f"{bridge.url}{STATUS_PATH}?call=out-1",
        "status_callback_event": ["initiated", "ringing", "answered", "completed"],
        **options,
    }
    created = await asyncio.to_thread(lambda: client_of(carrier).calls.create(**values))
    call = carrier.calls[str(created.sid)]
    assert isinstance(call, OutboundCall)
    return call


async def change(carrier: LabCarrier, sid: str, **values: Any) -> Any:
    return await asyncio.to_thread(lambda: client_of(carrier).calls(sid).update(**values))


def statuses(bridge: Bridge) -> list[str]:
    return [form["CallStatus"] for form in bridge.posted(STATUS_PATH) if "CallStatus" in form]


async def test_rings_is_answered_and_left(bridge: Bridge, carrier: LabCarrier) -> None:
    call = await placed(bridge, carrier)
    await carrier.log.wait_for("stream_opened")
    assert call.status == "in-progress"
    call.hang_up()
    await call.wait()
    assert statuses(bridge) == ["initiated", "ringing", "in-progress", "completed"]
    numbers = [form["SequenceNumber"] for form in bridge.posted(STATUS_PATH)]
    assert numbers == ["0", "1", "2", "3"]
    assert ["CallDuration" in form for form in bridge.posted(STATUS_PATH)] == [False, False, False, True]
    [asked] = bridge.posted(INBOUND_PATH)
    assert (asked["Direction"], asked["CallSid"], asked["To"]) == ("outbound-api", call.sid, NUMBER)
    assert all(query == {"call": "out-1"} for query in bridge.queries)


@pytest.mark.parametrize(
    ("callee", "statuses_told"),
    [
        (Callee("busy"), ["initiated", "ringing", "busy"]),
        (Callee("failed"), ["initiated", "failed"]),
        (Callee("no-answer"), ["initiated", "ringing", "no-answer"]),
        (Callee(ring_seconds=60), ["initiated", "ringing", "no-answer"]),
    ],
    ids=["busy", "failed", "no answer", "too slow an answer"],
)
async def test_nobody_answers(
    bridge: Bridge, carrier: LabCarrier, callee: Callee, statuses_told: list[str]
) -> None:
    carrier.callees[NUMBER] = callee
    call = await placed(bridge, carrier, timeout=1)
    await call.wait()
    assert statuses(bridge) == statuses_told
    assert call.status == statuses_told[-1]
    assert bridge.posted(INBOUND_PATH) == []
    assert call.seconds == 0


async def test_only_the_end_is_told_unless_more_is_wanted(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee("busy")
    call = await placed(bridge, carrier, status_callback_event=["completed"])
    await call.wait()
    assert statuses(bridge) == ["busy"]


@pytest.mark.parametrize("status", ["canceled", "completed"])
async def test_cancelled_while_it_rings(bridge: Bridge, carrier: LabCarrier, status: str) -> None:
    carrier.callees[NUMBER] = Callee(ring_seconds=30)
    call = await placed(bridge, carrier)
    await carrier.log.wait_for("status", count=2)
    with pytest.raises(TwilioRestException) as caught:
        await change(carrier, call.sid, twiml=twiml.hang_up())
    assert caught.value.code == 21220
    await change(carrier, call.sid, status=status)
    await call.wait()
    assert (call.status, call.ended_by) == ("canceled", "rest")
    assert statuses(bridge)[-1] == "canceled"


async def test_the_time_limit_ends_it_and_can_be_moved(bridge: Bridge, carrier: LabCarrier) -> None:
    call = await placed(bridge, carrier, time_limit=600)
    await carrier.log.wait_for("stream_opened")
    await change(carrier, call.sid, time_limit=1)
    await call.wait()
    assert (call.status, call.ended_by) == ("completed", "carrier")


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_machine_detection(bridge: Bridge, carrier: LabCarrier, asynchronous: bool) -> None:
    carrier.callees[NUMBER] = Callee(answered_by="machine_start", detection_seconds=0.2)
    options: dict[str, str] = {"machine_detection": "Enable"}
    if asynchronous:
        options |= {"async_amd": "true", "async_amd_status_callback": f"{bridge.url}{STATUS_PATH}?call=out-1"}
    call = await placed(bridge, carrier, **options)
    await carrier.log.wait_for("stream_opened")
    if asynchronous:
        await carrier.log.wait_for("status", count=4)
    call.hang_up()
    await call.wait()
    [asked] = bridge.posted(INBOUND_PATH)
    told = [form for form in bridge.posted(STATUS_PATH) if "CallStatus" not in form]
    if asynchronous:
        assert "AnsweredBy" not in asked
        assert told == [
            {
                "AccountSid": ACCOUNT_SID,
                "CallSid": call.sid,
                "AnsweredBy": "machine_start",
                "MachineDetectionDuration": "200",
            }
        ]
    else:
        assert asked["AnsweredBy"] == "machine_start"
        assert told == []


async def test_calls_are_listed_latest_first_with_what_was_asked(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee(ring_seconds=30)
    first = await placed(bridge, carrier)
    second = await placed(bridge, carrier)
    await placed(bridge, carrier, to="+15557654321")
    await carrier.log.wait_for("status", call_sid=second.sid)
    client = client_of(carrier)
    listed = await asyncio.to_thread(lambda: client.calls.list(to=NUMBER, from_=OURS, limit=5))
    assert [call.sid for call in listed] == [second.sid, first.sid]
    assert listed[0].date_created is not None
    events = await asyncio.to_thread(lambda: client.calls(second.sid).events.list())
    request = events[0].request
    assert request is not None
    assert request["url"] == f"{bridge.url}{STATUS_PATH}?call=out-1"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"to": "911"}, 21211),
        ({"from_": "me"}, 21212),
        ({"url": "nowhere"}, 21205),
        ({"twiml": "<Response/>"}, 21205),
        ({"timeout": 601}, 20001),
        ({"machine_detection": "yes"}, 20001),
        ({"status_callback_event": ["answered", "sung"]}, 21626),
        ({"send_digits": "1"}, 20001),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else next(iter(value)),
)
async def test_what_twilio_refuses(bridge: Bridge, carrier: LabCarrier, options: dict[str, Any], code: int) -> None:
    with pytest.raises(TwilioRestException) as caught:
        await placed(bridge, carrier, **options)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert carrier.calls == {}
