"""From "provider/model" to an adapter: keys and origins from the environment, voice and options from the agent.

An agent's options are given per role. Where a role has providers of several vendors, whose options differ, each
vendor's may be nested under its name:

    llm=["anthropic/claude-haiku-5-5", "openai/gpt-6-luna"],
    options={"llm": {"read_timeout": 5, "openai": {"verbosity": "low"}}, "tts": {"deepgram": {"voice": "…"}}}

`voice` belongs to the vendor of the first TTS; another vendor has other voices, so it takes its own default unless
one is nested for it as above.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any, Literal, cast, overload

from media_bridge.providers.base import LlmProvider, ProviderConfig, SttProvider, TtsProvider
from stayline.agent import split_ref
from stayline.catalog import PROVIDERS, ProviderInfo, Role
from stayline.errors import ConfigError
from stayline.models import AgentSpec

Adapter = SttProvider | LlmProvider | TtsProvider


@dataclasses.dataclass(frozen=True, slots=True)
class Providers:
    """An agent's adapters by role, each list in order of preference. Shared by all calls of a process."""

    stt: list[SttProvider]
    llm: list[LlmProvider]
    tts: list[TtsProvider]

    @property
    def all(self) -> list[Adapter]:
        return [*self.stt, *self.llm, *self.tts]

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
        stt=[load_provider("stt", ref, spec, environment) for ref in spec.stt],
        llm=[load_provider("llm", ref, spec, environment) for ref in spec.llm],
        tts=[load_provider("tts", ref, spec, environment) for ref in spec.tts],
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
    config = provider_config(role, ref, spec, os.environ if environment is None else environment)
    adapter: Adapter = adapter_class(PROVIDERS[config.provider], role)(config)
    return adapter


def provider_config(role: Role, ref: str, spec: AgentSpec, environment: Mapping[str, str]) -> ProviderConfig:
    """What an adapter is made of.

    Raises:
        ConfigError: the reference or the options' shape is wrong.
    """
    provider, model = split_ref(role, ref)
    info = PROVIDERS[provider]
    options = _options(role, provider, spec)
    preferred = spec.tts[0].partition("/")[0] if spec.tts else ""
    voice = options.pop("voice", spec.voice if provider == preferred else "") if role == "tts" else ""
    return ProviderConfig(
        provider=provider,
        model=model,
        api_key=environment.get(info.key_env, "") if info.key_env else "",
        base_url=(environment.get(info.base_url_env, "") if info.base_url_env else "") or info.default_base_url,
        voice=voice,
        language=options.pop("language", spec.language),
        options=options,
    )


def adapter_class(info: ProviderInfo, role: Role) -> type[Any]:
    """Import the class of an adapter.

    Raises:
        ConfigError: what it is built on is not installed.
    """
    module, _, name = info.roles[role].partition(":")
    try:
        return cast("type[Any]", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        raise not_installed(info, role, error.name or module) from error


def not_installed(info: ProviderInfo, role: Role, module: str) -> ConfigError:
    extra = f'Install it: pip install "stayline[{info.extra}]".' if info.extra else "Install Stayline again."
    return ConfigError(f"{info.name}, {role}: the package {module!r} is not installed.", fix=extra)


def _options(role: Role, provider: str, spec: AgentSpec) -> dict[str, Any]:
    """A role's options for one provider: the common ones, overridden by those nested under its name."""
    common = {key: value for key, value in spec.options.get(role, {}).items() if key not in PROVIDERS}
    own = spec.options.get(role, {}).get(provider, {})
    if not isinstance(own, Mapping):
        raise ConfigError(f"options[{role!r}][{provider!r}] must be a dict of {provider}'s options.")
    return {**common, **own}
