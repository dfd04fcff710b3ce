"""A small call-like workflow, import-clean for the sandbox: an update with a retried activity, signals, a query."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy


@workflow.defn(name="TracedCall")
class TracedCall:
    def __init__(self) -> None:
        self._said: list[str] = []
        self._ended = False

    @workflow.run
    async def run(self, number: str) -> int:
        await workflow.wait_condition(lambda: self._ended and workflow.all_handlers_finished())
        await self._work("last")
        return len(self._said)

    @workflow.update
    async def admit(self) -> bool:
        return True

    @workflow.update
    async def run_tool(self, text: str) -> str:
        return await self._work(text)

    @workflow.signal
    def record(self, text: str) -> None:
        self._said.append(text)

    @workflow.signal
    def end(self) -> None:
        self._ended = True

    @workflow.query
    def snapshot(self) -> int:
        return len(self._said)

    async def _work(self, text: str) -> str:
        result: str = await workflow.execute_activity(
            "book",
            text,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=3),
            result_type=str,
        )
        return result
