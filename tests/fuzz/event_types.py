"""Whether an adapter's event is what its class says: the conversation relies on it and does not look again."""

from __future__ import annotations

import dataclasses
import functools
import math
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import to_json


def assert_well_typed(events: list[Any]) -> None:
    for event in events:
        for name, kind in _fields(type(event)):
            assert _fits(getattr(event, name), kind), f"{type(event).__name__}.{name} of {event!r}"


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(kind))


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return type(value) is tuple and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is str:
        return type(value) is str and _encodable(value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return isinstance(value, kind) and bool(to_json(value))
    return type(value) is (type(None) if kind is None else kind)


def _encodable(text: str) -> bool:
    """Half a surrogate pair breaks whoever sends or keeps the text."""
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False
