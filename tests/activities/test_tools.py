"""Tools as activities, without a server: validation, errors, limits, and the attempts that are carried along."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.tools import ToolActivities
from stayline import Agent, CallInfo, Tool, ToolContext, ToolError, tool
from stayline.models import ToolInvocation, ToolReturn

INFO = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=datetime.now(UTC), agent="desk")
CONVERTER = pydantic_data_converter.payload_converter


class Bench:
    """One attempt of a tool, and what it said in heartbeats."""

    def __init__(self, *tools: Tool) -> None:
        engines = {"stt": "offline/moonshine", "llm": "offline/scripted", "tts": "offline/hibari"}
        self.activities = ToolActivities({"desk": Agent(name="desk", tools=tools, **engines)})  # type: ignore[arg-type]
        self.heartbeats: list[tuple[Any, ...]] = []

    async def run(self, name: str, attempt: int = 1, told: Any = None, **arguments: Any) -> ToolReturn:
        environment = ActivityEnvironment()
        environment.payload_converter = CONVERTER
        environment.info = dataclasses.replace(
            environment.info,
            activity_type=name,
            activity_id="c1",
            workflow_id="call-CA1",
            attempt=attempt,
            heartbeat_details=[told] if told else [],
        )
        environment.on_heartbeat = lambda *details: self.heartbeats.append(details)
        [payload] = CONVERTER.to_payloads([ToolInvocation(call=INFO, arguments=arguments)])
        returned = await environment.run(self.activities.run, [RawValue(payload)])
        assert isinstance(returned, ToolReturn)
        return returned

    async def fails(self, name: str, **arguments: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as caught:
            await self.run(name, **arguments)
        return caught.value


async def test_a_result_is_json_and_arguments_are_typed() -> None:
    @tool
    def next_week(day: date, context: ToolContext, call: CallInfo) -> dict[str, Any]:
        """A synchronous tool."""
        return {"day": day, "key": context.idempotency_key, "call": call.call_id}

    returned = await Bench(next_week).run("next_week", day="2026-11-22")
    assert returned.result == {"day": "2026-11-22", "key": "call-CA1:c1", "call": "CA1"}
    assert [(a.number, a.error) for a in returned.attempts] == [(1, None)]


@tool(attempt_timeout=0.05)
async def misbehaves(how: str) -> Any:
    """Fails in the way that it is asked to."""
    match how:
        case "final":
            raise ToolError("No such order.")
        case "later":
            raise ToolError("Warehouse busy.", retryable=True)
        case "exit":
            sys.exit(3)
        case "timeout":
            raise TimeoutError("its own")
        case "hang":
            await asyncio.Event().wait()
        case "object":
            return object()
        case "large":
            return "x" * 300_000
        case "cancel":
            raise asyncio.CancelledError
    raise KeyError(how)


@pytest.mark.parametrize(
    ("how", "kind", "final", "message"),
    [
        ("final", "ToolError", True, "No such order."),
        ("later", "ToolError", False, "Warehouse busy."),
        ("exit", "SystemExit", False, "SystemExit: 3"),
        ("timeout", "TimeoutError", False, "TimeoutError: its own"),
        ("hang", "ToolTimeout", False, "no answer within 0.05 s"),
        ("object", "ToolResult", True, "no JSON value"),
        ("large", "ToolResult", True, "larger than"),
        ("bug", "KeyError", False, "KeyError: 'bug'"),
    ],
)
async def test_every_failure_is_typed(how: str, kind: str, final: bool, message: str) -> None:
    bench = Bench(misbehaves)
    error = await bench.fails("misbehaves", how=how)
    assert (error.type, error.non_retryable) == (kind, final)
    assert message in error.message
    [progress] = error.details
    assert [a.error for a in progress.attempts] == [error.message]
    assert bench.heartbeats[-1] == (progress,)


async def test_wrong_arguments_never_reach_the_tool() -> None:
    error = await Bench(misbehaves).fails("misbehaves", why="x")
    assert (error.type, error.non_retryable) == ("ToolError", True)
    assert "Wrong arguments for misbehaves" in error.message


async def test_an_unknown_tool_or_agent() -> None:
    error = await Bench(misbehaves).fails("something_else")
    assert (error.type, error.non_retryable) == ("UnknownTool", True)


async def test_attempts_that_left_nothing_were_cut_off() -> None:
    @tool
    async def works(context: ToolContext) -> int:
        """Says where it is."""
        context.heartbeat("half way")
        return context.attempt

    bench = Bench(works)
    told = {"attempts": [{"number": 1, "error": "busy"}]}
    returned = await bench.run("works", attempt=3, told=told)
    assert returned.result == 3
    errors = [a.error for a in returned.attempts]
    assert errors[0] == "busy"
    assert "cut off" in (errors[1] or "")
    assert errors[2] is None
    # What the tool says of itself does not displace the attempts.
    progress, words = bench.heartbeats[0]
    assert (len(progress.attempts), words) == (2, "half way")
