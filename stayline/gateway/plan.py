"""From a `GatewayConfig` to what Stayline itself is made of: an Agent, Settings, credentials, an environment."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from typing import Any, Final

from stayline import registry
from stayline.agent import Agent
from stayline.catalog import ALIASES, DEFAULT_PROVIDER, DEFAULTS, Default, Role, role_key_env
from stayline.checks import Problem, check_agent, check_settings, refuse_if_wrong
from stayline.errors import ConfigError
from stayline.gateway.config import GatewayConfig
from stayline.gateway.prompt import DEFAULT_PROMPT
from stayline.gateway.sdk_clients import adapter_for, is_sdk_client
from stayline.settings import Settings, TwilioCredentials, load_settings

AGENT_NAME: Final = "gateway"
"""Of the agent, unless `GatewayConfig.agent` gives another: what Temporal's UI and the records show."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A checked configuration."""

    agent: Agent
    settings: Settings
    twilio: TwilioCredentials
    environment: Mapping[str, str]  #: where the providers' keys and origins are
    warnings: tuple[Problem, ...]


def plan(config: GatewayConfig) -> Plan:
    """Check everything that can be known to be wrong before the first call. Connects to nothing.

    Raises:
        ConfigError: with everything that must be put right: an unknown provider, a missing key, a retired model,
            an option that its adapter does not have, a tool without a handler, a setting.
    """
    environment = dict(os.environ if config.environment is None else config.environment)
    settings = _settings(config)
    twilio = _twilio(config)
    agent = _agent(config, environment)
    problems = [*check_settings(settings, twilio), *check_agent(agent.spec(), environment)]
    refuse_if_wrong(problems)
    return Plan(agent, settings, twilio, environment, tuple(p for p in problems if p.severity == "warning"))


def _settings(config: GatewayConfig) -> Settings:
    given: dict[str, Any] = dict(config.settings)
    for name in ("listen_addr", "public_url", "carrier"):
        if name in config.model_fields_set:
            given[name] = getattr(config, name)
    settings = load_settings(**given)
    address = settings.listen_addr if "listen_addr" in settings.model_fields_set else config.listen_addr
    if address.startswith(":"):  # as the guide means it; Stayline's own settings take this machine only
        address = f"0.0.0.0{address}"
    return settings.model_copy(update={"listen_addr": address})


def _twilio(config: GatewayConfig) -> TwilioCredentials:
    names = ("account_sid", "auth_token", "phone_number")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(config, name))}
    return TwilioCredentials(**given)


# --- the agent -------------------------------------------------------------------------------------------


def _agent(config: GatewayConfig, environment: dict[str, str]) -> Agent:
    pipeline = _realtime(config, environment) if config.mode == "realtime" else _text(config, environment)
    values: dict[str, Any] = {
        "name": AGENT_NAME,
        "instructions": config.llm_system_prompt or DEFAULT_PROMPT,
        "greeting": config.greeting,
        "mode": config.mode,
        "language": config.stt_language,
        "tools": config.tools,
        "tool_handlers": config.tool_handlers,
        "interruption": config.interruption_mode,
        "max_duration": config.max_session_duration,
        **pipeline,
    }
    if twice := sorted(set(config.agent) & set(values) - {"name"}):
        raise ConfigError(
            f"GatewayConfig, agent: {twice[0]!r} has a field of its own.", fix="Set it there and nowhere else."
        )
    return Agent(**{**values, **config.agent})


def _text(config: GatewayConfig, environment: dict[str, str]) -> dict[str, Any]:
    options = _options(config)
    tts, model, voice = config.tts_provider or DEFAULT_PROVIDER["tts"], config.tts_model, config.tts_voice_id
    if isinstance(tts, str):
        info = registry.find_provider("tts", ALIASES.get(tts, tts))
        if info is not None and info.voice_is_model and voice:
            if model and model != voice:
                raise ConfigError(
                    f"tts_voice_id={voice!r} and tts_model={model!r} contradict each other.",
                    fix=f"Give one of them: at {tts} a voice is a model.",
                )
            model, voice = voice, ""
    llm: object
    if config.llm_client is not None and is_sdk_client(config.llm_client):
        llm = adapter_for(config.llm_client, config.llm_model, options.pop("llm", {}))
    elif config.llm_client is not None:
        llm = _provider("llm", config.llm_client, config.llm_model, "", options)
    else:
        llm = _provider("llm", config.llm_provider, config.llm_model, "", options)
        _put_key("llm", config.llm_provider, config.llm_api_key, environment)
    stt = _provider("stt", config.stt_provider, config.stt_model, "", options)
    _put_key("stt", config.stt_provider, config.stt_api_key, environment)
    speech = _provider("tts", tts, model, voice, options)
    _put_key("tts", tts, config.tts_api_key, environment)
    return {"stt": stt, "llm": llm, "tts": speech, "voice": voice or _voice("tts", tts), "options": options}


def _realtime(config: GatewayConfig, environment: dict[str, str]) -> dict[str, Any]:
    options = _options(config)
    model = config.realtime_config
    provider: str | object = config.realtime_provider or model.provider
    named = model.provider and isinstance(provider, str)
    if named and _canonical(str(provider)) != _canonical(model.provider):
        raise ConfigError(
            f"realtime_provider={provider!r}, but realtime_config says {model.provider!r}.", fix="Give one of them."
        )
    if model.options:
        options["realtime"] = {**options.get("realtime", {}), **model.options}
    realtime = _provider("realtime", provider, model.model, model.voice, options)
    _put_key("realtime", provider, model.api_key, environment)
    instructions = model.instructions or config.llm_system_prompt or DEFAULT_PROMPT
    voice = model.voice or _voice("realtime", provider)
    return {"realtime": realtime, "voice": voice, "instructions": instructions, "options": options}


def _options(config: GatewayConfig) -> dict[str, dict[str, Any]]:
    return {role: dict(values) for role, values in config.options.items()}


def _canonical(provider: str) -> str:
    return ALIASES.get(provider, provider)


def _provider(
    role: Role, given: str | object, model: str, voice: str, options: dict[str, dict[str, Any]]
) -> str | object | list[str]:
    """What an Agent takes for the role: references by name, or the object as it is."""
    if isinstance(given, str):
        name = _canonical(given) or DEFAULT_PROVIDER[role]
        if model:
            return f"{name}/{model}"
        if registry.find_provider(role, name) is None:
            raise registry.unknown_provider(role, given, name)
        if (role, name) not in DEFAULTS:
            raise ConfigError(f"{name} has no default model for {role}.", fix=f"Give {_field(role, 'model')}.")
        return [f"{name}/{default}" for default in DEFAULTS[role, name].models]
    if inspect.isclass(given) or inspect.isroutine(given):
        if model:
            options.setdefault(role, {}).setdefault("model", model)
        return given
    for what, value in (("model", model), ("voice_id" if role == "tts" else "voice", voice)):
        if value and getattr(given, what.removesuffix("_id"), None) != value:
            raise ConfigError(
                f"{_field(role, what)}={value!r} comes too late: the {type(given).__name__} is made already.",
                fix="Leave it out, or give the class: it is made with a ProviderConfig that has it.",
            )
    return given


def _field(role: Role, what: str) -> str:
    return f"realtime_config.{what}" if role == "realtime" else f"{role}_{what}"


def _voice(role: Role, provider: str | object) -> str:
    if not isinstance(provider, str):
        return ""
    name = _canonical(provider) or DEFAULT_PROVIDER[role]
    return DEFAULTS.get((role, name), Default(())).voice


def _put_key(role: Role, provider: str | object, key: str, environment: dict[str, str]) -> None:
    """Let the key be found where the role's adapter looks for it first."""
    if not key:
        return
    name = (_canonical(provider) or DEFAULT_PROVIDER[role]) if isinstance(provider, str) else ""
    info = registry.find_provider(role, name) if name else None
    if not name or (info is not None and info.key_env is None):
        raise ConfigError(
            f"{_field(role, 'api_key')} is given, but {name or 'an object of your own'} takes no key.",
            fix="Leave it out.",
        )
    if info is not None and info.key_env is not None:
        environment[role_key_env(role, info.key_env)] = key
