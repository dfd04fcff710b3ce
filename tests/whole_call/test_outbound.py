"""Calls that we place, whole: asked for by code, dialled at the carrier, held by a bridge, written down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from stayline.dev_server import DevServer
from stayline.errors import ConfigError
from stayline.lab.call import DialOutcome
from stayline.lab.callee import Callee
from stayline.lab.outbound import OutboundCall
from stayline.lab.rest import Fault
from stayline.lab.verbs import CarrierFault
from stayline.messages import Dial, EndCall, TransferCall
from stayline.names import INBOUND_PATH, NEXT_PATH, call_workflow_id
from stayline.outbound import new_call_id, place_call
from tests.whole_call.house import TOKEN, Scene, client_of, scene, vendor_agent
from tests.whole_call.puppet import Puppet

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = "+15550100002"
GREETING = "Hello, this is the desk."
agent = vendor_agent(name="desk", greeting=GREETING, goodbye="Goodbye now.")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    client = await client_of(temporal_server)
    async with scene(client, tmp_path_factory.mktemp("outbound"), agent) as running:
        yield running


async def place(stage: Scene, to: str, dial: Dial | None = None, **options: Any) -> str:
    home = stage.home
    return await place_call(
        home.client, home.settings, agent, to, from_number=OURS, dial=dial, auth_token=TOKEN, **options
    )


async def leg(stage: Scene, call_id: str) -> OutboundCall:
    """The carrier's own side of the call."""
    async with asyncio.timeout(20):
        while not (sid := (await stage.home.snapshot(call_id)).call.carrier_call_id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    call = stage.carrier.calls[sid]
    assert isinstance(call, OutboundCall)
    return call


async def answered(stage: Scene, number: str, **callee: Any) -> tuple[str, Puppet]:
    """Call somebody who answers and has heard the greeting."""
    person = stage.caller()
    stage.carrier.callees[number] = Callee(caller=lambda: person, **callee)
    call_id = await place(stage, number)
    person.call = await leg(stage, call_id)
    await person.hears_out()
    return call_id, person


def kinds(events: list[Any]) -> list[str]:
    return [e.type for e in events if e.type not in ("usage",)]


async def test_a_conversation(stage: Scene) -> None:
    call_id, person = await answered(stage, "+15550200001")
    await person.asks("who is this")
    await person.leaves()
    events = await stage.home.over(call_id)
    turns = [e.text for e in events if e.type in ("agent_turn", "user_turn")]
    assert turns == [GREETING, "who is this", "You said: who is this"]
    assert kinds(events)[:3] == ["call_dialled", "call_admitted", "session_opened"]
    snapshot = await stage.home.snapshot(call_id)
    assert (snapshot.outcome, snapshot.call.direction) == ("caller_hung_up", "outbound")
    assert re.fullmatch(r"out-[0-9a-f]{32}", call_id)
    asked = [url for _, url, _ in person.call.asked]
    assert asked
    assert all(url.endswith(f"?call={call_id}") for url in asked)
    description = await stage.home.client.get_workflow_handle(call_workflow_id(call_id)).describe()
    attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    assert attributes["CallDirection"] == "outbound"
    assert "+1555" not in str(attributes)


@pytest.mark.parametrize(
    ("callee", "outcome"),
    [(Callee("busy"), "busy"), (Callee("no-answer"), "no_answer"), (Callee("failed"), "failed")],
)
async def test_nobody_answers(stage: Scene, callee: Callee, outcome: str) -> None:
    number = f"+1555020001{('busy', 'no_answer', 'failed').index(outcome)}"
    stage.carrier.callees[number] = callee
    call_id = await place(stage, number, Dial(ring_timeout=1))
    events = await stage.home.over(call_id)
    assert kinds(events) == ["call_dialled", "call_ended"]
    assert (await stage.home.snapshot(call_id)).outcome == outcome
    assert (await leg(stage, call_id)).streams == 0


async def test_cancelled_while_it_rings(stage: Scene) -> None:
    stage.carrier.callees["+15550200020"] = Callee(ring_seconds=60)
    call_id = await place(stage, "+15550200020")
    call = await leg(stage, call_id)
    await stage.carrier.log.wait_for("status", call_sid=call.sid, count=2)
    handle = stage.home.client.get_workflow_handle(call_workflow_id(call_id))
    await handle.execute_update("end", EndCall(by="ana"))
    await stage.home.over(call_id)
    assert (call.status, call.ended_by) == ("canceled", "rest")
    assert (await stage.home.snapshot(call_id)).outcome == "completed"


async def test_a_machine_answers(stage: Scene) -> None:
    person = stage.caller()
    stage.carrier.callees["+15550200030"] = Callee(caller=lambda: person, answered_by="machine_start")
    call_id = await place(stage, "+15550200030", Dial(machine_detection=True))
    events = await stage.home.until(call_id, "answered_by")
    assert [e.who for e in events if e.type == "answered_by"] == ["machine_start"]
    person.call = await leg(stage, call_id)
    await person.leaves()
    await stage.home.over(call_id)


async def test_asked_twice_dialled_once(stage: Scene) -> None:
    stage.carrier.callees["+15550200040"] = Callee("busy")
    call_id = new_call_id()
    for _ in range(2):
        assert await place(stage, "+15550200040", call_id=call_id) == call_id
    await stage.home.over(call_id)
    assert await place(stage, "+15550200040", call_id=call_id) == call_id
    assert [c.to_number for c in stage.carrier.calls.values()].count("+15550200040") == 1


async def test_the_carriers_answer_is_lost(stage: Scene) -> None:
    """It dialled all the same: the next attempt finds the call instead of dialling again."""
    stage.carrier.callees["+15550200050"] = Callee(ring_seconds=60)
    stage.carrier.faults.append(Fault(status=500, applied=True))
    call_id = await place(stage, "+15550200050")
    call = await leg(stage, call_id)
    await stage.carrier.log.wait_for("rest", call_sid=call.sid, timeout=20)
    call.hang_up()
    await stage.home.over(call_id)
    assert [c.to_number for c in stage.carrier.calls.values()].count("+15550200050") == 1
    assert (await stage.home.snapshot(call_id)).outcome == "no_answer"


async def test_a_transfer_that_fails_and_one_that_is_answered(stage: Scene) -> None:
    stage.carrier.dial_outcomes["+15550200061"] = DialOutcome("busy", ring_seconds=0.1)
    stage.carrier.dial_outcomes["+15550200062"] = DialOutcome("completed", ring_seconds=0.1, talk_seconds=0.2)
    call_id, person = await answered(stage, "+15550200060")
    handle = stage.home.client.get_workflow_handle(call_workflow_id(call_id))
    await handle.execute_update("transfer", TransferCall(to="+15550200061", say="One moment."))
    await stage.home.until(call_id, "session_opened", 2)
    await handle.execute_update("transfer", TransferCall(to="+15550200062", say="One moment."))
    events = await stage.home.over(call_id)
    assert [e.outcome for e in events if e.type == "transfer_settled"] == ["busy", "answered"]
    limits = [r.form for r in stage.carrier.requests if person.call.sid in r.path and "TimeLimit" in r.form]
    assert len(limits) == 1
    assert int(limits[0]["TimeLimit"]) > 4 * 3600


async def test_a_broken_stream_is_fetched_back(stage: Scene) -> None:
    call_id, person = await answered(stage, "+15550200070")
    [session] = [s for key, s in stage.home.bridge.sessions.items() if key[0] == call_id]
    transport = session._socket._req.transport  # type: ignore[attr-defined]
    transport.abort()
    await stage.home.until(call_id, "session_opened", 2)
    before = person.heard_ms
    await person.until(lambda: person.heard_ms > before)
    await person.leaves()
    await stage.home.over(call_id)
    redirects = [r for r in stage.carrier.requests if person.call.sid in r.path and "Twiml" in r.form]
    assert all(f"{NEXT_PATH}?call={call_id}" in r.form["Twiml"] for r in redirects)
    assert redirects


async def test_webhooks_are_repeated(stage: Scene) -> None:
    """The carrier asks again what to do with a call that it has already connected."""
    call_id, person = await answered(stage, "+15550200080")
    await person.call._webhooks.twiml(
        "POST", f"{stage.home.settings.public}{INBOUND_PATH}?call={call_id}", person.call.form()
    )
    await person.asks("still there")
    await person.leaves()
    events = await stage.home.over(call_id)
    assert kinds(events).count("call_admitted") == 1
    assert kinds(events).count("session_opened") == 1


async def test_the_carrier_speaks_when_the_bridge_has_no_voice(stage: Scene) -> None:
    call_id, person = await answered(stage, "+15550200090")
    handle = stage.home.client.get_workflow_handle(call_workflow_id(call_id))
    await handle.signal("end", EndCall(by="bridge", why="no voice", say="Sorry, goodbye.", by_carrier=True))
    await stage.home.over(call_id)
    verbs = [e.data["verb"] for e in stage.carrier.log.of("twiml", person.call.sid)]
    assert [type(verb).__name__ for verb in verbs] == ["Connect", "Say", "Hangup"]
    assert verbs[1].text == "Sorry, goodbye."
    assert person.call.ended_by == "bridge"


async def test_a_call_that_no_workflow_knows_is_hung_up(stage: Scene) -> None:
    call_id, person = await answered(stage, "+15550200100")
    url = f"{stage.home.settings.public}{INBOUND_PATH}?call=out-unknown"
    document = await person.call._webhooks.twiml("POST", url, person.call.form())
    assert "<Hangup" in document
    await person.leaves()
    await stage.home.over(call_id)


async def test_an_address_that_names_no_call_of_ours(stage: Scene) -> None:
    call_id, person = await answered(stage, "+15550200110")
    url = f"{stage.home.settings.public}{INBOUND_PATH}?call=CA1"
    with pytest.raises(CarrierFault, match="400"):
        await person.call._webhooks.twiml("POST", url, person.call.form())
    await person.leaves()
    await stage.home.over(call_id)


async def test_answered_while_the_bridge_drains(stage: Scene) -> None:
    """It is held, and the address that it asks again still names it."""
    person = stage.caller()
    stage.carrier.callees["+15550200120"] = Callee(caller=lambda: person)
    stage.carrier.on_order = lambda _: setattr(stage.home.bridge, "draining", True)
    try:
        call_id = await place(stage, "+15550200120")
        person.call = await leg(stage, call_id)
        await stage.carrier.log.wait_for("twiml", call_sid=person.sid, timeout=20)
    finally:
        stage.carrier.on_order = None
        stage.home.bridge.draining = False
    await person.hears_out()
    await person.leaves()
    assert (await stage.home.over(call_id))[-1].outcome == "caller_hung_up"
    verbs = [e.detail for e in stage.carrier.log.of("twiml", person.sid)]
    assert verbs[0] == "Redirect", "no silence: the next bridge may be there already"
    assert verbs[-3:] in (["Pause", "Redirect", "Connect"], ["Redirect", "Connect"])


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"to": "911"}, "to="),
        ({"from_number": "desk"}, "from_number="),
        ({"dial": Dial(ring_timeout=0)}, "ring_timeout"),
        ({"call_id": "CA1"}, "call_id"),
        ({"call_id": "out-+15551234567"}, "call_id"),
    ],
    ids=lambda value: str(value),
)
async def test_what_cannot_be_placed(stage: Scene, options: dict[str, Any], wrong: str) -> None:
    values: dict[str, Any] = {"to": "+15550200001", "from_number": OURS, **options}
    with pytest.raises(ConfigError, match=wrong):
        await place_call(stage.home.client, stage.home.settings, agent, values.pop("to"), **values)
