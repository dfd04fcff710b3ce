"""The least that Temporal can do for a tool call: a workflow with an update that runs one activity."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

QUEUE = "bare"


@activity.defn
async def bare_look_up(arguments: dict[str, Any]) -> dict[str, str]:
    return {"order": arguments["order"], "state": "shipped", "carrier": "DHL", "expected": "tomorrow"}


@workflow.defn
class BareCall:
    def __init__(self) -> None:
        self._over = asyncio.Event()

    @workflow.run
    async def run(self) -> None:
        await self._over.wait()

    @workflow.update
    async def run_tool(self, arguments: dict[str, Any]) -> dict[str, str]:
        return await workflow.execute_activity(
            bare_look_up, arguments, start_to_close_timeout=timedelta(seconds=10)
        )

    @workflow.signal
    def end(self) -> None:
        self._over.set()
