"""The Docker files, as far as they can be judged without Docker: they parse, and name only what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from stayline.catalog import PROVIDERS
from stayline.commands.main import app
from stayline.settings import PREFIX, Settings, TwilioCredentials

ROOT = Path(__file__).resolve().parents[2]
OURS = ("worker", "bridge", "doctor")
TEMPORALS_OWN = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    """Instructions, with continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def commands() -> set[str]:
    return {str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands}


def settings() -> dict[str, str]:
    """Names that the environment may hold, to the names of the settings."""
    return {PREFIX + name.upper(): name for name in Settings.model_fields}


def test_the_parts_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(OURS) | {"postgresql", "temporal", "temporal-ui"} <= set(services)
    for name in OURS:
        assert services[name]["build"] == "."
        assert services[name]["command"][0] in commands()


def test_our_environment_names_settings_that_exist_and_values_that_they_take(compose: dict[str, Any]) -> None:
    twilio = {f"TWILIO_{name.upper()}" for name in TwilioCredentials.model_fields}
    keys = {info.key_env for info in PROVIDERS.values()}
    for name in OURS:
        environment = compose["services"][name]["environment"]
        ours = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
        assert set(ours) <= set(settings())
        assert set(environment) - set(ours) <= twilio | keys | TEMPORALS_OWN
        assert keys - {None} <= set(environment)
        with pytest.MonkeyPatch.context() as patch:
            for key, value in ours.items():
                if value is not None:  # else passed on from compose's own environment, where it is set
                    patch.setenv(key, defaults_filled_in(value))
            read = Settings()
        assert read.agents == ("my_agent:agent",)
        assert read.database.startswith("postgresql")


def test_every_dependency_and_volume_is_defined(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other
        for volume in service.get("volumes", []):
            source = defaults_filled_in(volume).partition(":")[0]
            assert source.startswith(".") or source in compose["volumes"], name
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]


def test_images_are_pinned_to_a_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name not in OURS:
            assert re.search(r":\d+(\.\d+)*$", defaults_filled_in(service["image"])), name


def test_only_the_bridge_is_open_to_the_network(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published.pop("bridge") == ["8080:8080"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert compose["services"]["bridge"]["environment"]["STAYLINE_LISTEN_ADDR"] == "0.0.0.0:8080"


def test_a_container_is_stopped_only_after_its_own_grace(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert (
        float(services["bridge"]["stop_grace_period"].rstrip("s")) > Settings.model_fields["drain_timeout"].default
    )
    assert float(services["worker"]["stop_grace_period"].rstrip("s")) > Settings.model_fields["tool_grace"].default


def test_temporals_own_configuration_parses(compose: dict[str, Any]) -> None:
    (config,) = compose["configs"].values()
    for values in yaml.safe_load(config["content"]).values():
        assert all("value" in value for value in values)
    for name in ("temporal-schema", "temporal-namespace"):
        (script,) = compose["services"][name]["command"]
        assert "temporal" in script
        assert not re.search(r"(?<!\$)\$(?!\$)", script), "a shell's own $ is written $$"


def test_the_image_runs_stayline_as_nobody_in_particular(dockerfile: list[str]) -> None:
    last_stage = dockerfile[max(i for i, line in enumerate(dockerfile) if line.startswith("FROM")) :]
    assert "USER stayline" in last_stage
    assert 'ENTRYPOINT ["stayline"]' in last_stage
    for name in re.findall(rf"{PREFIX}\w+", "\n".join(dockerfile)):
        assert name in settings()
    version = next(line for line in dockerfile if line.startswith("ARG PYTHON_VERSION"))
    assert tuple(map(int, version.partition("=")[2].split("."))) >= (3, 11)


def test_what_the_image_copies_exists_and_is_not_ignored(dockerfile: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in dockerfile:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored


def test_every_package_of_the_project_is_copied(dockerfile: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source.rstrip("/") for line in dockerfile if line.startswith("COPY") for source in line.split()[1:-1]}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    assert project["project"]["scripts"].keys() == {"stayline"}


def defaults_filled_in(text: str) -> str:
    """What compose makes of `${NAME:-default}` in an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
