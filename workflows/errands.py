"""Errands: what a living call asks of others beside everything else, and who owns them.

An errand ends with the call, and its failure never does more than leave a note in the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.state import CallState

Where = Literal["bridge", "carrier"]


class Errands:
    """The errands of one call.

    Args:
        show: brings what is seen of the call from outside up to date.
    """

    def __init__(self, state: CallState, show: Callable[[], None]) -> None:
        self._state = state
        self._show = show
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, errand: Coroutine[Any, Any, None], where: Where = "bridge") -> asyncio.Task[None]:
        """Begin one. `where` it goes is noted if it fails."""
        self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.create_task(self._without_harm(errand, where))
        self._tasks.append(task)
        return task

    @property
    def under_way(self) -> bool:
        return not all(task.done() for task in self._tasks)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def unless_gone(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run one to its end, but stop as soon as the caller, or the bridge that held them, is gone."""
        state, task = self._state, self.start(errand)
        session = state.attached
        await workflow.wait_condition(
            lambda: (
                task.done() or state.carrier_over_at is not None or (session is not None and session.bridge_died)
            )
        )
        if not task.done():
            task.cancel()

    async def unless_over(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run one at the carrier to its end, but stop as soon as it says that the call is over."""
        state, task = self._state, self.start(errand, "carrier")
        await workflow.wait_condition(lambda: task.done() or state.carrier_over_at is not None)
        if not task.done():
            task.cancel()

    async def _without_harm(self, errand: Coroutine[Any, Any, None], where: Where) -> None:
        try:
            await errand
        except Exception as error:
            self.note_failure(where, error)
        self._show()

    def note_failure(self, where: str, error: Exception) -> None:
        if not is_cancelled_exception(error):
            cause = error.cause if isinstance(error, ActivityError) and error.cause else error
            self._state.note_error(workflow.now(), where, first_line(cause), retryable=True)


def first_line(error: BaseException) -> str:
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
