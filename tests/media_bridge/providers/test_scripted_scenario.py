"""A scenario with a fault is refused when the agent is loaded, with the file, the place and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.offline.scenario_file import load_scenario
from media_bridge.providers.offline.scripted import ScriptedLlm
from stayline.errors import ConfigError

DEMO = Path(__file__).resolve().parents[3] / "examples/demo/scenario.yaml"

SOUND = """
start: open
intents:
  order: {words: {order: 2}}
  bye: {words: {bye: 2}}
slots:
  number: {type: digits, length: 5}
  sure: {type: yes_no}
  size: {type: choice, choices: {small: [little], large: [big]}}
tools:
  look_up: {returns: [status]}
always: {bye: end}
states:
  open: {when: {order: ask}}
  ask: {say: "Which number?", ask: number, confirm: "{number}?", then: call}
  call:
    call: look_up
    arguments: {number: "{number}"}
    results:
      - {if: succeeded, goto: tell}
      - {if: failed, goto: sorry}
  tell: {say: "Number {number} is {result.status}.", then: sure}
  sure: {say: "Is it big?", ask: sure, then: {yes: size, no: open}}
  size: {say: "How big?", ask: size, then: {small: open, large: open}}
  sorry: {say: "It failed: {result.error}", then: open}
  end: {say: Bye., end: true}
"""


def load(tmp_path: Path, change: dict[str, Any] | str | None = None) -> None:
    """Load the sound scenario with some keys, given as dotted paths, set or (None) taken out."""
    path = tmp_path / "scenario.yaml"
    if isinstance(change, str):
        path.write_text(change, encoding="utf-8")
    else:
        data = yaml.load(SOUND, yaml.BaseLoader)
        for key, value in (change or {}).items():
            *parents, last = key.split(".")
            part = data
            for name in parents:
                part = part[int(name)] if isinstance(part, list) else part[name]
            if value is None:
                del part[last]
            else:
                part[last] = value
        path.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML too
    load_scenario(path)


def test_the_sound_scenario_is_sound(tmp_path: Path) -> None:
    load(tmp_path)
    load(tmp_path, SOUND)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": "opne"}, r"start: there is no state 'opne'\. Did you mean 'open'\?"),
        ({"states.open.when": {"order": "aks"}}, r"states\.open\.when\.order: there is no state 'aks'.*'ask'"),
        ({"states.open.when": {"oder": "ask"}}, r"states\.open\.when: there is no intent 'oder'.*'order'"),
        ({"always": {"by": "end"}}, r"always: there is no intent 'by'"),
        ({"always": {"bye": "ned"}}, r"always\.bye: there is no state 'ned'"),
        ({"states.ask.ask": "numer"}, r"states\.ask\.ask: there is no slot 'numer'.*'number'"),
        ({"states.call.call": "lookup"}, r"states\.call\.call: there is no tool 'lookup'.*'look_up'"),
        ({"states.call.results.0.goto": "tel"}, r"results\.0\.goto: there is no state 'tel'"),
        ({"give_up": "nobody"}, r"give_up: there is no state 'nobody'"),
        ({"notes": [{"contains": "x", "goto": "y"}]}, r"notes\.0\.goto: there is no state 'y'"),
        ({"states.lost": {"end": True}}, r"states\.lost: nothing leads there"),
        ({"staets": {}}, r"staets: there is no such key\. Did you mean 'states'\?"),
        ({"states.ask.confrim": "x"}, r"states\.ask\.confrim: there is no such key\. Did you mean 'confirm'\?"),
        ({"intents.order.word": {}}, r"intents\.order\.word: there is no such key\. Did you mean 'words'\?"),
        ({"slots.number.type": "number"}, r"slots\.number"),
        ({"intents.order.words": {}}, r"intents\.order\.words"),
        ({"states.end.then": "open"}, r"states\.end: has a `then` that nothing leads to"),
        ({"states.ask.end": True}, r"states\.ask: does one thing"),
        ({"states.end": {"say": "Bye."}}, r"states\.end: does one thing"),
        ({"states.ask.then": None}, r"states\.ask: needs `then`"),
        ({"states.open.keep": True}, r"states\.open: has `keep`, but asks for no slot"),
        ({"states.end.retry": "x"}, r"states\.end: has `retry`, but does not listen"),
        ({"states.open.when": {"order": {}}}, r"states\.open\.when\.order: needs a state"),
        ({"states.open.when": {"order": {"repeat": True, "say": "x"}}}, r"`repeat: true` alone"),
        ({"states.sure.then": {"yes": "size"}}, r"states\.sure\.then: needs exactly the values yes, no"),
        ({"states.size.then": {"small": "open", "huge": "open"}}, r"exactly the values small, large"),
        ({"states.ask.then": {"yes": "call", "no": "call"}}, r"states\.ask\.then: by value only after"),
        ({"states.call.results": [{"if": "succeeded", "goto": "tell"}]}, r"no branch for failed"),
        (
            {"states.call.results.0.where": {"status": "shipped"}},
            r"states\.call\.results: no branch for succeeded without `where`",
        ),
        ({"states.sorry.then": "call", "states.call.results.0.goto": "sorry"}, r"call, sorry lead round"),
        ({"states.tell.say": "{nubmer}"}, r"states\.tell\.say: there is no \{nubmer\}\. Did you mean 'number'"),
        ({"states.tell.say": "{result.day}"}, r"there is no \{result\.day\}"),
        ({"states.open.again": "{number}?"}, r"states\.open\.again: \{number\} may have no value there"),
        ({"states.sorry.say": "{result.status}"}, r"states\.sorry\.say: \{result\.status\} may have no value"),
        ({"states.call.arguments": {"number": "{size}"}}, r"arguments\.number: \{size\} may have no value"),
        ({"retry": "{number}?"}, r"retry: \{number\} may have no value"),
        ("[1, 2", r"is no valid YAML"),
        ("start: open\nstart: open\n", r"key 'start' twice"),
        ("", r"the file:"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, change: dict[str, Any] | str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        load(tmp_path, change)
    assert str(tmp_path / "scenario.yaml") in str(refused.value)


def test_yes_and_no_are_words_and_true_is_true(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SOUND, encoding="utf-8")
    scenario = load_scenario(path)
    assert scenario.states["sure"].then == {"yes": "size", "no": "open"}
    assert scenario.states["end"].end is True


def test_the_tools_that_an_agent_needs() -> None:
    used = load_scenario(DEMO).tools_used
    assert used == {"lookup_order", "reschedule_delivery", "transfer_call", "end_call"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "no scenario to follow.*options="),
        ({"scenario": "/does/not/exist.yaml"}, r"/does/not/exist\.yaml cannot be read.*__file__"),
        ({"senario": "x"}, "no llm option 'senario'"),
    ],
)
def test_the_provider_wants_a_scenario(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScriptedLlm(ProviderConfig("offline", "scripted", options=options))
