"""Real calls through a real bridge, for their histories: lab carrier, webhooks, session, fakes of the vendors.

Bridge and worker run in this process, so that what they ask of Temporal can be counted by the SDK's own metrics.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from stayline import tool
from stayline.agent import Agent
from tests.fakes.llm import Call, Part, Say
from tests.whole_call.house import Scene, scene, vendor_agent

SAYS = "the order that I placed with you on Tuesday has not come and I would like to know where it is"
"""What a caller says, ten seconds of speech; the model's answer is as long."""
ANSWER = "Your order left our house on Wednesday and should be with you tomorrow. Is there more I can do for you?"


LOOK_UP = "please look up my order"


@tool
async def look_up(order: str) -> dict[str, str]:
    """Looks up an order."""
    return {"order": order, "state": "shipped", "carrier": "DHL", "expected": "tomorrow"}


def answer(body: dict[str, Any]) -> Sequence[Part]:
    """The model: asks for the tool when the caller asks to look something up."""
    last = body["input"][-1]
    if last.get("role") == "user" and "look up" in str(last["content"]):
        return [Call("look_up", {"order": "A-1002"})]
    return [Say(ANSWER)]


def desk(**settings: Any) -> Agent:
    """The agent of all durability benchmarks but recovery."""
    return vendor_agent(name="desk", tools=[look_up], record_audio=False, **settings)


class Requests:
    """How often Temporal was asked for what, by the SDK's metrics of a client made here."""

    def __init__(self) -> None:
        self._buffer = MetricBuffer(100_000)
        self.runtime = Runtime(telemetry=TelemetryConfig(metrics=self._buffer))
        self._counts: Counter[str] = Counter()

    def counts(self) -> Counter[str]:
        for update in self._buffer.retrieve_updates():
            if update.metric.name == "temporal_request":
                self._counts[str(update.attributes["operation"])] += int(update.value)
        return self._counts.copy()


@asynccontextmanager
async def bridge_scene(address: str, folder: Path, requests: Requests, agent: Agent) -> AsyncIterator[Scene]:
    client = await Client.connect(address, data_converter=pydantic_data_converter, runtime=requests.runtime)
    async with scene(client, folder, agent, reply=answer, ms_per_char=10) as stage:
        yield stage


async def talk(stage: Scene, exchanges: int, words: str) -> str:
    """One call with so many exchanges. Returns its id when its workflow has ended."""
    caller = await stage.greeted()
    for _ in range(exchanges):
        await caller.asks(words, ms=300)
    await caller.leaves()
    async with asyncio.timeout(30):
        await stage.home.over(caller.sid)
    return caller.sid
