"""The documentation's code works: Python blocks run, agents pass the checks, scenarios and scripts load."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from media_bridge.providers.offline.dialog import Decision, decide
from media_bridge.providers.offline.scenario_file import load_scenario
from stayline.agent import Agent, load_agents
from stayline.catalog import PROVIDERS
from stayline.checks import check_agent
from stayline.lab.script import load_script
from stayline.models import AgentMessage, Message, ToolOutcome, UserMessage
from stayline.settings import FILE, PREFIX, Settings, load_settings
from tests.docs.markdown import DOCUMENTS, ROOT, Block, all_blocks, blocks

WITH_PYTHON = [file for file in DOCUMENTS if any(blocks(file, "python"))]
YAML = all_blocks("yaml")


@pytest.fixture(autouse=True)
def beside_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that holds the files which the documentation shows, keys in the environment, and no network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("documentation must not connect to anything")

    for block in (*YAML, *all_blocks("toml")):
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
    return tmp_path


@pytest.mark.parametrize("file", WITH_PYTHON, ids=lambda file: file.name)
def test_python_blocks_run_in_order_and_their_agents_pass_the_checks(file: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks(file, "python"):
        padded = "\n" * (block.line - 1) + block.text  # tracebacks name the line in the document
        exec(compile(padded, str(file), "exec"), namespace)
    agents = {name: value for name, value in namespace.items() if isinstance(value, Agent)}
    assert agents
    for name, agent in agents.items():
        problems = [p for p in check_agent(agent.named(name).spec()) if p.severity == "error"]
        assert not problems, name


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


def test_the_settings_file_loads() -> None:
    (block,) = all_blocks("toml")
    assert block.file_name == FILE
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
