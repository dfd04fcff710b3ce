"""The providers of this process: the built-in ones, those of other packages, and objects given to an `Agent`.

A package of one's own registers a provider by `register_provider`, or, without being imported first, by an entry
point of the group `stayline.providers` that is named as the provider and leads to a `ProviderPlugin`:

    [project.entry-points."stayline.providers"]
    acme = "acme_stayline:provider"

Each name and role goes to the best offer (`stayline.offers`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from stayline.catalog import PROVIDERS, ROLES, ProviderInfo, Role
from stayline.errors import ConfigError
from stayline.offers import Offer, Plugins, best, caller, check_name
from stayline.suggest import closest

PROVIDER_GROUP: Final = "stayline.providers"
INJECTED: Final = "injected"
"""The provider name of objects that were given to an agent: "injected/MyLlm"."""

Factory = str | Callable[[Any], Any]
"""An adapter: "module:Class", or a callable that takes a `ProviderConfig`."""

_METHODS: Final[dict[Role, tuple[str, ...]]] = {
    "stt": ("warm", "connect", "aclose"),
    "llm": ("warm", "stream", "aclose"),
    "tts": ("warm", "connect", "aclose"),
    "realtime": ("warm", "connect", "aclose"),
}
"""What an adapter has beside its `profile`; see `stayline.providers`."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProviderPlugin:
    """A provider of another package, as its entry point names it.

    Attributes:
        stt, llm, tts, realtime: its adapters: a class (or callable) that takes a `ProviderConfig`, or
            "module:Class", which is imported when an agent uses it.
        key_env: the environment variable of its key; None: it needs none.
        base_url_env, default_base_url: where its origin stands, and what it is otherwise.
        priority: above 0 to replace a built-in provider of the same name, role by role.
    """

    stt: Factory | None = None
    llm: Factory | None = None
    tts: Factory | None = None
    realtime: Factory | None = None
    key_env: str | None = None
    base_url_env: str | None = None
    default_base_url: str = ""
    priority: int = 0

    def info(self, name: str) -> ProviderInfo:
        """The same as the catalog has it."""
        roles: dict[Role, str] = {}
        factories: dict[Role, Callable[[Any], Any]] = {}
        for role in ROLES:
            factory: Factory | None = getattr(self, role)
            if factory is None:
                continue
            if isinstance(factory, str):
                roles[role] = factory
            else:
                roles[role] = f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"
                factories[role] = factory
        return ProviderInfo(
            name, roles, self.key_env, self.base_url_env, self.default_base_url, factories=factories
        )


_registered: dict[str, list[Offer[ProviderInfo]]] = {}
_injected: dict[tuple[Role, str], object] = {}


# --- by name ---------------------------------------------------------------------------------------------


def register_provider(
    name: str,
    *,
    stt: Factory | None = None,
    llm: Factory | None = None,
    tts: Factory | None = None,
    realtime: Factory | None = None,
    key_env: str | None = None,
    base_url_env: str | None = None,
    default_base_url: str = "",
    priority: int = 0,
) -> None:
    """Make a provider known in this process; agents then name it "acme/model". See `ProviderPlugin`.

    Registering the same again replaces it, so a module that does it may be imported twice.

    Raises:
        ConfigError: the name or an adapter is none, or it does nothing.
    """
    check_name(name, "provider", INJECTED)
    plugin = ProviderPlugin(
        stt=stt,
        llm=llm,
        tts=tts,
        realtime=realtime,
        key_env=key_env,
        base_url_env=base_url_env,
        default_base_url=default_base_url,
        priority=priority,
    )
    offer = _offer(name, plugin, caller(1))
    others = [known for known in _registered.get(name, ()) if not _same(known, offer)]
    _registered[name] = [*others, offer]


def _same(known: Offer[ProviderInfo], offer: Offer[ProviderInfo]) -> bool:
    """The same code offers the same adapters."""
    return known.source == offer.source and known.value.roles == offer.value.roles


def unregister_provider(name: str) -> None:
    """Forget what `register_provider` was told of a name."""
    _registered.pop(name, None)


def find_provider(role: Role, name: str) -> ProviderInfo | None:
    """The provider that serves a role under this name; None: nobody does.

    Raises:
        ConfigError: two are equally good, or the package that offers it cannot be loaded.
    """
    offers = [offer for offer in _offers(name) if role in offer.value.roles]
    return best(f"{role} provider {name!r}", offers)


def provider_names(role: Role | None = None) -> list[str]:
    """Names that agents may use, of one role or of all, sorted. A package that cannot be loaded is left out."""
    found = set()
    for name in {*PROVIDERS, *_registered, *_plugins.names}:
        try:
            offers = _offers(name)
        except ConfigError:
            continue
        if any(role is None or role in offer.value.roles for offer in offers):
            found.add(name)
    return sorted(found)


def _offers(name: str) -> list[Offer[ProviderInfo]]:
    built_in = [Offer(PROVIDERS[name], "Stayline")] if name in PROVIDERS else []
    return [*built_in, *_registered.get(name, ()), *_plugins.of(name)]


def _offer_of(name: str, thing: object, source: str) -> Offer[ProviderInfo]:
    """What an entry point leads to."""
    if not isinstance(thing, ProviderPlugin):
        raise ConfigError(
            f"Provider {name!r} of {source} is a {type(thing).__name__}.",
            fix="It must be a stayline.ProviderPlugin.",
        )
    return _offer(name, thing, source)


def _offer(name: str, plugin: ProviderPlugin, source: str) -> Offer[ProviderInfo]:
    given = {role: factory for role in ROLES if (factory := getattr(plugin, role)) is not None}
    if not given:
        raise ConfigError(f"Provider {name!r} does nothing.", fix=f"Give it one of {', '.join(ROLES)}.")
    for role, factory in given.items():
        if isinstance(factory, str):
            module, colon, attribute = factory.partition(":")
            if not module or not colon or not attribute:
                raise ConfigError(f"Provider {name!r}, {role}: {factory!r} is not module:Class.")
        elif not callable(factory):
            raise ConfigError(
                f"Provider {name!r}, {role}: a {type(factory).__name__} makes no adapter.",
                fix='Give a class that takes a ProviderConfig, or "module:Class".',
            )
        elif inspect.isclass(factory):
            _check_adapter(role, factory, f"Provider {name!r}: ")
    return Offer(plugin.info(name), source, plugin.priority)


_plugins = Plugins(PROVIDER_GROUP, "Provider", _offer_of)


# --- objects of one's own --------------------------------------------------------------------------------


def inject(role: Role, thing: object) -> str:
    """Keep an implementation of a role in this process and return the reference by which a spec names it.

    The name is that of its class: every process that makes the same agent gives the same name, so a call finds
    it on another bridge too. Another object of a class that is known already is numbered: "injected/MyLlm-2".

    Args:
        thing: an instance, or a class (or callable) that takes a `ProviderConfig`.
    Raises:
        ConfigError: it lacks what the role needs.
    """
    _check_adapter(role, thing, f"{role}=")
    kind = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    base = str(getattr(kind, "__name__", type(kind).__name__))
    number, name = 1, base
    while (known := _injected.setdefault((role, name), thing)) is not thing:
        if _same_code(known, thing):  # its module was imported again: the new one takes its place
            _injected[role, name] = thing
            break
        number += 1
        name = f"{base}-{number}"
    return f"{INJECTED}/{name}"


def injected(role: Role, name: str) -> Any:
    """The object that was given to an agent of this process.

    Raises:
        ConfigError: there is none of this name here.
    """
    try:
        return _injected[role, name]
    except KeyError:
        raise ConfigError(
            f"This process has no {role} {INJECTED}/{name}: it was given to an Agent of another process.",
            fix="Serve the module that makes that Agent in this process too.",
        ) from None


def _same_code(known: object, thing: object) -> bool:
    """Two classes of one place in the code; instances are told apart."""
    if not (inspect.isclass(known) and inspect.isclass(thing)):
        return False
    place = (known.__module__, known.__qualname__)
    return place == (thing.__module__, thing.__qualname__) and "<locals>" not in known.__qualname__


def _check_adapter(role: Role, thing: object, whose: str) -> None:
    if inspect.isroutine(thing):
        return  # a function that makes adapters; what it makes shows when it is called
    missing = [name for name in _METHODS[role] if not callable(getattr(thing, name, None))]
    if not inspect.isclass(thing) and not hasattr(thing, "profile"):
        missing.append("profile")  # a class may set it in its constructor
    if missing:
        name = thing.__name__ if inspect.isclass(thing) else type(thing).__name__
        raise ConfigError(
            f"{whose}{name} is no {role} provider: it has no {missing[0]!r}.",
            fix=f"See stayline.providers.{_PROTOCOLS[role]}.",
        )


_PROTOCOLS: Final[Mapping[Role, str]] = {
    "stt": "SttProvider",
    "llm": "LlmProvider",
    "tts": "TtsProvider",
    "realtime": "RealtimeProvider",
}


def unknown_provider(role: Role, ref: str, name: str) -> ConfigError:
    """What to say of a name that nobody serves in this role."""
    able = provider_names(role)
    if name in provider_names():
        return ConfigError(f"{role}={ref!r}: {name} does no {role}.", fix=f"These do: {', '.join(able)}.")
    return ConfigError(f"{role}={ref!r}: there is no provider {name!r}.", fix=closest(name, able))
