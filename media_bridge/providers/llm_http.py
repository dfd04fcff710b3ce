"""What the language-model adapters share about HTTP: options of the connection, and one meaning for every error.

Errors come as an HTTP status, as an event in mid-stream, as exceptions of aiohttp; or, of an SDK, as its own, or as
httpx2's, which are not httpx's. What leaves an adapter is always a `ProviderError`.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import Field

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.options import Options
from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError

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
    """Turn whatever is raised inside into a ProviderError. Cancellation passes through."""
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        normalised = _normalised(config, error)
        # The cause's own text is printed with a traceback; a key in it would end in a log.
        hides_key = bool(config.api_key) and config.api_key in f"{error!r}{error}"
        raise normalised from (None if hides_key else error)


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


def error_from_status(
    config: ProviderConfig, status: int, body: bytes, headers: Mapping[str, str]
) -> ProviderError:
    """The ProviderError for an HTTP answer that is none."""
    try:
        detail = _error_object(json.loads(body))
    except (ValueError, RecursionError):
        detail = None
    message = (detail or {}).get("message") or body[:200].decode(errors="replace").strip() or "refused"
    if to := headers.get("location"):
        message = f"sent on to {to}"
    return _refused(config, status, str(message), detail or {}, headers)


def error_from_body(config: ProviderConfig, body: Mapping[str, Any]) -> ProviderError:
    """The ProviderError for an error object that arrived inside a stream."""
    code = next((body[key] for key in ("code", "type") if body.get(key) in _STATUS_OF_TYPE), None)
    status = _STATUS_OF_TYPE.get(code) if code else None
    return _error(config, str(body.get("message") or code or "the reply failed"), status, code=code)


def error_from_event(config: ProviderConfig, event: Mapping[str, Any]) -> ProviderError:
    """The same for an event that is an error, or holds one under "error"."""
    error = event.get("error") or {**event, "type": None}
    return error_from_body(config, error if isinstance(error, Mapping) else {"message": str(error)})


def _normalised(config: ProviderConfig, error: Exception) -> ProviderError:
    status = getattr(error, "status_code", None)
    detail = _error_object(getattr(error, "body", None))
    if detail is not None and (status is None or status < 400):
        return error_from_body(config, detail)
    if status is not None:
        message = str((detail or {}).get("message") or getattr(error, "message", "") or error)
        headers = getattr(getattr(error, "response", None), "headers", {})
        return _refused(config, status, message, detail or {}, headers)
    name = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return _error(config, "did not answer in time", None)
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or module in ("aiohttp", "httpx2") or "Connection" in name:
        return _error(config, "the connection failed", None)
    return _error(config, f"sent something that is not its protocol ({name})", None)


def _refused(
    config: ProviderConfig, status: int, message: str, detail: Mapping[str, Any], headers: Mapping[str, str]
) -> ProviderError:
    code = detail.get("code") or detail.get("type")
    return _error(config, f"{status}: {message}", status, code=code, retry_after=_retry_after(headers))


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
