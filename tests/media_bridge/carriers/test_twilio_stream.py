"""Media Streams messages: what Twilio sends is understood, anything else is a ProtocolError and nothing worse."""

import contextlib
import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_bridge.carriers import twilio_stream as stream
from media_bridge.carriers.twilio_stream import (
    Connected,
    DtmfPressed,
    Mark,
    Media,
    MediaFormat,
    ProtocolError,
    Start,
    Stop,
    StreamProtocol,
    Unknown,
    parse,
)

FRAME = b"\x7f\x00\xff\x80" * 40
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "s3cret", "empty": ""},
    },
}


def media(sequence: int = 2, **changes: Any) -> dict[str, Any]:
    body = {"track": "inbound", "chunk": "1", "timestamp": "40", "payload": b64encode(FRAME).decode()}
    return {"event": "media", "sequenceNumber": str(sequence), "streamSid": "MZ1", "media": body | changes}


def mark(sequence: int = 2, name: Any = "g1-3") -> dict[str, Any]:
    return {"event": "mark", "sequenceNumber": str(sequence), "streamSid": "MZ1", "mark": {"name": name}}


def dtmf(digit: Any) -> dict[str, Any]:
    body = {"track": "inbound_track", "digit": digit}
    return {"event": "dtmf", "streamSid": "MZ1", "sequenceNumber": "5", "dtmf": body}


STOP = {
    "event": "stop",
    "sequenceNumber": "3",
    "streamSid": "MZ1",
    "stop": {"accountSid": "AC1", "callSid": "CA1"},
}


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one key (dotted path) replaced, or removed where value is `...`."""
    copy: dict[str, Any] = json.loads(json.dumps(base))
    target = copy
    *parents, last = path.split(".")
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return copy


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CONNECTED, Connected()),
        (START, Start("MZ1", "CA1", "AC1", {"token": "s3cret", "empty": ""}, MediaFormat(), 1)),
        (
            changed(START, "start.customParameters", ...),
            Start("MZ1", "CA1", "AC1", {}, MediaFormat(), 1),
        ),
        (media(7), Media(timestamp_ms=40, chunk=1, sequence=7, audio=FRAME)),
        (mark(6), Mark("g1-3", 6)),
        (dtmf("#"), DtmfPressed("#", 5)),
        (STOP, Stop(3)),
        ({"event": "weather"}, Unknown("weather")),
        ({"event": "weather", "sequenceNumber": "9", "weather": []}, Unknown("weather", 9)),
    ],
)
def test_understands(message: dict[str, Any], expected: stream.Message) -> None:
    assert parse(json.dumps(message)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"media"',
        "{",
        "{} {}",
        "\x00",
        "[" * 20_000,
        '{"event":' * 5_000,
        '{"event":"media","sequenceNumber":' + "9" * 5000 + "}",
        json.dumps(media(payload="A" * stream.MAX_MESSAGE)),
        json.dumps({"event": "weather", "x": "y" * stream.MAX_MESSAGE}),
    ],
)
def test_refuses_what_is_no_message(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse(text)


@pytest.mark.parametrize(
    ("base", "path", "values"),
    [
        (CONNECTED, "event", [..., None, 1, "", [], {}, "\ud800"]),
        (START, "sequenceNumber", [..., 1, "-1", "1.0", "", " 1", "٣", "9" * 16, None]),
        (START, "streamSid", ["MZ2", 5]),
        (START, "start", [..., None, [], "x"]),
        (START, "start.callSid", [..., "", None, 3, "../../etc/passwd", "a b", "x" * 65, "CA\n"]),
        (START, "start.accountSid", [..., {}]),
        (START, "start.streamSid", [..., ""]),
        (START, "start.customParameters", [None, [], "x", {"token": 1}, {"token": None}, {"\ud800": "x"}]),
        (START, "start.customParameters.token", ["\udfff"]),
        (START, "start.mediaFormat", [..., None, "mulaw"]),
        (START, "start.mediaFormat.encoding", [..., "audio/l16", None]),
        (START, "start.mediaFormat.sampleRate", [..., 16000, "8000", 8000.0, None]),
        (START, "start.mediaFormat.channels", [..., 2, True, "1"]),
        (media(), "media", [..., None, [], "x"]),
        (media(), "media.payload", [..., None, 5, "", "a", "$$$$", "aGk", "aGk=\n", "é" * 4, "aGk=aGk="]),
        (media(), "media.timestamp", [..., 40, "4x", "-40"]),
        (media(), "media.chunk", [..., 1, ""]),
        (media(), "media.track", ["outbound", 1, None]),
        (media(), "sequenceNumber", [..., 2]),
        (mark(), "mark", [..., None, "x"]),
        (mark(), "mark.name", [..., "", None, 1, "\ud800"]),
        (dtmf("1"), "dtmf.digit", [..., "", "12", "E", 1, None]),
        (STOP, "sequenceNumber", [..., 3]),
    ],
)
def test_refuses_one_wrong_field(base: dict[str, Any], path: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ProtocolError):
            parse(json.dumps(changed(base, path, value)))


def test_says_what_is_wrong_and_never_quotes_it() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(json.dumps(changed(START, "start.customParameters", {"token": ["s3cret"]})))
    assert "s3cret" not in str(caught.value)
    assert "token" in str(caught.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_value = st.sampled_from(["1", "MZ1", "inbound", "", "aGk="]) | _json
_key = st.sampled_from(
    [
        "event",
        "sequenceNumber",
        "streamSid",
        "start",
        "media",
        "mark",
        "dtmf",
        "stop",
        "payload",
        "timestamp",
        "chunk",
        "track",
        "name",
        "digit",
        "callSid",
        "accountSid",
        "mediaFormat",
        "encoding",
        "sampleRate",
        "channels",
        "customParameters",
    ]
)
_event = st.sampled_from(["connected", "start", "media", "mark", "dtmf", "stop", "weather"])


@given(st.text() | _json.map(json.dumps))
def test_any_text_is_a_message_or_a_protocol_error(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        parse(text)


@given(_event, st.dictionaries(_key, _value | st.dictionaries(_key, _value)))
def test_near_misses_are_messages_or_protocol_errors(event: str, body: dict[str, Any]) -> None:
    protocol = StreamProtocol()
    protocol.receive(json.dumps(CONNECTED))
    protocol.receive(json.dumps(START))
    for text in (json.dumps({"event": event} | body), json.dumps({"streamSid": "MZ1", "event": event} | body)):
        try:
            message = protocol.receive(text)
        except ProtocolError:
            continue
        if isinstance(message, Unknown | Mark):
            str(message).encode()


def receive(protocol: StreamProtocol, *messages: dict[str, Any]) -> list[stream.Message]:
    return [protocol.receive(json.dumps(message)) for message in messages]


def test_a_stream_from_start_to_stop() -> None:
    protocol = StreamProtocol()
    receive(protocol, CONNECTED, START)
    assert protocol.start is not None
    assert protocol.start.call_sid == "CA1"
    receive(protocol, media(2), {"event": "weather", "streamSid": "MZ1", "sequenceNumber": "3"}, media(4))
    assert (protocol.lost, protocol.out_of_order, protocol.stopped) == (0, 0, False)
    receive(protocol, changed(STOP, "sequenceNumber", "5"))
    assert protocol.stopped


def test_gaps_and_repetitions_are_counted_not_fatal() -> None:
    protocol = StreamProtocol()
    receive(protocol, CONNECTED, START, media(2), media(5), media(6), media(6), media(4), media(7))
    assert (protocol.lost, protocol.out_of_order) == (2, 2)


@pytest.mark.parametrize(
    "messages",
    [
        [START],
        [media()],
        [STOP],
        [CONNECTED, CONNECTED],
        [CONNECTED, media()],
        [CONNECTED, START, START],
        [CONNECTED, START, CONNECTED],
        [CONNECTED, START, changed(media(), "streamSid", "MZ2")],
        [CONNECTED, START, changed(media(), "streamSid", ...)],
        [CONNECTED, START, changed(STOP, "sequenceNumber", "2"), media(3)],
        [CONNECTED, START, changed(STOP, "sequenceNumber", "2"), changed(STOP, "sequenceNumber", "3")],
    ],
)
def test_the_order_is_kept(messages: list[dict[str, Any]]) -> None:
    protocol = StreamProtocol()
    receive(protocol, *messages[:-1])
    with pytest.raises(ProtocolError):
        receive(protocol, messages[-1])


@given(st.binary(max_size=4000), st.text(min_size=1))
def test_what_is_built_is_what_twilio_takes(audio: bytes, name: str) -> None:
    assert json.loads(stream.media("MZ1", audio)) == {
        "event": "media",
        "streamSid": "MZ1",
        "media": {"payload": b64encode(audio).decode()},
    }
    assert json.loads(stream.mark("MZ1", name)) == {
        "event": "mark",
        "streamSid": "MZ1",
        "mark": {"name": name},
    }
    assert json.loads(stream.clear("MZ1")) == {"event": "clear", "streamSid": "MZ1"}
