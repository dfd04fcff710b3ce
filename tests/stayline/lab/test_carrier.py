"""The lab carrier does what Twilio does, towards a bridge that checks every signature."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator

import pytest

from media_bridge.carriers import twiml
from media_bridge.carriers.twilio_stream import DtmfPressed, Mark, Media, Stop
from stayline.lab.call import Behaviour, DialOutcome, Fetch
from stayline.lab.carrier import LabCarrier
from stayline.lab.line import Listener, Spoken, quiet_frame
from stayline.names import INBOUND_PATH, NEXT_PATH, STATUS_PATH

from .bridge import ACCOUNT_SID, AUTH_TOKEN, Bridge, Socket

FROM, TO = "+15550100001", "+15550100002"
TONE = bytes(range(160))  # a frame that is not silence


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with Bridge() as running:
        yield running


@contextlib.asynccontextmanager
async def carrier_for(bridge: Bridge, behaviour: Behaviour | None = None) -> AsyncIterator[LabCarrier]:
    async with LabCarrier(
        bridge.url,
        ACCOUNT_SID,
        AUTH_TOKEN,
        public_url=bridge.public_url,
        behaviour=behaviour or Behaviour(say_aloud=False),
    ) as carrier:
        yield carrier


class Ear(Listener):
    """Keeps what it hears, and does what it is told at a tick."""

    def __init__(self, acts: dict[int, Spoken] | None = None) -> None:
        self.heard: list[bytes] = []
        self.cleared_at: list[int] = []
        self.closed = False
        self._acts = acts or {}

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        self.heard.append(heard)
        return self._acts.get(at_ms // 20) or Spoken(quiet_frame(at_ms))

    def cleared(self, at_ms: int) -> None:
        self.cleared_at.append(at_ms)

    def close(self) -> None:
        self.closed = True


async def test_a_call_from_webhook_to_status_callback(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        first, second = await socket.until(Media), await socket.until(Media)
        assert (first.sequence, first.chunk, first.timestamp_ms, len(first.audio)) == (2, 1, 0, 160)
        assert (second.sequence, second.chunk, second.timestamp_ms) == (3, 2, 20)
        await socket.close()

    bridge.on_stream = on_stream
    caller = Ear()
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO, caller=caller)
        await call.wait()
    assert re.fullmatch("CA[0-9a-f]{32}", call.sid)
    assert (call.status, call.ended_by, call.error) == ("completed", "bridge", None)
    assert caller.closed
    inbound, after, status = bridge.forms
    assert inbound[0] == INBOUND_PATH
    assert inbound[1] == {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "CallSid": call.sid,
        "CallStatus": "ringing",
        "Called": TO,
        "Caller": FROM,
        "Direction": "inbound",
        "From": FROM,
        "To": TO,
    }
    assert after == (NEXT_PATH, inbound[1] | {"CallStatus": "in-progress"})
    assert status[0] == STATUS_PATH
    assert status[1]["CallStatus"] == "completed"
    assert status[1]["CallDuration"].isdigit()
    assert bridge.starts[0].call_sid == call.sid
    assert bridge.starts[0].account_sid == ACCOUNT_SID
    assert bridge.starts[0].parameters == {"token": "t"}


async def test_numbers_in_messages_are_strings(bridge: Bridge) -> None:
    raw: list[dict[str, object]] = []

    async def on_stream(socket: Socket) -> None:
        raw.append(json.loads((await socket.websocket.receive()).data))
        await socket.close()

    bridge.on_stream = on_stream
    async with carrier_for(bridge) as carrier:
        await (await carrier.place_call(FROM, TO)).wait()
    (message,) = raw
    assert message["sequenceNumber"] == "2"
    media = message["media"]
    assert isinstance(media, dict)
    assert (media["track"], media["chunk"], media["timestamp"]) == ("inbound", "1", "0")


async def test_behind_a_proxy_requests_are_signed_for_the_public_address() -> None:
    async with Bridge(public_url="https://voice.example.com") as bridge:

        async def on_stream(socket: Socket) -> None:
            await socket.close()

        bridge.on_stream = on_stream
        async with carrier_for(bridge) as carrier:
            call = await carrier.place_call(FROM, TO)
            await call.wait()
        assert call.error is None
        assert [path for path, _ in bridge.forms] == [INBOUND_PATH, NEXT_PATH, STATUS_PATH]
        assert call.streams == 1


async def test_a_wrong_auth_token_is_refused(bridge: Bridge) -> None:
    async with LabCarrier(bridge.url, ACCOUNT_SID, "wrong") as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.status, call.ended_by, call.error) == ("failed", "error", 11200)
    assert bridge.forms == []


async def test_audio_is_played_in_order_and_marks_come_when_it_was(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        await socket.play(b"\x01" * 480, "one")
        await socket.play(b"\x02" * 160, "two")
        assert await socket.until(Mark) == Mark("one", socket.protocol._sequence)
        assert (await socket.until(Mark)).name == "two"
        await socket.close()

    bridge.on_stream = on_stream
    caller = Ear()
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO, caller=caller)
        await call.wait()
        assert [(e.detail, e.data["cleared"]) for e in carrier.log.of("mark")] == [("one", False), ("two", False)]
    heard = b"".join(frame for frame in caller.heard if set(frame) != {0xFF})
    assert heard == b"\x01" * 480 + b"\x02" * 160


async def test_clear_empties_the_buffer_and_returns_the_marks(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        await socket.play(TONE * 500, "never heard")  # 10 s
        await socket.play(TONE, "nor this")
        await socket.until(Media)
        await socket.clear()
        assert [(await socket.until(Mark)).name for _ in range(2)] == ["never heard", "nor this"]
        await socket.play(b"\x02" * 160, "after")
        assert (await socket.until(Mark)).name == "after"
        await socket.close()

    bridge.on_stream = on_stream
    caller = Ear()
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO, caller=caller)
        await call.wait()
        (clear,) = carrier.log.of("clear")
        assert clear.data["ms"] > 0
        assert [e.data["cleared"] for e in carrier.log.of("mark")] == [True, True, False]
    assert len(caller.cleared_at) == 1
    assert caller.heard.count(TONE) < 500


async def test_what_twilio_would_not_understand_is_counted(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        sid = socket.sid
        await socket.websocket.send_str("no json")
        await socket.websocket.send_str("[]")
        await socket.websocket.send_bytes(b"{}")
        await socket.send({"event": "media", "media": {"payload": ""}})
        await socket.send({"event": "media", "streamSid": "MZother", "media": {"payload": ""}})
        await socket.send({"event": "media", "streamSid": sid, "media": {"payload": "?"}})
        await socket.send({"event": "media", "streamSid": sid, "media": {}})
        await socket.send({"event": "mark", "streamSid": sid, "mark": {"name": ""}})
        await socket.send({"event": "dance", "streamSid": sid})
        await socket.play(TONE, "still there")
        await socket.until(Mark)
        await socket.close()

    bridge.on_stream = on_stream
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
        assert {e.data["code"] for e in carrier.log.of("error")} == {31924}
    assert call.protocol_errors == 9


async def test_keys_reach_the_stream(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        assert (await socket.until(DtmfPressed)).digit == "5"
        await socket.close()

    bridge.on_stream = on_stream
    async with carrier_for(bridge) as carrier:
        caller = Ear({10: Spoken(quiet_frame(0), digit="5")})
        await (await carrier.place_call(FROM, TO, caller=caller)).wait()


async def test_the_caller_hangs_up(bridge: Bridge) -> None:
    stopped = asyncio.Event()

    async def on_stream(socket: Socket) -> None:
        await socket.until(Stop)
        stopped.set()
        with pytest.raises(ConnectionError, match="CLOSE"):
            await socket.receive()

    bridge.on_stream = on_stream
    async with carrier_for(bridge) as carrier:
        caller = Ear({5: Spoken(quiet_frame(0), hang_up=True)})
        call = await carrier.place_call(FROM, TO, caller=caller)
        await call.wait()
    assert stopped.is_set()
    assert (call.status, call.ended_by) == ("completed", "caller")
    assert [path for path, _ in bridge.forms] == [INBOUND_PATH, STATUS_PATH]  # nobody to act for


async def test_an_abrupt_break_leaves_the_caller_waiting_until_somebody_acts(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        await socket.until(Media)
        socket.break_off()

    bridge.on_stream = on_stream
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await carrier.log.wait_for("stream_broken")
        assert not call.over
        bridge.on_stream = bridge.hold
        assert call.redirect(Fetch(bridge.public_url + NEXT_PATH))
        bridge.answers[NEXT_PATH] = [bridge.connect()]
        await carrier.log.wait_for("stream_opened", count=2)
        call.hang_up()
        await call.wait()
    assert (call.streams, call.ended_by) == (2, "caller")


async def test_nobody_acts_after_an_abrupt_break(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        socket.break_off()

    bridge.on_stream = on_stream
    async with carrier_for(bridge, Behaviour(break_timeout=0.05)) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.status, call.ended_by) == ("completed", "carrier")
    assert bridge.posted(NEXT_PATH) == []


async def test_an_abrupt_break_may_also_lead_on(bridge: Bridge) -> None:
    async def on_stream(socket: Socket) -> None:
        socket.break_off()

    bridge.on_stream = on_stream
    async with carrier_for(bridge, Behaviour(on_break="next")) as carrier:
        await (await carrier.place_call(FROM, TO)).wait()
    assert len(bridge.posted(NEXT_PATH)) == 1


async def test_a_refused_stream_leads_on(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = [lambda form: bridge.connect("/no/such/socket")]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
        assert carrier.log.of("stream_refused")[0].data["code"] == 31920
    assert call.ended_by == "bridge"
    assert len(bridge.posted(NEXT_PATH)) == 1


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DialOutcome("completed", 0, 0.02), {"DialCallStatus": "completed", "DialCallDuration": "0"}),
        (DialOutcome("busy", 0), {"DialCallStatus": "busy"}),
        (DialOutcome("no-answer", 0), {"DialCallStatus": "no-answer"}),
        (DialOutcome("failed", 0), {"DialCallStatus": "failed"}),
        (DialOutcome("completed", ring_seconds=60), {"DialCallStatus": "no-answer"}),
    ],
)
async def test_a_dial_tells_how_it_ended(bridge: Bridge, outcome: DialOutcome, expected: dict[str, str]) -> None:
    target = "sip:desk@pbx.example.com"
    bridge.answers[INBOUND_PATH] = [twiml.dial(target, bridge.url + NEXT_PATH, 0, say="One moment.")]
    async with carrier_for(bridge) as carrier:
        carrier.dial_outcomes[target] = outcome
        await (await carrier.place_call(FROM, TO)).wait()
    (form,) = bridge.posted(NEXT_PATH)
    assert expected.items() <= form.items()
    assert ("DialCallDuration" in form) == ("DialCallDuration" in expected)


async def test_a_call_is_held_while_it_rings(bridge: Bridge) -> None:
    held = '<Response><Pause length="0"/><Redirect method="GET">inbound?again=1</Redirect></Response>'
    bridge.answers[INBOUND_PATH] = [held, twiml.reject()]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert [form["CallStatus"] for _, form in bridge.forms] == ["ringing", "ringing", "no-answer"]
    assert bridge.forms[1][1]["again"] == "1"
    assert call.answered_at is None


async def test_a_rejected_call_that_is_told_why(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = [twiml.reject("No.")]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.status, call.ended_by) == ("completed", "bridge")
    assert call.answered_at is not None


async def test_a_failed_webhook_is_tried_once_more(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = [503, twiml.hang_up()]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert call.error is None
    assert len(bridge.posted(INBOUND_PATH)) == 2
    tokens = [h["I-Twilio-Idempotency-Token"] for h in bridge.headers[:2]]
    assert tokens[0] == tokens[1]


async def test_a_webhook_that_fails_twice_ends_the_call(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = [500]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.status, call.error, len(bridge.posted(INBOUND_PATH))) == ("failed", 11200, 2)
    assert bridge.posted(STATUS_PATH)[0]["CallStatus"] == "failed"


async def test_nobody_listens_at_the_bridges_address() -> None:
    async with Bridge() as gone:
        url = gone.url
    async with LabCarrier(url, ACCOUNT_SID, AUTH_TOKEN) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.status, call.error) == ("failed", 11200)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<Response>", 12100),
        ("<Answer/>", 12100),
        ("<Response><Dance/></Response>", 12200),
        ("<Response><Connect><Room/></Connect></Response>", 12200),
        ('<Response><Connect><Stream url="https://h/ws"/></Connect></Response>', 12200),
        ("<Response><Dial/></Response>", 12200),
        ('<Response><Pause length="long"/></Response>', 12200),
    ],
)
async def test_twiml_that_twilio_would_not_take_ends_the_call(bridge: Bridge, text: str, code: int) -> None:
    bridge.answers[INBOUND_PATH] = [text]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert (call.ended_by, call.error) == ("error", code)


async def test_twiml_of_another_content_type(bridge: Bridge) -> None:
    bridge.content_type = "application/json"
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
    assert call.error == 12300


async def test_a_caller_who_hangs_up_while_it_rings(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = [twiml.hold(60, bridge.url + INBOUND_PATH)]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await carrier.log.wait_for("twiml")
        assert call.status == "ringing"
        call.hang_up()
        await call.wait()
    assert (call.status, call.streams, call.seconds) == ("no-answer", 0, 0.0)
    assert bridge.posted(STATUS_PATH)[0]["CallDuration"] == "0"


async def test_other_verbs_take_no_time(bridge: Bridge) -> None:
    bridge.answers[INBOUND_PATH] = ["<Response><Play>https://h/music.mp3</Play><Say> </Say></Response>"]
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await call.wait()
        assert [event.detail for event in carrier.log.of("twiml")] == ["Play", "Say"]
    assert (call.ended_by, call.error) == ("bridge", None)


async def test_a_carrier_that_stops_hangs_up(bridge: Bridge) -> None:
    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO)
        await carrier.log.wait_for("stream_opened")
    assert call.ended_by == "carrier"
    assert len(bridge.posted(STATUS_PATH)) == 1


async def test_a_defect_of_a_caller_is_not_hidden(bridge: Bridge) -> None:
    class Broken(Listener):
        def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
            raise ZeroDivisionError

    async with carrier_for(bridge) as carrier:
        call = await carrier.place_call(FROM, TO, caller=Broken())
        with pytest.raises(ExceptionGroup) as caught:
            await call.wait()
    assert caught.group_contains(ZeroDivisionError)
