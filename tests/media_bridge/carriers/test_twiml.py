"""TwiML: the documents that a call lives by, with whatever text is put into them."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_bridge.carriers import twiml

hostile = st.text(alphabet=st.characters(codec=None) | st.sampled_from("<>&'\"\x00\x1b\ud800\ufffe]\r\n"))


def body(document: str) -> str:
    return document.removeprefix('<?xml version="1.0" encoding="UTF-8"?>')


def clean(text: str) -> str:
    """What of a text XML 1.0 can hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def read_text(text: str) -> str:
    """XML readers turn every line end in text into a newline (XML 1.0, section 2.11)."""
    return clean(text).replace("\r\n", "\n").replace("\r", "\n")


def test_connect_is_followed_by_a_redirect() -> None:
    document = twiml.connect("wss://h/ws/media-stream", {"token": "t", "call": "c"}, "https://h/voice/next")
    assert body(document) == (
        '<Response><Connect action="https://h/voice/next" method="POST">'
        '<Stream url="wss://h/ws/media-stream">'
        '<Parameter name="token" value="t" /><Parameter name="call" value="c" /></Stream></Connect>'
        '<Redirect method="POST">https://h/voice/next</Redirect></Response>'
    )


def test_dial_a_number() -> None:
    assert body(twiml.dial("+15551234567", "https://h/n", 25, "+15550001111", "One moment.")) == (
        '<Response><Say>One moment.</Say><Dial action="https://h/n" callerId="+15550001111" method="POST" '
        'timeout="25"><Number>+15551234567</Number></Dial></Response>'
    )


@pytest.mark.parametrize("address", ["sip:desk@pbx.example.com", "SIPS:desk@pbx.example.com"])
def test_dial_a_sip_address(address: str) -> None:
    assert body(twiml.dial(address, "https://h/n", 20)) == (
        f'<Response><Dial action="https://h/n" method="POST" timeout="20"><Sip>{address}</Sip></Dial></Response>'
    )


def test_the_short_ones() -> None:
    assert body(twiml.hold(5, "https://h/i?n=1&m=2")) == (
        '<Response><Pause length="5" /><Redirect method="POST">https://h/i?n=1&amp;m=2</Redirect></Response>'
    )
    assert body(twiml.hold(0, "https://h/i", "Wait.")) == (
        '<Response><Say>Wait.</Say><Redirect method="POST">https://h/i</Redirect></Response>'
    )
    assert body(twiml.hang_up()) == "<Response><Hangup /></Response>"
    assert body(twiml.hang_up("Bye.")) == "<Response><Say>Bye.</Say><Hangup /></Response>"
    assert body(twiml.reject("No.")) == "<Response><Say>No.</Say><Hangup /></Response>"
    assert body(twiml.reject()) == "<Response><Reject /></Response>"


@given(hostile, hostile, hostile, hostile)
def test_connect_holds_any_text(url: str, name: str, value: str, next_url: str) -> None:
    response = ElementTree.fromstring(twiml.connect(url, {name: value}, next_url))
    (connect, redirect) = response
    (stream,) = connect
    (parameter,) = stream
    assert [e.tag for e in response.iter()] == ["Response", "Connect", "Stream", "Parameter", "Redirect"]
    assert connect.get("action") == clean(next_url)
    assert stream.get("url") == clean(url)
    assert (parameter.get("name"), parameter.get("value")) == (clean(name), clean(value))
    assert (redirect.text or "") == read_text(next_url)


@given(hostile, hostile, hostile)
def test_speech_and_numbers_hold_any_text(to: str, say: str, caller_id: str) -> None:
    response = ElementTree.fromstring(twiml.dial(to, "https://h/n", 25, caller_id, say))
    dial = response[-1]
    assert dial.tag == "Dial"
    assert (dial.get("callerId") or "") == clean(caller_id)
    assert (dial[0].text or "") == read_text(to)
    for document in (twiml.hang_up(say), twiml.reject(say), twiml.dial("+1", "u", 1, say=say)):
        spoken = ElementTree.fromstring(document).find("Say")
        assert (spoken.text if spoken is not None and spoken.text else "") == read_text(say)
