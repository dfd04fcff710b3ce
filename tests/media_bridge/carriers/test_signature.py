"""Signatures: what Twilio signs passes in all its inconsistent forms, and nothing else does."""

import pytest
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from media_bridge.carriers.signature import check_stream, check_webhook, sign_stream, sign_webhook

TOKEN = "a" * 32
URL = "https://voice.example.com/voice/inbound"
FORM = MultiDict({"CallSid": "CA1", "From": "+1555", "To": "+1666", "Body": "é"})
STREAM = "wss://voice.example.com/ws/media-stream"


def twilios(url: str, form: MultiDict[str] | dict[str, str]) -> str:
    return str(RequestValidator(TOKEN).compute_signature(url, form))


def test_the_example_of_twilios_documentation() -> None:
    url = "https://example.com/myapp.php?foo=1&bar=2"
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    assert sign_webhook("12345", url, form) == "L/OH5YylLD5NRKLltdqwSvS0BnU="


def test_a_webhook() -> None:
    assert check_webhook(TOKEN, URL, FORM, twilios(URL, FORM))
    assert not check_webhook("b" * 32, URL, FORM, twilios(URL, FORM))
    assert not check_webhook(TOKEN, URL + "?x=1", FORM, twilios(URL, FORM))
    assert not check_webhook(TOKEN, URL.replace("https", "http"), FORM, twilios(URL, FORM))
    assert not check_webhook(TOKEN, URL, dict(FORM) | {"To": "+1777"}, twilios(URL, FORM))
    assert not check_webhook(TOKEN, URL, MultiDict(), twilios(URL, FORM))


@pytest.mark.parametrize("header", [None, "", "x", "é", "\udcff", "=" * 10_000])
def test_a_header_that_is_no_signature(header: str | None) -> None:
    assert not check_webhook(TOKEN, URL, FORM, header)
    assert not check_stream(TOKEN, STREAM, header)


def test_an_empty_auth_token_signs_nothing() -> None:
    assert not check_webhook("", URL, FORM, sign_webhook("", URL, FORM))
    assert not check_stream("", STREAM, sign_stream("", STREAM))


@pytest.mark.parametrize(
    ("ours", "signed"),
    [
        ("https://h.example/voice", "https://h.example:443/voice"),
        ("https://h.example:443/voice", "https://h.example/voice"),
        ("http://h.example/voice", "http://h.example:80/voice"),
        ("http://127.0.0.1:8080/voice", "http://127.0.0.1:8080/voice"),
        ("https://h.example:8443/voice", "https://h.example/voice"),
        ("http://[::1]:8080/voice", "http://[::1]/voice"),
    ],
)
def test_ports(ours: str, signed: str) -> None:
    assert check_webhook(TOKEN, ours, FORM, twilios(signed, FORM))


def test_repeated_keys() -> None:
    form = MultiDict([("StatusCallbackEvent", "ringing"), ("StatusCallbackEvent", "answered"), ("A", "1")])
    assert check_webhook(TOKEN, URL, form, twilios(URL, form))
    assert not check_webhook(TOKEN, URL, dict(form), twilios(URL, form))


def test_forms_that_twilio_cannot_have_sent() -> None:
    assert not check_webhook(TOKEN, URL, MultiDict({"file": object()}), "x")
    assert not check_webhook(TOKEN, URL, {"From": "\ud800"}, "x")


@pytest.mark.parametrize(
    "signed",
    [
        STREAM,
        STREAM + "/",
        "wss://voice.example.com:443/ws/media-stream",
        "wss://voice.example.com:443/ws/media-stream/",
    ],
)
def test_an_upgrade_is_signed_over_the_websocket_url(signed: str) -> None:
    for url in (STREAM, STREAM + "/", "https://voice.example.com/ws/media-stream"):
        assert check_stream(TOKEN, url, twilios(signed, {}))


def test_an_upgrade_signed_for_another_address() -> None:
    for signed in (
        "https://voice.example.com/ws/media-stream",
        "ws://voice.example.com/ws/media-stream",
        "wss://voice.example.com/ws",
        "wss://evil.example.com/ws/media-stream",
    ):
        assert not check_stream(TOKEN, STREAM, twilios(signed, {}))


def test_the_query_is_not_signed_because_it_is_not_sent() -> None:
    assert sign_stream(TOKEN, STREAM + "?token=1") == twilios(STREAM, {})
    assert check_stream(TOKEN, STREAM + "?token=1", twilios(STREAM, {}))


@pytest.mark.parametrize("url", ["", "wss://[", "https://h:port/x", "https://h:99999/x"])
def test_a_public_url_that_is_none(url: str) -> None:
    assert not check_webhook(TOKEN, url, FORM, "x")
    assert not check_stream(TOKEN, url, "x")
