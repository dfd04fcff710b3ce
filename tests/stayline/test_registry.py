"""Providers and gateways by name: built in, registered by code, offered by installed packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from media_bridge.providers.loading import load_provider
from stayline import (
    Agent,
    ConfigError,
    Gateway,
    GatewayPlugin,
    ProviderPlugin,
    get_gateway,
    register_gateway,
    register_provider,
)
from stayline import offers as offers_module
from stayline.gateway import gateway_names, unregister_gateway
from stayline.models import AgentSpec
from stayline.providers import ProviderConfig
from stayline.registry import find_provider, inject, injected, provider_names, unregister_provider
from tests.stayline.gateway.own import Parrot
from tests.stayline.gateway.test_config import GUIDE

OFFLINE: dict[str, Any] = {"stt": "offline/moonshine", "tts": "offline/hibari"}


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    for name in ("acme", "openai", "anthropic"):
        unregister_provider(name)
    for name in ("acme", "twilio"):
        unregister_gateway(name)


# --- providers -------------------------------------------------------------------------------------------


def test_a_registered_provider_is_named_like_any_other() -> None:
    register_provider("acme", llm=Parrot, key_env="ACME_API_KEY", default_base_url="https://acme.example")
    agent = Agent(llm="acme/grey", **OFFLINE)
    llm = load_provider("llm", "acme/grey", agent.spec(), {"ACME_API_KEY": "k"})
    assert isinstance(llm, Parrot)
    assert llm.model == "grey"
    assert "acme" in provider_names("llm")
    assert "acme" not in provider_names("stt")


def test_an_adapter_is_given_its_key_and_its_origin() -> None:
    seen: list[ProviderConfig] = []

    def make(config: ProviderConfig) -> Parrot:
        seen.append(config)
        return Parrot(config)

    register_provider(
        "acme", llm=make, key_env="ACME_API_KEY", base_url_env="ACME_URL", default_base_url="http://a"
    )
    spec = Agent(llm="acme/grey", options={"llm": {"loud": True}}, **OFFLINE).spec()
    load_provider("llm", "acme/grey", spec, {"ACME_API_KEY": "k", "ACME_URL": "http://b"})
    load_provider("llm", "acme/grey", spec, {"LLM_ACME_API_KEY": "of this role", "ACME_API_KEY": "k"})
    assert [(c.api_key, c.base_url, dict(c.options)) for c in seen] == [
        ("k", "http://b", {"loud": True}),
        ("of this role", "http://a", {"loud": True}),
    ]


def test_the_higher_priority_wins_role_by_role() -> None:
    register_provider("openai", llm=Parrot, priority=1)
    made = find_provider("llm", "openai")
    assert made is not None
    assert made.factories["llm"] is Parrot
    built_in = find_provider("stt", "openai")
    assert built_in is not None
    assert built_in.key_env == "OPENAI_API_KEY"


def test_two_that_are_equally_good_are_refused() -> None:
    register_provider("openai", llm=Parrot)
    with pytest.raises(ConfigError) as caught:
        Agent(llm="openai/gpt-6-luna", **OFFLINE)
    assert f"offered by Stayline and {__name__} with the same priority (0)" in str(caught.value)
    assert Agent(llm="anthropic/claude-haiku-5-5", **OFFLINE), "the others are not concerned"


def test_registering_again_replaces() -> None:
    register_provider("acme", llm=Parrot, key_env="OLD")
    register_provider("acme", llm=Parrot, key_env="NEW")
    made = find_provider("llm", "acme")
    assert made is not None
    assert made.key_env == "NEW"


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("Acme", {"llm": Parrot}, "'Acme' is no name for a provider."),
        ("a/b", {"llm": Parrot}, "is no name"),
        ("injected", {"llm": Parrot}, "is no name"),
        ("", {"llm": Parrot}, "is no name"),
        ("acme", {}, "Provider 'acme' does nothing. Give it one of stt, llm, tts, realtime."),
        ("acme", {"llm": "module"}, "'module' is not module:Class"),
        ("acme", {"llm": 5}, "a int makes no adapter"),
        ("acme", {"stt": Parrot}, "Provider 'acme': Parrot is no stt provider: it has no 'connect'."),
    ],
)
def test_what_is_no_provider(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        register_provider(name, **given)
    assert says in str(caught.value)


# --- objects ---------------------------------------------------------------------------------------------


def test_an_object_has_the_name_of_its_class() -> None:
    class Jay(Parrot):
        pass

    first, second = Jay(), Jay()
    assert inject("llm", first) == inject("llm", first) == "injected/Jay"
    assert inject("llm", second) == "injected/Jay-2", "another object of the same class"
    assert (injected("llm", "Jay"), injected("llm", "Jay-2")) == (first, second)
    assert inject("llm", Jay) == "injected/Jay-3", "the class itself is another object still"


def test_an_object_of_another_process() -> None:
    with pytest.raises(ConfigError) as caught:
        injected("llm", "Unknown")
    assert "given to an Agent of another process" in str(caught.value)


def test_what_is_made_already_takes_no_options() -> None:
    agent = Agent(llm=Parrot(), options={"llm": {"loud": True}}, **OFFLINE)
    ref = agent.spec().llm[0]
    with pytest.raises(ConfigError, match="the option 'loud' comes too late"):
        load_provider("llm", ref, agent.spec(), {})


def test_a_class_is_made_with_a_configuration() -> None:
    class Crow(Parrot):
        pass

    agent = Agent(llm=Crow, options={"llm": {"model": "black"}}, language="de", **OFFLINE)
    llm = load_provider("llm", agent.spec().llm[0], agent.spec(), {})
    assert isinstance(llm, Crow)
    assert llm.model == "black"


# --- gateways --------------------------------------------------------------------------------------------


class OtherGateway:
    def __init__(self, *, room: str) -> None:
        self.name = "acme"
        self.room = room

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def test_a_gateway_by_name_with_its_options() -> None:
    gateway = get_gateway("twilio", **GUIDE, greeting="Hello!")
    assert isinstance(gateway, Gateway)
    assert (gateway.name, gateway.agent.spec().greeting) == ("twilio", "Hello!")
    assert get_gateway("twilio", **GUIDE) is not gateway
    lab = get_gateway("lab", **{**GUIDE, "listen_addr": "127.0.0.1:8080"})
    assert lab.name == "lab"


def test_options_that_are_none() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'greeting'"):
        get_gateway("twilio", **GUIDE, greting="Hello!")
    with pytest.raises(ConfigError, match=r"There is no gateway 'twillio'. Did you mean 'twilio'\?"):
        get_gateway("twillio")


def test_a_gateway_of_ones_own() -> None:
    register_gateway("acme", OtherGateway)
    gateway = get_gateway("acme", room="lobby")
    assert isinstance(gateway, OtherGateway)
    assert gateway.room == "lobby"
    assert gateway_names() == ["acme", "lab", "twilio"]
    register_gateway("acme", OtherGateway)  # its module was imported again
    assert get_gateway("acme", room="x").name == "acme"


def test_gateways_have_priorities_too() -> None:
    register_gateway("twilio", OtherGateway)
    with pytest.raises(ConfigError, match="with the same priority"):
        get_gateway("twilio", **GUIDE)
    unregister_gateway("twilio")
    register_gateway("twilio", OtherGateway, priority=1)
    replaced: Any = get_gateway
    assert isinstance(replaced("twilio", room="x"), OtherGateway)


@pytest.mark.parametrize(("name", "factory"), [("A b", OtherGateway), ("acme", 5)])
def test_what_is_no_gateway(name: str, factory: Any) -> None:
    with pytest.raises(ConfigError):
        register_gateway(name, factory)


# --- packages --------------------------------------------------------------------------------------------

MODULE = """
from stayline.gateway import GatewayPlugin
from stayline.registry import ProviderPlugin
from tests.stayline.gateway.own import Parrot
from tests.stayline.test_registry import OtherGateway

provider = ProviderPlugin(llm=Parrot, key_env="ACME_API_KEY", priority=1)
gateway = GatewayPlugin(factory=OtherGateway)
nothing = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that offers things by entry points."""
    (tmp_path / "acme_stayline_test.py").write_text(MODULE)
    info = tmp_path / "acme_stayline-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-stayline\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[stayline.providers]\n"
        "acme = acme_stayline_test:provider\n"
        "broken = acme_stayline_test:absent\n"
        "nothing = acme_stayline_test:nothing\n"
        "[stayline.gateways]\n"
        "acme = acme_stayline_test:gateway\n"
        "broken = acme_stayline_test:absent\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    offers_module.forget_installed()
    yield
    offers_module.forget_installed()


@pytest.mark.usefixtures("package")
def test_what_an_installed_package_offers() -> None:
    assert Agent(llm="acme/grey", **OFFLINE).spec().llm == ("acme/grey",)
    assert get_gateway("acme", room="hall").name == "acme"
    names = provider_names("llm")
    assert "acme" in names
    assert not {"broken", "nothing"} & set(names), "what cannot be loaded offers nothing"
    assert gateway_names() == ["acme", "lab", "twilio"]


@pytest.mark.usefixtures("package")
def test_a_package_that_cannot_be_loaded_says_whose_fault_it_is() -> None:
    with pytest.raises(ConfigError, match="Provider 'broken' of package acme-stayline cannot be loaded"):
        Agent(llm="broken/x", **OFFLINE)
    with pytest.raises(ConfigError, match=r"is a int. It must be a stayline.ProviderPlugin"):
        Agent(llm="nothing/x", **OFFLINE)
    with pytest.raises(ConfigError, match="Gateway 'broken' of package acme-stayline cannot be loaded"):
        get_gateway("broken")


def test_plugins_as_they_are_written() -> None:
    assert ProviderPlugin(llm=Parrot).info("acme").roles == {"llm": f"{Parrot.__module__}:Parrot"}
    assert GatewayPlugin(factory=OtherGateway).priority == 0
    assert AgentSpec(name="a").llm == ()


# --- imports ---------------------------------------------------------------------------------------------


def test_importing_stayline_loads_no_part_that_runs() -> None:
    check = """
import sys
import stayline
heavy = {"aiohttp", "temporalio", "sqlalchemy", "openai", "anthropic", "numpy", "structlog", "opentelemetry"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not [name for name in sys.modules if name.startswith(("media_bridge", "stayline.gateway"))]
assert "Gateway" in dir(stayline)
import stayline.providers
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", check], check=True)
