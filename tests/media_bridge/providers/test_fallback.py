"""Which provider is tried when: by preference, but those that failed rest first, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from media_bridge.providers.fallback import CONNECT_TIMEOUT, LONGEST_REST, REST, Lineup
from stayline.errors import ProviderError

LOST = ProviderError("a", "gone", retryable=True)


class Times:
    """A lineup of three and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lineup = Lineup[str]("llm", [(f"{name}/m", name) for name in "abc"], lambda: self.now)
        self.a, self.b, self.c = self.lineup.members

    def order(self) -> str:
        return "".join(member.provider for member in self.lineup.order())


def test_a_failing_one_rests_and_is_tried_again() -> None:
    times = Times()
    assert times.order() == "abc"
    times.lineup.failed(times.a, LOST)
    assert times.order() == "bca"
    times.now += REST + 0.1
    assert times.order() == "abc"
    times.lineup.worked(times.a)
    times.now += 0.1
    assert times.order() == "abc"


def test_one_asker_tries_it_again_and_the_others_go_on_without() -> None:
    times = Times()
    times.lineup.failed(times.a, LOST)
    times.now += REST + 0.1
    assert [times.order(), times.order()] == ["abc", "bca"]
    times.now += 2 * CONNECT_TIMEOUT + 0.1  # nobody heard of that try again
    assert times.order() == "abc"


def test_it_rests_longer_each_time_but_not_for_ever() -> None:
    times = Times()
    for failures in range(12):
        times.lineup.failed(times.a, LOST)
        rest = min(REST * 2**failures, LONGEST_REST)
        times.now += rest - 0.1
        assert not times.lineup.better_than(times.b)
        times.now += 0.2
        assert times.lineup.better_than(times.b)


def test_a_provider_may_ask_for_longer() -> None:
    times = Times()
    busy = ProviderError("a", "too many requests", retryable=True, status=429, retry_after=60)
    times.lineup.failed(times.a, busy)
    times.now += 59
    assert times.order() == "bca"
    times.now += 2
    assert times.order() == "abc"
    times.lineup.failed(times.a, ProviderError("a", "busy", retryable=True, retry_after=1e9))
    times.now += LONGEST_REST + 1
    assert times.order() == "abc"


def test_when_all_rest_the_one_that_rests_longest_already_goes_first() -> None:
    times = Times()
    for member in (times.b, times.c, times.a):
        times.lineup.failed(member, LOST)
        times.now += 1
    assert times.order() == "bca"


def test_only_a_preferred_one_is_better() -> None:
    times = Times()
    assert not times.lineup.better_than(times.a)
    assert times.lineup.better_than(times.c)
    times.lineup.failed(times.a, LOST)
    assert not times.lineup.better_than(times.b)


async def test_connecting_passes_over_whoever_refuses_hangs_or_breaks() -> None:
    failures: list[str] = []
    times = Times()

    async def connect(provider: str) -> str:
        if provider == "a":
            raise LOST
        if provider == "b":
            await asyncio.Event().wait()
        return provider.upper()

    member, session = await times.lineup.connect(connect, lambda _, error: failures.append(str(error)), 0.05)
    assert (member, session) == (times.c, "C")
    assert failures == ["a: gone", "b/m: it did not answer in time"]
    assert times.order() == "cab"


async def test_when_none_accepts_the_last_failure_is_told() -> None:
    times = Times()

    async def connect(provider: str) -> str:
        raise KeyError(provider)

    with pytest.raises(ProviderError, match="c/m: its adapter failed"):
        await times.lineup.connect(connect, lambda role, error: None)
    with pytest.raises(ProviderError, match="no provider is configured"):
        await Lineup[str]("stt", []).connect(connect, lambda role, error: None)
