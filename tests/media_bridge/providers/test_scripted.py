"""The scripted model on the demo's scenario: whole conversations, as the bridge keeps them, and what is decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_bridge.providers.base import LlmRequest, LlmUsage, ProviderConfig, TextDelta, ToolCallDelta
from media_bridge.providers.offline.dialog import Decision, decide
from media_bridge.providers.offline.scenario_file import load_scenario
from media_bridge.providers.offline.scripted import ScriptedLlm
from stayline.errors import ProviderError
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, ToolSpec, UserMessage

DEMO = Path(__file__).resolve().parents[3] / "examples/demo/scenario.yaml"
SCENARIO = load_scenario(DEMO)
GREETING = AgentMessage(text="Hello, this is the order line of Northwind Parcels. How can I help you?")
ORDER = {"found": True, "item": "coffee grinder", "shipped": "Tuesday", "arrives": "Friday"}
ANYTHING_ELSE = "Is there anything else that I can do for you?"


class Call:
    """A conversation in the making: says and does what is decided."""

    def __init__(self) -> None:
        self.messages: list[Message] = [GREETING]

    def hear(self, text: str, confidence: float | None = 0.9) -> Decision:
        self.messages.append(UserMessage(text=text, confidence=confidence))
        return self.due()

    def due(self) -> Decision:
        return decide(SCENARIO, self.messages)

    def reply(self, interrupted_after: int | None = None) -> Decision:
        """Let the caller hear what is due (or so many words of it), and run the tool that it asks for."""
        due = self.due()
        heard = " ".join(due.text.split()[:interrupted_after])
        if heard:
            self.messages.append(AgentMessage(text=heard, interrupted=interrupted_after is not None))
        if due.tool_calls:
            self.messages.append(AgentMessage(tool_calls=due.tool_calls))
        return due

    def tool(self, result: Any = None, error: str | None = None) -> Decision:
        """The last tool call's result, where the bridge puts it: after the message that asked for it."""
        at, call = next(
            (n, m.tool_calls[0])
            for n, m in reversed(list(enumerate(self.messages)))
            if isinstance(m, AgentMessage) and m.tool_calls
        )
        content = json.dumps(result) if error is None else error
        message = ToolMessage(tool_call_id=call.id, name=call.name, content=content, is_error=error is not None)
        self.messages.insert(at + 1, message)
        return self.due()

    def ask(self, text: str, confidence: float | None = 0.9) -> Decision:
        self.hear(text, confidence)
        return self.reply()

    def order_told(self) -> Decision:
        self.ask("Where is my order?")
        self.ask("seven four two nine one")
        return self.tool(ORDER)


def lookup(number: str = "74291", n: int = 1) -> ToolCall:
    return ToolCall(id=f"t{n}-lookup_order", name="lookup_order", arguments={"number": number})


def test_the_whole_demo_call() -> None:
    call = Call()
    asked = call.ask("Good morning, where is my order?")
    assert asked == Decision("I can check that for you. What is your order number?", (), "ask_number")
    assert call.ask("Seven for two, nine, one.") == Decision("", (lookup(),), "look_up")
    told = call.tool(ORDER)
    assert told.text.startswith("Thank you for waiting. Your coffee grinder left our warehouse on Tuesday,")
    assert told.text.endswith(ANYTHING_ELSE)
    call.reply(interrupted_after=12)
    moved = call.ask("Late, can you deliver it on Saturday?")
    arguments = {"number": "74291", "day": "Saturday"}
    assert moved.tool_calls == (
        ToolCall(id="t2-reschedule_delivery", name="reschedule_delivery", arguments=arguments),
    )
    done = call.tool({"number": "74291", "day": "Saturday"})
    assert done.text == f"All right, your order 7 4 2 9 1 will now be delivered on Saturday. {ANYTHING_ELSE}"
    call.reply()
    hours = call.ask("When are you open on Monday?")
    assert hours.text.startswith("Our shop is open from eight")
    assert hours.text.endswith("Is there anything else?")
    bye = call.ask("Thank you very much.")
    goodbye = {"say": "You're welcome. Thank you for calling, and goodbye."}
    assert bye == Decision("", (ToolCall(id="t3-end_call", name="end_call", arguments=goodbye),), "goodbye")


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Where's my package?", "ask_number"),
        ("I want to track a parcel", "ask_number"),
        ("where is my delivery", "ask_number"),
        ("Can I have it on a different day?", "ask_number_to_reschedule"),
        ("I need to speak to a human", "connect"),
        ("What are your opening ours?", "open"),
        ("Just a second.", "open"),
        ("Goodbye.", "goodbye"),
        ("No.", "goodbye"),
        ("Tell me a joke.", "open"),
    ],
)
def test_what_a_caller_may_want(said: str, state: str) -> None:
    assert Call().hear(said).state == state


def test_a_number_said_with_the_wish_is_not_asked_for() -> None:
    assert Call().hear("Where is my order, number 74291?").tool_calls == (lookup(),)


def test_a_number_may_come_in_two_parts() -> None:
    call = Call()
    call.ask("Where is my order?")
    assert "five digits" in call.ask("seven four two").text
    assert call.hear("nine one").tool_calls == (lookup(),)


def test_keys_are_a_number_too() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.messages.append(NoteMessage(text="The caller pressed 74291"))
    assert call.due().tool_calls == (lookup(),)


def test_what_is_not_understood_is_asked_again_and_then_given_up() -> None:
    call = Call()
    call.ask("Where is my order?")
    assert call.ask("blah").text.startswith("Sorry, I need the five digits")
    assert call.ask("blah blah").state == "ask_number"
    given_up = call.ask("blah")
    assert given_up.tool_calls == (
        ToolCall(id="t1-transfer_call", name="transfer_call", arguments={"to": "support"}),
    )


def test_a_doubtful_number_is_confirmed() -> None:
    call = Call()
    call.ask("Where is my order?")
    doubtful = call.ask("seven four two nine one", confidence=0.6)
    assert doubtful == Decision("I heard 7 4 2 9 1. Is that right?", (), "ask_number")
    assert call.ask("hm", 0.9).text == "Sorry, I didn't get that. I heard 7 4 2 9 1. Is that right?"
    assert call.hear("Yes.").tool_calls == (lookup(),)


def test_a_wrong_number_is_corrected() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.ask("seven four two nine zero", confidence=0.6)
    assert "five digits" in call.ask("No, that's wrong.").text
    call.ask("seven four two nine five", confidence=0.6)
    assert call.hear("No, seven four two nine one.").tool_calls == (lookup(),)


def test_a_doubtful_wish_is_confirmed_where_the_scenario_says_so() -> None:
    call = Call()
    asked = call.ask("Can you deliver it on Friday?", confidence=0.55)
    assert asked.text == "Do I understand that you would like another day for the delivery?"
    assert call.hear("Yes, please.").state == "ask_number_to_reschedule"
    call = Call()
    call.ask("Can you deliver it on Friday?", confidence=0.55)
    assert call.hear("No.").state == "open"


def test_very_doubtful_words_count_as_not_understood() -> None:
    assert Call().hear("Goodbye.", confidence=0.3).text == "Sorry, I didn't get that. How can I help you?"


def test_a_recogniser_without_confidence_is_believed() -> None:
    assert Call().hear("Where is my order?", confidence=None).state == "ask_number"


def test_the_greeting_can_be_repeated() -> None:
    assert Call().hear("Pardon?").text == GREETING.text
    assert decide(SCENARIO, [UserMessage(text="Pardon?")]).text.startswith("Sorry, I didn't get that.")


def test_repeat_and_wait_stay_where_they_are() -> None:
    call = Call()
    asked = call.ask("Where is my order?")
    assert call.ask("Pardon?") == asked
    waited = call.ask("Hold on please.")
    assert waited.text == "Of course. Take your time. What is your order number?"
    assert call.hear("74291").tool_calls == (lookup(),)


# --- tools ---


def test_results_lead_to_branches() -> None:
    def after(**outcome: Any) -> Decision:
        call = Call()
        call.ask("Where is my order?")
        call.ask("74291")
        return call.tool(**outcome)

    assert after(result=ORDER).state == "anything_else"
    missing = after(result={"found": False})
    assert missing.text.startswith("I'm sorry, there is no order with the number 7 4 2 9 1. Could you say")
    assert missing.state == "ask_number_again"
    assert after(error="The tool failed.").text.startswith("I'm sorry, our warehouse does not answer")


def test_an_unknown_outcome_is_never_told_as_done() -> None:
    call = Call()
    call.order_told()
    call.reply()
    call.ask("Can you deliver it on Saturday?")
    unknown = call.tool(error="Unknown: it timed out. It may or may not have taken effect.")
    assert unknown.text.startswith("I asked for Saturday, but have no answer yet.")


def test_while_a_tool_runs_the_caller_is_asked_for_patience() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.ask("74291")
    assert call.hear("Hello?") == Decision("One moment, I'm still on it.", (), "look_up")


def test_a_word_said_meanwhile_does_not_lose_the_result() -> None:
    """The bridge puts the result before what the caller said while it waited for it."""
    call = Call()
    call.ask("Where is my order?")
    call.ask("74291")
    call.hear("Hello? Are you there?")
    told = call.tool(ORDER)
    assert told.text.startswith("Thank you for waiting. Your coffee grinder")
    assert told.text.endswith(ANYTHING_ELSE)


def test_a_question_asked_meanwhile_is_answered_with_the_result() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.ask("74291")
    call.hear("And what are your opening hours?")
    told = call.tool(ORDER)
    assert told.text.startswith("Thank you for waiting. Your coffee grinder")
    assert "Our shop is open" in told.text
    assert told.text.count("anything else") == 1


def test_a_reply_cut_before_its_tool_was_asked_for_is_made_up_for() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.hear("seven four two nine one")  # decided, but nobody saw the call
    assert call.hear("hello").tool_calls == (lookup(n=2),)
    assert call.hear("no, it is seven four two nine five").tool_calls == (lookup("74295", n=3),)


def test_the_bridge_may_change_a_tool_calls_id() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.hear("74291")
    renamed = lookup().model_copy(update={"id": "s2-t1-lookup_order"})
    call.messages.append(AgentMessage(tool_calls=(renamed,)))
    assert call.tool(ORDER).text.startswith("Thank you for waiting.")


def test_news_that_nobody_heard_is_told_with_the_next_reply() -> None:
    call = Call()
    call.ask("Where is my order?")
    call.hear("What are your opening hours?")  # cut before its first word
    assert call.hear("My number is 74291").text.startswith("Our shop is open")


def test_a_failed_transfer_comes_back_to_the_conversation() -> None:
    call = Call()
    call.order_told()
    call.reply()
    asked = call.ask("Can I talk to a person?")
    assert [c.name for c in asked.tool_calls] == ["transfer_call"]
    assert call.tool({"transferring_to": "support"}).text == ""
    call.messages.append(NoteMessage(text="The transfer to support failed: busy. The caller is back with you."))
    back = call.due()
    assert back.text.startswith("I'm sorry, none of my colleagues is free")
    assert back.state == "anything_else"
    call.reply()
    assert call.hear("What are your opening hours?").text.startswith("Our shop")


def test_a_refused_transfer_does_so_at_once() -> None:
    call = Call()
    call.ask("Give me a human")
    assert call.tool(error="There is nobody called 'support'.").state == "anything_else"


# --- resumed calls ---


def test_an_unanswered_question_gets_its_answer_on_another_bridge() -> None:
    call = Call()
    first = call.hear("Where is my order?")
    call.messages.append(NoteMessage(text="The line was cut for a moment; the caller is connected again."))
    call.messages.append(AgentMessage(text="Sorry, we got cut off for a second."))
    assert call.due() == first


def test_a_reply_that_was_cut_off_is_said_again() -> None:
    call = Call()
    told = call.order_told()
    call.reply(interrupted_after=5)
    assert call.due() == told


def test_after_an_answer_that_was_heard_the_question_is_asked_again() -> None:
    call = Call()
    call.order_told()
    call.reply()
    assert call.due() == Decision("Is there anything else?", (), "anything_else")


def test_an_empty_conversation_begins_at_the_start() -> None:
    assert decide(SCENARIO, []) == Decision("", (), "open")


# --- as a language model ---


def request(messages: Sequence[Message], *tools: str) -> LlmRequest:
    specs = [ToolSpec(name=name, description="", parameters={}) for name in tools]
    return LlmRequest(instructions="", messages=messages, tools=specs, call_id="CA1")


@pytest.fixture
def model() -> ScriptedLlm:
    return ScriptedLlm(ProviderConfig("offline", "scripted", options={"scenario": str(DEMO)}))


async def test_replies_stream_word_by_word_and_cost_nothing(model: ScriptedLlm) -> None:
    await model.warm()
    events = [e async for e in model.stream(request([GREETING, UserMessage(text="Where is my order?")]))]
    texts = [e.text for e in events if isinstance(e, TextDelta)]
    assert len(texts) == 11
    assert "".join(texts) == "I can check that for you. What is your order number?"
    assert events[-1] == LlmUsage()
    await model.aclose()


async def test_a_tool_call_comes_whole(model: ScriptedLlm) -> None:
    messages: list[Message] = [GREETING, UserMessage(text="where is order 74291")]
    events = [e async for e in model.stream(request(messages, "lookup_order"))]
    assert events == [ToolCallDelta(lookup()), LlmUsage()]


async def test_a_tool_that_the_agent_lacks_is_an_error(model: ScriptedLlm) -> None:
    with pytest.raises(ProviderError, match=r"'look_up'.*'lookup_order'"):
        [e async for e in model.stream(request([UserMessage(text="where is order 74291")], "other"))]


# --- properties ---

UTTERANCES = [
    *("Where is my order?", "seven four two nine one", "74295", "seven four two", "nine one", "Yes.", "No."),
    *("Can you deliver it on Saturday?", "Friday", "What are your opening hours?", "blah blah", "Pardon?"),
    *("I want a human", "Hold on", "Thank you very much.", "", "hello"),
]
_heard = st.builds(
    UserMessage, text=st.sampled_from(UTTERANCES), confidence=st.sampled_from([None, 0.3, 0.55, 0.7, 0.95])
)
_notes = st.sampled_from(
    ["The caller pressed 74291", "The caller pressed 1", "The transfer to support failed: busy"]
)
_steps = st.lists(
    st.one_of(
        _heard,
        st.builds(NoteMessage, text=_notes),
        st.sampled_from(["all heard", "some heard", "no tool asked"]),
        st.sampled_from([{"found": True, **ORDER}, {"found": False}, {"day": "Friday"}, "Unknown: late", "failed"]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=100)
@given(_steps)
def test_any_conversation_has_one_answer(steps: list[Any]) -> None:
    """Whatever happens: asked twice the answer is the same, noise on the record does not change it, calls have
    ids of their own and whole arguments, and a caller who spoke is never met with silence."""
    call = Call()
    seen: dict[str, ToolCall] = {}
    issued: set[str] = set()
    for step in steps:
        if isinstance(step, UserMessage | NoteMessage):
            call.messages.append(step)
        elif isinstance(step, str) and step in ("all heard", "some heard", "no tool asked"):
            due = call.due()
            words = due.text.split()[: 3 if step == "some heard" else None]
            if words:
                call.messages.append(AgentMessage(text=" ".join(words), interrupted=step == "some heard"))
            if due.tool_calls and step != "no tool asked":
                call.messages.append(AgentMessage(tool_calls=due.tool_calls))
                issued |= {c.id for c in due.tool_calls}
        elif issued:
            failed = isinstance(step, str)
            call.tool(None if failed else step, error=step if failed else None)
        before = list(call.messages)
        due = call.due()
        assert call.messages == before
        assert due == call.due()
        assert due == decide(SCENARIO, [*before, NoteMessage(text="It rains.")])
        assert due.state in SCENARIO.states
        for asked in due.tool_calls:
            assert seen.setdefault(asked.id, asked) == asked
            assert asked.id not in issued
            if "number" in asked.arguments:
                assert len(asked.arguments["number"]) == 5
        if isinstance(step, UserMessage) and due.state not in ("connect", "goodbye"):
            assert due.text or due.tool_calls
        assert "{" not in due.text
