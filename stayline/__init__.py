"""Stayline: phone calls with AI that do not get lost. What an agent's author imports is here."""

from stayline.agent import Agent
from stayline.errors import ConfigError, ProviderError, RejectCall, StaylineError, ToolError
from stayline.models import CallInfo, TurnTaking
from stayline.tools import Tool, ToolContext, tool

__all__ = [
    "Agent",
    "CallInfo",
    "ConfigError",
    "ProviderError",
    "RejectCall",
    "StaylineError",
    "Tool",
    "ToolContext",
    "ToolError",
    "TurnTaking",
    "tool",
]
