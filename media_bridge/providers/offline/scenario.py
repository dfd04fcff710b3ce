"""Scenarios: what the scripted model may say and do, as a checked file. See examples/demo/scenario.yaml.

A scenario is a graph of states. A state says something, then does exactly one thing: it waits for a slot's value
(`ask`) or for an intent (`when`), calls a tool (`call`), transfers (`transfer`), ends the call (`end`), or goes on
at once (`then`). What may be heard in every state stands under `always`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Intent(_Part):
    """Something that a caller may want. Heard when the weights of its words that were said reach `needs`."""

    words: dict[str, float] = Field(min_length=1)  #: stem or phrase -> weight; "deliver" also fits "delivery"
    needs: float = Field(2.0, gt=0)
    means: str = ""
    """"you want to change the delivery": asked back where the recogniser is not sure; empty: taken as heard."""


class Digits(_Part):
    """A string of digits, said as digits or words, or pressed as keys."""

    type: Literal["digits"]
    length: int | tuple[int, int] = Field((1, 0))  #: exact, or least and most (0: any)

    @property
    def bounds(self) -> tuple[int, int]:
        return self.length if isinstance(self.length, tuple) else (self.length, self.length)


class Date(_Part):
    """A day as it is said: "today", "next Friday", "May 3"."""

    type: Literal["date"]


class YesNo(_Part):
    type: Literal["yes_no"]


class Name(_Part):
    """A person's name."""

    type: Literal["name"]


class Choice(_Part):
    """One of several values, each with other words for it."""

    type: Literal["choice"]
    choices: dict[str, tuple[str, ...]] = Field(min_length=2)


Slot = Annotated[Digits | Date | YesNo | Name | Choice, Field(discriminator="type")]


class ToolUse(_Part):
    """What the scenario knows of a tool: the fields of its result that texts and branches use."""

    returns: tuple[str, ...] = ()


class Reaction(_Part):
    """What an intent or a note leads to. Short form: the name of a state."""

    goto: str | None = None
    say: str | None = None  #: alone: an answer after which the state goes on, asking its question again
    repeat: bool = False  #: say again what was said last

    @model_validator(mode="after")
    def _does_one_thing(self) -> Reaction:
        if self.repeat == bool(self.goto or self.say):
            raise ValueError("needs a state to go to, something to say, or `repeat: true` alone")
        return self


def _reaction(value: object) -> object:
    return {"goto": value} if isinstance(value, str) else value


ReactionOrState = Annotated[Reaction, BeforeValidator(_reaction)]


class NoteRule(Reaction):
    """What follows a note (a key pressed, a transfer that failed) that contains the words."""

    contains: str = Field(min_length=1)


class Branch(_Part):
    """Where to go with a tool's result; the first that fits counts."""

    outcome: Literal["succeeded", "failed", "unknown", "any"] = Field(alias="if")
    where: dict[str, Any] = {}  #: fields of the result and their values, compared as text
    goto: str


class State(_Part):
    say: str = ""
    ask: str | None = None  #: slot
    keep: bool = False  #: do not ask for a value that is known already
    confirm: str = ""  #: asked back where the recogniser was not sure, e.g. "Did you say {number}?"
    confirm_always: bool = False
    when: dict[str, ReactionOrState] = {}  #: intent -> reaction, besides those under `always`
    again: str | None = None  #: the question when it is asked again; default: `say`
    retry: str | None = None  #: said when nothing was understood; default: the scenario's and the question
    retries: int | None = Field(None, ge=0)
    give_up: str | None = None  #: state after too many of them
    call: str | None = None  #: tool
    arguments: dict[str, Any] = {}
    results: tuple[Branch, ...] = ()
    transfer: str | None = None  #: a name among the agent's transfers; `then`: when nobody could be reached
    end: bool = False  #: `say` is the goodbye; without it the agent's own is said
    then: str | dict[str, str] | None = None  #: next state; after `ask` of yes/no or a choice also by value

    @property
    def listens(self) -> bool:
        """The state waits for the caller."""
        return self.ask is not None or bool(self.when)

    @property
    def question(self) -> str:
        return self.say if self.again is None else self.again

    @model_validator(mode="after")
    def _does_one_thing(self) -> State:
        kinds = [self.listens, self.call is not None, self.transfer is not None, self.end]
        goes_on = isinstance(self.then, str) and not any(kinds)
        if sum(kinds) + goes_on != 1:
            raise ValueError("does one thing: ask, when, call, transfer, end, or then alone")
        if (self.ask is not None or self.transfer is not None) and self.then is None:
            raise ValueError("needs `then`: the state that follows")
        if self.then is not None and (self.end or self.call is not None or (self.when and self.ask is None)):
            raise ValueError("has a `then` that nothing leads to")
        if isinstance(self.then, dict) and self.ask is None:
            raise ValueError("has a `then` by value, but asks for no slot")
        for field in ("keep", "confirm", "confirm_always"):
            if getattr(self, field) and self.ask is None:
                raise ValueError(f"has `{field}`, but asks for no slot")
        for field in ("again", "retry", "retries", "give_up"):
            if getattr(self, field) is not None and not self.listens:
                raise ValueError(f"has `{field}`, but does not listen")
        if self.confirm_always and not self.confirm:
            raise ValueError("has `confirm_always`, but no text in `confirm`")
        if bool(self.results) != (self.call is not None):
            raise ValueError("needs both `call` and `results`, or neither")
        if self.arguments and self.call is None:
            raise ValueError("has `arguments`, but calls no tool")
        return self


class Scenario(_Part):
    start: str  #: the state in which the caller is heard first; its `say` is said only where no greeting was
    intents: dict[str, Intent] = {}
    slots: dict[str, Slot] = {}
    tools: dict[str, ToolUse] = {}
    always: dict[str, ReactionOrState] = {}  #: intent -> reaction in every state
    notes: tuple[NoteRule, ...] = ()
    states: dict[str, State] = Field(min_length=1)
    confirm_below: float = Field(0.75, ge=0, le=1)  #: recogniser's confidence that is asked back
    reprompt_below: float = Field(0.5, ge=0, le=1)  #: that is taken as not understood
    retry: str = "Sorry, I didn't get that."
    retries: int = Field(2, ge=0)
    give_up: str | None = None
    hold: str = "One moment, I'm still on it."  #: answer while a tool runs

    @property
    def tools_used(self) -> frozenset[str]:
        """The tools that an agent must have for this scenario, built-in ones included."""
        states = self.states.values()
        used = {s.call for s in states if s.call}
        used |= {"transfer_call" for s in states if s.transfer} | {"end_call" for s in states if s.end}
        return frozenset(used)
