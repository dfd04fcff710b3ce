"""Every provider before its vendor: the subjects of the conformance suites, with the keys of the environment.

    OPENAI_API_KEY=… make live
    OPENAI_API_KEY=… make live ARGS="-k deepgram"

It costs a little (some seconds of speech and some hundred tokens a check), and what a vendor says is not always the
same: what fails here once is to be looked at, what fails twice is a defect. The caller's voice is made here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest

from media_bridge.providers.loading import adapter_class
from stayline.catalog import DEFAULTS, PROVIDERS, Role
from tests.conformance.llm_benches import LlmBench
from tests.conformance.realtime_benches import RealtimeBench
from tests.conformance.stt_benches import SttBench
from tests.conformance.suite import Subject, maker
from tests.conformance.table import SUITES
from tests.conformance.tts_benches import TtsBench

BENCHES: Final[Mapping[Role, Callable[[Callable[..., Any]], Any]]] = {
    "stt": lambda make: SttBench(make, speed=1, tail_ms=6000),  # Flux waits up to five seconds in case of doubt
    "llm": LlmBench,
    "tts": TtsBench,
    "realtime": RealtimeBench,
}


def bench(role: Role, subject: Subject[Any]) -> Any:
    """What the checks work with; skips where there is no key."""
    vendor = PROVIDERS[subject.provider]
    key = vendor.api_key(role, os.environ)
    if not key:
        pytest.skip(f"{vendor.key_env} is not set: nothing of {vendor.name} is checked")
    default = DEFAULTS.get((role, vendor.name))
    make = maker(
        adapter_class(vendor, role),
        subject.provider,
        subject.model,
        key=key,
        base_url=os.environ.get(vendor.base_url_env or "", "") or vendor.default_base_url,
        voice=default.voice if default is not None else "",
        **subject.options,
    )
    return BENCHES[role](make)


@pytest.mark.live
@pytest.mark.parametrize(
    ("role", "subject", "check"),
    [
        pytest.param(suite.role, subject, check, id=f"{suite.role}-{subject.name}-{name}")
        for suite in SUITES
        for subject in suite.subjects
        for name, check in suite.checks.items()
        if subject.provider != "offline" and name in suite.live and name not in subject.exempt
    ],
)
async def test_live(role: Role, subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    await check(bench(role, subject))
