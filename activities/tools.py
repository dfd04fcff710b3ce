"""Tools as activities: one dynamic activity runs whichever tool the activity type names.

Every attempt and its error is carried to the next attempt in the heartbeat details, and to the workflow in the
result or in the failure's details, as `{"attempts": [...]}` (`ToolAttempt`s).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from stayline.agent import Agent
from stayline.errors import ToolError
from stayline.models import ToolAttempt, ToolInvocation, ToolReturn
from stayline.telemetry import metrics
from stayline.tools import Tool, ToolContext
from workflows.tool_runs import CUT_OFF

MAX_RESULT_BYTES: Final = 256 * 1024
"""A result goes into the model's context and into Temporal's history; larger ones serve neither."""


BEAT_EVERY: Final = 2.0
"""Seconds; `TOOL_WORKER_SILENT_FOR` allows for some that are late. Each is a billable action on Temporal Cloud."""


class _Progress(BaseModel):
    """Heartbeat details of a tool's activity."""

    attempts: tuple[ToolAttempt, ...] = ()


class ToolActivities:
    """The tools of all agents that this worker serves."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = dict(agents)

    @activity.defn(dynamic=True)
    async def run(self, inputs: Sequence[RawValue]) -> ToolReturn:
        """Run one attempt of the tool that the activity type names.

        Raises:
            ApplicationError: typed `UnknownTool`, `ToolError`, `ToolTimeout`, `ToolResult`, `WorkerShutdown`, or
                by the name of what the tool raised; its details carry all attempts so far.
        """
        info = activity.info()
        earlier = _earlier_attempts(info)
        started_at = datetime.now(UTC)
        clock = asyncio.get_running_loop().time
        begun = clock()

        def attempts(error: str | None) -> tuple[ToolAttempt, ...]:
            seconds = round(clock() - begun, 3)
            this = ToolAttempt(number=info.attempt, started_at=started_at, seconds=seconds, error=error)
            return (*earlier, this)

        try:
            result = await self._attempt(inputs, earlier)
        except ApplicationError as error:
            metrics.tool_attempt(info.activity_type, "failed")
            told = _Progress(attempts=attempts(error.message))
            activity.heartbeat(told)
            raise ApplicationError(
                error.message, told, type=error.type, non_retryable=error.non_retryable
            ) from error.__cause__
        metrics.tool_attempt(info.activity_type, "succeeded")
        return ToolReturn(result=result, attempts=attempts(None))

    async def _attempt(self, inputs: Sequence[RawValue], earlier: tuple[ToolAttempt, ...]) -> Any:
        """Run the tool once; every way in which it can fail becomes an ApplicationError."""
        tool, invocation = self._resolve(inputs)
        info = activity.info()
        context = ToolContext(
            call=invocation.call,
            tool_call_id=info.activity_id,
            idempotency_key=f"{info.workflow_id}:{info.activity_id}",
            attempt=info.attempt,
            heartbeat=lambda *details: activity.heartbeat(_Progress(attempts=earlier), *details),
        )
        beating = None if tool.spec.heartbeat_timeout else asyncio.create_task(_keep_beating(earlier))
        try:
            async with asyncio.timeout(tool.spec.attempt_timeout) as limit:
                result = await tool.run(invocation.arguments, context)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown():
                raise ApplicationError(CUT_OFF, type="WorkerShutdown") from None
            raise
        except ToolError as error:
            raise ApplicationError(error.message, type="ToolError", non_retryable=not error.retryable) from error
        except TimeoutError as error:
            if limit.expired():
                took = f"no answer within {tool.spec.attempt_timeout:g} s"
                raise ApplicationError(took, type="ToolTimeout") from None
            raise _crash(error) from error
        except PydanticSerializationError as error:
            raise ApplicationError(
                f"the result is no JSON value: {error}", type="ToolResult", non_retryable=True
            ) from None
        except (Exception, SystemExit) as error:
            raise _crash(error) from error
        finally:
            if beating is not None:
                beating.cancel()
        if len(to_json(result)) > MAX_RESULT_BYTES:
            raise ApplicationError(
                f"the result is larger than {MAX_RESULT_BYTES} bytes", type="ToolResult", non_retryable=True
            )
        return result

    def _resolve(self, inputs: Sequence[RawValue]) -> tuple[Tool, ToolInvocation]:
        name = activity.info().activity_type
        try:
            invocation: ToolInvocation = activity.payload_converter().from_payload(
                inputs[0].payload, ToolInvocation
            )
        except (IndexError, ValidationError) as error:
            raise ApplicationError(
                f"activity {name!r} was given no tool invocation", type="UnknownTool", non_retryable=True
            ) from error
        agent = self._agents.get(invocation.call.agent)
        tool = agent.tools.get(name) if agent else None
        if tool is None:
            raise ApplicationError(
                f"this worker has no tool {name!r} of agent {invocation.call.agent!r}",
                type="UnknownTool",
                non_retryable=True,
            )
        return tool, invocation


async def _keep_beating(earlier: tuple[ToolAttempt, ...]) -> None:
    """Say that this worker lives, for a tool that does not say so itself. A quick one never gets to it."""
    while True:
        await asyncio.sleep(BEAT_EVERY)
        activity.heartbeat(_Progress(attempts=earlier))


def _crash(error: BaseException) -> ApplicationError:
    kind = type(error).__name__
    return ApplicationError(f"{kind}: {error}" if str(error) else kind, type=kind)


def _earlier_attempts(info: activity.Info) -> tuple[ToolAttempt, ...]:
    """What earlier attempts left behind; those that left nothing were cut off."""
    told: dict[int, ToolAttempt] = {}
    if info.heartbeat_details:
        try:
            progress = _Progress.model_validate(info.heartbeat_details[0])
        except ValidationError:
            progress = _Progress()
        told = {attempt.number: attempt for attempt in progress.attempts}
    return tuple(told.get(n) or ToolAttempt(number=n, error=CUT_OFF) for n in range(1, info.attempt))
