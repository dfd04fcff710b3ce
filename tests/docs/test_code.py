"""The documentation's code works: Python blocks run, agents pass the checks, scenarios and scripts load."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from media_bridge.providers.offline.dialog import Decision, decide
from media_bridge.providers.offline.scenario_file import load_scenario
from stayline.agent import Agent, load_agents
from stayline.catalog import PROVIDERS
from stayline.checks import check_agent
from stayline.gateway import Gateway, GatewayConfig
from stayline.lab.script import load_script
from stayline.models import AgentMessage, Message, ToolOutcome, UserMessage
from stayline.registry import PROVIDER_GROUP
from stayline.settings import FILE, PREFIX, Settings, load_settings
from tests.docs.execute import running
from tests.docs.markdown import DOCUMENTS, ROOT, Block, all_blocks, blocks

WITH_PYTHON = [file for file in DOCUMENTS if any(blocks(file, "python"))]
YAML = all_blocks("yaml")
TOML = all_blocks("toml")


@pytest.fixture(autouse=True)
def beside_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that holds the files which the documentation shows, keys in the environment, and no network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("documentation must not connect to anything")

    for block in (*YAML, *TOML):
        if block.file_name:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for info in PROVIDERS.values():
        if info.key_env:
            monkeypatch.setenv(info.key_env, "a-key-for-the-tests")
        if info.base_url_env:
            monkeypatch.delenv(info.base_url_env, raising=False)
    for setting in Settings.model_fields:
        monkeypatch.delenv(PREFIX + setting.upper(), raising=False)
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "0" * 32)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "a-token-for-the-tests")
    return tmp_path


@pytest.mark.parametrize("file", WITH_PYTHON, ids=lambda file: file.name)
def test_python_blocks_run_in_order_and_their_agents_pass_the_checks(file: Path) -> None:
    with running(file) as page:
        agents = {name: value for name, value in page.items() if isinstance(value, Agent)}
        agents |= {name: value.agent for name, value in page.items() if isinstance(value, Gateway)}
        assert agents
        for name, agent in agents.items():
            problems = [p for p in check_agent(agent.named(name).spec()) if p.severity == "error"]
            assert not problems, name
        for config in page.values():
            if isinstance(config, GatewayConfig):
                Gateway(config)  # refuses what would fail on a call


def test_the_example_is_the_readmes_agent() -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    after_docstring = (ROOT / "examples" / "my_agent.py").read_text(encoding="utf-8").split('"""', 2)[2]
    assert _without_empty_lines(after_docstring) == _without_empty_lines(block.text)
    (agent,) = load_agents([f"{ROOT / 'examples' / 'my_agent.py'}:agent"]).values()
    assert not check_agent(agent.spec())
    assert agent.policy is not None


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_blocks_load(block: Block, beside_the_files: Path) -> None:
    path = beside_the_files / block.file_name
    assert block.file_name, "begin the block with a line `# name.yaml`"
    if isinstance(yaml.safe_load(block.text), list):
        assert load_script(path)
    else:
        assert load_scenario(path).states


@pytest.mark.parametrize("block", TOML, ids=str)
def test_toml_blocks_load(block: Block) -> None:
    assert block.file_name, "begin the block with a line `# name.toml`"
    assert tomllib.loads(block.text)


def test_the_entry_point_is_in_the_group_that_is_read() -> None:
    (project,) = (block for block in TOML if block.file_name == "pyproject.toml")
    assert list(tomllib.loads(project.text)["project"]["entry-points"]) == [PROVIDER_GROUP]


def test_the_settings_file_loads() -> None:
    assert [block.file_name for block in TOML].count(FILE) == 1
    settings = load_settings()
    assert settings.public_url == "https://calls.example.com"
    assert settings.agents == ("my_agent:agent",)
    assert settings.log_format == "json"


def test_the_bakery_takes_an_order() -> None:
    scenario = load_scenario(Path("bakery.yaml"))
    messages: list[Message] = []

    def say(text: str) -> Decision:
        messages.append(UserMessage(text=text))
        decision = decide(scenario, messages)
        messages.append(AgentMessage(text=decision.text, tool_calls=decision.tool_calls))
        return decision

    assert say("I would like to order a cake.").text == "A small cake or a large one?"
    assert say("A big one.").text == "For which day?"
    assert say("Next Friday, please.").text == "A large cake for next Friday. Shall I order it?"
    (call,) = say("Yes.").tool_calls
    assert (call.name, call.arguments) == ("order_cake", {"size": "large", "day": "next Friday"})
    messages.append(ToolOutcome(id=call.id, name=call.name, status="succeeded", result={"number": "17"}).message)
    assert decide(scenario, messages).text == "It is ordered. Your number is 17. Anything else?"


def _without_empty_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
