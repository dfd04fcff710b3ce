"""The guide's gateway: one object that answers calls inside an application.

    from stayline import Gateway, GatewayConfig

    gateway = Gateway(GatewayConfig(public_url="https://voice.example.com", stt_provider="deepgram"))
    gateway.run()

Names are loaded when they are first used: a package that offers a gateway need not load one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stayline.gateway.config import GatewayConfig, GatewayOptions, RealtimeConfig
    from stayline.gateway.events import (
        AgentSpeechEnd,
        AgentSpeechStart,
        AgentThinking,
        AgentTranscript,
        AudioCount,
        AudioReceived,
        AudioSent,
        DtmfPressed,
        EventType,
        Failed,
        Interrupted,
        Interruption,
        SessionEnded,
        SessionEvent,
        SessionStarted,
        ToolCalled,
        ToolUse,
        UserSpeechEnd,
        UserSpeechStart,
        UserTranscript,
        as_dict,
    )
    from stayline.gateway.gateway import Gateway
    from stayline.gateway.registry import (
        GatewayPlugin,
        VoiceGateway,
        gateway_names,
        get_gateway,
        register_gateway,
        unregister_gateway,
    )
    from stayline.gateway.session import Session
    from stayline.gateway.sessions import Sessions
    from stayline.gateway.transcript import Turn

_MODULES: Final = {
    "config": ("GatewayConfig", "GatewayOptions", "RealtimeConfig"),
    "events": (
        "AgentSpeechEnd",
        "AgentSpeechStart",
        "AgentThinking",
        "AgentTranscript",
        "AudioCount",
        "AudioReceived",
        "AudioSent",
        "DtmfPressed",
        "EventType",
        "Failed",
        "Interrupted",
        "Interruption",
        "SessionEnded",
        "SessionEvent",
        "SessionStarted",
        "ToolCalled",
        "ToolUse",
        "UserSpeechEnd",
        "UserSpeechStart",
        "UserTranscript",
        "as_dict",
    ),
    "gateway": ("Gateway",),
    "registry": (
        "GatewayPlugin",
        "VoiceGateway",
        "gateway_names",
        "get_gateway",
        "register_gateway",
        "unregister_gateway",
    ),
    "session": ("Session",),
    "sessions": ("Sessions",),
    "transcript": ("Turn",),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AgentSpeechEnd",
    "AgentSpeechStart",
    "AgentThinking",
    "AgentTranscript",
    "AudioCount",
    "AudioReceived",
    "AudioSent",
    "DtmfPressed",
    "EventType",
    "Failed",
    "Gateway",
    "GatewayConfig",
    "GatewayOptions",
    "GatewayPlugin",
    "Interrupted",
    "Interruption",
    "RealtimeConfig",
    "Session",
    "SessionEnded",
    "SessionEvent",
    "SessionStarted",
    "Sessions",
    "ToolCalled",
    "ToolUse",
    "Turn",
    "UserSpeechEnd",
    "UserSpeechStart",
    "UserTranscript",
    "VoiceGateway",
    "as_dict",
    "gateway_names",
    "get_gateway",
    "register_gateway",
    "unregister_gateway",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
