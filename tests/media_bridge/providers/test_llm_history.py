"""Histories that phone calls leave and vendors refuse, made acceptable."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from media_bridge.providers.llm_history import (
    GO_ON,
    INTERRUPTED,
    NO_RESULT_YET,
    OPENING,
    alternating,
    in_vendor_order,
)
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, UserMessage


def call(id: str, name: str = "look_up") -> ToolCall:
    return ToolCall(id=id, name=name, arguments={"q": id})


def result(id: str, content: str = "42", *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(tool_call_id=id, name="look_up", content=content, is_error=is_error)


def test_a_greeting_gets_something_before_it_and_nothing_follows_the_agent_but_a_note() -> None:
    assert in_vendor_order([AgentMessage(text="Hello!")]) == [
        NoteMessage(text=OPENING),
        AgentMessage(text="Hello!"),
        NoteMessage(text=GO_ON),
    ]


def test_an_empty_conversation_is_an_opening() -> None:
    assert in_vendor_order([]) == [NoteMessage(text=OPENING)]
    assert in_vendor_order([UserMessage(text="  ")]) == [NoteMessage(text=OPENING)]


def test_results_follow_their_call_in_its_order_and_notes_come_after() -> None:
    asked = AgentMessage(text="Let me see.", tool_calls=(call("a"), call("b")))
    note = NoteMessage(text="The caller pressed 1.")
    repaired = in_vendor_order([UserMessage(text="Hi"), asked, result("b", "2"), note, result("a", "1")])
    assert repaired == [UserMessage(text="Hi"), asked, result("a", "1"), result("b", "2"), note]


def test_a_call_without_a_result_is_answered_and_a_late_result_is_told_where_it_came() -> None:
    asked = AgentMessage(tool_calls=(call("a"),))
    history: list[Message] = [UserMessage(text="Book it"), asked, UserMessage(text="Are you there?")]
    before = in_vendor_order(history)
    assert before[2] == result("a", NO_RESULT_YET)

    after = in_vendor_order([*history, AgentMessage(text="One moment."), result("a", "booked")])
    assert after[: len(before)] == before  # the vendor's prompt cache still fits
    assert after[-1] == NoteMessage(text="The tool look_up has finished: booked")


def test_a_result_that_nobody_asked_for_and_a_second_one_are_notes() -> None:
    asked = AgentMessage(tool_calls=(call("a"),))
    repaired = in_vendor_order([UserMessage(text="x"), asked, result("a"), result("a", "again"), result("z")])
    assert [type(m).__name__ for m in repaired] == [
        "UserMessage",
        "AgentMessage",
        "ToolMessage",
        "NoteMessage",
        "NoteMessage",
    ]


def test_a_failed_tool_that_comes_late_is_told_as_failed() -> None:
    (note,) = in_vendor_order([result("z", "no such order", is_error=True)])
    assert note == NoteMessage(text="The tool look_up has failed: no such order")


def test_what_was_cut_is_marked_outside_of_the_agents_own_words() -> None:
    cut = AgentMessage(text="The weather in ", interrupted=True)
    repaired = in_vendor_order([UserMessage(text="Weather?"), cut, UserMessage(text="Stop")])
    assert repaired[1] == AgentMessage(text="The weather in", interrupted=True)
    assert repaired[2] == NoteMessage(text=INTERRUPTED)


def test_a_reply_of_which_nothing_was_heard_leaves_nothing() -> None:
    repaired = in_vendor_order(
        [UserMessage(text="a"), AgentMessage(text="", interrupted=True), UserMessage(text="b")]
    )
    assert repaired == [UserMessage(text="a"), UserMessage(text="b")]


def test_ids_of_other_vendors_fit_and_stay_apart() -> None:
    long = "x" * 80
    asked = AgentMessage(tool_calls=(call("a:1"), call("a.1"), call(long), call(long + "y")))
    answers = [result(c.id, c.id) for c in asked.tool_calls]
    repaired = in_vendor_order([UserMessage(text="x"), asked, *answers])
    said, *told = repaired[1:]
    assert isinstance(said, AgentMessage)
    ids = [c.id for c in said.tool_calls]
    assert ids == ["a_1", "a_1-2", "x" * 64, "x" * 62 + "-2"]
    assert [m.tool_call_id for m in told if isinstance(m, ToolMessage)] == ids
    assert [m.content for m in told if isinstance(m, ToolMessage)] == ["a:1", "a.1", long, long + "y"]


def test_alternating_makes_notes_the_users_words_and_joins_neighbours() -> None:
    messages: list[Message] = [
        AgentMessage(text="Hello!"),
        AgentMessage(text="This is the operator."),
        UserMessage(text="Hi"),
        NoteMessage(text="The caller pressed 1."),
    ]
    assert alternating(messages) == [
        UserMessage(text=f"[{OPENING}]"),
        AgentMessage(text="Hello! This is the operator."),
        UserMessage(text="Hi\n[The caller pressed 1.]"),
    ]


_texts = st.sampled_from(["", " ", "yes", "a: b"])
_ids = st.sampled_from(["a", "b", "c.d", "c:d", "call-1"])
_messages = st.lists(
    st.one_of(
        st.builds(UserMessage, text=_texts),
        st.builds(NoteMessage, text=_texts),
        st.builds(result, _ids),
        st.builds(
            AgentMessage,
            text=_texts,
            interrupted=st.booleans(),
            tool_calls=st.lists(st.builds(call, _ids), max_size=3, unique_by=lambda c: c.id).map(tuple),
        ),
    ),
    max_size=12,
)


@given(_messages)
def test_whatever_happened_the_promises_hold(messages: list[Message]) -> None:
    repaired = in_vendor_order(messages)
    seen: set[str] = set()
    expected: list[str] = []
    for message in repaired:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id == expected.pop(0)
            continue
        assert not expected
        if isinstance(message, AgentMessage):
            assert message.text or message.tool_calls
            expected = [c.id for c in message.tool_calls]
            assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id) for id in expected)
            assert not seen & set(expected)
            seen |= set(expected)
        else:
            assert message.text.strip()
    assert not expected
    assert isinstance(repaired[0], UserMessage | NoteMessage)
    assert not isinstance(repaired[-1], AgentMessage)

    roles = ["agent" if isinstance(m, AgentMessage) else "user" for m in alternating(messages)]
    runs = [role for i, role in enumerate(roles) if i == 0 or role != roles[i - 1]]
    assert runs == ["user" if i % 2 == 0 else "agent" for i in range(len(runs))]
    assert runs[-1] == "user"
