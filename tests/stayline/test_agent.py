"""What a user writes: everything wrong with an agent is said at once, with what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stayline import Agent, CallInfo, ConfigError, RejectCall, TurnTaking, tool
from stayline.agent import agent_for, load_agents

ENGINES: dict[str, Any] = {"stt": "offline/moonshine", "llm": "offline/scripted", "tts": "offline/hibari"}
INFO = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=datetime(2026, 11, 22, tzinfo=UTC))


@tool
async def get_weather(location: str) -> str:
    """Get the weather."""
    return f"rain in {location}"


def made(**settings: Any) -> Agent:
    return Agent(**{**ENGINES, **settings})


# --- settings --------------------------------------------------------------------------------------------


def test_an_agent_as_data() -> None:
    agent = made(
        instructions="Be brief.",
        greeting="Hello!",
        llm=["anthropic/claude-haiku-5-5", "openai/gpt-6-luna"],
        tools=[get_weather],
        interruption="after_sentence",
        max_duration=timedelta(minutes=15),
        silence_timeout=timedelta(seconds=40),
        ring_timeout=20,
        numbers=["+15551234567"],
    )
    spec = agent.spec()
    assert spec.stt == ("offline/moonshine",)
    assert spec.llm == ("anthropic/claude-haiku-5-5", "openai/gpt-6-luna")
    assert (spec.max_duration, spec.silence_timeout, spec.ring_timeout) == (900.0, 40.0, 20.0)
    assert spec.turn_taking.interruption == "after_sentence"
    assert spec.tool("get_weather") is get_weather.spec
    assert spec.tool("something_else") is None
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_turn_taking_in_every_detail() -> None:
    taking = TurnTaking(interruption="disabled", min_speech_ms=500)
    assert made(turn_taking=taking).spec().turn_taking == taking


def undecorated() -> None: ...


@tool(name="get_weather")
def another_weather() -> None: ...


@pytest.mark.parametrize(
    ("settings", "message", "fix"),
    [
        ({"greetings": "Hi"}, "Agent has no setting 'greetings'.", "Did you mean 'greeting'?"),
        ({"silence_timout": 5}, "Agent has no setting 'silence_timout'.", "Did you mean 'silence_timeout'?"),
        ({"stt": ()}, "The agent has no stt.", 'Give one, e.g. stt="deepgram/nova-3".'),
        ({"llm": ""}, "llm='': there is no provider ''.", "Known: "),
        ({"tts": []}, "The agent has no tts.", "elevenlabs/"),
        (
            {"stt": "deepgam/nova-3"},
            "stt='deepgam/nova-3': there is no provider 'deepgam'.",
            "Did you mean 'deepgram'?",
        ),
        ({"llm": ["offline/scripted", "antropic/x"]}, "no provider 'antropic'", "Did you mean 'anthropic'?"),
        ({"tts": "azure/x"}, "no provider 'azure'", "Known: deepgram, elevenlabs, offline, openai."),
        ({"tts": "google/x"}, "google does no tts.", "These do: deepgram, elevenlabs, offline, openai."),
        ({"stt": "deepgram"}, "stt='deepgram' names no model.", 'Write "provider/model"'),
        ({"stt": "deepgram/"}, "stt='deepgram/' names no model.", "deepgram/nova-3"),
        (
            {"tools": [get_weather, another_weather]},
            "Two tools are called 'get_weather'.",
            "Give one another name.",
        ),
        ({"tools": [undecorated]}, "'undecorated' is not a tool.", "Decorate the function with @tool."),
        ({"tools": ["get_weather"]}, "'get_weather' is not a tool.", "@tool"),
        ({"interruption": "imediate"}, "interruption='imediate' is not a mode.", "Did you mean 'immediate'?"),
        ({"interruption": "never"}, "interruption='never' is not a mode.", "after_sentence, disabled, immediate"),
        ({"mode": "realtime"}, "mode='realtime' has no stt.", 'use mode="text"'),
        ({"mode": "voice"}, "mode='voice' is not a pipeline.", 'Use mode="text"'),
        ({"max_duration": 0}, "max_duration must be positive.", "above 0"),
        ({"max_duration": timedelta(seconds=-1)}, "max_duration must be positive.", "above 0"),
        ({"max_duration": "long"}, "Agent setting 'max_duration'", ""),
        ({"max_duration": None}, "Agent setting 'max_duration'", ""),
        ({"silence_timeout": "soon"}, "Agent setting 'silence_timeout'", ""),
        ({"transfers": {"support": 5}}, "Agent setting 'transfers.support'", ""),
        ({"options": {"stt": "fast"}}, "Agent setting 'options.stt'", ""),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**settings)
    assert message in caught.value.message
    assert fix in caught.value.fix


# --- the policy ------------------------------------------------------------------------------------------


async def test_a_policy_accepts_or_rejects() -> None:
    agent = made()
    assert await agent.screen(INFO) is None, "without a policy every call is accepted"

    @agent.on_call
    async def screen(call: CallInfo) -> None:
        if call.from_number == "+1":
            raise RejectCall("Not you.")

    rejection = await agent.screen(INFO)
    assert rejection is not None
    assert rejection.say == "Not you."
    assert await agent.screen(INFO.model_copy(update={"from_number": "+3"})) is None

    agent.on_call(lambda call: None)
    assert await agent.screen(INFO) is None, "a plain function will do"


async def test_a_policy_that_breaks_says_so() -> None:
    agent = made()

    @agent.on_call
    def screen(call: CallInfo) -> None:
        raise KeyError(call.call_id)

    with pytest.raises(KeyError):
        await agent.screen(INFO)


@pytest.mark.parametrize("policy", [lambda: None, lambda call, more: None])
def test_a_policy_takes_the_call_and_nothing_else(policy: Any) -> None:
    with pytest.raises(ConfigError, match="takes one argument, the CallInfo"):
        made().on_call(policy)


# --- loading ---------------------------------------------------------------------------------------------

SOURCE = """
from stayline import Agent
engines = dict(stt="offline/moonshine", llm="offline/scripted", tts="offline/hibari")
desk = Agent(**engines)
sales = Agent(numbers=["+15550000001", "+15550000002"], **engines)
rival = Agent(numbers=["+15550000002"], **engines)
twin = Agent(name="desk", numbers=["+15550000003"], **engines)
other = Agent(**engines)
not_an_agent = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with agents; modules that a test imports from it are forgotten."""
    (tmp_path / "front_office.py").write_text(SOURCE)
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "need.py").write_text("import nee\n")
    (tmp_path / "broken.py").write_text("agent = = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("place", ["front_office", "front_office.py", "./front_office.py"])
def test_agents_come_from_modules_and_files(folder: Path, place: str) -> None:
    agents = load_agents([f"{place}:desk", f"{place}:sales"])
    assert {name: agent.name for name, agent in agents.items()} == {"desk": "desk", "sales": "sales"}
    assert agents["desk"].spec().name == "desk", "named after its variable"


def test_agents_are_chosen_by_the_number_called(folder: Path) -> None:
    agents = load_agents(["front_office:desk", "front_office:sales"])
    chosen = {number: agent_for(agents, number) for number in ("+15550000001", "+15550000002", "+15559999999")}
    assert [agent.name for agent in chosen.values() if agent] == ["sales", "sales", "desk"]
    assert agent_for({"sales": agents["sales"]}, "+15559999999") is None


@pytest.mark.parametrize(
    ("references", "message", "fix"),
    [
        ([], "No agent was given.", "--agent my_agent:agent"),
        (["front_office"], "--agent 'front_office' is not module:variable.", "my_agent:agent"),
        (["front_office:"], "is not module:variable.", "my_agent:agent"),
        ([":desk"], "is not module:variable.", "my_agent:agent"),
        (["front_office:reception"], "'reception' is not an Agent there.", ""),
        (["front_office:not_an_agent"], "'not_an_agent' is not an Agent there.", ""),
        (["back_office:desk"], "there is no module 'back_office'.", "a path to the file"),
        (["back.office:desk"], "there is no module 'back.office'.", "from the folder that holds the module"),
        ([".front_office:desk"], "relative to nothing", "whole name"),
        (["back_office.py:desk"], "there is no file back_office.py.", ""),
        (["front_office:desk", "front_office:twin"], "Two agents are called 'desk'.", "Give one a name=."),
        (
            ["front_office:desk", "front_office:other"],
            "Agents 'desk' and 'other' both answer calls to any number.",
            "numbers=[...]",
        ),
        (
            ["front_office:sales", "front_office:rival"],
            "Agents 'sales' and 'rival' both answer +15550000002.",
            "numbers=[...]",
        ),
    ],
)
def test_references_that_lead_nowhere(folder: Path, references: list[str], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_agents(references)
    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("needs_more:agent", "a_package_that_nobody_has"),
        ("need:agent", "No module named 'nee'"),
        ("broken:agent", "invalid syntax"),
        ("broken.py:agent", "invalid syntax"),
    ],
)
def test_what_is_wrong_inside_the_users_module_is_shown_as_it_is(folder: Path, reference: str, error: str) -> None:
    """A traceback that points into the user's file helps more than any sentence of ours."""
    with pytest.raises((ModuleNotFoundError, SyntaxError), match=error):
        load_agents([reference])
