"""Provider options: checked when the adapter is made, so that a misspelt one fails at start and not on a call."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from media_bridge.providers.base import ProviderConfig
from stayline.errors import ConfigError
from stayline.suggest import closest


class Options(BaseModel):
    """Base of the adapters' options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=BaseModel)


def read_options(model: type[OptionsT], config: ProviderConfig, role: str) -> OptionsT:
    """Check `config.options` against the adapter's model.

    Raises:
        ConfigError: an option does not exist (with the nearest that does) or has a wrong value.
    """
    try:
        return model.model_validate(dict(config.options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "options"
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{config.provider} has no {role} option {name!r}.", fix=closest(name, list(model.model_fields))
            ) from error
        raise ConfigError(
            f"{config.provider}, {role} option {name!r}: {first['msg']}.", fix=f"It was {first['input']!r}."
        ) from error
