"""Providers in order of preference: the first that works is used, a failing one is left and said so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from stayline.errors import ProviderError

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 4.0
"""Seconds in which a provider must accept a connection before the next one is tried."""

P = TypeVar("P")
T = TypeVar("T")

Failed = Callable[[str, ProviderError], None]
"""Told of each failure: the role and the error."""


def understood(provider: str, error: Exception) -> ProviderError:
    """An adapter's failure as a ProviderError; whatever else it raised is its own fault, and is logged as such."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, TimeoutError):
        return ProviderError(provider, "it did not answer in time", retryable=True)
    log.error("adapter_failed", provider=provider, exc_info=error)
    return ProviderError(provider, f"its adapter failed ({type(error).__name__})", retryable=False)


async def first_working(
    role: str, providers: Sequence[P], connect: Callable[[P], Awaitable[T]], failed: Failed
) -> tuple[P, T]:
    """Connect to the first provider that accepts.

    Raises:
        ProviderError: the last failure, when none does.
    """
    last = ProviderError(role, "no provider is configured", retryable=False)
    for provider in providers:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return provider, await connect(provider)
        except Exception as error:
            last = understood(type(provider).__name__, error)
        failed(role, last)
    raise last
