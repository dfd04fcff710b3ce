"""Tools as data: JSON Schema beside a handler that is given apart, for tools that no signature describes.

weather = ToolDefinition(
    name="get_weather",
    description="Get current weather for a location",
    parameters={"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)

async def get_weather(arguments: dict[str, Any]) -> str:
    return f"It is sunny in {arguments['location']}."

Agent(..., tools=[weather], tool_handlers={"get_weather": get_weather})
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stayline.errors import ConfigError
from stayline.suggest import closest
from stayline.tools import ReadArguments, Tool, ToolContext, tool_spec, wrong_arguments

ToolHandler = Callable[..., Any]
"""What carries out a `ToolDefinition`: takes the arguments as a dict, and the `ToolContext` if it has a second
parameter. Plain or async; returns anything that is JSON."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToolDefinition:
    """A tool as data: what the model is told, beside a handler that is given apart (`tool_handlers`).

    Attributes:
        parameters: JSON Schema (2020-12) of the arguments, an object. Arguments are checked against it before
            the handler runs.
        retries, attempt_timeout, ...: as `stayline.tool`'s.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"type": "object", "properties": {}})
    retries: int = 2
    attempt_timeout: float = 30.0
    total_timeout: float = 300.0
    heartbeat_timeout: float | None = None
    backoff: float = 1.0
    filler: str | None = None
    needs_approval: bool = False
    approval_timeout: float = 120.0
    background: bool = False

    def tool(self, handler: ToolHandler) -> Tool:
        """The definition and what carries it out.

        Raises:
            ConfigError: the schema is none of an object's, the handler takes something else, or a limit is wrong.
        """
        parameters = _checked_schema(self.name, dict(self.parameters))
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "parameters"}
        spec = tool_spec(**given, parameters=parameters)
        return Tool(_by_keyword(self.name, handler), spec, _schema_reader(self.name, parameters))


def bind_tools(
    tools: Sequence[Tool | ToolDefinition], handlers: Mapping[str, ToolHandler] | None = None
) -> list[Tool]:
    """Bring definitions and handlers together; decorated tools need none.

    Raises:
        ConfigError: a definition has no handler, a handler no definition, or two tools have one name.
    """
    handlers = dict(handlers or {})
    bound: dict[str, Tool] = {}
    for item in tools:
        if isinstance(item, ToolDefinition):
            if item.name in bound:
                raise _twice(item.name)
            if item.name not in handlers:
                raise ConfigError(
                    f"Tool {item.name!r} has no handler.", fix=f"Give tool_handlers={{{item.name!r}: …}}."
                )
            item = item.tool(handlers.pop(item.name))
        elif not isinstance(item, Tool):
            raise ConfigError(
                f"{getattr(item, '__name__', item)!r} is not a tool.",
                fix="Decorate the function with @tool. A ToolDefinition will do too.",
            )
        if item.spec.name in bound:
            raise _twice(item.spec.name)
        bound[item.spec.name] = item
    for name in handlers:
        defined = [item.name for item in tools if isinstance(item, ToolDefinition)]
        fix = "A decorated tool carries itself out." if name in bound else closest(name, defined)
        if not defined and name not in bound:
            fix = "Give its ToolDefinition among the tools."
        raise ConfigError(f"The tool handler {name!r} has no ToolDefinition.", fix=fix)
    return list(bound.values())


def _twice(name: str) -> ConfigError:
    return ConfigError(f"Two tools are called {name!r}.", fix="Give one another name.")


def _checked_schema(tool_name: str, schema: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(
            f"Tool {tool_name!r}: parameters are no JSON Schema: {error.message}.",
            fix='E.g. {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}.',
        ) from error
    if schema.get("type") != "object":
        raise ConfigError(
            f"Tool {tool_name!r}: parameters describe no object.", fix='Write {"type": "object", "properties": …}.'
        )
    unknown = set(schema.get("required", ())) - set(schema.get("properties", {}))
    if unknown and schema.get("additionalProperties") is False:
        raise ConfigError(f"Tool {tool_name!r}: {min(unknown)!r} is required but not among the properties.")
    if "$id" not in schema:
        _check_references(tool_name, schema)
    return {**schema, "properties": schema.get("properties", {})}


def _check_references(tool_name: str, schema: dict[str, Any]) -> None:
    """Every `$ref` leads somewhere within the schema; nothing is fetched."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError) as error:
            raise ConfigError(
                f"Tool {tool_name!r}: parameters refer to {reference!r}, which is not among them.",
                fix="Write it under `$defs`; schemas elsewhere are not fetched.",
            ) from error


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _schema_reader(tool_name: str, schema: dict[str, Any]) -> ReadArguments:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    validator = Draft202012Validator(
        schema,
        format_checker=Draft202012Validator.FORMAT_CHECKER,
        registry=Registry(),  # jsonschema's own would fetch an address that a `$ref` names
    )

    def read(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        try:
            faults = [
                f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}"
                for error in validator.iter_errors(arguments)
            ]
        except (ValueError, ArithmeticError, RecursionError, Unresolvable) as error:  # not a number, too deep
            raise wrong_arguments(tool_name, [f"they cannot be checked ({type(error).__name__})"]) from error
        if faults:
            raise wrong_arguments(tool_name, faults)
        return {"arguments": arguments, "context": context}

    return read


def _by_keyword(tool_name: str, handler: ToolHandler) -> Callable[..., Any]:
    """The handler behind the two keywords that every definition's tool is called with."""
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Tool {tool_name!r}: its handler cannot be called.") from error
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in plain if p.default is p.empty]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not plain or len(needed) > 2 or keywords:
        raise ConfigError(
            f"Tool {tool_name!r}: its handler takes something else than the arguments.",
            fix="Write `async def handler(arguments: dict)` or `handler(arguments, context)`.",
        )
    with_context = len(needed) == 2 or (len(plain) > 1 and re.fullmatch("context|ctx", plain[1].name) is not None)

    async def run_async(arguments: dict[str, Any], context: ToolContext) -> Any:
        return await (handler(arguments, context) if with_context else handler(arguments))

    def run(arguments: dict[str, Any], context: ToolContext) -> Any:
        return handler(arguments, context) if with_context else handler(arguments)

    return run_async if inspect.iscoroutinefunction(handler) else run
