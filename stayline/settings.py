"""Settings: the same names in code, in `stayline.toml` and in the environment; an unknown one is an error.

`STAYLINE_LISTEN_ADDR` in the environment is `listen_addr` in the file and in code. Credentials and provider
origins keep their vendors' names (`DEEPGRAM_API_KEY`, `DEEPGRAM_BASE_URL`). Temporal's own settings are read
by Temporal's environment configuration (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, …).
"""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from stayline.errors import ConfigError
from stayline.models import CarrierName
from stayline.suggest import closest

PREFIX = "STAYLINE_"
FILE = "stayline.toml"


class Settings(BaseSettings):
    """All of Stayline's settings, read once at start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", toml_file=FILE, frozen=True, hide_input_in_errors=True
    )

    # where it listens and what the world sees
    listen_addr: str = "127.0.0.1:8080"
    public_url: str = ""  #: https://… as the carrier sees it; empty: http://<listen_addr>
    reuse_port: bool = False  #: several bridges on one machine share the address
    own_host: str = ""  #: where other machines reach this bridge itself; empty: where it listens, or its host name
    bridge_id: str = Field(default_factory=lambda: secrets.token_hex(4))
    max_calls: int = 50  #: calls that one bridge takes at once
    max_loop_lag_ms: float = 20.0  #: a bridge whose event loop runs later than this takes no new calls; 0: any
    busy_timeout: float = 4.0  #: seconds that a caller for whom there is no room rings on
    busy_text: str = "All our lines are busy right now. Please call again in a few minutes. Goodbye."
    #: what such a caller then hears; empty: a busy tone at once
    drain_timeout: float = 30.0  #: seconds that a stopping bridge gives its calls to move

    # carrier
    carrier: CarrierName = "twilio"
    validate_signatures: bool = True
    stream_idle_timeout: float = 20.0  #: seconds without any frame from the carrier, then the stream is lost
    admission_timeout: float = 60.0  #: seconds that a caller is held while Temporal is away, or a bridge drains
    hold_text: str = "One moment, please."  #: what such a caller hears meanwhile, if the call was answered already
    caller_id: Literal["hash", "number"] = "hash"  #: what the CallCaller search attribute holds
    hash_key: SecretStr = SecretStr("")  #: key of that hash; empty: derived from the carrier's auth token
    live_key: SecretStr = SecretStr("")  #: key of the tokens for live events; empty: the carrier's auth token

    # data
    data_dir: Path = Path(".stayline")  #: recordings, spool, and the default database
    database_url: str = Field("", repr=False)  #: may hold a password; empty: SQLite in data_dir
    record_audio: bool = True

    # encryption of what Temporal keeps
    encryption_keys: SecretStr | None = None  #: name:base64,…; the first encrypts, all decrypt; see encryption.py
    codec_addr: str = "127.0.0.1:8234"  #: where `stayline codec` listens
    codec_origin: str = ""  #: origin of Temporal's UI, as browsers see it; empty: a dev server's on this machine
    codec_token: SecretStr = SecretStr("")  #: what the codec server wants as `Authorization: Bearer …`

    # worker
    build_id: str = ""  #: set: worker versioning is on, and calls stay on the build that they began on
    promote_build: bool = False  #: make this build current when the worker has started
    max_cached_workflows: int = 1000
    tool_grace: float = 20.0  #: seconds that running tools get when a worker stops

    # seeing inside
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"  #: auto: console on a terminal, else json
    metrics_addr: str = ""  #: host:port of the worker's /metrics; a bridge serves its own at /metrics
    temporal_metrics_addr: str = ""  #: host:port where Temporal's SDK metrics are served; empty: off
    otlp_endpoint: str = ""  #: OTLP over HTTP, e.g. http://127.0.0.1:4318; empty: off
    telemetry_pii: bool = False  #: put what people said and who they are on spans, under keys named pii

    # agents
    agents: tuple[str, ...] = ()  #: module:variable, as with --agent

    @field_validator("listen_addr", "metrics_addr", "temporal_metrics_addr", "codec_addr")
    @classmethod
    def _host_and_port(cls, value: str, info: ValidationInfo) -> str:
        port = value.rpartition(":")[2]
        needed = info.field_name in ("listen_addr", "codec_addr")
        if (value or needed) and not (port.isdecimal() and int(port) < 2**16):
            raise ValueError("write host:port, e.g. 127.0.0.1:8080")
        return value

    @field_validator("public_url", "otlp_endpoint", "codec_origin")
    @classmethod
    def _origin(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("write a URL that begins with https:// (or http://)")
        return value.rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def listen(self) -> tuple[str, int]:
        return _host_port(self.listen_addr)

    @property
    def codec_listen(self) -> tuple[str, int]:
        return _host_port(self.codec_addr)

    @property
    def public(self) -> str:
        """The origin at which the carrier reaches any bridge."""
        return self.public_url or f"http://{self.listen_addr}"

    @property
    def database(self) -> str:
        """An async SQLAlchemy URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'calls.db'}"

    @property
    def recordings_dir(self) -> Path:
        return self.data_dir / "recordings"

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"


class TwilioCredentials(BaseSettings):
    """`TWILIO_…`, by Twilio's own names."""

    model_config = SettingsConfigDict(env_prefix="TWILIO_", extra="ignore", frozen=True)

    account_sid: str = ""
    auth_token: SecretStr = SecretStr("")
    phone_number: str = ""
    base_url: str = ""  #: empty: Twilio's own


def load_settings(**values: Any) -> Settings:
    """Read the settings; `values` win over the environment, the environment over the file.

    Raises:
        ConfigError: a value is wrong, or a name does not exist; says which, and what it may have meant.
    """
    _refuse_unknown_environment(os.environ)
    try:
        return Settings(**{key: value for key, value in values.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{FILE} is not TOML: {error}.") from error
    except SettingsError as error:
        raise ConfigError(f"{error}.", fix='A list in the environment is JSON, e.g. ["my_agent:agent"].') from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"There is no setting {name!r} ({FILE} or code).",
                fix=closest(name, list(Settings.model_fields)),
            ) from error
        raise ConfigError(
            f"Setting {name!r} ({PREFIX}{str(first['loc'][0]).upper()}): {reason}.",
            fix="Write it as one string." if _is_secret(name) else f"It was {first['input']!r}.",
        ) from error


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host or "127.0.0.1", int(port)


def _is_secret(name: str) -> bool:
    """Whether a setting's value, even a wrong one, must not be repeated."""
    field = Settings.model_fields.get(name.partition(".")[0])
    return field is not None and ("SecretStr" in str(field.annotation) or not field.repr)


def _refuse_unknown_environment(environment: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise ConfigError(f"There is no setting {name} (environment).", fix=closest(name.upper(), known))
