"""Placing a call over the wire, against the lab carrier: dialled once, however an earlier attempt has ended."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.carrier import CarrierActivities
from stayline.lab.call import Behaviour
from stayline.lab.callee import Callee
from stayline.lab.carrier import LabCarrier
from stayline.lab.outbound import OutboundCall
from stayline.lab.rest import Fault
from stayline.messages import Dial, ExtendCall, HangUp, PlaceCall, Placed, Redirect
from stayline.names import INBOUND_PATH, NEXT_PATH, STATUS_PATH
from stayline.settings import TwilioCredentials
from tests.stayline.lab.bridge import ACCOUNT_SID, AUTH_TOKEN, Bridge

NUMBER = "+15551234567"
OURS = "+15550100002"


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with Bridge() as running:
        yield running


@pytest.fixture
async def carrier(bridge: Bridge) -> AsyncIterator[LabCarrier]:
    behaviour = Behaviour(say_aloud=False, callees={NUMBER: Callee(ring_seconds=30)})
    async with LabCarrier(bridge.url, ACCOUNT_SID, AUTH_TOKEN, behaviour=behaviour) as running:
        yield running


def ask(bridge: Bridge, call_id: str = "out-1", **dial: Any) -> PlaceCall:
    return PlaceCall(
        call_id=call_id,
        from_number=OURS,
        to_number=NUMBER,
        public_url=bridge.url,
        since=datetime.now(UTC),
        time_limit=720,
        dial=Dial(**dial),
    )


async def run(carrier: LabCarrier, name: str, request: Any, attempt: int = 1) -> Any:
    credentials = TwilioCredentials(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, base_url=carrier.rest_url)
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=attempt)
    activity = getattr(CarrierActivities(credentials), name)
    if asyncio.iscoroutinefunction(activity):
        return await environment.run(activity, request)
    return await asyncio.to_thread(environment.run, activity, request)


async def refused(carrier: LabCarrier, name: str, request: Any, attempt: int = 1) -> tuple[str | None, bool]:
    with pytest.raises(ApplicationError) as caught:
        await run(carrier, name, request, attempt)
    return caught.value.type, caught.value.non_retryable


def only(carrier: LabCarrier) -> OutboundCall:
    [call] = carrier.calls.values()
    assert isinstance(call, OutboundCall)
    return call


async def test_it_dials(bridge: Bridge, carrier: LabCarrier) -> None:
    placed = await run(carrier, "place_call", ask(bridge, ring_timeout=40))
    call = only(carrier)
    assert placed == Placed(carrier_call_id=call.sid)
    assert (call.from_number, call.to_number) == (OURS, NUMBER)
    assert (call.order.ring_timeout, call.order.time_limit) == (40, 720)
    assert call.order.plan.url == f"{bridge.url}{INBOUND_PATH}?call=out-1"  # type: ignore[union-attr]
    assert call.order.status_callback == f"{bridge.url}{STATUS_PATH}?call=out-1"
    assert call.order.status_events == ("initiated", "ringing", "answered", "completed")
    assert not call.order.detection
    assert not call.order.record


async def test_machines_and_recordings(bridge: Bridge, carrier: LabCarrier) -> None:
    await run(carrier, "place_call", ask(bridge, machine_detection=True, record=True))
    order = only(carrier).order
    assert order.detection
    assert order.detection_callback == order.status_callback
    assert order.record
    assert carrier.requests[-1].form["RecordingChannels"] == "dual"


async def test_an_answer_that_was_lost(bridge: Bridge, carrier: LabCarrier) -> None:
    """The first attempt dialled all the same; the carrier's webhook has named the call by now."""
    carrier.faults.append(Fault(status=500, applied=True))
    request = ask(bridge)
    assert await refused(carrier, "place_call", request) == ("CarrierUnreachable", False)
    await carrier.log.wait_for("status")
    call = only(carrier)
    assert await run(carrier, "place_call", request, attempt=2) == Placed(carrier_call_id=call.sid)
    assert only(carrier) is call


async def test_a_call_that_nobody_was_asked_about_may_be_this_one(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee(queue_seconds=30)
    carrier.faults.append(Fault(status=503, applied=True))
    request = ask(bridge)
    await refused(carrier, "place_call", request)
    assert await run(carrier, "place_call", request, attempt=2) == Placed()
    only(carrier)


async def test_another_call_to_the_same_number_is_not_this_one(bridge: Bridge, carrier: LabCarrier) -> None:
    first = await run(carrier, "place_call", ask(bridge, "out-1"))
    await carrier.log.wait_for("status")
    second = await run(carrier, "place_call", ask(bridge, "out-2"), attempt=2)
    assert {first.carrier_call_id, second.carrier_call_id} == set(carrier.calls)
    assert len(carrier.calls) == 2


async def test_an_earlier_call_to_the_same_number_is_not_this_one(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee(queue_seconds=30)
    await run(carrier, "place_call", ask(bridge, "out-1"))
    only(carrier).created_at -= timedelta(minutes=1)
    await run(carrier, "place_call", ask(bridge, "out-2"), attempt=2)
    assert len(carrier.calls) == 2


async def test_nobody_is_called_into_silence(bridge: Bridge, carrier: LabCarrier) -> None:
    bridge.healthy = False
    assert await refused(carrier, "place_call", ask(bridge)) == ("NoBridge", False)
    assert carrier.requests == []


async def test_nobody_is_called_while_no_bridge_has_room(bridge: Bridge, carrier: LabCarrier) -> None:
    bridge.ready = False
    assert await refused(carrier, "place_call", ask(bridge)) == ("NoBridge", False)
    assert carrier.requests == []
    bridge.ready = True
    await run(carrier, "place_call", ask(bridge), attempt=2)
    assert only(carrier)


async def test_a_number_that_the_carrier_does_not_take(bridge: Bridge, carrier: LabCarrier) -> None:
    request = ask(bridge).model_copy(update={"to_number": "911"})
    assert await refused(carrier, "place_call", request) == ("CarrierRefused", True)


async def test_a_ringing_call_is_cancelled(bridge: Bridge, carrier: LabCarrier) -> None:
    placed = await run(carrier, "place_call", ask(bridge))
    request = HangUp(call_id="out-1", carrier_call_id=placed.carrier_call_id, unanswered=True)
    assert await run(carrier, "hang_up", request) is True
    await only(carrier).wait()
    assert only(carrier).status == "canceled"
    assert await run(carrier, "hang_up", request) is False


async def test_a_call_that_was_answered_just_now_is_hung_up(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee(ring_seconds=0)
    placed = await run(carrier, "place_call", ask(bridge))
    await carrier.log.wait_for("stream_opened")
    await run(carrier, "hang_up", HangUp(call_id="out-1", carrier_call_id=placed.carrier_call_id, unanswered=True))
    await only(carrier).wait()
    assert (only(carrier).status, only(carrier).ended_by) == ("completed", "rest")


async def test_the_carriers_own_id_is_steered(bridge: Bridge, carrier: LabCarrier) -> None:
    carrier.callees[NUMBER] = Callee(ring_seconds=0)
    placed = await run(carrier, "place_call", ask(bridge))
    await carrier.log.wait_for("stream_opened")
    id = placed.carrier_call_id
    assert await run(carrier, "extend_call", ExtendCall(carrier_call_id=id, time_limit=15000)) is True
    assert only(carrier).time_limit == 15000
    redirect = Redirect(call_id="out-1", public_url=bridge.url, carrier_call_id=id)
    bridge.answers[NEXT_PATH].insert(0, lambda form: bridge.connect())
    assert await run(carrier, "redirect_call", redirect) is True
    await carrier.log.wait_for("stream_opened", count=2)
    asked = [path for path, _ in bridge.forms].index(NEXT_PATH)
    assert bridge.queries[asked] == {"call": "out-1"}
    words = "Sorry & goodbye.\x00"
    assert await run(carrier, "redirect_call", redirect.model_copy(update={"say": words})) is True
    await only(carrier).wait()
    verbs = [event.data["verb"] for event in carrier.log.of("twiml", id)]
    assert [type(verb).__name__ for verb in verbs[-2:]] == ["Say", "Hangup"]
    assert verbs[-2].text == "Sorry & goodbye."
