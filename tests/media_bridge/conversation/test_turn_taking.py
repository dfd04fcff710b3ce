"""Who speaks when, dialogue by dialogue, on a virtual clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from media_bridge.conversation import events as ev
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage
from stayline.timeline import AgentTurn, Dtmf
from tests.media_bridge.conversation.dialogue import Dialogue, Part, agent

LONG = "This is the first sentence of mine. Here is a second one for you. And a third one closes it."


def echo(messages: Sequence[Message]) -> list[Part]:
    """Answers with what was last said."""
    last = messages[-1]
    return [f"You said {last.text}." if isinstance(last, UserMessage) else "All right."]


def long(messages: Sequence[Message]) -> list[Part]:
    return [LONG]


def test_greeting_turn_and_reply() -> None:
    talk = Dialogue(agent(), echo)
    talk.says("good morning", at=1500)
    talk.run(8000)
    assert talk.turns == [("agent", "Hello there."), ("user", "good morning"), ("agent", "You said good morning.")]
    assert talk.interruptions == []


def test_latency_of_a_turn_is_the_sum_of_its_parts() -> None:
    talk = Dialogue(agent(), echo, llm_ms=300, tts_ms=100)
    talk.says("good morning", at=1500)
    talk.run(8000)
    latency = talk.of(AgentTurn)[1].latency
    assert (latency.endpoint_ms, latency.llm_ms, latency.tts_ms) == (500, 300, 100)
    assert 900 <= latency.total_ms <= 900 + 2 * 20  # playout is looked after every 20 ms


def test_the_greeting_can_be_interrupted() -> None:
    talk = Dialogue(agent(greeting=LONG), echo)
    talk.says("stop please", at=1000)
    talk.run(9000)
    greeting = talk.of(AgentTurn)[0]
    assert greeting.interrupted
    assert LONG.startswith(greeting.text)
    assert greeting.generated == LONG
    assert talk.turns[1:] == [("user", "stop please"), ("agent", "You said stop please.")]


def test_an_interruption_clears_at_once_and_says_what_was_heard() -> None:
    talk = Dialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.says("no wait", at=3000)
    talk.run(4000)
    cut = talk.of(AgentTurn)[0]
    assert cut.interrupted
    assert talk.clears
    assert talk.clears[0] <= 3000 + 60 + 200 + 20  # sound found after 60 ms, speech sure after 200 ms
    heard_ms = len(talk.played) // 8
    assert abs(len(cut.text) * 60 - heard_ms) < 8 * 60  # to the word
    assert talk.interruptions[0].heard == cut.text


def test_after_the_interruption_the_model_knows_what_was_heard() -> None:
    talk = Dialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.says("no wait", at=3000)
    talk.run(6000)
    heard = talk.of(AgentTurn)[0].text
    assert talk.requests[-1] == (
        UserMessage(text="tell me", confidence=0.9),
        AgentMessage(text=heard, interrupted=True),
        UserMessage(text="no wait", confidence=0.9),
    )


@pytest.mark.parametrize("sound", ["mhm", "Uh-huh.", "okay", "Yeah!"])
def test_a_listening_noise_lets_the_agent_go_on(sound: str) -> None:
    talk = Dialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.says(sound, at=3000, ms=500)
    talk.run(14000)
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]
    assert not talk.of(AgentTurn)[0].interrupted
    assert [i.resumed for i in talk.interruptions] == [True]
    assert abs(len(talk.played) // 8 - len(LONG) * 60) < 400  # nothing was skipped, nothing said twice


def test_a_short_noise_does_not_even_pause_the_agent() -> None:
    talk = Dialogue(agent(greeting="", min_speech_ms=700), long)
    talk.says("tell me", at=0)
    talk.noise(at=3000, ms=80)
    talk.run(14000)
    assert talk.clears == []
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]


def test_a_noise_without_words_pauses_and_then_the_agent_goes_on() -> None:
    talk = Dialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.noise(at=3000, ms=900)
    talk.run(14000)
    assert len(talk.clears) == 1
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]


def test_a_noise_counts_from_where_it_began_not_from_where_it_was_noticed() -> None:
    talk = Dialogue(agent(greeting="", min_speech_ms=120), long)
    talk.says("tell me", at=0)
    talk.noise(at=3000, ms=900)
    talk.run(14000)
    assert talk.clears == [3120]


def test_endless_noise_is_given_up_after_the_false_interruption_time() -> None:
    talk = Dialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.at(3000, lambda: talk.feed(ev.CallerSpoke()))
    talk.run(16000)
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]


def test_without_resuming_a_noise_ends_the_reply() -> None:
    talk = Dialogue(agent(greeting="", resume_after_false_interruption=False), long)
    talk.says("tell me", at=0)
    talk.noise(at=3000, ms=900)
    talk.run(14000)
    assert talk.of(AgentTurn)[0].interrupted


def test_a_listening_noise_in_silence_is_a_turn() -> None:
    talk = Dialogue(agent(), echo)
    talk.says("okay", at=2500)
    talk.run(7000)
    assert ("user", "okay") in talk.turns


def test_after_sentence_finishes_the_sentence_and_nothing_more() -> None:
    talk = Dialogue(agent(greeting="", interruption="after_sentence"), long)
    talk.says("tell me", at=0)
    talk.says("no wait", at=4000)
    talk.run(12000)
    cut = talk.of(AgentTurn)[0]
    assert cut.text == "This is the first sentence of mine. Here is a second one for you."
    assert cut.interrupted
    assert talk.turns[2] == ("user", "no wait") or talk.turns[1] == ("user", "no wait")
    assert talk.turns[-1][0] == "agent"


def test_disabled_finishes_the_reply_and_then_answers_what_was_said() -> None:
    talk = Dialogue(agent(greeting="", interruption="disabled"), long)
    talk.says("tell me", at=0)
    talk.says("and another thing", at=3000)
    talk.run(20000)
    assert talk.clears == []
    assert not talk.of(AgentTurn)[0].interrupted
    assert [t for t in talk.turns if t[0] == "agent"] == [("agent", LONG), ("agent", LONG)]
    assert len(talk.requests) == 2


def test_the_caller_goes_on_before_anything_was_heard() -> None:
    """The endpoint came too early: the reply is thrown away and both parts are answered together."""
    talk = Dialogue(agent(greeting=""), echo, llm_ms=900)
    talk.says("I want", at=0)
    talk.says("to book a table", at=1000)
    talk.run(9000)
    assert [m.text for m in talk.requests[-1]] == ["I want", "to book a table"]
    assert [t for t in talk.turns if t[0] == "agent"] == [("agent", "You said to book a table.")]


def use_tool(messages: Sequence[Message]) -> list[Part]:
    last = messages[-1]
    if isinstance(last, ToolMessage):
        return ["It is done."]
    if any(isinstance(m, ToolMessage) for m in messages):
        return ["Yes, it was done."]
    return [ToolCall(id="t1", name="lookup")]


def test_a_slow_tool_is_covered_by_its_filler() -> None:
    talk = Dialogue(agent(greeting=""), use_tool, tool_ms=4000)
    talk.says("book it", at=0)
    talk.run(10000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("filler", "Let me check."),
        ("reply", "It is done."),
    ]


def test_a_quick_tool_needs_no_filler() -> None:
    talk = Dialogue(agent(greeting=""), use_tool, tool_ms=100)
    talk.says("book it", at=0)
    talk.run(6000)
    assert [t.source for t in talk.of(AgentTurn)] == ["reply"]


def test_talking_during_a_tool_starts_no_second_run() -> None:
    talk = Dialogue(agent(greeting=""), use_tool, tool_ms=6000)
    talk.says("book it", at=0)
    talk.says("hello are you there", at=3500)
    talk.run(15000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    assert ("user", "hello are you there") in talk.turns
    assert "One moment" in " ".join(t.text for t in talk.of(AgentTurn))
    last = talk.requests[-1]
    assert [type(m).__name__ for m in last] == ["UserMessage", "AgentMessage", "ToolMessage", "UserMessage"]


def test_a_tool_result_survives_the_interruption_of_its_filler() -> None:
    talk = Dialogue(agent(greeting=""), use_tool, tool_ms=3000)
    talk.says("book it", at=0)
    talk.says("wait a second please", at=2100)
    talk.run(12000)
    assert len(talk.tool_runs) == 1
    assert any(isinstance(m, ToolMessage) for m in talk.requests[-1])


@pytest.mark.parametrize("tool", ["end_call", "transfer_call"])
def test_who_has_parted_says_no_more_until_the_caller_does(tool: str) -> None:
    """The stream may stay open for a while where Temporal is slow."""

    def model(messages: Sequence[Message]) -> list[Part]:
        said = next(m.text for m in reversed(messages) if isinstance(m, UserMessage))
        return ["Goodbye.", ToolCall(id="t1", name=tool)] if said == "bye" else ["Still here."]

    talk = Dialogue(agent(greeting=""), model, tool_ms=500)
    talk.says("bye", at=0)
    talk.run(6000)
    assert [text for who, text in talk.turns if who == "agent"] == ["Goodbye."]
    assert len(talk.requests) == 1
    talk.says("are you there", at=7000)
    talk.run(12000)
    assert [text for who, text in talk.turns if who == "agent"] == ["Goodbye.", "Still here."]


END = ToolCall(id="t1", name="end_call")


def _ended(*parts: Part, says: Sequence[tuple[str, int]], closed: int, tool_ms: int = 500) -> Dialogue:
    """The model answers "bye" with these parts; the workflow closes the stream without a word of its own."""
    talk = Dialogue(agent(greeting="", goodbye="Take care."), lambda _: list(parts), tool_ms=tool_ms)
    talk.says("bye", at=0)
    for text, at in says:
        talk.says(text, at=at)
    talk.at(closed, lambda: talk.feed(ev.CloseRequested("")))
    talk.run(closed + 5000)
    assert talk.closed_at is not None
    return talk


@pytest.mark.parametrize("closed", [1300, 1700, 3000])
def test_the_farewell_of_the_model_is_enough(closed: int) -> None:
    """Before its sound, in the middle of it, after it."""
    talk = _ended("Goodbye.", END, says=(), closed=closed)
    assert talk.turns == [("user", "bye"), ("agent", "Goodbye.")]


def test_who_speaks_over_the_farewell_hears_another() -> None:
    talk = _ended("Goodbye.", END, says=[("bye then", 1150)], closed=1500, tool_ms=2000)
    assert talk.turns[0] == ("user", "bye")
    assert [text for who, text in talk.turns if who == "agent"][-1] == "Take care."
    assert not any(text == "Goodbye." for _, text in talk.turns)


def test_who_speaks_after_the_farewell_hears_another() -> None:
    """`end_call` is under way for long where Temporal is away."""
    talk = _ended("Goodbye.", END, says=[("goodbye", 5000)], closed=12_000, tool_ms=12_000)
    assert talk.turns == [("user", "bye"), ("agent", "Goodbye."), ("user", "goodbye"), ("agent", "Take care.")]
    assert len(talk.requests) == 1


def test_who_speaks_just_before_the_end_hears_another() -> None:
    talk = _ended("Goodbye.", END, says=[("goodbye", 5000)], closed=5950, tool_ms=100)
    assert talk.turns[-1] == ("agent", "Take care.")


def test_a_model_that_ends_the_call_without_a_word_has_one_said() -> None:
    talk = _ended(END, says=(), closed=2000)
    assert talk.turns == [("user", "bye"), ("agent", "Take care.")]


def test_a_call_that_a_person_ends_without_a_word_ends_so() -> None:
    talk = Dialogue(agent(), echo)
    talk.at(3000, lambda: talk.feed(ev.CloseRequested("")))
    talk.run(6000)
    assert talk.turns == [("agent", "Hello there.")]


def test_a_background_tool_lets_the_conversation_go_on() -> None:
    def model(messages: Sequence[Message]) -> list[Part]:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return ["I have started it."]
        if isinstance(last, NoteMessage):
            return ["It has ended."]
        if last.text == "report":
            return [ToolCall(id="b1", name="report")]
        return ["Sure thing."]

    talk = Dialogue(agent(greeting=""), model, tool_ms=8000)
    talk.says("report", at=0)
    talk.says("and something else", at=3500)
    talk.run(16000)
    agent_said = [text for who, text in talk.turns if who == "agent"]
    assert agent_said == ["I have started it.", "Sure thing.", "It has ended."]


def test_malformed_arguments_go_back_to_the_model_and_run_nothing() -> None:
    talk = Dialogue(agent(greeting=""), lambda m: ["Sorry."] if isinstance(m[-1], ToolMessage) else [])
    talk.says("go", at=0)
    talk.at(700, lambda: talk.feed(ev.ReplyTool(1, ToolCall(id="x", name="lookup"), malformed=True)))
    talk.run(6000)
    assert talk.tool_runs == []
    assert talk.turns[-1] == ("agent", "Sorry.")


def test_keys_are_gathered_into_one_entry() -> None:
    talk = Dialogue(agent(), echo)
    for at, digit in ((2500, "4"), (2700, "2"), (2900, "#")):
        talk.at(at, lambda d=digit: talk.feed(ev.KeyPressed(d)))
    talk.run(6000)
    assert [e.digit for e in talk.of(Dtmf)] == ["4", "2", "#"]
    assert talk.requests[-1][-1] == NoteMessage(text="The caller pressed 42.")


def test_a_failed_reply_is_apologised_for() -> None:
    talk = Dialogue(agent(greeting=""), echo, llm_ms=10_000)
    talk.says("hello", at=0)
    talk.at(1500, lambda: talk.feed(ev.ReplyFailed(1)))
    talk.run(6000)
    assert talk.of(AgentTurn)[0].source == "apology"


def test_closing_says_goodbye_and_lets_it_be_heard() -> None:
    talk = Dialogue(agent(greeting=""), echo)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye and thank you.")))
    talk.run(6000)
    assert talk.turns == [("agent", "Goodbye and thank you.")]
    assert talk.closed_at is not None
    assert len(talk.played) // 8 == len("Goodbye and thank you.") * 60


def test_speech_does_not_stop_a_goodbye() -> None:
    talk = Dialogue(agent(greeting=""), echo)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye and thank you for calling.")))
    talk.says("wait wait", at=900)
    talk.run(6000)
    assert talk.closed_at is not None
    assert talk.clears == []
    assert ("user", "wait wait") in talk.turns


def test_a_goodbye_that_never_ends_is_cut() -> None:
    talk = Dialogue(agent(greeting=""), echo, tts_ms=60_000)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(20_000)
    assert talk.closed_at is not None


def test_a_lost_stream_accounts_for_what_was_heard() -> None:
    talk = Dialogue(agent(greeting=LONG), echo)
    talk.at(2000, lambda: talk.feed(ev.StreamGone()))
    talk.run(4000)
    turn = talk.of(AgentTurn)[0]
    assert turn.interrupted
    assert LONG.startswith(turn.text)
    assert talk.interruptions == []  # nobody interrupted: the line was gone


def test_a_resumed_call_says_so_and_answers_what_was_open() -> None:
    before = (AgentMessage(text="Hello there."), UserMessage(text="where is my order"))
    talk = Dialogue(agent(), echo, messages=before, resumed=True)
    talk.run(8000)
    assert talk.turns == [
        ("agent", "Sorry, we got cut off for a second."),
        ("agent", "You said where is my order."),
    ]


def test_a_resumed_call_waits_for_the_tool_that_still_runs() -> None:
    before = (AgentMessage(text="Hello there."), UserMessage(text="book it"))
    running = (ToolCall(id="t1", name="lookup"),)
    talk = Dialogue(agent(), use_tool, messages=before, running_tools=running, resumed=True, tool_ms=3000)
    talk.run(9000)
    assert [call.id for call in talk.tool_runs] == ["t1"]  # asked again under its id: the workflow runs it once
    assert talk.turns[-1] == ("agent", "It is done.")


def test_a_call_cut_off_in_its_greeting_is_greeted_again() -> None:
    talk = Dialogue(agent(), echo, resumed=True)
    talk.run(6000)
    assert talk.turns[-1] == ("agent", "Hello there.")


def test_a_failed_transfer_is_explained_instead_of_apologised_for() -> None:
    note = "The transfer failed: busy."
    before = (UserMessage(text="a person please"), NoteMessage(text=note))
    talk = Dialogue(agent(greeting=""), lambda m: ["They are busy."], messages=before, resumed=True, note=note)
    talk.run(5000)
    assert talk.turns == [("agent", "They are busy.")]


def test_what_an_operator_says_waits_for_the_sentence_that_is_spoken() -> None:
    talk = Dialogue(agent(greeting="Hello there."), echo)
    talk.at(300, lambda: talk.feed(ev.SayRequested("We close in five minutes.", "operator")))
    talk.run(6000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("greeting", "Hello there."),
        ("operator", "We close in five minutes."),
    ]
