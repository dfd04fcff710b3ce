"""Tools: Python functions that an agent may call. The schema comes from the signature, the policy from `@tool`.

A tool runs as a Temporal activity in a worker, never in the process that holds the audio. What it raises
becomes data: `ToolError` says what the agent may read, anything else is "the tool failed".
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from stayline.errors import ConfigError, ToolError
from stayline.models import CallInfo, ToolSpec

BUILTIN_TOOLS = frozenset({"end_call", "transfer_call"})
"""Names that Stayline gives to the model itself; a user's tool cannot take them."""


@dataclasses.dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool may ask for, by a parameter annotated `ToolContext`.

    Attributes:
        idempotency_key: the same for every attempt of this tool call; send it to the system you change.
        attempt: 1 for the first try.
        heartbeat: call it in long work; it raises `asyncio.CancelledError` soon after a cancellation.
    """

    call: CallInfo
    tool_call_id: str
    idempotency_key: str
    attempt: int
    heartbeat: Callable[..., None]


class ReadArguments(Protocol):
    """Turns the model's arguments into keyword arguments; raises ToolError when they do not fit."""

    def __call__(self, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]: ...


class Tool:
    """A tool that an agent may call: a function, still callable as it was, and its `spec`."""

    def __init__(self, function: Callable[..., Any], spec: ToolSpec, read: ReadArguments):
        self.function = function
        self.spec = spec
        self._read = read
        self.__doc__ = function.__doc__
        self.__name__ = spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        """Validate the arguments, run the function once, and return its result as a JSON value.

        Raises:
            ToolError: the arguments do not fit the schema (not retryable), or the tool raised it.
            Exception: whatever else the function raised.
        """
        kwargs = self._read(arguments, context)
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**kwargs)
        else:
            import asyncio  # here, so that who only describes tools does not load it

            result = await asyncio.to_thread(self.function, **kwargs)
            if inspect.isawaitable(result):  # a coroutine function that a plain decorator hides
                result = await result
        return TypeAdapter(Any).dump_python(result, mode="json")


def wrong_arguments(tool_name: str, faults: Sequence[str]) -> ToolError:
    return ToolError(f"Wrong arguments for {tool_name}: {'; '.join(faults)}")


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = ...,
    retries: int = ...,
    attempt_timeout: float = ...,
    total_timeout: float = ...,
    heartbeat_timeout: float | None = ...,
    backoff: float = ...,
    filler: str | None = ...,
    needs_approval: bool = ...,
    approval_timeout: float = ...,
    background: bool = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 2,
    attempt_timeout: float = 30.0,
    total_timeout: float = 300.0,
    heartbeat_timeout: float | None = None,
    backoff: float = 1.0,
    filler: str | None = None,
    needs_approval: bool = False,
    approval_timeout: float = 120.0,
    background: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool that an agent may call.

    Args:
        name: what the model calls it; default: the function's name.
        retries: further attempts after the first failed one.
        attempt_timeout: seconds for one attempt.
        total_timeout: seconds for all attempts and the waits between them.
        heartbeat_timeout: seconds between heartbeats of a tool that calls `ToolContext.heartbeat`.
        backoff: seconds before the second attempt; doubles each time, at most 60.
        filler: said when the tool takes longer than a moment.
        needs_approval: a person must release each call (`stayline calls approve`).
        approval_timeout: seconds to wait for that person; then the call of the tool is refused.
        background: the conversation goes on meanwhile and the result is spoken when it comes.
    Raises:
        ConfigError: the signature has no JSON schema, the name is taken, or a limit makes no sense.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        tool_name = name or function.__name__
        arguments, injected = _arguments_of(function, tool_name)
        spec = tool_spec(
            name=tool_name,
            description=inspect.cleandoc(function.__doc__ or tool_name.replace("_", " ")),
            parameters=_schema_of(arguments),
            retries=retries,
            attempt_timeout=attempt_timeout,
            total_timeout=total_timeout,
            heartbeat_timeout=heartbeat_timeout,
            backoff=backoff,
            filler=filler,
            needs_approval=needs_approval,
            approval_timeout=approval_timeout,
            background=background,
        )
        return Tool(function, spec, _reader(tool_name, arguments, injected))

    return decorate if function is None else decorate(function)


def tool_spec(
    *,
    name: str,
    description: str,
    parameters: dict[str, Any],
    retries: int,
    attempt_timeout: float,
    total_timeout: float,
    heartbeat_timeout: float | None,
    backoff: float,
    filler: str | None,
    needs_approval: bool,
    approval_timeout: float,
    background: bool,
) -> ToolSpec:
    """Check name and limits. Arguments as `tool`'s.

    Raises:
        ConfigError: the name is not usable, or a limit makes no sense.
    """
    if name in BUILTIN_TOOLS:
        raise ConfigError(f"The tool name {name!r} belongs to Stayline.", fix="Choose another name.")
    if not (name.isascii() and name.replace("_", "").isalnum()) or len(name) > 64:
        raise ConfigError(
            f"The tool name {name!r} is not one that language models accept.",
            fix="Use letters, digits and underscores, at most 64.",
        )
    heartbeat = 1 if heartbeat_timeout is None else heartbeat_timeout
    limits = (retries, attempt_timeout, total_timeout, heartbeat, backoff, approval_timeout)
    if not isinstance(retries, int) or not all(
        isinstance(limit, int | float) and abs(limit) < 1e9 for limit in limits
    ):
        raise ConfigError(
            f"Tool {name!r}: a limit is not a number.",
            fix="Give times in seconds, and retries as a whole number.",
        )
    if retries < 0 or attempt_timeout <= 0 or total_timeout < attempt_timeout or backoff <= 0:
        raise ConfigError(
            f"Tool {name!r}: the limits contradict each other.",
            fix="Needed: retries >= 0, attempt_timeout > 0, total_timeout >= attempt_timeout, backoff > 0.",
        )
    if approval_timeout <= 0 or (heartbeat_timeout is not None and heartbeat_timeout <= 0):
        raise ConfigError(
            f"Tool {name!r}: a timeout is not above 0.",
            fix="Needed: approval_timeout > 0, and heartbeat_timeout > 0 or None.",
        )
    return ToolSpec(
        name=name,
        description=description,
        parameters=parameters,
        max_attempts=retries + 1,
        attempt_timeout=attempt_timeout,
        total_timeout=total_timeout,
        heartbeat_timeout=heartbeat_timeout,
        backoff=backoff,
        filler=filler,
        needs_approval=needs_approval,
        approval_timeout=approval_timeout,
        background=background,
    )


# --- arguments -------------------------------------------------------------------------------------------


def _reader(tool_name: str, model: type[BaseModel], injected: Mapping[str, type]) -> ReadArguments:
    """Arguments by a pydantic model, and what Stayline fills in."""

    def read(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        try:
            values = model.model_validate(arguments)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
            raise wrong_arguments(tool_name, faults) from error
        kwargs = {str(field.alias): getattr(values, name) for name, field in type(values).model_fields.items()}
        for name, kind in injected.items():
            kwargs[name] = context if kind is ToolContext else context.call
        return kwargs

    return read


def _arguments_of(function: Callable[..., Any], tool_name: str) -> tuple[type[BaseModel], dict[str, type]]:
    """A pydantic model of the parameters that the model fills in, and the parameters that Stayline fills in.

    A parameter is a field's alias, so that any name will do: pydantic drops fields with a leading underscore and
    refuses those that its own methods are called.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise ConfigError(
            f"Tool {tool_name!r}: an annotation cannot be resolved ({error}).",
            fix="Import the type at module level, where the tool is defined.",
        ) from error
    given: dict[str, tuple[Any, Any]] = {}
    injected: dict[str, type] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"Tool {tool_name!r}: parameter {parameter.name!r} has no schema.",
                fix="Use plain named parameters; *args, **kwargs and positional-only ones cannot be described.",
            )
        if parameter.name not in hints:
            raise ConfigError(
                f"Tool {tool_name!r}: parameter {parameter.name!r} has no type.",
                fix="Annotate it, e.g. `date: str`.",
            )
        kind = hints[parameter.name]
        if (ours := _injected(kind)) is not None:
            injected[parameter.name] = ours
            continue
        given[parameter.name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    try:
        fields: dict[str, Any] = {
            f"p{number}": (Annotated[kind, Field(alias=name)], default)
            for number, (name, (kind, default)) in enumerate(given.items())
        }
        model = create_model(f"{tool_name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Tool {tool_name!r}: a parameter's type has no JSON schema ({str(error).splitlines()[0]})",
            fix="Use str, int, float, bool, dates, Literal, lists, dicts or pydantic models.",
        ) from error
    return model, injected


def _injected(kind: Any) -> type | None:
    """The class that Stayline passes for this annotation, also where it is written as optional."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((known for known in (CallInfo, ToolContext) if known in kinds), None)


def _schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    for value in schema.get("properties", {}).values():
        value.pop("title", None)
    schema.setdefault("properties", {})
    return schema


Policy = Callable[[CallInfo], Awaitable[None] | None]
"""An `on_call` policy: returns to accept, raises `RejectCall` to refuse."""
