"""The carrier's websocket messages: parsed, or a ProtocolError that quotes nothing."""

from __future__ import annotations

import contextlib
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from media_bridge.carriers import signature, twilio_stream, twiml
from tests.fuzz import carrier_messages as valid
from tests.fuzz.generators import Raw, ascii_tokens, fed, fuzzed, scripts, texts


@fuzzed(2)
@given(script=scripts(valid.STREAM), text=texts)
@example(script=["[" * 100_000], text="")
def test_media_streams(script: list[Raw], text: str) -> None:
    """One socket: the first fault ends it, so each message is given to a fresh parser as well."""
    messages = [raw for raw in script if isinstance(raw, str)]
    fed("media streams", 2 * len(messages) + 1)
    protocol = twilio_stream.StreamProtocol()
    for raw in [*messages, text]:
        with contextlib.suppress(twilio_stream.ProtocolError):
            twilio_stream.parse(raw)
    try:
        for raw in messages:
            message = protocol.receive(raw)
            if isinstance(message, twilio_stream.Start):
                assert all(value.encode() is not None for pair in message.parameters.items() for value in pair)
            if isinstance(message, twilio_stream.Media):
                assert twilio_stream.media("MZ1", message.audio)
    except twilio_stream.ProtocolError:
        pass
    assert protocol.lost >= 0


@fuzzed(4)
@given(text=texts, number=texts, sip=st.booleans())
def test_twiml(text: str, number: str, sip: bool) -> None:
    """Any text makes a well-formed document, with the same text as far as XML can hold it."""
    fed("twiml", 4)
    held = "".join(
        c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
    to = f"sip:{number}" if sip else number

    said = ElementTree.fromstring(twiml.hang_up(text))
    assert [e.tag for e in said] == (["Say", "Hangup"] if text else ["Hangup"])
    assert _same("".join(said[0].itertext()) if text else "", held)

    dialled = ElementTree.fromstring(twiml.dial(to, "https://calls.example.com/voice/next", 20, number, text))
    assert [e.tag for e in dialled][-1] == "Dial"
    assert len(dialled[-1]) == 1
    assert len(dialled[-1][0]) == 0

    joined = ElementTree.fromstring(
        twiml.connect("wss://calls.example.com/ws", {"token": text}, f"https://x/{number}")
    )
    assert [e.tag for e in joined] == ["Connect", "Redirect"]
    parameter = joined.find("Connect/Stream/Parameter")
    assert parameter is not None
    assert _same(parameter.attrib["value"], held, attribute=True)

    waiting = ElementTree.fromstring(twiml.hold(2, f"https://x/{text}"))
    assert [e.tag for e in waiting] == ["Pause", "Redirect"]


def _same(found: str, held: str, *, attribute: bool = False) -> bool:
    """XML reads line ends as one kind (XML 1.0, 2.11)."""
    wanted = held.replace("\r\n", "\n").replace("\r", "\n")
    found = found.replace("\r\n", "\n").replace("\r", "\n")
    if attribute:
        wanted, found = (text.replace("\n", " ").replace("\t", " ") for text in (wanted, found))
    return found == wanted


@fuzzed(4)
@given(
    token=ascii_tokens,
    other=ascii_tokens,
    url=texts,
    form=st.dictionaries(texts, texts, max_size=4),
    header=st.none() | texts,
)
@example(token="t", other="", url="", form={}, header="\ud800")
@example(token="t", other="", url="https://[", form={}, header="x")
@example(token="t", other="", url="https://h:99999/", form={"a": "\ud800"}, header="\udcff")
def test_signatures(token: str, other: str, url: str, form: dict[str, str], header: str | None) -> None:
    """Nothing but the signature of this very request by this token is one."""
    fed("signatures", 6)
    assert not signature.check_webhook("", url, form, header)
    assert signature.check_webhook(token, url, form, header) is False or header
    assert not signature.check_stream(token, url, header) or header
    try:
        right = signature.sign_webhook(token, url, form)
    except UnicodeEncodeError:
        return
    assert signature.check_webhook(token, url, form, right) is bool(token)
    assert not signature.check_webhook(token, url, {**form, "CallSid": f"{form.get('CallSid', '')}x"}, right)
    if other != token:
        assert not signature.check_webhook(other, url, form, right)
    assert not signature.check_stream(other, url, signature.sign_stream(token, url)) or other == token
