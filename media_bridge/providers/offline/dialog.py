"""What a scenario answers to a conversation: a pure function of the two.

`decide` goes through the conversation from its beginning every time and keeps nothing between times. Asked
twice it answers the same, on any bridge, so a call that was resumed goes on where it was.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final

from media_bridge.providers.offline import hearing
from media_bridge.providers.offline.facts import Facts
from media_bridge.providers.offline.scenario import Choice, Date, Digits, Name, Reaction, Scenario, State, YesNo
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage

_PRESSED: Final = re.compile(r"\bpressed ([0-9*#]+)")
_CERTAIN: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The scripted model's reply, and the state that the conversation is then in."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    state: str


def decide(scenario: Scenario, messages: Sequence[Message]) -> Decision:
    """The reply that is due after these messages.

    Where the last reply was already heard, the open question is asked again; where a tool was asked for and has
    no result yet, the caller is asked for patience.
    """
    dialog = _Dialog(scenario)
    for message in messages:
        dialog.take(message)
    return dialog.decision()


@dataclasses.dataclass(slots=True)
class _Reply:
    """A reply in the making. News is kept for the next reply if nobody heard it; questions are not."""

    news: list[str] = dataclasses.field(default_factory=list)
    question: str = ""
    call: ToolCall | None = None

    @property
    def text(self) -> str:
        return " ".join(part for part in (*self.news, self.question) if part)


@dataclasses.dataclass(frozen=True, slots=True)
class _Confirming:
    """An open "is that right?": what was asked, and where a yes leads."""

    question: str
    goto: Reaction | None = None  #: None: the slot that the state asks for


@dataclasses.dataclass(slots=True)
class _Asked:
    """A tool that was asked for and has not answered."""

    call: ToolCall
    issued: bool = False  #: seen in the conversation; else the reply was cut before it got there


class _Dialog:
    """The conversation so far: where in the scenario it is, and what is known."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._state = scenario.start
        self._facts = Facts(scenario)
        self._misses = 0
        self._confirming: _Confirming | None = None
        self._some_digits = ""
        self._asked: _Asked | None = None
        self._calls = 0
        self._listening = scenario.start  # the last state that listened
        self._last_text = ""
        self._heard = False  # the reply was said to the caller, or began to be
        self._cut = False  # its end was not heard
        self._confidence = _CERTAIN  # of what the caller said last
        self._reply = _Reply()
        self._enter(scenario.start)

    def decision(self) -> Decision:
        if self._asked is not None and self._asked.issued:
            return Decision(self._scenario.hold if self._here.call is not None else "", (), self._state)
        calls = (self._reply.call,) if self._reply.call is not None else ()
        if not self._heard or self._cut:
            return Decision(self._reply.text, calls, self._state)
        return Decision("" if calls else self._question(), calls, self._state)

    def take(self, message: Message) -> None:
        match message:
            case AgentMessage():
                self._agent_spoke(message)
            case UserMessage(text=text, confidence=confidence):
                self._confidence = _CERTAIN if confidence is None else confidence
                self._caller_spoke(text)
            case ToolMessage():
                self._tool_answered(message)
            case NoteMessage(text=text):
                self._noted(text)

    # --- what happens in a conversation ---

    def _agent_spoke(self, message: AgentMessage) -> None:
        """Only what is the reply, or the beginning of it, answers; people and limits make the agent speak too."""
        heard = message.text.split()
        if heard:
            self._last_text = message.text
        if heard and self._reply.text.split()[: len(heard)] == heard:
            self._heard, self._cut, self._last_text = True, message.interrupted, self._reply.text
        for call in message.tool_calls:
            if self._asked is not None and self._is_asked(call.id, call.name):
                self._asked.issued = True
                self._reply.call = None

    def _caller_spoke(self, text: str) -> None:
        again = None
        if self._asked is not None:
            if self._asked.issued:
                return  # the tool's result will be the answer
            if self._scenario.states[self._state].end:
                self._next_reply()
                self._enter(self._state)
                return
            again, self._state = self._state, self._listening  # the call was never made: hear, then make it
            self._asked = None
        elif not self._here.listens:
            return  # after the end, or while a transfer rings
        before, known, misses = self._reply, self._heard, self._misses
        self._next_reply()
        if self._understood(text):
            return
        if again is not None:
            self._enter(again)
        elif not known and before.text:
            self._reply, self._heard, self._misses = before, known, misses  # what is due is still due
        else:
            self._miss()

    def _tool_answered(self, message: ToolMessage) -> None:
        if self._asked is None or not self._is_asked(message.tool_call_id, message.name):
            return
        self._asked = None
        self._next_reply()
        if self._here.transfer is not None:
            if message.is_error:
                self._transfer_failed()
            return
        outcome = "succeeded"
        if message.is_error:
            outcome = "unknown" if message.content.startswith("Unknown:") else "failed"
        self._facts.tool_answered(message)
        if (target := self._branch(outcome)) is not None:
            self._enter(target)

    def _branch(self, outcome: str) -> str | None:
        for wanted in (outcome, "failed") if outcome == "unknown" else (outcome,):
            for branch in self._here.results:
                if branch.outcome in (wanted, "any") and self._facts.fit(branch.where):
                    return branch.goto
        return None

    def _noted(self, text: str) -> None:
        pressed = _PRESSED.search(text)
        if pressed and self._here.ask is not None and self._asked is None:
            before = self._reply, self._heard
            self._next_reply()
            self._confidence = _CERTAIN
            if self._slot_heard(pressed.group(1)):
                return
            self._reply, self._heard = before
        rule = next((r for r in self._scenario.notes if r.contains.lower() in text.lower()), None)
        failed_transfer = self._here.transfer is not None and "transfer" in text.lower()
        if rule is None and not failed_transfer:
            return
        self._asked = None
        self._next_reply()
        if rule is None:
            self._transfer_failed()
            return
        if not self._here.listens:
            self._state = self._listening
        self._react(rule, [])

    def _transfer_failed(self) -> None:
        assert isinstance(self._here.then, str)
        self._enter(self._here.then)

    # --- understanding ---

    def _understood(self, text: str) -> bool:
        """React to what the caller said; false when it fits nothing that may be said here."""
        if self._confidence < self._scenario.reprompt_below:
            return False
        words = hearing.words(text)
        reaction = self._intent(words)
        slot = self._scenario.slots[self._here.ask] if self._here.ask is not None else None
        strict = isinstance(slot, Digits | Choice)  # hardly said by chance, so it counts before any intent
        if strict and self._slot_heard(text):
            return True
        if self._confirming is not None and reaction is None:
            answer = hearing.yes_no(words)
            if answer is not None:
                self._confirmed(answer, words)
                return True
        if reaction is not None:
            means = self._scenario.intents[reaction[0]].means
            if means and self._unsure and not reaction[1].repeat:
                self._confirming = _Confirming(f"Do I understand that {means}?", reaction[1])
                self._reply.question = self._confirming.question
            else:
                self._react(reaction[1], words)
            return True
        return self._slot_heard(text)

    def _intent(self, words: Sequence[str]) -> tuple[str, Reaction] | None:
        """The intent that was heard best among those that may be said here."""
        own = self._here.when if self._confirming is None else {}  # a "no" answers what is asked back
        best: tuple[float, str, Reaction] | None = None
        for name, reaction in {**self._scenario.always, **own}.items():
            intent = self._scenario.intents[name]
            score = hearing.score(intent.words, words) / intent.needs
            if score >= 1 and (best is None or score > best[0]):
                best = score, name, reaction
        return best and best[1:]

    def _slot_heard(self, text: str) -> bool:
        name = self._here.ask
        if name is None:
            return False
        words = hearing.words(text)
        value = self._value(name, text, words)
        if value is None:
            return False
        self._facts.slots[name] = value
        self._some_digits = ""
        if self._here.confirm and (self._unsure or self._here.confirm_always):
            self._confirming = _Confirming(self._facts.fill(self._here.confirm))
            self._reply.question = self._confirming.question
        else:
            self._slot_filled(words)
        return True

    def _value(self, name: str, text: str, words: Sequence[str]) -> Any:
        match self._scenario.slots[name]:
            case Digits() as slot:
                shortest, longest = slot.bounds
                value, some = hearing.digits(words, shortest, longest)
                if value is None and self._some_digits and some:
                    value, _ = hearing.digits([self._some_digits + some], shortest, longest)
                self._some_digits = some
                return value
            case Date():
                return hearing.date(words)
            case YesNo():
                return hearing.yes_no(words)
            case Name():
                return hearing.name(text)
            case Choice() as slot:
                return hearing.choice(words, slot.choices)

    def _confirmed(self, yes: bool, words: Sequence[str]) -> None:
        confirming, self._confirming = self._confirming, None
        assert confirming is not None
        if not yes:
            if confirming.goto is None and self._here.ask is not None:
                del self._facts.slots[self._here.ask]
            self._miss()
        elif confirming.goto is not None:
            self._react(confirming.goto, [])
        else:
            self._slot_filled(words)

    def _miss(self) -> None:
        self._misses += 1
        retries = self._scenario.retries if self._here.retries is None else self._here.retries
        give_up = self._here.give_up or self._scenario.give_up
        if self._misses > retries and give_up is not None:
            self._enter(give_up)
        elif self._confirming is not None:
            self._reply.question = f"{self._scenario.retry} {self._confirming.question}"
        elif self._here.retry is not None:
            self._reply.question = self._facts.fill(self._here.retry)
        else:
            self._reply.question = f"{self._facts.fill(self._scenario.retry)} {self._question()}".strip()

    # --- moving on ---

    @property
    def _unsure(self) -> bool:
        return self._confidence < self._scenario.confirm_below

    @property
    def _here(self) -> State:
        return self._scenario.states[self._state]

    def _react(self, reaction: Reaction, words: Sequence[str]) -> None:
        if reaction.repeat:
            self._reply.question = self._last_text
            if not self._last_text:
                self._miss()  # nothing was said yet
            return
        if reaction.say:
            self._reply.news.append(self._facts.fill(reaction.say))
        if reaction.goto is not None:
            self._enter(reaction.goto, words)
        else:
            self._reply.question = self._question()

    def _slot_filled(self, words: Sequence[str]) -> None:
        here = self._here
        assert here.ask is not None
        target = here.then
        if isinstance(target, dict):
            value = self._facts.slots[here.ask]
            target = target[{True: "yes", False: "no"}.get(value, value)]
        assert target is not None
        said = type(self._scenario.slots[here.ask])
        self._enter(target, words, said)

    def _enter(self, name: str, words: Sequence[str] = (), used: type | None = None) -> None:
        """Go to a state, and through those that do not wait.

        Args:
            words: what the caller has just said; a value in it need not be asked for.
            used: the kind of slot that these words have filled already.
        """
        while True:
            self._state = name
            self._misses, self._confirming, self._some_digits = 0, None, ""
            here = self._here
            if here.listens:
                self._listening = name
                self._listen(here, words, used)
                return
            if here.call is not None:
                self._ask_for(here, here.call, self._facts.arguments(here.arguments))
                self._facts.result = {}
                return
            if here.transfer is not None:
                self._ask_for(here, "transfer_call", {"to": here.transfer})
                return
            if here.end:
                goodbye = self._facts.fill(here.say)
                self._ask_for(here, "end_call", {"say": goodbye} if goodbye else {})
                self._reply.question = ""  # the tool says it: it is said even if the bridge is lost meanwhile
                return
            if here.say:
                self._reply.news.append(self._facts.fill(here.say))
            assert isinstance(here.then, str)
            name = here.then

    def _listen(self, here: State, words: Sequence[str], used: type | None) -> None:
        if here.ask is not None and here.keep and here.ask in self._facts.slots:
            self._slot_filled(words)
            return
        slot = self._scenario.slots[here.ask] if here.ask is not None else None
        if isinstance(slot, Digits | Date | Choice) and not isinstance(slot, used or ()) and words:
            if self._slot_heard(" ".join(words)):
                return
            self._some_digits = ""
        self._reply.question = self._facts.fill(here.say)

    def _ask_for(self, here: State, tool: str, arguments: dict[str, Any]) -> None:
        self._calls += 1
        call = ToolCall(id=f"t{self._calls}-{tool}", name=tool, arguments=arguments)
        self._asked = _Asked(call)
        self._reply.question = self._facts.fill(here.say)
        self._reply.call = call

    def _is_asked(self, call_id: str, tool: str) -> bool:
        """Whether a tool call is the one that was asked for; the bridge may have changed its id."""
        return self._asked is not None and (call_id == self._asked.call.id or tool == self._asked.call.name)

    def _next_reply(self) -> None:
        """Something new wants an answer; news that nobody heard goes into it."""
        self._reply = _Reply(news=[] if self._heard else list(self._reply.news))
        self._heard = self._cut = False

    def _question(self) -> str:
        """What the caller is being asked."""
        if self._confirming is not None:
            return self._confirming.question
        return self._facts.fill(self._here.question) if self._here.listens else ""
