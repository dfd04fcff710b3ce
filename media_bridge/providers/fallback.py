"""Providers in order of preference: the first that works is used, a failing one is left and said so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from stayline.errors import ProviderError

CONNECT_TIMEOUT = 4.0
"""Seconds in which a provider must accept a connection before the next one is tried."""

P = TypeVar("P")
T = TypeVar("T")

Failed = Callable[[str, ProviderError], None]
"""Told of each failure: the role and the error."""


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
        except ProviderError as error:
            last = error
        except TimeoutError:
            last = ProviderError(_name(provider), f"no connection within {CONNECT_TIMEOUT:g} s", retryable=True)
        failed(role, last)
    raise last


def _name(provider: Any) -> str:
    return type(provider).__name__
