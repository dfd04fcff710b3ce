"""Who speaks when with a voice-to-voice model, dialogue by dialogue, on a virtual clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.realtime_state import INAUDIBLE
from media_bridge.providers.base import RealtimeProfile
from stayline.models import AgentMessage, NoteMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from stayline.timeline import AgentTurn, Dtmf, UserTurn
from tests.media_bridge.conversation.dialogue import MS_PER_CHAR, Part, agent
from tests.media_bridge.conversation.realtime_dialogue import GEMINI, OPENAI, Memory, RealtimeDialogue

LONG = "This is the first sentence of mine. Here is a second one for you. And a third one closes it."
BOTH = pytest.mark.parametrize("profile", [OPENAI, GEMINI], ids=["openai", "gemini"])


def echo(memory: Memory) -> Sequence[Part]:
    last = memory.last
    return [f"You said {last.text}."] if isinstance(last, UserMessage) else ["All right."]


def long(memory: Memory) -> Sequence[Part]:
    return [LONG]


def use_tool(memory: Memory) -> Sequence[Part]:
    """Books once, then tells of it."""
    if isinstance(memory.last, ToolMessage) or "has ended" in str(memory.last):
        return ["It is done."]
    if "t1" in [getattr(m, "tool_call_id", "") for m in [*memory.opening, *memory.entries]]:
        return ["Yes, it was done."]
    return [ToolCall(id="t1", name="lookup")] if memory.last else ["Hm."]


# --- turns -----------------------------------------------------------------------------------------------


@BOTH
def test_greeting_turn_and_reply(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(), echo, profile)
    talk.says("good morning", at=1500)
    talk.run(8000)
    assert talk.turns == [("agent", "Hello there."), ("user", "good morning"), ("agent", "You said good morning.")]
    assert talk.interruptions == []
    assert [t.source for t in talk.of(AgentTurn)] == ["greeting", "reply"]


@pytest.mark.parametrize("words_after", [0, 250, 900, 2500])
def test_words_keep_their_place_however_late_they_come(words_after: int) -> None:
    talk = RealtimeDialogue(agent(greeting=""), lambda memory: ["Yes."], words_after=words_after)
    talk.says("is it open", at=500)
    talk.run(6000)
    assert talk.turns == [("user", "is it open"), ("agent", "Yes.")]
    assert talk.core.messages == (UserMessage(text="is it open"), AgentMessage(text="Yes."))


def test_words_that_never_come_are_recorded_as_inaudible() -> None:
    talk = RealtimeDialogue(agent(greeting=""), lambda memory: ["Yes."], words_after=60_000)
    talk.says("is it open", at=500)
    talk.run(9000)
    assert talk.turns == [("user", INAUDIBLE), ("agent", "Yes.")]


def test_a_turn_that_cannot_be_written_down_is_a_turn() -> None:
    talk = RealtimeDialogue(agent(greeting=""), lambda memory: ["Yes."])
    talk.says("is it open", at=500, wrong=True)
    talk.run(6000)
    assert talk.turns == [("user", INAUDIBLE), ("agent", "Yes.")]


def test_latency_of_a_turn() -> None:
    talk = RealtimeDialogue(agent(), echo, llm_ms=300)
    talk.says("good morning", at=1500)
    talk.run(8000)
    latency = talk.of(AgentTurn)[1].latency
    assert latency.endpoint_ms == 500
    assert 300 <= latency.llm_ms <= 300 + 200
    assert latency.total_ms == latency.endpoint_ms + latency.llm_ms
    assert talk.of(AgentTurn)[0].latency is None
    assert talk.of(UserTurn)[0].speech_ms == len("good morning") * MS_PER_CHAR


def test_a_model_that_does_not_answer_by_itself_is_asked() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, answers_by_itself=False)
    talk.says("hello", at=0)
    talk.run(9000)
    assert talk.turns == [("user", "hello"), ("agent", "You said hello.")]
    assert talk.model.asked_for == ["respond"]


def test_what_it_was_asked_to_say_is_not_taken_for_its_answer() -> None:
    """An operator speaks at the moment in which the model begins to answer by itself."""
    talk = RealtimeDialogue(agent(greeting=""), echo)
    talk.says("hello", at=0)
    talk.at(850, lambda: talk.feed(ev.SayRequested("We close soon.", "operator")))
    talk.run(8000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("reply", "You said hello."),
        ("operator", "We close soon."),
    ]


# --- interruption ----------------------------------------------------------------------------------------


@BOTH
def test_an_interruption_clears_at_once_and_the_model_forgets_what_was_not_heard(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting=""), long, profile)
    talk.says("tell me", at=0)
    talk.says("no wait", at=4000)
    talk.run(4600)
    cut = talk.of(AgentTurn)[0]
    assert cut.interrupted
    assert LONG.startswith(cut.text)
    assert cut.generated == LONG
    assert talk.clears[0] <= 4000 + 60 + 20
    assert talk.interruptions[0].heard == cut.text
    memory = talk.model.memory.texts()
    if profile.can_truncate:
        heard = next(line for line in memory if line.startswith("agent: This")).removeprefix("agent: ")
        assert heard.startswith(cut.text)
        assert len(heard) - len(cut.text) < 8  # a begun word
    else:
        assert f'note: You were interrupted. The caller heard only: "{cut.text}"' in memory
    assert talk.core.messages[1] == AgentMessage(text=cut.text, interrupted=True)


def test_a_response_still_being_generated_is_cancelled() -> None:
    talk = RealtimeDialogue(agent(greeting=""), long, hasty=False)
    talk.says("tell me", at=0)
    talk.says("no wait", at=1700)
    talk.run(9000)
    assert "cancel" in talk.model.asked_for
    cut = talk.of(AgentTurn)[0]
    assert cut.interrupted
    assert cut.generated is not None
    assert len(cut.generated) < len(LONG)
    assert talk.turns[2] == ("user", "no wait") or talk.turns[1] == ("user", "no wait")


def test_the_models_own_decision_is_an_interruption() -> None:
    """It has stopped generating because it heard somebody: there is nothing to go on with."""
    talk = RealtimeDialogue(agent(greeting="", min_speech_ms=3000), long)
    talk.says("tell me", at=0)
    talk.says("no wait", at=1700)
    talk.run(4000)
    assert talk.of(AgentTurn)[0].interrupted


def test_a_noise_pauses_the_agent_and_lets_it_go_on() -> None:
    talk = RealtimeDialogue(agent(greeting="", min_speech_ms=1500), long)
    talk.says("tell me", at=0)
    talk.noise(at=4000, ms=200)
    talk.run(14000)
    assert len(talk.clears) == 1
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]
    assert [i.resumed for i in talk.interruptions] == [True]
    assert abs(len(talk.played) // 8 - len(LONG) * MS_PER_CHAR) < 100  # nothing skipped, nothing twice


def test_a_listening_noise_lets_the_agent_go_on() -> None:
    talk = RealtimeDialogue(agent(greeting="", min_speech_ms=1500), long, answers_by_itself=False)
    talk.says("tell me", at=0)
    talk.says("Mhm.", at=9000, ms=300)
    talk.run(20000)
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]
    assert [i.resumed for i in talk.interruptions] == [True]


def test_a_noise_that_is_never_over_is_given_up() -> None:
    talk = RealtimeDialogue(agent(greeting="", min_speech_ms=5000), long)
    talk.says("tell me", at=0)
    talk.at(4000, lambda: talk.feed(ev.CallerSpoke()))
    talk.at(4500, lambda: talk.feed(ev.CallerStopped(4100, 100)))
    talk.run(14000)
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]


def test_without_resuming_a_noise_ends_the_reply() -> None:
    rules = {"min_speech_ms": 1500, "resume_after_false_interruption": False}
    talk = RealtimeDialogue(agent(greeting="", **rules), long)
    talk.says("tell me", at=0)
    talk.noise(at=4000, ms=200)
    talk.run(14000)
    assert talk.of(AgentTurn)[0].interrupted


def test_a_listening_noise_in_silence_is_a_turn() -> None:
    talk = RealtimeDialogue(agent(), echo)
    talk.says("okay", at=2500)
    talk.run(7000)
    assert ("user", "okay") in talk.turns


@BOTH
def test_after_sentence_finishes_the_sentence_and_nothing_more(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting="", interruption="after_sentence"), long, profile)
    talk.says("tell me", at=0)
    talk.says("no wait", at=4000)
    talk.run(16000)
    cut = talk.of(AgentTurn)[0]
    assert cut.text == "This is the first sentence of mine. Here is a second one for you."
    assert cut.interrupted
    assert sorted(talk.turns[:3]) == sorted([("user", "tell me"), ("agent", cut.text), ("user", "no wait")])
    assert talk.turns[-1] == ("agent", LONG)


@BOTH
def test_disabled_finishes_the_reply_and_then_answers_what_was_said(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting="", interruption="disabled"), long, profile)
    talk.says("tell me", at=0)
    talk.says("and another thing", at=4000)
    talk.run(20000)
    assert talk.clears == []
    assert not talk.of(AgentTurn)[0].interrupted
    assert [t for t in talk.turns if t[0] == "agent"] == [("agent", LONG), ("agent", LONG)]
    assert ("user", "and another thing") in talk.turns


def test_somebody_outside_may_silence_the_agent() -> None:
    talk = RealtimeDialogue(agent(greeting=LONG, interruption="disabled"), echo)
    talk.at(2000, lambda: talk.feed(ev.InterruptRequested()))
    talk.run(5000)
    assert talk.of(AgentTurn)[0].interrupted


@pytest.mark.parametrize("hasty", [True, False])
def test_the_greeting_can_be_interrupted(hasty: bool) -> None:
    talk = RealtimeDialogue(agent(greeting=LONG), echo, hasty=hasty)
    talk.says("stop please", at=1500)
    talk.run(9000)
    greeting = talk.of(AgentTurn)[0]
    assert greeting.interrupted
    assert greeting.source == "greeting"
    assert talk.turns[1:] == [("user", "stop please"), ("agent", "You said stop please.")]


# --- keys, and what others want said ----------------------------------------------------------------------


def test_keys_are_gathered_into_one_entry() -> None:
    talk = RealtimeDialogue(agent(), echo)
    for at, digit in ((2500, "4"), (2700, "2"), (2900, "#")):
        talk.at(at, lambda d=digit: talk.feed(ev.KeyPressed(d)))
    talk.run(7000)
    assert [e.digit for e in talk.of(Dtmf)] == ["4", "2", "#"]
    assert NoteMessage(text="The caller pressed 42.") in talk.core.messages
    assert "note: The caller pressed 42." in talk.model.memory.texts()
    assert talk.turns[-1] == ("agent", "All right.")


def test_what_an_operator_says_waits_for_the_sentence_that_is_spoken() -> None:
    talk = RealtimeDialogue(agent(greeting="Hello there."), echo)
    talk.at(700, lambda: talk.feed(ev.SayRequested("We close in five minutes.", "operator")))
    talk.run(6000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("greeting", "Hello there."),
        ("operator", "We close in five minutes."),
    ]


# --- tools -----------------------------------------------------------------------------------------------


@BOTH
def test_a_tool_and_its_result(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, profile, tool_ms=300)
    talk.says("book it", at=0)
    talk.run(6000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    assert talk.turns == [("user", "book it"), ("agent", "It is done.")]
    assert talk.model.asked_for == ["go on"]
    kinds = [type(m).__name__ for m in talk.core.messages]
    assert kinds == ["UserMessage", "AgentMessage", "ToolMessage", "AgentMessage"]


def test_a_slow_tool_is_covered_by_its_filler() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, tool_ms=4000)
    talk.says("book it", at=0)
    talk.run(9000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("filler", "Let me check."),
        ("reply", "It is done."),
    ]


def test_a_model_that_cannot_speak_meanwhile_is_not_asked_to() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, GEMINI, tool_ms=4000)
    talk.says("book it", at=0)
    talk.run(9000)
    assert talk.model.asked_for == ["go on"]


def test_a_result_that_comes_while_the_filler_is_generated() -> None:
    filler = "Let me check that for you, this takes only a very short moment indeed."
    lookup = ToolSpec(name="lookup", description="Look up.", parameters={"type": "object"}, filler=filler)
    talk = RealtimeDialogue(agent(greeting="", tools=(lookup,)), use_tool, tool_ms=1400)
    talk.says("book it", at=0)
    talk.run(14_000)
    assert [t.source for t in talk.of(AgentTurn)] == ["filler", "reply"]
    assert talk.model.asked_for == [f"say {filler}", "respond"]


def two_tools(memory: Memory) -> Sequence[Part]:
    if isinstance(memory.last, ToolMessage):
        return ["Both are done."]
    return [ToolCall(id="t1", name="lookup"), ToolCall(id="t2", name="lookup", arguments={"n": 2})]


@pytest.mark.parametrize("tool_ms", [0, 200, 3000])
def test_of_parallel_tools_the_last_has_the_model_go_on(tool_ms: int) -> None:
    talk = RealtimeDialogue(agent(greeting=""), two_tools, tool_ms=tool_ms)
    talk.says("book both", at=0)
    talk.run(12_000)
    assert [t.text for t in talk.of(AgentTurn) if t.source == "reply"] == ["Both are done."]
    assert len(talk.tool_runs) == 2
    assert talk.model.asked_for[-1] in ("go on", "respond")


def test_a_background_tool_lets_the_conversation_go_on() -> None:
    def answer(memory: Memory) -> Sequence[Part]:
        last = memory.last
        if isinstance(last, ToolMessage):
            return ["I have started it."]
        if isinstance(last, str):
            return ["It has ended."]
        return [ToolCall(id="b1", name="report")] if last.text == "report" else ["Sure thing."]

    talk = RealtimeDialogue(agent(greeting=""), answer, tool_ms=8000)
    talk.says("report", at=0)
    talk.says("and something else", at=3500)
    talk.run(16000)
    assert [text for who, text in talk.turns if who == "agent"] == [
        "I have started it.",
        "Sure thing.",
        "It has ended.",
    ]
    notes = [m.text for m in talk.core.messages if isinstance(m, NoteMessage)]
    assert notes == ['The tool report has ended. Result: {"ok": true}']


@BOTH
def test_talking_during_a_tool_starts_no_second_run(profile: RealtimeProfile) -> None:
    def answer(memory: Memory) -> Sequence[Part]:
        if isinstance(memory.last, UserMessage) and memory.last.text == "hello are you there":
            return ["I am still on it."]
        return use_tool(memory)

    talk = RealtimeDialogue(agent(greeting=""), answer, profile, tool_ms=7000)
    talk.says("book it", at=0)
    talk.says("hello are you there", at=3500)
    talk.run(15000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    said = [t.text for t in talk.of(AgentTurn) if t.source == "reply"]
    assert said == ["I am still on it.", "It is done."]


def test_who_waits_for_the_end_of_a_tool_is_told_to() -> None:
    rules = {"interruption": "after_sentence", "hold_text": "One moment."}
    talk = RealtimeDialogue(agent(greeting="", **rules), use_tool, tool_ms=7000)
    talk.says("book it", at=0)
    talk.says("hello are you there", at=4500)
    talk.run(15000)
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("filler", "Let me check."),
        ("filler", "One moment."),
        ("reply", "It is done."),
    ]


def test_malformed_arguments_go_back_to_the_model_and_run_nothing() -> None:
    def answer(memory: Memory) -> Sequence[Part]:
        return ["Sorry."] if isinstance(memory.last, ToolMessage) else [ToolCall(id="x", name="malformed")]

    talk = RealtimeDialogue(agent(greeting=""), answer)
    talk.says("go", at=0)
    talk.run(6000)
    assert talk.tool_runs == []
    assert talk.turns[-1] == ("agent", "Sorry.")
    assert any(isinstance(m, ToolMessage) and m.is_error for m in talk.core.messages)


def test_a_forgotten_tool_is_told_of_when_it_has_ended() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, GEMINI, tool_ms=3000)
    talk.says("book it", at=0)
    talk.at(2000, lambda: talk.model.waits_for.clear())
    talk.at(2000, lambda: talk.feed(ev.ToolsForgotten(("t1",))))
    talk.run(9000)
    assert 'note: The tool lookup has ended. Result: {"ok": true}' in talk.model.memory.texts()
    assert talk.turns[-1][0] == "agent"
    assert any(isinstance(m, ToolMessage) for m in talk.core.messages)


def test_an_id_that_was_used_before_is_another_call() -> None:
    before = (
        UserMessage(text="book"),
        AgentMessage(tool_calls=(ToolCall(id="t1", name="lookup"),)),
        ToolMessage(tool_call_id="t1", name="lookup", content="1"),
        AgentMessage(text="Done."),
    )

    def answer(memory: Memory) -> Sequence[Part]:
        return ["Again."] if isinstance(memory.last, ToolMessage) else [ToolCall(id="t1", name="lookup")]

    talk = RealtimeDialogue(agent(), answer, messages=before)
    talk.says("once more", at=0)
    talk.run(6000)
    assert len(talk.tool_runs) == 1
    assert talk.tool_runs[0].id != "t1"
    assert talk.turns[-1] == ("agent", "Again.")  # and the model got its result under its own id


def test_a_tool_asked_for_in_mid_sentence() -> None:
    def answer(memory: Memory) -> Sequence[Part]:
        if isinstance(memory.last, ToolMessage):
            return ["It is done."]
        return ["I will look that up for you now. ", ToolCall(id="t1", name="lookup")]

    talk = RealtimeDialogue(agent(greeting=""), answer, tool_ms=300)
    talk.says("book it", at=0)
    talk.run(8000)
    assert [t.text for t in talk.of(AgentTurn)] == ["I will look that up for you now.", "It is done."]
    assert talk.of(AgentTurn)[0].tool_calls == ("t1",)


# --- the end ---------------------------------------------------------------------------------------------


@BOTH
def test_closing_says_goodbye_and_lets_it_be_heard(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, profile)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye and thank you.")))
    talk.run(6000)
    assert talk.turns == [("agent", "Goodbye and thank you.")]
    assert talk.of(AgentTurn)[0].source == "goodbye"
    assert talk.closed_at is not None
    assert len(talk.played) // 8 == len("Goodbye and thank you.") * MS_PER_CHAR


def test_closing_without_a_word() -> None:
    talk = RealtimeDialogue(agent(), echo)
    talk.at(700, lambda: talk.feed(ev.CloseRequested("")))
    talk.run(6000)
    assert talk.turns == [("agent", "Hello there.")]
    assert talk.closed_at is not None


def _ended(
    profile: RealtimeProfile, *parts: Part, closed: int, again: int | None = None, words_after: int = 200
) -> RealtimeDialogue:
    """The model answers "bye" with these parts; the workflow closes the stream without a word of its own."""

    def answer(memory: Memory) -> Sequence[Part]:
        return parts if isinstance(memory.last, UserMessage) and memory.last.text == "bye" else ["Yes?"]

    spec = agent(greeting="", goodbye="Take care.")
    talk = RealtimeDialogue(spec, answer, profile, tool_ms=closed, words_after=words_after)
    talk.says("bye", at=0)
    if again is not None:
        talk.says("bye then", at=again)
    talk.at(closed, lambda: talk.feed(ev.CloseRequested("")))
    talk.run(closed + 6000)
    assert talk.closed_at is not None
    return talk


END = ToolCall(id="t1", name="end_call")


@BOTH
@pytest.mark.parametrize("words_after", [200, 1800])
def test_the_farewell_of_the_model_is_enough(profile: RealtimeProfile, words_after: int) -> None:
    """Also where the caller's words come after it."""
    talk = _ended(profile, "Goodbye.", END, closed=3000, words_after=words_after)
    assert talk.turns == [("user", "bye"), ("agent", "Goodbye.")]


@BOTH
def test_a_model_that_ends_the_call_without_a_word_has_one_said(profile: RealtimeProfile) -> None:
    talk = _ended(profile, END, closed=2000)
    assert talk.turns == [("user", "bye"), ("agent", "Take care.")]


def test_who_speaks_after_the_farewell_hears_another() -> None:
    talk = _ended(OPENAI, "Goodbye.", END, closed=7000, again=3500)
    said = [text for who, text in talk.turns if who == "agent"]
    assert said == ["Goodbye.", "Yes?", "Take care."]


@pytest.mark.parametrize("at", [0, 50, 200, 450, 900, 3000])
def test_a_goodbye_whatever_the_model_does(at: int) -> None:
    """Before the connection, while the greeting is asked for, generated, played."""
    talk = RealtimeDialogue(agent(), echo)
    talk.at(at, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(12_000)
    assert talk.turns[-1] == ("agent", "Goodbye.")
    assert talk.of(AgentTurn)[-1].source == "goodbye"
    assert talk.closed_at is not None


@BOTH
def test_a_goodbye_while_the_model_answers(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, profile)
    talk.says("hello", at=0)
    talk.at(900, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(12_000)
    assert talk.turns == [("user", "hello"), ("agent", "Goodbye.")]
    assert talk.closed_at is not None


@pytest.mark.parametrize("hasty", [True, False])
def test_speech_does_not_stop_a_goodbye(hasty: bool) -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, hasty=hasty)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye and thank you for calling.")))
    talk.says("wait wait", at=900)
    talk.run(6000)
    assert talk.closed_at is not None
    assert talk.clears == []
    assert ("user", "wait wait") in talk.turns
    assert talk.turns[-1] == ("agent", "Goodbye and thank you for calling.")


def test_a_story_ends_with_its_sentence_before_the_goodbye() -> None:
    talk = RealtimeDialogue(agent(greeting=LONG + " " + LONG), echo)
    talk.at(1000, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(20_000)
    assert talk.turns[-1] == ("agent", "Goodbye.")
    assert talk.turns[0][1].endswith(".")
    assert talk.closed_at is not None


@pytest.mark.parametrize("profile", [OPENAI, GEMINI])
def test_a_goodbye_that_never_comes_is_cut(profile: RealtimeProfile) -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, profile, mute=True)
    talk.at(500, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(20_000)
    assert talk.closed_at is not None


def test_nothing_is_run_or_answered_while_the_call_closes() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, llm_ms=600)
    talk.says("book it", at=0)
    talk.at(1000, lambda: talk.feed(ev.CloseRequested("Goodbye.")))
    talk.run(9000)
    assert talk.tool_runs == []
    assert talk.turns == [("user", "book it"), ("agent", "Goodbye.")]


def test_a_lost_stream_accounts_for_what_was_heard() -> None:
    talk = RealtimeDialogue(agent(greeting=LONG), echo)
    talk.at(2000, lambda: talk.feed(ev.StreamGone()))
    talk.run(4000)
    turn = talk.of(AgentTurn)[0]
    assert turn.interrupted
    assert LONG.startswith(turn.text)
    assert talk.interruptions == []


def test_a_caller_who_hangs_up_after_the_answer_began_has_said_something() -> None:
    talk = RealtimeDialogue(agent(greeting=""), long, words_after=60_000)
    talk.says("tell me", at=0)
    talk.at(2500, lambda: talk.feed(ev.StreamGone()))
    talk.run(4000)
    assert [who for who, _ in talk.turns] == ["user", "agent"]
    assert talk.turns[0] == ("user", INAUDIBLE)


# --- the connection is lost ------------------------------------------------------------------------------


def test_lost_before_the_greeting_began() -> None:
    talk = RealtimeDialogue(agent(), echo)
    talk.loses_model(at=200)
    talk.run(5000)
    assert talk.turns == [("agent", "Hello there.")]


@pytest.mark.parametrize("at", [1000, 2000])
def test_lost_while_it_answers_it_goes_on_from_there(at: int) -> None:
    def answer(memory: Memory) -> Sequence[Part]:
        cut = any(isinstance(entry, str) and "cut off" in entry for entry in memory.entries)
        return ["And so on."] if cut else [LONG]

    talk = RealtimeDialogue(agent(greeting=""), answer)
    talk.says("tell me", at=0)
    talk.loses_model(at=at)
    talk.run(12_000)
    assert talk.turns[0] == ("user", "tell me")
    assert talk.turns[-1] in (("agent", "And so on."), ("agent", LONG))
    assert [who for who, _ in talk.turns].count("user") == 1
    if at == 2000:
        assert LONG.startswith(talk.turns[1][1])
        assert talk.turns[2] == ("agent", "And so on.")


def test_lost_while_all_that_it_said_is_still_played() -> None:
    talk = RealtimeDialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.loses_model(at=4500)
    talk.run(14_000)
    assert talk.turns == [("user", "tell me"), ("agent", LONG)]
    assert talk.model.asked_for == []


def test_interrupted_when_the_model_that_said_it_is_gone() -> None:
    talk = RealtimeDialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.loses_model(at=4500)
    talk.says("no wait", at=5000)
    talk.run(14_000)
    cut = talk.of(AgentTurn)[0]
    assert cut.interrupted
    assert talk.model.number == 2
    assert f'note: You were interrupted. The caller heard only: "{cut.text}"' in talk.model.memory.texts()


@pytest.mark.parametrize("at", [500, 800, 1100, 1500])
def test_lost_while_the_caller_speaks_or_waits(at: int) -> None:
    """Speaking until 820, over at 1320, answered at 1620: the sound is heard again, the turn is recorded once."""
    talk = RealtimeDialogue(agent(greeting=""), echo, words_after=2000)
    talk.says("tell me", at=400)
    talk.loses_model(at=at)
    talk.run(12_000)
    assert talk.turns == [("user", "tell me"), ("agent", "You said tell me.")]
    assert talk.model.number == 2


def test_lost_when_the_words_are_known_and_not_answered() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, words_after=0, llm_ms=1000)
    talk.says("tell me", at=0)
    talk.loses_model(at=1200)
    talk.run(12_000)
    assert talk.turns == [("user", "tell me"), ("agent", "You said tell me.")]
    assert talk.model.asked_for == ["respond"]


@pytest.mark.parametrize("again", ["all at once", "in two"])
def test_what_is_heard_again_may_be_divided_otherwise(again: str) -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, words_after=60_000, answers_by_itself=False)
    talk.says("tell me", at=0)
    talk.loses_model(at=1500, after=10_000)
    talk.run(1600)
    sounds = {"all at once": [("tell me now", 0, 900)], "in two": [("tell", 0, 200), ("me", 250, 420)]}[again]
    talk._sounds.clear()
    talk.words_after = 100
    talk.run(11_600)
    for text, start, end in sounds:
        talk.model.hears(text, start, end, words_after=100)
        talk.run(talk.now + 300)
    talk.run(20_000)
    assert [text for who, text in talk.turns if who == "user"] == [text for text, _, _ in sounds]


def test_a_pause_outlives_the_connection() -> None:
    """The caller talks over the agent, the connection breaks, the new one hears the caller again."""
    talk = RealtimeDialogue(agent(greeting="", min_speech_ms=2000), long)
    talk.says("tell me", at=0)
    talk.says("no wait a second please", at=4500)
    talk.loses_model(at=5000)
    talk.run(9000)
    assert talk.of(AgentTurn)[0].interrupted
    assert ("user", "no wait a second please") in talk.turns


def test_lost_while_a_tool_runs() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, tool_ms=5000)
    talk.says("book it", at=0)
    talk.loses_model(at=2500)
    talk.run(12_000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    notes = talk.model.memory.texts()
    assert any("is running already" in line for line in notes)
    assert 'note: The tool lookup has ended. Result: {"ok": true}' in notes
    assert talk.turns[-1][0] == "agent"
    assert talk.model.asked_for[-1] == "respond"


def test_a_result_that_comes_while_another_connection_is_made() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, tool_ms=2000)
    talk.says("book it", at=0)
    talk.loses_model(at=3000, after=1500)  # the result comes at about 3200
    talk.run(12_000)
    assert 'note: The tool lookup has ended. Result: {"ok": true}' in talk.model.memory.texts()
    assert talk.turns[-1][0] == "agent"


def test_keys_pressed_while_another_connection_is_made() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo)
    talk.loses_model(at=1000, after=1500)
    talk.at(1500, lambda: talk.feed(ev.KeyPressed("1")))
    talk.at(1600, lambda: talk.feed(ev.KeyPressed("#")))
    talk.run(6000)
    assert talk.model.memory.texts()[:1] == ["note: The caller pressed 1."]
    assert talk.turns == [("agent", "All right.")]


def test_a_renewal_by_handle_keeps_open_calls() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, GEMINI, tool_ms=3000)
    talk.says("book it", at=0)
    talk.loses_model(at=3500, after=1500, handle=True)  # the result comes in between
    talk.run(12_000)
    assert talk.model.number == 2
    assert talk.turns == [("user", "book it"), ("agent", "It is done.")]
    assert [call.id for call in talk.tool_runs] == ["t1"]


def test_a_renewal_in_silence_is_noticed_by_nobody() -> None:
    talk = RealtimeDialogue(agent(), echo)
    talk.says("hello", at=1500)
    talk.run(5000)
    assert talk.core.may_renew
    talk.loses_model(at=5000)
    talk.says("again", at=6000)
    talk.run(12_000)
    assert talk.turns == [
        ("agent", "Hello there."),
        ("user", "hello"),
        ("agent", "You said hello."),
        ("user", "again"),
        ("agent", "You said again."),
    ]
    assert talk.model.asked_for == []
    assert talk.model.memory.texts()[:3] == ["agent: Hello there.", "caller: hello", "agent: You said hello."]


def test_no_renewal_while_somebody_would_notice() -> None:
    talk = RealtimeDialogue(agent(), use_tool, tool_ms=2000)
    talk.says("book it", at=2000)
    quiet = []
    for at in range(0, 9000, 100):
        talk.run(at)
        quiet.append(talk.core.may_renew)
    assert not any(quiet[:12])  # the greeting
    assert all(quiet[14:20])
    assert not any(quiet[21:60])  # a question, a tool, an answer
    assert quiet[-1]


# --- the model is silent, or fails -----------------------------------------------------------------------


def test_a_silent_model_is_left_and_its_successor_apologises() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, answers_by_itself=False)
    talk.at(200, lambda: setattr(talk, "mute", True))
    talk.says("hello", at=500)
    talk.run(25_000)
    assert len(talk.ordered(do.GiveUpModel)) == 1
    assert [(t.source, t.text) for t in talk.of(AgentTurn)] == [
        ("apology", "Sorry, I'm having trouble right now."),
        ("reply", "You said hello."),
    ]


def test_a_model_that_does_not_even_greet_is_left() -> None:
    talk = RealtimeDialogue(agent(), echo, mute=True)
    talk.run(15_000)
    assert talk.turns == [("agent", "Hello there.")]


def test_a_slow_tool_is_not_held_against_the_model() -> None:
    talk = RealtimeDialogue(agent(greeting=""), use_tool, tool_ms=30_000)
    talk.says("book it", at=0)
    talk.run(40_000)
    assert talk.ordered(do.GiveUpModel) == []
    assert talk.turns[-1] == ("agent", "It is done.")


def test_a_failed_response_is_asked_for_again() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo)
    talk.says("hello", at=0)
    talk.at(1150, lambda: talk.model.fails())
    talk.run(6000)
    assert talk.turns == [("user", "hello"), ("agent", "You said hello.")]


def test_a_response_that_fails_in_mid_sentence_is_gone_on_with() -> None:
    talk = RealtimeDialogue(agent(greeting=""), long)
    talk.says("tell me", at=0)
    talk.at(2200, lambda: talk.model.fails())
    talk.run(16_000)
    first, second = talk.of(AgentTurn)
    assert LONG.startswith(first.text)
    assert not first.interrupted
    assert second.text == LONG
    assert any("cut off" in line for line in talk.model.memory.texts())


def test_the_greeting_is_asked_for_again_but_not_for_ever() -> None:
    talk = RealtimeDialogue(agent(), echo)
    for at in range(0, 20_000, 20):
        talk.at(at, lambda: talk.models and talk.model._announced and talk.model.fails())
    talk.run(20_000)
    assert talk.model.asked_for == ["say Hello there."] * 3


# --- on another bridge -----------------------------------------------------------------------------------


def test_a_resumed_call_says_so_and_answers_what_was_open() -> None:
    before = (AgentMessage(text="Hello there."), UserMessage(text="where is my order"))
    talk = RealtimeDialogue(agent(), echo, messages=before, resumed=True)
    talk.run(8000)
    assert talk.turns == [
        ("agent", "Sorry, we got cut off for a second."),
        ("agent", "You said where is my order."),
    ]
    assert talk.model.memory.opening == before


def test_a_resumed_call_waits_for_the_tool_that_still_runs() -> None:
    before = (AgentMessage(text="Hello there."), UserMessage(text="book it"))
    running = (ToolCall(id="t1", name="lookup"),)
    talk = RealtimeDialogue(agent(), use_tool, messages=before, running_tools=running, resumed=True, tool_ms=3000)
    talk.run(9000)
    assert [call.id for call in talk.tool_runs] == ["t1"]
    assert talk.turns[0] == ("agent", "Sorry, we got cut off for a second.")
    assert talk.model.asked_for[-1] == "respond"
    assert 'note: The tool lookup has ended. Result: {"ok": true}' in talk.model.memory.texts()


def test_a_call_cut_off_in_its_greeting_is_greeted_again() -> None:
    talk = RealtimeDialogue(agent(), echo, resumed=True)
    talk.run(6000)
    assert talk.turns[-1] == ("agent", "Hello there.")


def test_a_failed_transfer_is_explained_instead_of_apologised_for() -> None:
    note = "The transfer failed: busy."
    before = (UserMessage(text="a person please"), NoteMessage(text=note))
    talk = RealtimeDialogue(
        agent(greeting=""), lambda m: ["They are busy."], messages=before, resumed=True, note=note
    )
    talk.run(5000)
    assert talk.turns == [("agent", "They are busy.")]


def test_a_vendor_that_tells_of_words_only() -> None:
    profile = dataclasses.replace(OPENAI, server_turns=False)
    talk = RealtimeDialogue(agent(greeting=""), echo, profile)
    talk.at(500, lambda: talk.feed(ev.CallerWords("hello")))
    talk.run(7000)
    assert talk.turns[0] == ("user", "hello")


def test_words_that_come_too_late_for_their_turn_are_not_answered_again() -> None:
    talk = RealtimeDialogue(agent(greeting=""), echo, words_after=6000)
    talk.says("hello", at=500)
    talk.run(20_000)
    assert talk.turns == [("user", INAUDIBLE), ("agent", "You said hello."), ("user", "hello")]
