"""Stayline: phone calls with AI that do not get lost. What an application imports is here.

Names of the gateway are loaded when they are first used: who only writes agents need not wait for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from stayline.agent import Agent
from stayline.errors import ConfigError, ProviderError, RejectCall, StaylineError, ToolError
from stayline.models import CallInfo, TurnTaking
from stayline.registry import ProviderPlugin, register_provider
from stayline.tool_definition import ToolDefinition
from stayline.tools import Tool, ToolContext, tool

if TYPE_CHECKING:
    from stayline.gateway import (
        EventType,
        Gateway,
        GatewayConfig,
        GatewayPlugin,
        RealtimeConfig,
        Session,
        SessionEvent,
        get_gateway,
        register_gateway,
    )

_OF_GATEWAY: Final = frozenset(
    {
        "EventType",
        "Gateway",
        "GatewayConfig",
        "GatewayPlugin",
        "RealtimeConfig",
        "Session",
        "SessionEvent",
        "get_gateway",
        "register_gateway",
    }
)

__all__ = [
    "Agent",
    "CallInfo",
    "ConfigError",
    "EventType",
    "Gateway",
    "GatewayConfig",
    "GatewayPlugin",
    "ProviderError",
    "ProviderPlugin",
    "RealtimeConfig",
    "RejectCall",
    "Session",
    "SessionEvent",
    "StaylineError",
    "Tool",
    "ToolContext",
    "ToolDefinition",
    "ToolError",
    "TurnTaking",
    "get_gateway",
    "register_gateway",
    "register_provider",
    "tool",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _OF_GATEWAY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("stayline.gateway"), name)
