"""Gateways by name: "twilio" and "lab", and those of other packages.

    gateway = get_gateway("twilio", public_url="https://voice.example.com", stt_provider="deepgram", …)

A package offers one without being imported first, by an entry point of the group `stayline.gateways` that is named
as the gateway and leads to a `GatewayPlugin`:

    [project.entry-points."stayline.gateways"]
    acme = "acme_stayline:gateway"

Each name goes to the best offer (`stayline.offers`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, overload

from stayline.errors import ConfigError
from stayline.gateway.config import GatewayConfig, GatewayOptions
from stayline.offers import Offer, Plugins, best, caller, check_name
from stayline.suggest import closest

if TYPE_CHECKING:
    from typing import Unpack

    from stayline.gateway.gateway import Gateway

GATEWAY_GROUP: Final = "stayline.gateways"
BUILT_IN: Final = ("lab", "twilio")


class VoiceGateway(Protocol):
    """What every gateway is, whoever made it."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None:
        """Take calls from here on. Returns when it does."""

    async def stop(self) -> None:
        """Take no more calls, finish or hand over those there are, stop."""


GatewayFactory = Callable[..., VoiceGateway]
"""Makes a gateway of keyword arguments; raises ConfigError for one that it does not know."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GatewayPlugin:
    """A gateway of another package, as its entry point names it.

    Attributes:
        factory: makes one: a class or function that takes the options of `get_gateway`.
        priority: above 0 to replace a built-in gateway of the same name.
    """

    factory: GatewayFactory
    priority: int = 0


_registered: dict[str, list[Offer[GatewayFactory]]] = {}


def register_gateway(name: str, factory: GatewayFactory, *, priority: int = 0) -> None:
    """Make a gateway known in this process. Registering the same again replaces it.

    Raises:
        ConfigError: this is no name, or nothing that makes a gateway.
    """
    check_name(name, "gateway")
    offer = _offer(name, GatewayPlugin(factory=factory, priority=priority), caller(1))
    others = [known for known in _registered.get(name, ()) if not _same(known, offer)]
    _registered[name] = [*others, offer]


def unregister_gateway(name: str) -> None:
    """Forget what `register_gateway` was told of a name."""
    _registered.pop(name, None)


@overload
def get_gateway(name: Literal["twilio", "lab"], **options: Unpack[GatewayOptions]) -> Gateway: ...
@overload
def get_gateway(name: str, **options: Any) -> VoiceGateway: ...
def get_gateway(name: str, **options: Any) -> VoiceGateway:
    """Make a gateway, a new one each time. Of "twilio" and "lab" the options are `GatewayConfig`'s fields.

    Raises:
        ConfigError: nobody offers the name, two offers are equally good, or an option is wrong.
    """
    factory = best(f"gateway {name!r}", _offers(name))
    if factory is None:
        raise ConfigError(f"There is no gateway {name!r}.", fix=closest(name, gateway_names()))
    return factory(**options)


def gateway_names() -> list[str]:
    """Names that `get_gateway` takes, sorted. A package that cannot be loaded is left out."""
    return sorted({*BUILT_IN, *_registered, *filter(_loads, _plugins.names)})


def _loads(name: str) -> bool:
    try:
        return bool(_plugins.of(name))
    except ConfigError:
        return False


def _offers(name: str) -> list[Offer[GatewayFactory]]:
    built_in = [Offer(_factory(name), "Stayline")] if name in BUILT_IN else []
    return [*built_in, *_registered.get(name, ()), *_plugins.of(name)]


def _factory(carrier: str) -> GatewayFactory:
    def make(**options: Any) -> Gateway:
        from stayline.gateway.gateway import Gateway

        return Gateway(GatewayConfig(**{"carrier": carrier, **options}))

    return make


def _offer(name: str, thing: object, source: str) -> Offer[GatewayFactory]:
    if not isinstance(thing, GatewayPlugin):
        raise ConfigError(
            f"Gateway {name!r} of {source} is a {type(thing).__name__}.", fix="It must be a stayline.GatewayPlugin."
        )
    if not callable(thing.factory):
        raise ConfigError(f"Gateway {name!r} of {source}: a {type(thing.factory).__name__} makes no gateway.")
    return Offer(thing.factory, source, thing.priority)


def _same(known: Offer[GatewayFactory], offer: Offer[GatewayFactory]) -> bool:
    """The same code offers the same factory."""
    former, new = (getattr(o.value, "__qualname__", repr(o.value)) for o in (known, offer))
    return known.source == offer.source and former == new


_plugins = Plugins(GATEWAY_GROUP, "Gateway", _offer)
