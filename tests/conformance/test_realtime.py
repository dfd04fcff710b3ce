"""Every model that hears and speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance import realtime_speech, realtime_tools  # noqa: F401 - they hold the checks, in this order
from tests.conformance.realtime_suite import SUITE as SUITE
from tests.conformance.suite import Subject, run


@SUITE.parametrize()
async def test_realtime(subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    await run(subject, check)
