"""Websockets to vendors: opened for speech (no compression, short timeouts), failing only with ProviderError.

Nothing here logs or repeats a credential: handshakes are kept out of the logs whatever the log level, vendors'
error texts are scrubbed, and redirects are not followed, because `websockets` would carry a vendor's own key
header along to another host.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.protocol import State

try:
    from websockets.speedups import apply_mask
except ImportError:  # where it could not be compiled
    from websockets.utils import apply_mask

from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError

OPEN_TIMEOUT = 3.0  #: seconds for TCP, TLS and the handshake together
CLOSE_TIMEOUT = 0.5  #: seconds that a vendor gets to answer our close
PING_INTERVAL = 5.0  #: seconds; with PING_TIMEOUT a silently dead line is found within 10 s
PING_TIMEOUT = 5.0
MAX_MESSAGE = 4 * 2**20  #: bytes; ElevenLabs sends a clause's audio as base64 in one message
MAX_QUEUE = 128  #: frames

MALFORMED: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What taking a message apart may raise that is not as the vendor documents it. Such a message is left out."""

Query = Sequence[tuple[str, str | int | float | bool]]

_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
_FINAL_CLOSE = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Close codes by which the vendor says that we are wrong (RFC 6455, section 7.4.1): asking again will not help."""

_quiet = logging.getLogger(__name__ + ".wire")
_quiet.setLevel(logging.CRITICAL)  # at DEBUG, websockets logs the handshake's headers: the API key


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def socket_url(base_url: str, path: str, query: Query = ()) -> str:
    """The websocket address at an HTTP origin: http -> ws, https -> wss; booleans in lower case.

    Raises:
        ValueError: the origin is not http(s)://host[:port].
    """
    parts = urlsplit(base_url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(f"{base_url!r} is not an http(s) origin")
    pairs = [(name, str(value).lower() if isinstance(value, bool) else value) for name, value in query]
    url = f"{schemes[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}{path}"
    return f"{url}?{urlencode(pairs)}" if pairs else url


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@functools.cache
def tls_context() -> ssl.SSLContext:
    """One for the process: reading the certificate store takes tens of milliseconds."""
    return ssl.create_default_context()


async def warm_origin(base_url: str) -> None:
    """Do what the first connection would otherwise wait for: certificates and the host's address."""
    parts = urlsplit(base_url)
    if parts.scheme in ("https", "wss"):
        await asyncio.to_thread(tls_context)
    if parts.hostname and not is_loopback(base_url):
        with contextlib.suppress(OSError):  # a vendor that cannot be found is the first call's error, not ours
            await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443)


async def open_socket(
    provider: str,
    base_url: str,
    path: str,
    *,
    query: Query = (),
    headers: Mapping[str, str],
    secret: str = "",
    timeout: float | None = None,
    pings: bool = True,
) -> ClientConnection:
    """Connect to a vendor.

    Args:
        secret: the API key; removed from anything the vendor says about it.
        timeout: seconds for TCP, TLS and handshake together; None: OPEN_TIMEOUT.
        pings: False for a vendor that answers them too late.
    Raises:
        ProviderError: with the HTTP status and Retry-After if the vendor gave them.
    """
    timeout = OPEN_TIMEOUT if timeout is None else timeout
    try:
        url = socket_url(base_url, path, query)
        return await _Connect(
            url,
            additional_headers=headers,
            ssl=tls_context() if url.startswith("wss:") else None,
            compression=None,
            proxy=None if is_loopback(url) else True,
            open_timeout=timeout,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=PING_INTERVAL if pings else None,
            ping_timeout=PING_TIMEOUT,
            max_size=MAX_MESSAGE,
            max_queue=MAX_QUEUE,
            logger=_quiet,
        )
    except InvalidStatus as error:
        raise _refused(provider, error, secret) from None
    except (InvalidURI, ValueError) as error:
        raise ProviderError(
            provider, "the address cannot be used.", retryable=False, fix=f"Check {base_url!r}."
        ) from error
    except TimeoutError:
        raise ProviderError(provider, f"no connection within {timeout:g} s.", retryable=True) from None
    except ssl.SSLCertVerificationError as error:
        raise ProviderError(
            provider, f"its certificate is not trusted ({error.verify_message}).", retryable=False
        ) from error
    except (InvalidMessage, EOFError, OSError) as error:
        raise ProviderError(provider, f"no connection ({_reason(error)}).", retryable=True) from error
    except (InvalidHandshake, WebSocketException) as error:
        raise ProviderError(provider, f"it did not answer as a websocket ({error}).", retryable=True) from error


def _refused(provider: str, error: InvalidStatus, secret: str) -> ProviderError:
    status = error.response.status_code
    body = error.response.body.decode(errors="replace") if error.response.body else ""
    said = scrub(body or error.response.headers.get("dg-error", ""), secret)
    key = PROVIDERS[provider].key_env
    fixes = {401: f"Check {key}.", 403: f"Check {key} and what it may use."}
    return ProviderError(
        provider,
        f"refused the connection with HTTP {status}" + (f": {said}" if said else "."),
        retryable=status >= 500 or status in _RETRYABLE_STATUS,
        status=status,
        retry_after=_retry_after(error.response.headers.get("Retry-After")),
        fix=fixes.get(status, ""),
    )


def send_now(socket: ClientConnection, data: bytes, *, text: bool = False) -> bool:
    """Send a message in this step, in a third of the time of `socket.send`, for what goes out 50 times a second
    and call. False: it was not sent, since it is longer than 64 kB, the connection is not open, or something waits
    to be written before it.

    websockets' `send` guards against all that may happen meanwhile, and its protocol against all that a frame may
    be. This one is whole, masked, and nothing can come between (RFC 6455, sections 5.2 and 5.3).
    """
    transport, size = socket.transport, len(data)
    busy = socket.state is not State.OPEN or transport.is_closing() or transport.get_write_buffer_size()
    if busy or size > 0xFFFF:
        return False
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = os.urandom(4)
    transport.write((b"\x81" if text else b"\x82") + length + mask + apply_mask(data, mask))
    return True


async def send_frame(socket: ClientConnection, data: bytes, *, text: bool = False) -> None:
    """As `send_now`; waits where that cannot.

    Raises:
        ConnectionClosed
    """
    if not send_now(socket, data, text=text):
        await socket.send(data, text=text)


def lost(provider: str, error: ConnectionClosed, said: str = "") -> ProviderError:
    """A connection that ended without us: what the vendor said last, or its close code."""
    code = error.rcvd.code if error.rcvd is not None else None
    reason = said or (error.rcvd.reason if error.rcvd is not None else "")
    what = "the connection was lost" if code is None else f"it closed the connection with {code}"
    return ProviderError(
        provider,
        what + (f": {reason}" if reason else "."),
        retryable=code not in _FINAL_CLOSE,
        status=code,
    )


def parsed(raw: str | bytes) -> dict[str, Any]:
    """A vendor's message; an empty one if it is no JSON object."""
    try:
        message = orjson.loads(raw)
    except ValueError:
        message = _parsed_leniently(raw)
    return message if isinstance(message, dict) else {}


def _parsed_leniently(raw: str | bytes) -> object:
    """What the strict parser refuses: half a surrogate pair is legal in JSON, and would break who sends it on."""
    try:
        message = json.loads(raw)
        return json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


class Watchdog:
    """Cuts a connection on which an answer is due and nothing comes, so that its reader fails instead of waits."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.barked = False

    def expect(self, socket: ClientConnection) -> None:
        """From now on something must come within the time; call it again whenever something did."""
        self.rest()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._bark, socket)

    def rest(self) -> None:
        """Nothing is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bark(self, socket: ClientConnection) -> None:
        self.barked = True
        socket.transport.abort()


def scrub(text: str, secret: str) -> str:
    """A vendor's error text: short, on one line, and without our key."""
    if secret:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:300]


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form, which no speech vendor sends, counts as absent."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < 86400 else None
