"""ElevenLabs over HTTP: one pool of connections for all calls of a provider, failing only with ProviderError.

Requests are made with aiohttp, not with ElevenLabs' SDK: the two that a call needs are a POST each, and the SDK
takes a second to load and swallows what it cannot parse in the middle of a stream.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.vendor_socket import MALFORMED, Query, is_loopback, scrub, tls_context
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError, ProviderError

CONNECT_TIMEOUT: Final = 2.0  #: seconds for TCP and TLS
KEEPALIVE: Final = 120.0  #: seconds that an idle connection is kept: longer than most turns of a caller
CONNECTIONS: Final = 200  #: at once

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})
_NO_CREDIT: Final = frozenset({"quota_exceeded", "payment_required", "insufficient_credits"})
"""Names under which ElevenLabs says that the account is empty; `quota_exceeded` comes with 401."""


def origin(config: ProviderConfig) -> str:
    return (config.base_url or PROVIDERS["elevenlabs"].default_base_url).rstrip("/")


def require_key(config: ProviderConfig) -> None:
    """
    Raises:
        ConfigError: there is no key.
    """
    if not config.api_key:
        raise ConfigError("ElevenLabs has no key.", fix=f"Set {PROVIDERS['elevenlabs'].key_env}.")


class ElevenLabsClient:
    """Requests to ElevenLabs. Connects when it is first asked something."""

    def __init__(self, config: ProviderConfig) -> None:
        self._origin = origin(config)
        self._key = config.api_key
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def post(
        self,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
        read_timeout: float,
        total_timeout: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """POST JSON or a form; yields the answer while it comes. Leaving it unread closes the connection.

        Args:
            read_timeout: seconds without a byte after which ElevenLabs has failed.
            total_timeout: seconds for everything.
        Raises:
            ProviderError: ElevenLabs refused, could not be reached, or broke off while the answer was read.
        """
        timeout = aiohttp.ClientTimeout(total=total_timeout, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        params = [(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in query]
        try:
            async with self._opened().post(
                self._origin + path,
                params=params,
                json=body,
                data=form,
                timeout=timeout,
                headers={"xi-api-key": self._key},
                allow_redirects=False,  # would carry the key along to another host
            ) as response:
                if response.status != 200:
                    raise await _refused(response, self._key)
                try:
                    yield response
                finally:
                    if not response.content.at_eof():
                        response.close()
        except TimeoutError:
            raise ProviderError("elevenlabs", "it did not answer in time.", retryable=True) from None
        except aiohttp.ClientSSLError as error:
            raise ProviderError("elevenlabs", f"no secure connection ({_name(error)}).", retryable=False) from None
        except aiohttp.InvalidURL:
            raise ProviderError(
                "elevenlabs", "the address cannot be used.", retryable=False, fix=f"Check {self._origin!r}."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("elevenlabs", f"the connection failed ({_name(error)}).", retryable=True) from None

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            secure = self._origin.startswith("https:")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=KEEPALIVE, ssl=tls_context() if secure else True
                ),
                trust_env=not is_loopback(self._origin),
            )
        return self._session


async def _refused(response: aiohttp.ClientResponse, secret: str) -> ProviderError:
    """What an answer other than 200 means. Its body is `{"detail": {"status", "message"}}`, or like that."""
    status = response.status
    name, said = _detail((await response.content.read(8192)).decode(errors="replace"))
    reference = response.headers.get("request-id", "")
    info = PROVIDERS["elevenlabs"]
    fix, retryable = "", status >= 500 or status in _RETRYABLE_STATUS
    if name in _NO_CREDIT or status == 402:
        fix = "The account has no credit left."
    elif status in (401, 403):
        fix = f"Check {info.key_env} and what it may use."
    elif status == 404:
        fix = "Do the voice and the model exist?"
    message = ": ".join(part for part in (f"refused with HTTP {status}", name, scrub(said, secret)) if part)
    return ProviderError(
        "elevenlabs",
        message + (f" (request {reference[:64]})" if reference else ""),
        retryable=retryable,
        status=status,
        retry_after=_seconds(response.headers.get("Retry-After")),
        fix=fix,
    )


def _detail(body: str) -> tuple[str, str]:
    """The error's name and text; of a body that is none, the body."""
    try:
        detail = json.loads(body)["detail"]
    except MALFORMED:
        return "", body
    if isinstance(detail, dict):
        return str(detail.get("status") or detail.get("code") or ""), str(detail.get("message") or "")
    return "", detail if isinstance(detail, str) else json.dumps(detail)


def _seconds(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form counts as absent."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < 86400 else None


def _name(error: BaseException) -> str:
    return type(error).__name__
