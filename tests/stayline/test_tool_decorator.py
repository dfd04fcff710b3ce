"""`@tool`: the schema that a signature becomes, what is refused, and what the function is given and returns."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import wraps
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from stayline import CallInfo, ConfigError, Tool, ToolContext, ToolError, tool

INFO = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=datetime(2026, 11, 22, tzinfo=UTC))
CONTEXT = ToolContext(INFO, "t1", "call-CA1:t1", 1, lambda *_: None)


class Seat(BaseModel):
    row: int
    window: bool = False


class Size(enum.Enum):
    SMALL = "small"


@dataclasses.dataclass
class Booking:
    day: date
    seat: Seat


# --- the schema ------------------------------------------------------------------------------------------


def test_the_schema_comes_from_the_signature() -> None:
    @tool
    async def book(
        day: date,
        seats: list[Seat],
        meal: Literal["fish", "tofu"] = "tofu",
        guests: Annotated[int, Field(ge=1, le=8, description="How many come")] = 1,
    ) -> str:
        """Book a table.

        Only for today's guests.
        """
        return f"{day} {seats} {meal} {guests}"

    spec = book.spec
    assert (spec.name, spec.description) == ("book", "Book a table.\n\nOnly for today's guests.")
    schema = spec.parameters
    assert (schema["type"], schema["additionalProperties"], schema["required"]) == (
        "object",
        False,
        ["day", "seats"],
    )
    assert schema["properties"] == {
        "day": {"type": "string", "format": "date"},
        "seats": {"type": "array", "items": {"$ref": "#/$defs/Seat"}},
        "meal": {"type": "string", "enum": ["fish", "tofu"], "default": "tofu"},
        "guests": {"type": "integer", "minimum": 1, "maximum": 8, "description": "How many come", "default": 1},
    }
    assert set(schema["$defs"]["Seat"]["properties"]) == {"row", "window"}


def test_a_tool_without_parameters_or_words() -> None:
    @tool
    def opening_hours() -> str:
        return "nine to five"

    assert opening_hours.spec.description == "opening hours"
    assert opening_hours.spec.parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    assert opening_hours() == "nine to five", "it is still the function that it was"


def test_the_policy_of_a_tool() -> None:
    @tool(
        name="order", retries=4, attempt_timeout=5, total_timeout=50, heartbeat_timeout=2, backoff=0.5, filler="Hm."
    )
    def anything(call: CallInfo) -> None: ...

    spec = anything.spec
    assert (spec.name, anything.__name__, spec.max_attempts, spec.filler) == ("order", "order", 5, "Hm.")
    assert (spec.attempt_timeout, spec.total_timeout, spec.heartbeat_timeout, spec.backoff) == (5, 50, 2, 0.5)


# --- what is refused -------------------------------------------------------------------------------------


def any_arguments(*args: str) -> None: ...
def any_keywords(**kwargs: str) -> None: ...
def positional_only(a: str, /) -> None: ...
def untyped(day) -> None: ...  # type: ignore[no-untyped-def]
def unknown_type(day: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unknown_attribute(day: enum.Nowhere) -> None: ...  # type: ignore[name-defined]
def no_expression(day: "a day") -> None: ...  # type: ignore[valid-type]  # noqa: F722
def no_type(day: 3) -> None: ...  # type: ignore[valid-type]
def a_lock(lock: threading.Event) -> None: ...
def a_function(what: Callable[[], None]) -> None: ...
def end_call() -> None: ...
def fine(day: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "message", "fix"),
    [
        (any_arguments, "Tool 'any_arguments': parameter 'args' has no schema.", "plain named parameters"),
        (any_keywords, "parameter 'kwargs' has no schema.", "plain named parameters"),
        (positional_only, "parameter 'a' has no schema.", "positional-only"),
        (untyped, "parameter 'day' has no type.", "Annotate it"),
        (unknown_type, "cannot be resolved (name 'Nowhere' is not defined)", "Import the type at module level"),
        (unknown_attribute, "cannot be resolved (module 'enum' has no attribute", "Import the type"),
        (no_expression, "an annotation cannot be resolved", "Import the type"),
        (no_type, "Tool 'no_type'", "Use str, int"),
        (a_lock, "a parameter's type has no JSON schema", "Use str, int, float, bool, dates"),
        (a_function, "a parameter's type has no JSON schema", "pydantic models"),
        (end_call, "The tool name 'end_call' belongs to Stayline.", "Choose another name."),
    ],
)
def test_signatures_that_cannot_be_described(function: Callable[..., Any], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tool(function)
    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    "name", ["transfer_call", "end_call", "book a table", "book-table", "größe", "_", "x" * 65]
)
def test_names_that_are_taken_or_not_accepted(name: str) -> None:
    with pytest.raises(ConfigError, match=repr(name)) as caught:
        tool(name=name)(fine)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("limits", "message", "fix"),
    [
        ({"retries": -1}, "contradict", "retries >= 0"),
        ({"attempt_timeout": 0}, "contradict", "attempt_timeout > 0"),
        ({"attempt_timeout": 30, "total_timeout": 20}, "contradict", "total_timeout >= attempt_timeout"),
        ({"backoff": 0}, "contradict", "backoff > 0"),
        ({"heartbeat_timeout": 0}, "not above 0", "heartbeat_timeout > 0"),
        ({"heartbeat_timeout": -2.5}, "not above 0", "heartbeat_timeout > 0"),
        ({"approval_timeout": 0}, "not above 0", "approval_timeout > 0"),
        ({"retries": 1.5}, "not a number", "whole number"),
        ({"attempt_timeout": "10"}, "not a number", "seconds"),
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tool(**limits)(fine)
    assert caught.value.message.startswith("Tool 'fine'")
    assert message in caught.value.message
    assert fix in caught.value.fix


# --- arguments -------------------------------------------------------------------------------------------


async def run(made: Tool, **arguments: Any) -> Any:
    return await made.run(arguments, CONTEXT)


@tool
async def reserve(day: date, at: time, guests: Annotated[int, Field(ge=1)] = 2) -> Any:
    """Reserve a table."""
    assert isinstance(day, date)
    assert isinstance(at, time)
    return {"day": day, "at": at, "guests": guests}


async def test_arguments_arrive_as_what_they_are_annotated() -> None:
    assert await run(reserve, day="2026-11-22", at="18:30") == {"day": "2026-11-22", "at": "18:30:00", "guests": 2}
    assert (await run(reserve, day="2026-11-22", at="18:30", guests=3))["guests"] == 3


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"at": "18:30"}, "day: Field required"),
        ({"day": "tomorrow", "at": "18:30"}, "day: Input should be a valid date"),
        ({"day": "2026-11-22", "at": "18:30", "guests": 0}, "guests: Input should be greater than or equal to 1"),
        ({"day": "2026-11-22", "at": "18:30", "guest": 2}, "guest: Extra inputs are not permitted"),
        ({"p0": "2026-11-22", "at": "18:30"}, "day: Field required"),
        ({"day": "x", "at": "y"}, "at: Input"),
    ],
)
async def test_wrong_arguments_are_named_and_final(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ToolError) as caught:
        await reserve.run(arguments, CONTEXT)
    assert caught.value.message.startswith("Wrong arguments for reserve: ")
    assert fault in caught.value.message
    assert not caught.value.retryable


async def test_any_parameter_name_will_do() -> None:
    """Names that pydantic keeps for itself, or drops, are as good as others."""

    async def odd(_id: str, json: str, copy: int, model_dump: str, model_config: str, self: str) -> Any:
        return [_id, json, copy, model_dump, model_config, self]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = tool(odd)
    names = ["_id", "json", "copy", "model_dump", "model_config", "self"]
    assert list(made.spec.parameters["properties"]) == names
    assert made.spec.parameters["required"] == names
    given = {"_id": "a", "json": "b", "copy": 3, "model_dump": "d", "model_config": "e", "self": "f"}
    assert await made.run(given, CONTEXT) == list(given.values())


async def test_call_and_context_are_passed_by_stayline_and_hidden_from_the_model() -> None:
    async def who(
        context: ToolContext,
        note: str,
        call: CallInfo,
        perhaps: CallInfo | None = None,
        again: Optional[ToolContext] = None,  # noqa: UP045 - the older spelling
    ) -> Any:
        assert perhaps is call
        assert again is context
        return [call.call_id, context.idempotency_key, context.attempt, note]

    made = tool(who)
    assert list(made.spec.parameters["properties"]) == ["note"]
    assert "$defs" not in made.spec.parameters
    assert await run(made, note="hi") == ["CA1", "call-CA1:t1", 1, "hi"]
    with pytest.raises(ToolError, match="call: Extra inputs"):
        await run(made, note="hi", call={"call_id": "CA2"})


# --- running ---------------------------------------------------------------------------------------------


async def test_a_synchronous_tool_leaves_the_event_loop_alone() -> None:
    going_on = threading.Event()

    @tool
    def waits() -> int:
        assert going_on.wait(10)
        return threading.get_ident()

    running = asyncio.create_task(run(waits))
    await asyncio.sleep(0)
    going_on.set()
    assert await running != threading.get_ident()


async def test_a_coroutine_function_behind_a_plain_decorator() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    @tool
    @logged
    async def greet(name: str) -> str:
        return f"Hello {name}"

    assert await run(greet, name="Ada") == "Hello Ada"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (None, None),
        (date(2026, 11, 22), "2026-11-22"),
        (datetime(2026, 11, 22, 9, 30, tzinfo=UTC), "2026-11-22T09:30:00Z"),
        (Seat(row=3), {"row": 3, "window": False}),
        ([Seat(row=3)], [{"row": 3, "window": False}]),
        (Booking(date(2026, 11, 22), Seat(row=1)), {"day": "2026-11-22", "seat": {"row": 1, "window": False}}),
        (Size.SMALL, "small"),
        (Decimal("9.90"), "9.90"),
        ((1, {2}), [1, [2]]),
        ({1: date(2026, 1, 1)}, {"1": "2026-01-01"}),
    ],
)
async def test_results_are_json_values(value: Any, json: Any) -> None:
    @tool
    async def returns() -> Any:
        return value

    assert await run(returns) == json


async def test_what_a_tool_raises_goes_through() -> None:
    @tool
    async def fails(how: str) -> None:
        raise ToolError("Busy.", retryable=True) if how == "busy" else KeyError(how)

    with pytest.raises(ToolError, match="Busy") as caught:
        await run(fails, how="busy")
    assert caught.value.retryable
    with pytest.raises(KeyError):
        await run(fails, how="bug")
