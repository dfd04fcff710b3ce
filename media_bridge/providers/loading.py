"""From "provider/model" to an adapter: keys and origins from the environment, voice and options from the agent.

An agent's options are given per role. Where a role has providers of several vendors, whose options differ, each
vendor's may be nested under its name:

    llm=["anthropic/claude-haiku-5-5", "openai/gpt-6-luna"],
    options={"llm": {"read_timeout": 5, "openai": {"verbosity": "low"}}, "tts": {"deepgram": {"voice": "…"}}}

`voice` belongs to the vendor of the first TTS (or realtime model); another vendor has other voices, so it takes
its own default unless one is nested for it as above.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, overload

from media_bridge.providers.base import (
    LlmProvider,
    ProviderConfig,
    RealtimeProvider,
    SttProvider,
    TtsProvider,
)
from media_bridge.providers.fallback import Lineup
from stayline import registry
from stayline.agent import split_ref
from stayline.catalog import ProviderInfo, Role
from stayline.errors import ConfigError
from stayline.models import AgentSpec

Adapter = SttProvider | LlmProvider | TtsProvider | RealtimeProvider


@dataclasses.dataclass(frozen=True, slots=True)
class Providers:
    """An agent's adapters by role, each list in order of preference. Shared by all calls of a process."""

    stt: Lineup[SttProvider]
    llm: Lineup[LlmProvider]
    tts: Lineup[TtsProvider]
    realtime: Lineup[RealtimeProvider]

    @property
    def all(self) -> list[Adapter]:
        lineups = (self.stt, self.llm, self.tts, self.realtime)
        return [member.provider for lineup in lineups for member in lineup.members]

    async def aclose(self) -> None:
        """Close every adapter; one that fails to close does not keep the others open.

        Raises:
            ExceptionGroup: what went wrong, after all were asked.
        """
        failures: list[Exception] = []
        for adapter in self.all:
            try:
                await adapter.aclose()
            except Exception as error:
                failures.append(error)
        if failures:
            raise ExceptionGroup("closing the providers", failures)


def load_providers(spec: AgentSpec, environment: Mapping[str, str] | None = None) -> Providers:
    """Make all adapters of an agent. Nothing is connected and no SDK is imported; that is `warm`'s.

    Raises:
        ConfigError: as `load_provider`.
    """
    return Providers(
        stt=Lineup("stt", [(ref, load_provider("stt", ref, spec, environment)) for ref in spec.stt]),
        llm=Lineup("llm", [(ref, load_provider("llm", ref, spec, environment)) for ref in spec.llm]),
        tts=Lineup("tts", [(ref, load_provider("tts", ref, spec, environment)) for ref in spec.tts]),
        realtime=Lineup(
            "realtime", [(ref, load_provider("realtime", ref, spec, environment)) for ref in spec.realtime]
        ),
    )


@overload
def load_provider(
    role: Literal["stt"], ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = ...
) -> SttProvider: ...
@overload
def load_provider(
    role: Literal["llm"], ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = ...
) -> LlmProvider: ...
@overload
def load_provider(
    role: Literal["tts"], ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = ...
) -> TtsProvider: ...
@overload
def load_provider(
    role: Literal["realtime"], ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = ...
) -> RealtimeProvider: ...
@overload
def load_provider(
    role: Role, ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = ...
) -> Adapter: ...
def load_provider(role: Role, ref: str, spec: AgentSpec, environment: Mapping[str, str] | None = None) -> Adapter:
    """Make one adapter.

    Args:
        ref: "provider/model".
        environment: where keys and origins are; None: the process's own.
    Raises:
        ConfigError: the provider does not exist or cannot do the role, its engine is not installed, or its
            adapter refuses the configuration (no key, an unknown option, no voice).
    """
    environment = os.environ if environment is None else environment
    provider, name = split_ref(role, ref)
    if provider == registry.INJECTED:
        return _injected(role, name, spec)
    config = provider_config(role, ref, spec, environment)
    adapter: Adapter = adapter_class(_info(role, provider), role)(config)
    return adapter


def _injected(role: Role, name: str, spec: AgentSpec) -> Adapter:
    """An implementation that was given to the agent: an instance as it is, a class made with a configuration.

    The option `model` is the class's to read as `ProviderConfig.model`; an instance has been configured already.
    """
    thing = registry.injected(role, name)
    options = _options(role, registry.INJECTED, spec)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        config = ProviderConfig(
            provider=registry.INJECTED,
            model=options.pop("model", name),
            voice=options.pop("voice", spec.voice),
            language=options.pop("language", spec.language),
            options=options,
        )
        make = cast("Callable[[ProviderConfig], Adapter]", thing)
        return make(config)
    if options:
        raise ConfigError(
            f"{role} {registry.INJECTED}/{name} is made already, so the option {min(options)!r} comes too late.",
            fix="Give the class instead, or set it on the instance.",
        )
    return cast(Adapter, thing)


def _info(role: Role, provider: str) -> ProviderInfo:
    info = registry.find_provider(role, provider)
    if info is None:
        raise registry.unknown_provider(role, provider, provider)
    return info


def provider_config(role: Role, ref: str, spec: AgentSpec, environment: Mapping[str, str]) -> ProviderConfig:
    """What an adapter is made of.

    Raises:
        ConfigError: the reference or the options' shape is wrong.
    """
    provider, model = split_ref(role, ref)
    info = _info(role, provider)
    options = _options(role, provider, spec)
    speaking = spec.tts if role == "tts" else spec.realtime if role == "realtime" else ()
    preferred = speaking[0].partition("/")[0] if speaking else ""
    voice = options.pop("voice", spec.voice if provider == preferred else "") if speaking else ""
    return ProviderConfig(
        provider=provider,
        model=model,
        api_key=info.api_key(role, environment),
        base_url=(environment.get(info.base_url_env, "") if info.base_url_env else "") or info.default_base_url,
        voice=voice,
        language=options.pop("language", spec.language),
        options=options,
    )


def adapter_class(info: ProviderInfo, role: Role) -> Callable[[ProviderConfig], Any]:
    """Import the class of an adapter.

    Raises:
        ConfigError: what it is built on is not installed, or there is no such class.
    """
    if role in info.factories:
        return info.factories[role]
    module, _, name = info.roles[role].partition(":")
    try:
        return cast("Callable[[ProviderConfig], Any]", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        raise not_installed(info, role, error.name or module) from error
    except AttributeError as error:
        raise ConfigError(f"{info.name}, {role}: {module} has no {name!r}.") from error


def not_installed(info: ProviderInfo, role: Role, module: str) -> ConfigError:
    extra = f'Install it: pip install "stayline[{info.extra}]".' if info.extra else "Install Stayline again."
    return ConfigError(f"{info.name}, {role}: the package {module!r} is not installed.", fix=extra)


def _options(role: Role, provider: str, spec: AgentSpec) -> dict[str, Any]:
    """A role's options for one provider: the common ones, overridden by those nested under its name."""
    vendors = {registry.INJECTED, *registry.provider_names()}
    common = {key: value for key, value in spec.options.get(role, {}).items() if key not in vendors}
    own = spec.options.get(role, {}).get(provider, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"options[{role!r}][{provider!r}] must be a dict of {provider}'s options.")
    return {**common, **own}
