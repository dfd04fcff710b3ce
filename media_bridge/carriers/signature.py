"""Twilio's request signatures: HMAC-SHA1 with the account's auth token over the URL and the sorted form.

The base is the URL that Twilio was told, which behind a proxy is not the one in the request: build it from
`STAYLINE_PUBLIC_URL`, never from a Host header. The websocket upgrade is signed as well, over the ws(s) form of
its URL without parameters. Twilio is not consistent about default ports, and some upgrades are signed with a
trailing slash; every form that means the same address is tried.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from multidict import MultiMapping
from twilio.request_validator import RequestValidator

HEADER = "X-Twilio-Signature"

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_TO_WEBSOCKET = {"http": "ws", "https": "wss"}


def check_webhook(
    auth_token: str, url: str, form: MultiMapping[Any] | Mapping[str, Any], header: str | None
) -> bool:
    """Whether Twilio signed this webhook.

    Args:
        url: as Twilio was given it: public origin, path and query.
        form: the POST form; a MultiDict, for a plain dict loses repeated keys. Empty for GET.
        header: `X-Twilio-Signature`; None or empty is not signed.
    """
    if any(not isinstance(value, str) for value in form.values()):
        return False  # an uploaded file: not Twilio's
    return _check(auth_token, _port_variants(url), form, header)


def check_stream(auth_token: str, url: str, header: str | None) -> bool:
    """Whether Twilio signed this websocket upgrade. `url` is the stream's, as the TwiML gave it."""
    candidates: list[str] = []
    parts = _websocket(url)
    if parts is not None:
        for path in (parts.path.rstrip("/"), parts.path.rstrip("/") + "/"):
            candidates += _port_variants(urlunsplit(parts._replace(path=path)))
    return _check(auth_token, iter(candidates), {}, header)


def sign_webhook(auth_token: str, url: str, form: MultiMapping[Any] | Mapping[str, Any]) -> str:
    """The signature that Twilio puts on a webhook."""
    return str(RequestValidator(auth_token).compute_signature(url, form))


def sign_stream(auth_token: str, url: str) -> str:
    """The signature that Twilio puts on a websocket upgrade; the query is not part of the URL."""
    parts = _websocket(url)
    return sign_webhook(auth_token, urlunsplit(parts) if parts else url, {})


def _check(
    auth_token: str, urls: Iterator[str], form: MultiMapping[Any] | Mapping[str, Any], header: str | None
) -> bool:
    if not header or not auth_token:
        return False
    given = header.encode("utf-8", "replace")
    try:
        return any(hmac.compare_digest(sign_webhook(auth_token, url, form).encode(), given) for url in urls)
    except UnicodeEncodeError:
        return False


def _port_variants(url: str) -> Iterator[str]:
    """The URL itself, and with the port left out and written out where it is the scheme's own.

    `RequestValidator.validate` does this too, but writes :80 for wss and cuts IPv6 addresses apart.
    """
    yield url
    try:
        parts = urlsplit(url)
        port, default = parts.port, _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return
    if port is None and default is not None:
        yield urlunsplit(parts._replace(netloc=f"{parts.netloc}:{default}"))
    elif port is not None:
        yield urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0]))


def _websocket(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts._replace(scheme=_TO_WEBSOCKET.get(parts.scheme, parts.scheme), query="", fragment="")
