"""A reply that is begun before the turn is surely over: what it saves, and that nobody notices a wrong guess."""

from __future__ import annotations

from collections.abc import Sequence

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from stayline.models import Message, ToolCall, ToolMessage, UserMessage
from stayline.timeline import AgentTurn, ToolCalled, UserTurn
from tests.media_bridge.conversation.dialogue import Dialogue, Part, agent


def echo(messages: Sequence[Message]) -> list[Part]:
    last = messages[-1]
    return [f"You said {last.text}." if isinstance(last, UserMessage) else "All right."]


def looks_up(messages: Sequence[Message]) -> list[Part]:
    if isinstance(messages[-1], ToolMessage):
        return ["Found it."]
    return [ToolCall(id="t1", name="lookup", arguments={})]


def quiet(**settings: object) -> Dialogue:
    model = settings.pop("model", echo)
    return Dialogue(agent(greeting="", **settings), model)  # type: ignore[arg-type]


def says(talk: Dialogue, text: str, sure_at: int, *, heard: str = "") -> None:
    """The turn ends at `sure_at`."""
    talk.at(sure_at, lambda: talk.feed(ev.CallerTurn(heard or text, 0.9, sure_at - 800, 1000)))


def test_a_right_guess_saves_the_time_until_the_turn_is_sure() -> None:
    eager, plain = quiet(), quiet()
    for talk in (eager, plain):
        says(talk, "good morning", 2000)
    eager.pauses("good morning", 1500)
    for talk in (eager, plain):
        talk.run(6000)
    assert eager.turns == plain.turns == [("user", "good morning"), ("agent", "You said good morning.")]
    early, late = eager.of(AgentTurn)[0].latency, plain.of(AgentTurn)[0].latency
    assert early.saved_ms == 300  # the model's whole time to its first token, of the 500 ms between
    assert late.saved_ms is None
    assert late.total_ms - early.total_ms == 300
    assert len(eager.requests) == 1, "the model was asked once"


def test_capitals_and_punctuation_do_not_spoil_a_guess() -> None:
    talk = quiet()
    talk.pauses("where is my order", 1500)
    says(talk, "Where is my order?", 2000)
    talk.run(6000)
    assert len(talk.requests) == 1
    assert talk.turns[0] == ("user", "Where is my order?")


def test_nothing_of_a_guess_is_heard_or_done_before_it_is_sure() -> None:
    talk = quiet(model=looks_up)
    talk.pauses("find my order", 500)
    says(talk, "find my order", 3000)
    talk.run(2900)
    assert talk.tool_runs == []
    assert talk.of(UserTurn) == talk.of(ToolCalled) == []
    talk.run(9000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    assert talk.turns == [("user", "find my order"), ("agent", "Found it.")]


def test_a_wrong_guess_is_given_up() -> None:
    talk = quiet(model=looks_up)
    talk.pauses("find my", 1000)
    talk.goes_on(1600)
    says(talk, "find my order", 3000)
    talk.run(9000)
    assert [command.reply for command in talk.commands if isinstance(command, do.CancelReply)] == [1]
    assert len(talk.tool_runs) == 1
    assert talk.requests[1] == (UserMessage(text="find my order", confidence=0.9),)
    assert talk.turns == [("user", "find my order"), ("agent", "Found it.")]


def test_other_words_than_guessed_give_it_up_even_if_nobody_said_that_the_turn_goes_on() -> None:
    for partial in (True, False):
        talk = quiet()
        talk.pauses("good", 1000)
        if partial:
            talk.at(1500, lambda t=talk: t.feed(ev.CallerPartial("good morning")))  # type: ignore[misc]
        says(talk, "good morning", 2000)
        talk.run(6000)
        assert talk.turns[-1] == ("agent", "You said good morning.")
        assert len(talk.turns) == 2


def test_a_guess_at_what_proves_to_be_noise() -> None:
    talk = quiet()
    talk.pauses("hm", 1000)
    talk.at(1500, lambda: talk.feed(ev.CallerTurn("", None, 900, 200)))
    talk.run(5000)
    assert talk.turns == []
    assert talk.core.silent


def test_a_guess_whose_turn_never_ends_is_given_up() -> None:
    talk = quiet()
    talk.at(900, lambda: talk.feed(ev.CallerPartial("good morning")))
    talk.pauses("good morning", 1000)
    talk.run(30_000)
    assert talk.turns == []
    assert talk.core.silent


def test_a_model_that_fails_at_a_guess_is_asked_again() -> None:
    talk = quiet()
    talk.pauses("good morning", 1000)
    talk.at(1100, lambda: talk.feed(ev.ReplyFailed(1)))
    says(talk, "good morning", 2000)
    talk.run(6000)
    assert talk.turns[-1] == ("agent", "You said good morning.")


def test_there_is_no_guessing_while_the_agent_speaks_or_a_tool_runs() -> None:
    talk = Dialogue(agent(greeting="This is a rather long greeting, as they come."), echo)
    talk.pauses("good morning", 1000)
    talk.run(1100)
    assert talk.requests == []
