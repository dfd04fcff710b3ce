"""`ToolDefinition`: a tool as JSON Schema beside its handler, as the guide has it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from stayline import Agent, CallInfo, ConfigError, Tool, ToolContext, ToolDefinition, ToolError, tool
from stayline.tool_definition import bind_tools

INFO = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=datetime(2026, 11, 22, tzinfo=UTC))
CONTEXT = ToolContext(INFO, "t1", "call-CA1:t1", 1, lambda *_: None)
WEATHER = ToolDefinition(
    name="get_weather",
    description="Get current weather for a location",
    parameters={
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
    },
)


def bound(handler: Callable[..., Any], definition: ToolDefinition = WEATHER) -> Tool:
    (made,) = bind_tools([definition], {definition.name: handler})
    return made


def defined(**parameters: Any) -> ToolDefinition:
    return ToolDefinition(name="f", description="f", parameters=parameters)


# --- what it becomes -------------------------------------------------------------------------------------


def test_the_model_is_told_what_the_definition_says() -> None:
    spec = bound(lambda arguments: "").spec
    assert (spec.name, spec.description) == ("get_weather", "Get current weather for a location")
    assert spec.parameters == WEATHER.parameters


def test_the_policy_is_that_of_the_decorator() -> None:
    definition = ToolDefinition(
        name="book",
        description="Book it.",
        retries=0,
        attempt_timeout=5,
        total_timeout=10,
        heartbeat_timeout=2,
        backoff=0.5,
        filler="One moment.",
        needs_approval=True,
        approval_timeout=60,
        background=True,
    )

    @tool(
        retries=0,
        attempt_timeout=5,
        total_timeout=10,
        heartbeat_timeout=2,
        backoff=0.5,
        filler="One moment.",
        needs_approval=True,
        approval_timeout=60,
        background=True,
    )
    async def book() -> None:
        """Book it."""

    theirs, ours = book.spec.model_dump(), bound(lambda arguments: "", definition).spec.model_dump()
    assert {**theirs, "parameters": None} == {**ours, "parameters": None}


def test_without_parameters_it_takes_none() -> None:
    assert bound(lambda arguments: "", ToolDefinition(name="f", description="f")).spec.parameters == {
        "type": "object",
        "properties": {},
    }


def test_an_agent_has_both_kinds() -> None:
    @tool
    async def now() -> str:
        """What time it is."""
        return "noon"

    agent = Agent(
        stt="offline/moonshine",
        llm="offline/scripted",
        tts="offline/hibari",
        tools=[now, WEATHER],
        tool_handlers={"get_weather": lambda arguments: "sunny"},
    )
    assert [spec.name for spec in agent.spec().tools] == ["now", "get_weather"]


# --- handlers --------------------------------------------------------------------------------------------


async def plain(arguments: dict[str, Any]) -> str:
    return f"It's 72°F and sunny in {arguments['location']}"


def not_async(arguments: dict[str, Any]) -> str:
    return f"{arguments['location']} in {threading.current_thread().name}"


async def with_context(arguments: dict[str, Any], context: ToolContext) -> str:
    return f"{arguments['location']} {context.idempotency_key} {context.call.from_number}"


async def context_by_name(arguments: dict[str, Any], context: Any = None) -> str:
    return str(context.attempt)


async def other_default(arguments: dict[str, Any], units: str = "C") -> str:
    return units


class Handler:
    async def __call__(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"got": arguments, "at": datetime(2026, 11, 22, tzinfo=UTC)}

    def method(self, arguments: dict[str, Any]) -> list[str]:
        return list(arguments)


async def run(handler: Callable[..., Any], arguments: dict[str, Any] | None = None) -> Any:
    return await bound(handler).run({"location": "Boston"} if arguments is None else arguments, CONTEXT)


async def test_what_a_handler_may_be() -> None:
    assert await run(plain) == "It's 72°F and sunny in Boston"
    assert await run(with_context) == "Boston call-CA1:t1 +1"
    assert await run(context_by_name) == "1"
    assert await run(other_default) == "C", "a default of the author's own is left alone"
    assert await run(Handler()) == {"got": {"location": "Boston"}, "at": "2026-11-22T00:00:00Z"}
    assert await run(Handler().method) == ["location"]
    assert await run(lambda arguments: plain(arguments)) == "It's 72°F and sunny in Boston"


async def test_a_blocking_handler_blocks_no_audio() -> None:
    assert threading.main_thread().name not in str(await run(not_async))
    go = threading.Event()

    def waits(arguments: dict[str, Any]) -> str:
        assert go.wait(10)
        return "done"

    running = asyncio.create_task(run(waits))
    await asyncio.sleep(0)
    go.set()
    assert await running == "done"


async def test_errors_are_the_handlers_own() -> None:
    async def refuses(arguments: dict[str, Any]) -> None:
        raise ToolError("no such city")

    async def breaks(arguments: dict[str, Any]) -> None:
        raise KeyError("x")

    with pytest.raises(ToolError, match="no such city"):
        await run(refuses)
    with pytest.raises(KeyError):
        await run(breaks)


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (lambda: "", "takes something else than the arguments"),
        (lambda a, b, c: "", "takes something else"),
        (lambda *, arguments: "", "takes something else"),
        (lambda a, *, city: "", "takes something else"),
        ("get_weather", "its handler cannot be called"),
    ],
)
def test_what_is_no_handler(handler: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bound(handler)


# --- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "arguments: 'location' is a required property"),
        ({"location": 5}, "location: 5 is not of type 'string'"),
        ({"location": None}, "location: None is not of type 'string'"),
    ],
)
async def test_arguments_that_do_not_fit_never_reach_the_handler(arguments: dict[str, Any], says: str) -> None:
    reached = []
    with pytest.raises(ToolError) as caught:
        await run(lambda arguments: reached.append(arguments), arguments)
    assert "Wrong arguments for get_weather" in str(caught.value)
    assert says in str(caught.value)
    assert not caught.value.retryable
    assert reached == []


async def test_all_that_is_wrong_is_said_at_once_and_where() -> None:
    definition = defined(
        type="object",
        properties={
            "date": {"type": "string", "format": "date"},
            "guests": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        },
        required=["date"],
        additionalProperties=False,
    )
    with pytest.raises(ToolError) as caught:
        await bound(plain, definition).run({"guests": [2, 0], "extra": 1}, CONTEXT)
    for fault in (
        "'date' is a required property",
        "guests.1: 0 is less than the minimum",
        "'extra' was unexpected",
    ):
        assert fault in str(caught.value)


async def test_formats_are_checked() -> None:
    definition = defined(type="object", properties={"day": {"type": "string", "format": "date"}})
    assert await bound(Handler(), definition).run({"day": "2026-11-22"}, CONTEXT)
    with pytest.raises(ToolError, match="is not a 'date'"):
        await bound(Handler(), definition).run({"day": "tomorrow"}, CONTEXT)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"type": "objekt"}, "parameters are no JSON Schema"),
        ({"type": "object", "properties": []}, "parameters are no JSON Schema"),
        ({"type": "object", "required": "location"}, "parameters are no JSON Schema"),
        ({"type": "string"}, "parameters describe no object"),
        ({}, "parameters describe no object"),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["b"], "additionalProperties": False},
            "'b' is required but not among the properties",
        ),
    ],
)
def test_a_schema_that_is_none(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bound(plain, defined(**parameters))


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        (ToolDefinition(name="end_call", description="x"), "belongs to Stayline"),
        (ToolDefinition(name="get weather", description="x"), "not one that language models accept"),
        (ToolDefinition(name="f", description="x", retries=-1), "contradict each other"),
        (ToolDefinition(name="f", description="x", attempt_timeout=9, total_timeout=1), "contradict each other"),
        (ToolDefinition(name="f", description="x", heartbeat_timeout=0), "not above 0"),
    ],
)
def test_names_and_limits(definition: ToolDefinition, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bound(plain, definition)


@pytest.mark.parametrize(
    ("tools", "handlers", "says"),
    [
        ([WEATHER], {}, r"Tool 'get_weather' has no handler. Give tool_handlers={'get_weather': …}."),
        ([WEATHER], {"get_wether": plain}, "Tool 'get_weather' has no handler"),
        ([WEATHER], {"get_weather": plain, "get_wether": plain}, "Did you mean 'get_weather'"),
        ([], {"get_weather": plain}, "Give its ToolDefinition among the tools"),
        ([WEATHER, WEATHER], {"get_weather": plain}, "Two tools are called 'get_weather'"),
        ([tool(name="now")(lambda: "noon")], {"now": plain}, "A decorated tool carries itself out"),
        ([plain], {}, "'plain' is not a tool."),
    ],
)
def test_definitions_and_handlers_belong_together(tools: list[Any], handlers: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bind_tools(tools, handlers)
