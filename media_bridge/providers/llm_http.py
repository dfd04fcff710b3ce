"""What the language-model adapters share about HTTP: options of the connection, and one meaning for every error.

Both vendors' SDKs stand on httpx2, whose exceptions are not httpx's, and each SDK reports a failure in mid-stream
in a way of its own: OpenAI yields an event, Anthropic raises a status error of status 200 or lets httpx2's own
exception through. What leaves an adapter is always a `ProviderError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import importlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

from pydantic import Field

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.options import Options
from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError

KEEPALIVE: Final = 120.0
"""Seconds that an idle connection is kept. Both SDKs keep it 5 s, less than a caller's turn often takes."""

READ_OUT_SECONDS: Final = 0.1
"""How long the end of a reply that is complete is waited for; as a rule it is there with the last event."""

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})

_STATUS_OF_TYPE: Final = {
    # Anthropic's `error.type`, which in mid-stream is all there is
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # OpenAI's `error.code`, likewise
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "invalid_prompt": 400,
}


class LlmOptions(Options):
    """Options that every hosted language model has; seconds where not said otherwise."""

    connect_timeout: float = Field(default=2.0, gt=0)
    read_timeout: float = Field(default=10.0, gt=0)  #: the longest gap between two pieces of a reply
    parallel_tools: bool = True  #: the model may ask for several tools at once


@contextlib.contextmanager
def provider_errors(config: ProviderConfig) -> Iterator[None]:
    """Turn whatever the SDK raises inside into a ProviderError. Cancellation passes through."""
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        normalised = _normalised(config, error)
        # The cause's own text is printed with a traceback; a key in it would end in a log.
        hides_key = bool(config.api_key) and config.api_key in f"{error!r}{error}"
        raise normalised from (None if hides_key else error)


class UntypedStream(Protocol):
    """Events of a reply as the vendor wrote them: JSON objects. Closing it closes its connection."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...


async def untyped_stream(client: Any, path: str, body: Mapping[str, Any]) -> UntypedStream:
    """Ask for a streamed reply by an SDK's own client, without its types.

    The SDKs' typed methods walk through each request and build a tree of models from each event: 5 ms of a busy
    event loop for a short reply, before anybody hears a word.
    """
    module = importlib.import_module(type(client).__module__.partition(".")[0])
    reply = await client.post(path, body=body, cast_to=object, stream=True, stream_cls=module.AsyncStream[object])
    return cast(UntypedStream, reply)


async def read_out(stream: UntypedStream) -> None:
    """Read what follows the last event: a connection that is left before its end is not used again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_OUT_SECONDS):
            async for _ in stream:
                pass


def text_of(value: object) -> str:
    """A text as it should be.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def check_ending(config: ProviderConfig, ending: str | None, *, spoken: bool) -> None:
    """Judge why a reply stopped, by the vendor's own word for it.

    A reply that ran into the token limit in mid-sentence is a short reply; one that said nothing yet is not.

    Raises:
        ProviderError: the caller got nothing, or not what the model meant; asking again would end the same way.
    """
    if ending in ("max_output_tokens", "length", "max_tokens"):
        if spoken:
            return
        fix = "Raise the option max_tokens; reasoning counts too."
    elif ending in ("incomplete", "content_filter", "refusal", "model_context_window_exceeded"):
        fix = ""
    else:
        return
    raise ProviderError(config.provider, f"the reply was cut ({ending})", retryable=False, fix=fix)


def ended_early(config: ProviderConfig) -> ProviderError:
    """The stream was closed in good order, but before the reply was complete."""
    return ProviderError(config.provider, "the reply ended in the middle", retryable=True)


def error_from_body(config: ProviderConfig, body: Mapping[str, Any]) -> ProviderError:
    """The ProviderError for an error object that arrived inside a stream."""
    code = next((body[key] for key in ("code", "type") if body.get(key) in _STATUS_OF_TYPE), None)
    status = _STATUS_OF_TYPE.get(code) if code else None
    return _error(config, str(body.get("message") or code or "the reply failed"), status, code=code)


def _normalised(config: ProviderConfig, error: Exception) -> ProviderError:
    status = getattr(error, "status_code", None)
    detail = _error_object(getattr(error, "body", None))
    if detail is not None and (status is None or status < 400):
        return error_from_body(config, detail)
    if status is not None:
        message = str((detail or {}).get("message") or getattr(error, "message", "") or error)
        headers = getattr(getattr(error, "response", None), "headers", {})
        code = (detail or {}).get("code") or (detail or {}).get("type")
        return _error(config, f"{status}: {message}", status, code=code, retry_after=_retry_after(headers))
    name = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return _error(config, "did not answer in time", None)
    if isinstance(error, OSError) or type(error).__module__.startswith("httpx2") or "Connection" in name:
        return _error(config, "the connection failed", None)
    return _error(config, f"sent something that is not its protocol ({name})", None)


def _error(
    config: ProviderConfig,
    message: str,
    status: int | None,
    *,
    code: str | None = None,
    retry_after: float | None = None,
) -> ProviderError:
    if config.api_key:
        message = message.replace(config.api_key, "***")
    retryable = status is None or status in _RETRYABLE_STATUS or status >= 500
    info = PROVIDERS[config.provider]
    fix = ""
    if code == "insufficient_quota" or status == 402:
        retryable, fix = False, "The account has no credit left."
    elif status in (401, 403):
        fix = f"Check {info.key_env}."
    elif status == 404:
        fix = f"Does the model {config.model!r} exist, and may this key use it?"
    return ProviderError(
        config.provider, message[:300], retryable=retryable, status=status, retry_after=retry_after, fix=fix
    )


def _error_object(body: object) -> Mapping[str, Any] | None:
    """The `{"type", "code", "message"}` of an error body. OpenAI's SDK unwraps it, Anthropic's does not."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        return inner if isinstance(inner, Mapping) else {"message": str(inner)}
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the vendor asks to wait: `retry-after-ms`, or `Retry-After` as seconds or date (RFC 9110)."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after")
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def http_client(kind: Any, options: LlmOptions) -> Any:
    """An SDK's own `DefaultAsyncHttpxClient`, with limits and time-outs fit for a call.

    Imports httpx2, so only adapters that have just imported their SDK call it.
    """
    import httpx2

    return kind(
        limits=httpx2.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=KEEPALIVE),
        timeout=timeout(options),
    )


def timeout(options: LlmOptions) -> Any:
    """`httpx2.Timeout`; the SDKs want it on their client as well as on the HTTP client."""
    import httpx2

    return httpx2.Timeout(options.read_timeout, connect=options.connect_timeout)


def tool_arguments(text: str) -> tuple[dict[str, Any], str | None]:
    """Parse what a model wrote as a tool's arguments: (arguments, None), or ({}, the text) when it is no object."""
    if not text.strip():
        return {}, None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}, text
    return (value, None) if isinstance(value, dict) else ({}, text)


def schema_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's JSON Schema as both vendors demand it: an object, with `properties` even if empty."""
    return {"type": "object", "properties": {}, **parameters}
