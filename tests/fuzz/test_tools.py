"""Arguments that a model makes up: read into what the signature or the schema says, or a ToolError."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Annotated, Any, Literal

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from media_bridge.providers.llm_http import tool_arguments
from stayline import tool
from stayline.errors import ConfigError, ToolError
from stayline.models import CallInfo
from stayline.tool_definition import ToolDefinition
from stayline.tools import Tool, ToolContext
from tests.fuzz.generators import ODD, fed, fuzzed, json_values, mutants, texts

CALL = CallInfo(
    call_id="CA1",
    from_number="+15550100001",
    to_number="+15550100002",
    direction="inbound",
    carrier="lab",
    started_at=datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC),
    agent="agent",
)
CONTEXT = ToolContext(CALL, "c1", "k1", 1, lambda *_: None)


class Size(enum.Enum):
    SMALL = "small"


class Patient(BaseModel):
    name: str
    born: datetime.date | None = None


@tool
def book(
    day: datetime.date,
    time: datetime.time,
    patient: Patient,
    price: decimal.Decimal = decimal.Decimal(1),
    size: Size = Size.SMALL,
    kind: Literal["a", "b"] = "a",
    tags: list[str] | None = None,
    more: dict[str, int] | None = None,
    code: Annotated[str, Field(pattern="^[A-Z]+$")] = "A",
    call: CallInfo | None = None,
) -> str:
    """Book."""
    return "booked"


async def handler(arguments: dict[str, Any]) -> str:
    return "done"


DEFINED = ToolDefinition(
    name="order",
    description="Order.",
    parameters={
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "multipleOf": 1},
            "price": {"type": "number", "multipleOf": 0.01},
            "when": {"type": "string", "format": "date"},
            "mail": {"type": "string", "format": "email", "pattern": "^.+@.+$"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "uniqueItems": True},
        },
        "required": ["n"],
        "additionalProperties": False,
        "$defs": {"item": {"type": "object", "properties": {"id": {"enum": [1, 2]}}}},
    },
).tool(handler)
GOOD: list[dict[str, Any]] = [
    {"day": "2026-11-22", "time": "10:00", "patient": {"name": "Ann", "born": "1990-01-01"}, "price": "1.5"},
    {"n": 1, "price": 0.5, "when": "2026-11-22", "mail": "a@b", "items": [{"id": 1}, {"id": 2}]},
]
arguments_ = mutants(GOOD) | st.dictionaries(texts, json_values | st.sampled_from(ODD), max_size=4)


@fuzzed(3)
@given(arguments=arguments_)
@example(arguments={"n": float("inf"), "price": float("nan")})
@example(arguments={"n": 1, "price": 1e308})
@example(arguments={"n": 10**400})
def test_arguments(arguments: dict[str, Any]) -> None:
    fed("tool arguments", 2)
    for which in (book, DEFINED):
        assert isinstance(which, Tool)
        try:
            which._read(arguments, CONTEXT)
        except ToolError as error:
            refused = error
        else:
            continue
        assert refused.message.startswith("Wrong arguments")
        assert not refused.retryable


@fuzzed(3)
@given(text=texts | st.sampled_from(["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "NaN", '{"a": 1e999}', "{}"]))
def test_what_a_model_writes(text: str) -> None:
    fed("tool arguments as text")
    arguments, malformed = tool_arguments(text)
    assert isinstance(arguments, dict)
    assert malformed in (None, text)


@fuzzed(2)
@given(
    schema=mutants([dict(DEFINED.spec.parameters)]),
    limits=st.dictionaries(
        st.sampled_from(
            ["retries", "attempt_timeout", "total_timeout", "backoff", "heartbeat_timeout", "approval_timeout"]
        ),
        st.sampled_from(ODD),
        max_size=2,
    ),
)
@example(schema={"type": "object"}, limits={"heartbeat_timeout": ""})
def test_definitions(schema: Any, limits: Any) -> None:
    """A schema or a limit is taken, or a ConfigError says what is wrong; and what was taken can read arguments."""
    fed("tool definitions")
    try:
        made = ToolDefinition(name="order", description="Order.", parameters=schema, **limits).tool(handler)
    except ConfigError:
        return
    for arguments in GOOD:
        try:
            made._read(arguments, CONTEXT)
        except ToolError:
            continue
