"""What a schema cannot say of a scenario: names exist, every state is reached, no text has a gap. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from media_bridge.providers.offline.scenario import Choice, Reaction, Scenario, State, YesNo
from stayline.suggest import closest

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
"""`{number}` is a slot's value, `{result.day}` a field of the last tool's result, `{result.error}` why it
failed."""
RESULT: Final = "result."
ERROR: Final = "result.error"

Known = frozenset[str]
"""Placeholders that have a value."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """A way from one state to another, and what becomes known on it."""

    key: str
    target: str
    learns: Known = frozenset()
    new_result: bool = False

    def after(self, known: Known) -> Known:
        kept = {k for k in known if not (self.new_result and k.startswith(RESULT))}
        return frozenset(kept | self.learns)


def faults_of(scenario: Scenario) -> list[str]:
    """Everything wrong with a scenario, a sentence or two each; later checks only where earlier ones passed."""
    faults = list(_unknown_names(scenario))
    if faults:
        return faults
    known = _known_on_entry(scenario)
    faults += [f"states.{name}: nothing leads there." for name in scenario.states if name not in known]
    return [*faults, *_gaps_in_branches(scenario), *_silent_circles(scenario), *_gaps_in_texts(scenario, known)]


# --- names ---


def _unknown_names(scenario: Scenario) -> Iterator[str]:
    def unless(kind: str, name: str | None, known: Iterable[str], key: str) -> Iterator[str]:
        names = list(known)
        if name is not None and name not in names:
            yield f"{key}: there is no {kind} {name!r}. " + (closest(name, names) if names else "None is defined.")

    yield from unless("state", scenario.start, scenario.states, "start")
    yield from unless("state", scenario.give_up, scenario.states, "give_up")
    for key, intents in [
        ("always", scenario.always),
        *((f"states.{n}.when", s.when) for n, s in scenario.states.items()),
    ]:
        for intent in intents:
            yield from unless("intent", intent, scenario.intents, key)
    for index, rule in enumerate(scenario.notes):
        yield from unless("state", rule.goto, scenario.states, f"notes.{index}.goto")
    for intent, reaction in scenario.always.items():
        yield from unless("state", reaction.goto, scenario.states, f"always.{intent}")
    for name, state in scenario.states.items():
        yield from unless("slot", state.ask, scenario.slots, f"states.{name}.ask")
        yield from unless("tool", state.call, scenario.tools, f"states.{name}.call")
        for step in _steps(scenario, name, check_names=False):
            yield from unless("state", step.target, scenario.states, step.key)


# --- ways through the graph ---


def _steps(scenario: Scenario, name: str, check_names: bool = True) -> Iterator[_Step]:
    """All ways out of a state, those that are open in every state included."""
    state = scenario.states[name]
    key = f"states.{name}"
    learns = frozenset({state.ask}) if state.ask else frozenset()
    targets = state.then if isinstance(state.then, dict) else {"": state.then} if state.then else {}
    for value, target in targets.items():
        yield _Step(f"{key}.then" + (f".{value}" if value else ""), target, learns)
    for index, branch in enumerate(state.results):
        returned = scenario.tools[state.call].returns if state.call in scenario.tools else ()
        failed = frozenset({ERROR})
        fields = frozenset(RESULT + field for field in returned)
        learnt = {"succeeded": fields, "any": fields & failed}.get(branch.outcome, failed)
        yield _Step(f"{key}.results.{index}.goto", branch.goto, learnt, new_result=True)
    for intent, reaction in state.when.items():
        if reaction.goto:
            yield _Step(f"{key}.when.{intent}", reaction.goto)
    give_up = (state.give_up or scenario.give_up) if state.listens else None
    if give_up:
        yield _Step(f"{key}.give_up", give_up)
    if check_names and state.listens:
        for reaction in (*scenario.always.values(), *scenario.notes):
            if reaction.goto:
                yield _Step("always", reaction.goto)


def _known_on_entry(scenario: Scenario) -> dict[str, Known]:
    """What is known for sure when a state is entered, whatever way the call took. Unreached states are absent."""
    known: dict[str, Known] = {scenario.start: frozenset()}
    waiting = [scenario.start]
    while waiting:
        name = waiting.pop()
        for step in _steps(scenario, name):
            learnt = step.after(known[name])
            before = known.get(step.target)
            now = learnt if before is None else before & learnt
            if now != before:
                known[step.target] = now
                waiting.append(step.target)
    return known


def _silent_circles(scenario: Scenario) -> Iterator[str]:
    """Ways round on which the caller is never listened to."""
    deaf = {n: [s.target for s in _steps(scenario, n)] for n, s in scenario.states.items() if not s.listens}
    reached = {name: {t for t in targets if t in deaf} for name, targets in deaf.items()}
    for _ in deaf:
        reached = {n: ts.union(*(reached[t] for t in ts)) for n, ts in reached.items()}
    circle = sorted(name for name, targets in reached.items() if name in targets)
    if circle:
        yield f"states {', '.join(circle)} lead round in a circle without listening to the caller."


def _gaps_in_branches(scenario: Scenario) -> Iterator[str]:
    for name, state in scenario.states.items():
        if state.results:
            sure = {b.outcome for b in state.results if not b.where}
            missing = [o for o in ("succeeded", "failed") if not sure & {o, "any"}]
            if missing:
                yield f"states.{name}.results: no branch for {' and '.join(missing)} without `where`."
        slot = scenario.slots[state.ask] if state.ask else None
        if isinstance(state.then, dict):
            values = (
                ["yes", "no"] if isinstance(slot, YesNo) else list(slot.choices) if isinstance(slot, Choice) else []
            )
            if not values:
                yield f"states.{name}.then: by value only after a yes_no or choice slot; give one state."
            elif set(values) != set(state.then):
                yield f"states.{name}.then: needs exactly the values {', '.join(values)}."


# --- texts ---


def _gaps_in_texts(scenario: Scenario, known: Mapping[str, Known]) -> Iterator[str]:
    listening = [known[n] for n, s in scenario.states.items() if s.listens and n in known]
    everywhere = frozenset.intersection(*listening) if listening else frozenset()
    for key, text in _reaction_texts("always", scenario.always):
        yield from _gaps(scenario, key, text, everywhere)
    for index, rule in enumerate(scenario.notes):
        yield from _gaps(scenario, f"notes.{index}.say", rule.say, everywhere)
    for key, text in (("retry", scenario.retry), ("hold", scenario.hold)):
        yield from _gaps(scenario, key, text, frozenset())
    for name, state in scenario.states.items():
        if name in known:
            for key, text, own in _texts(name, state, known[name]):
                yield from _gaps(scenario, key, text, own)


def _texts(name: str, state: State, known: Known) -> Iterator[tuple[str, Any, Known]]:
    key = f"states.{name}"
    for field in ("say", "again", "retry"):
        yield f"{key}.{field}", getattr(state, field), known
    yield f"{key}.confirm", state.confirm, known | ({state.ask} if state.ask else set())
    for argument, value in state.arguments.items():
        yield f"{key}.arguments.{argument}", value, known
    for reaction_key, text in _reaction_texts(f"{key}.when", state.when):
        yield reaction_key, text, known


def _reaction_texts(key: str, reactions: Mapping[str, Reaction]) -> Iterator[tuple[str, str | None]]:
    return ((f"{key}.{intent}.say", reaction.say) for intent, reaction in reactions.items())


def _gaps(scenario: Scenario, key: str, text: Any, known: Known) -> Iterator[str]:
    if not isinstance(text, str):
        return
    returned = {RESULT + field for tool in scenario.tools.values() for field in tool.returns}
    every = {*scenario.slots, *returned, ERROR}
    for placeholder in PLACEHOLDER.findall(text):
        if placeholder not in every:
            yield f"{key}: there is no {{{placeholder}}}. {closest(placeholder, sorted(every))}"
        elif placeholder not in known:
            yield f"{key}: {{{placeholder}}} may have no value there; ask or call for it on every way to it."
