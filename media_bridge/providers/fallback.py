"""Providers in order of preference: the first that works is used, a failing one rests and is tried again later.

One lineup serves all calls of an agent, so that one call's finding spares the others the same wait.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

import structlog

from stayline.catalog import Role
from stayline.errors import ProviderError
from stayline.timeline import ChangeReason

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT: Final = 4.0
"""Seconds in which a provider must accept a connection before the next one is tried."""
REST: Final = 15.0
"""Seconds for which the others go first after a failure; doubled with each further one in a row."""
LONGEST_REST: Final = 240.0
"""Also for a provider that asks for longer (`Retry-After`)."""

P = TypeVar("P")
T = TypeVar("T")

Failed = Callable[[str, ProviderError], None]
"""Told of each failure: the role and the error."""
Changed = Callable[[Role, str, ChangeReason], None]
"""Told when another provider serves a role: its reference, and why."""


@dataclasses.dataclass(eq=False, slots=True)
class Member(Generic[P]):
    """A provider and how it has been doing."""

    ref: str  #: "provider/model"
    provider: P
    failures: int = 0  #: in a row
    rests_until: float = 0.0  #: by the lineup's clock


class Lineup(Generic[P]):
    """The providers of a role, in order of preference.

    Args:
        members: references and providers.
        clock: monotonic seconds.
    """

    def __init__(
        self, role: Role, members: Iterable[tuple[str, P]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.role: Role = role
        self.members = [Member(ref, provider) for ref, provider in members]
        self._clock = clock

    def order(self) -> list[Member[P]]:
        """Whom to try, in this order: by preference, but those that rest come last.

        Whoever asks first after a rest gets to try again; the others go on without for as long as that may take.
        """
        now = self._clock()
        ready = [member for member in self.members if member.rests_until <= now]
        resting = sorted((m for m in self.members if m.rests_until > now), key=lambda m: m.rests_until)
        for member in ready:
            if member.failures:
                member.rests_until = now + 2 * CONNECT_TIMEOUT
        return [*ready, *resting]

    def better_than(self, member: Member[P]) -> bool:
        """Whether one that is preferred to this one has rested enough."""
        now = self._clock()
        preferred = self.members[: self.members.index(member)]
        return any(other.rests_until <= now for other in preferred)

    def failed(self, member: Member[P], error: ProviderError) -> None:
        rest = min(REST * 2**member.failures, LONGEST_REST)
        member.failures += 1
        member.rests_until = self._clock() + min(max(rest, error.retry_after or 0), LONGEST_REST)

    def worked(self, member: Member[P]) -> None:
        member.failures, member.rests_until = 0, 0.0

    async def connect(
        self, connect: Callable[[P], Awaitable[T]], failed: Failed, timeout: float | None = None
    ) -> tuple[Member[P], T]:
        """Connect to the first provider that accepts.

        Raises:
            ProviderError: the last failure, when none does.
        """
        last = ProviderError(self.role, "no provider is configured", retryable=False)
        for member in self.order():
            try:
                async with asyncio.timeout(timeout or CONNECT_TIMEOUT):
                    return member, await connect(member.provider)
            except Exception as error:
                last = understood(member.ref, error)
            self.failed(member, last)
            failed(self.role, last)
        raise last


def understood(provider: str, error: Exception) -> ProviderError:
    """An adapter's failure as a ProviderError; whatever else it raised is its own fault, and is logged as such."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, TimeoutError):
        return ProviderError(provider, "it did not answer in time", retryable=True)
    log.error("adapter_failed", provider=provider, exc_info=error)
    return ProviderError(provider, f"its adapter failed ({type(error).__name__})", retryable=False)
