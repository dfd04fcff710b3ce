"""Tables of settings, options, limits and metrics say what the code says: the same names, the same defaults."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from opentelemetry.metrics import NoOpMeter
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from media_bridge.conversation import ear, kept_sound, model_link, realtime_requests, reply, voice
from media_bridge.providers import fallback
from media_bridge.providers.options import Options
from stayline import names
from stayline.agent import Agent
from stayline.catalog import ALIASES, PROVIDERS, ROLES
from stayline.models import Mode
from stayline.settings import PREFIX, Settings, TwilioCredentials
from stayline.telemetry.instruments import Metrics
from stayline.timeline import CallOutcome, CallStatus
from tests.docs.markdown import DOCUMENTS, ROOT, Table, checked_tables, plain

TABLES = [table for table in checked_tables() if ":" in table.what]
RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_table_has_every_name_and_its_default(table: Table) -> None:
    module, _, name = table.what.partition(":")
    wanted = {
        (table.prefix + field.upper() if table.prefix else field): default
        for field, default in defaults_of(getattr(importlib.import_module(module), name))
        if field not in table.without
    }
    assert set(table.rows) == set(wanted)
    for field, default in wanted.items():
        assert table.rows[field][0] == default, field


def test_every_table_that_should_be_checked_is() -> None:
    checked = {table.what for table in checked_tables()}
    options = {
        f"{model.__module__}:{model.__name__}"
        for info in PROVIDERS.values()
        for path in info.roles.values()
        for model in _options_in(path.partition(":")[0])
    }
    assert options <= checked
    assert {"commands", "metrics", "stayline.settings:Settings", "stayline.tools:tool"} <= checked


def test_metrics_are_those_that_are_recorded() -> None:
    (table,) = (table for table in checked_tables() if table.what == "metrics")
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for package in ("stayline", "workflows", "activities", "media_bridge")
        for path in (ROOT / package).rglob("*.py")
    )
    recorded = {name for name in vars(Metrics) if re.search(rf"\bmetrics\.{name}\(", sources)}
    assert set(table.rows) == {metric for name in recorded for metric in _recorded_by(name)}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_settings_that_are_named_exist(file: Path) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", file.read_text(encoding="utf-8"))) <= known


def test_credentials_and_origins_are_all_there() -> None:
    wanted = {f"TWILIO_{name.upper()}" for name in TwilioCredentials.model_fields}
    for info in PROVIDERS.values():
        wanted |= {name for name in (info.key_env, info.base_url_env) if name}
    section = RUNNING.partition("## Credentials and origins")[2].partition("\n## ")[0]
    assert set(re.findall(r"\b[A-Z]+_(?:[A-Z]+_)*(?:KEY|URL|SID|TOKEN|NUMBER)\b", section)) == wanted


def test_routes_search_attributes_and_their_values_are_those_of_the_code() -> None:
    for path in (names.INBOUND_PATH, names.NEXT_PATH, names.STATUS_PATH, names.STREAM_PATH):
        assert f"{path}`" in RUNNING
    rows = dict(re.findall(r"^\| `(Call[A-Z]\w+)` \| (.+) \|$", RUNNING, flags=re.MULTILINE))
    assert set(rows) == set(names.SEARCH_ATTRIBUTES)
    assert plain(rows[names.SA_MODE]).split(", ") == list(get_args(Mode))
    assert plain(rows[names.SA_STATUS]).split(", ") == list(get_args(CallStatus))
    assert plain(rows[names.SA_OUTCOME]).split(", ") == list(get_args(CallOutcome))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_is_in_the_table_with_its_roles_and_key(provider: str) -> None:
    text = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{provider}` \| (.*) \|$", text, flags=re.MULTILINE)
    assert row, provider
    *roles, key = (cell.strip() for cell in row.group(1).split("|"))
    info = PROVIDERS[provider]
    assert [bool(cell) for cell in roles] == [role in info.roles for role in ROLES]
    assert plain(key) == (info.key_env or "none")


def test_the_readme_names_the_providers_of_each_role() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for role in ROLES:
        (listed,) = re.findall(rf"`{role}`: ([^·|]+)", text)
        named = [name.split()[0].lower() for name in listed.split(",")]
        assert {ALIASES.get(name, name) for name in named} == {n for n, p in PROVIDERS.items() if role in p.roles}


def test_the_times_of_failover_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    section = " ".join(text.partition("\n## When a provider fails")[2].partition("\n## ")[0].split())
    for said in (
        f"no connection in {fallback.CONNECT_TIMEOUT:g} s",
        f"up to {ear.KEPT_MS / 1000:g} s, is heard again",
        f"a caller who is loud for {ear.DEAF_SECONDS:g} s",
        f"no first token in {reply.FIRST_TOKEN_TIMEOUT:g} s ({reply.TOKEN_TIMEOUT:g} s where",
        f"no audio for {voice.AUDIO_TIMEOUT:g} s",
        f"no session in {model_link.CONNECT_TIMEOUT:g} s",
        f"over all models, and {model_link.PATIENCE:g} s, the carrier",
        f"nothing for {realtime_requests.RESPONSE_MS / 1000:g} s when asked",
        f"up to {kept_sound.KEPT_MS / 1000:g} s of the caller's open turn",
        f"rests for {fallback.REST:g} s",
        f"at most {fallback.LONGEST_REST:g} s",
    ):
        assert said in section, said


# --- what the code says ----------------------------------------------------------------------------------


def defaults_of(thing: Any) -> Iterator[tuple[str, str]]:
    """Names and defaults of a model's fields, or of the keywords of an agent or a decorator."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        for name, field in thing.model_fields.items():
            yield field.alias or name, _field_default(field)
        return
    target = Agent.__init__ if thing is Agent else thing
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield parameter.name, shown(parameter.default)


def _field_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and field.default_factory is not dict:
        return "random"
    return shown(field.get_default(call_default_factory=True, validated_data={}))


def shown(value: Any) -> str:
    """A default as the tables write it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel) and value == type(value)():
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, tuple) and value:
        return ", ".join(value)
    return str(value) if value else "–"


def _options_in(module: str) -> list[type[Options]]:
    """The option models that an adapter's module defines or uses, the vendor's modules included."""
    loaded = importlib.import_module(module)
    found = []
    for value in [loaded, *(v for v in vars(loaded).values() if inspect.ismodule(v))]:
        if value.__name__.startswith("media_bridge.providers."):
            found += [v for v in vars(value).values() if isinstance(v, type) and issubclass(v, Options)]
    return [model for model in dict.fromkeys(found) if model.__name__ not in ("Options", "LlmOptions")]


class _Names(NoOpMeter):
    """A meter that notes which instruments are used, by their names in Prometheus."""

    def __init__(self) -> None:
        super().__init__("names")
        self._asked: dict[str, Any] = {}  #: those that are asked for their value
        self._used: list[str] = []

    @property
    def used(self) -> list[str]:
        return self._used + [name for name, ask in self._asked.items() if any(one.value for one in ask(None))]

    def create_observable_up_down_counter(self, name: str, callbacks: Any = (), *args: Any, **kwargs: Any) -> Any:
        (self._asked[name.replace(".", "_")],) = callbacks
        return super().create_observable_up_down_counter(name, callbacks, *args, **kwargs)

    def create_counter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._noting(super().create_counter(name, *args, **kwargs), "add", f"{name}_total")

    def create_up_down_counter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._noting(super().create_up_down_counter(name, *args, **kwargs), "add", name)

    def create_histogram(self, name: str, unit: str = "", *args: Any, **kwargs: Any) -> Any:
        assert unit == "s"
        return self._noting(super().create_histogram(name, unit, *args, **kwargs), "record", f"{name}_seconds")

    def _noting(self, instrument: Any, method: str, name: str) -> Any:
        setattr(instrument, method, lambda *_: self._used.append(name.replace(".", "_")))
        return instrument


def _recorded_by(method: str) -> list[str]:
    """The metrics that a method of `Metrics` records."""
    if method in ("__init__", "bind"):
        return []
    meter, metrics = _Names(), Metrics()
    metrics.bind(meter)
    function = getattr(metrics, method)
    samples: dict[Any, Any] = {bool: False, int: 1, float: 1.0}
    hints = get_type_hints(function)
    hints.pop("return", None)
    function(**{name: samples.get(kind, "x") for name, kind in hints.items()})
    return meter.used
