"""Stayline: phone calls with AI that do not get lost. What an application imports is here.

Names are loaded when they are first used: `import stayline` costs nothing, who only writes agents does not wait for
the gateway, and a process that holds calls does not load what only workers need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stayline.agent import Agent
    from stayline.errors import ConfigError, ProviderError, RejectCall, StaylineError, ToolError
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
    from stayline.models import CallInfo, TurnTaking
    from stayline.registry import ProviderPlugin, register_provider
    from stayline.tool_definition import ToolDefinition
    from stayline.tools import Tool, ToolContext, tool

_MODULES: Final = {
    "agent": ("Agent",),
    "errors": ("ConfigError", "ProviderError", "RejectCall", "StaylineError", "ToolError"),
    "gateway": (
        "EventType",
        "Gateway",
        "GatewayConfig",
        "GatewayPlugin",
        "RealtimeConfig",
        "Session",
        "SessionEvent",
        "get_gateway",
        "register_gateway",
    ),
    "models": ("CallInfo", "TurnTaking"),
    "registry": ("ProviderPlugin", "register_provider"),
    "tool_definition": ("ToolDefinition",),
    "tools": ("Tool", "ToolContext", "tool"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

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
    if name in _MODULES:  # `stayline.errors`, where nobody has imported it yet
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # the next time it is found at once
    return value
