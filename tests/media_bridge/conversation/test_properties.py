"""What holds in every dialogue, whatever the caller does and however slow the others are."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.clauses import Clauses
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, UserMessage
from stayline.timeline import AgentTurn, UserTurn
from tests.media_bridge.conversation.dialogue import Dialogue, Part, agent

WORDS = st.sampled_from(
    ["hello", "mhm", "book a table please", "yeah", "what is the time now", "stop", "okay then"]
)
ACTIONS = st.lists(
    st.tuples(
        st.integers(200, 4000), st.sampled_from(["say", "guess", "wrong guess", "noise", "key", "operator"]), WORDS
    ),
    max_size=6,
)


def model(messages: Sequence[Message]) -> list[Part]:
    """Asks for a tool once per request for a table, and talks otherwise."""
    asked = sum(isinstance(m, UserMessage) and "table" in m.text for m in messages)
    used = sum(isinstance(m, ToolMessage) for m in messages)
    if asked > used and isinstance(messages[-1], UserMessage) and "table" in messages[-1].text:
        return ["One second. ", ToolCall(id=f"t{asked}", name="lookup", arguments={"n": asked})]
    return ["Well, let me tell you something about that. ", "It is a longer story, really."]


def play(
    actions: list[tuple[int, str, str]], interruption: str, llm_ms: int, tts_ms: int, tool_ms: int
) -> Dialogue:
    talk = Dialogue(agent(interruption=interruption), model, llm_ms=llm_ms, tts_ms=tts_ms, tool_ms=tool_ms)
    at = 0
    for pause, kind, text in actions:
        at += pause
        if kind in ("say", "guess", "wrong guess"):
            talk.says(text, at)
            if kind != "say":  # the recogniser is sure enough 200 ms before it is sure
                talk.pauses(text if kind == "guess" else f"{text} or", at + 60 * len(text) + 300)
            if kind == "wrong guess":
                talk.goes_on(at + 60 * len(text) + 400)
            at += 60 * len(text) + 700  # one turn after the other: the recogniser's own rule
        elif kind == "noise":
            talk.noise(at, 300)
            at += 900
        elif kind == "key":
            talk.at(at, lambda: talk.feed(ev.KeyPressed("5")))
        else:
            talk.at(at, lambda: talk.feed(ev.SayRequested("A word from the house.", "operator")))
    return talk.run(at + 60_000)


DIALOGUES = given(
    ACTIONS,
    st.sampled_from(["immediate", "after_sentence", "disabled"]),
    st.integers(20, 1500),
    st.integers(20, 600),
    st.integers(20, 9000),
)


@settings(max_examples=60, deadline=None)
@DIALOGUES
def test_every_dialogue_keeps_its_promises(
    actions: list[tuple[int, str, str]], interruption: str, llm_ms: int, tts_ms: int, tool_ms: int
) -> None:
    talk = play(actions, interruption, llm_ms, tts_ms, tool_ms)

    heard = [e.text for e in talk.of(UserTurn)]
    said = [text for _, kind, text in actions if kind in ("say", "guess", "wrong guess")]
    assert [t for t in heard if t in said] == heard, "a turn was recorded that nobody said"
    substantial = {"hello", "book a table please", "what is the time now", "stop", "okay then"}
    assert [t for t in heard if t in substantial] == [t for t in said if t in substantial], "a turn was lost"

    for turn in talk.of(AgentTurn):
        if turn.interrupted:
            assert turn.generated is not None
            assert turn.generated.startswith(turn.text), "heard something that was not generated"

    ids = [call.id for call in talk.tool_runs]
    assert len(ids) == len(set(ids)), "a tool ran twice"

    starts = [c.reply for c in talk.commands if isinstance(c, do.StartReply)]
    assert starts == sorted(set(starts))

    if interruption == "disabled":
        assert talk.clears == []

    # Nobody waits for ever: everything the caller said was put to the model, and the floor is free again.
    last_user = max((i for i, m in enumerate(talk.core.messages) if isinstance(m, UserMessage)), default=None)
    if last_user is not None:
        after = talk.core.messages[last_user + 1 :]
        assert any(isinstance(m, AgentMessage) for m in after), "the last turn was never answered"
    assert talk.playout.idle


@settings(max_examples=40, deadline=None)
@DIALOGUES
def test_what_was_heard_is_what_was_played(
    actions: list[tuple[int, str, str]], interruption: str, llm_ms: int, tts_ms: int, tool_ms: int
) -> None:
    talk = play(actions, interruption, llm_ms, tts_ms, tool_ms)
    played_ms = len(talk.played) // 8
    # A cut is known to the last mark plus the time since: never off by more than a tick or two.
    assert abs(talk.heard_ms - played_ms) <= 60 * (len(talk.clears) + 1)
    assert sum(turn.speech_ms for turn in talk.of(AgentTurn)) <= talk.heard_ms


@settings(max_examples=30, deadline=None)
@DIALOGUES
def test_the_same_dialogue_runs_the_same_way_twice(
    actions: list[tuple[int, str, str]], interruption: str, llm_ms: int, tts_ms: int, tool_ms: int
) -> None:
    first = play(actions, interruption, llm_ms, tts_ms, tool_ms)
    again = play(actions, interruption, llm_ms, tts_ms, tool_ms)
    assert first.commands == again.commands


@given(st.text(alphabet="ab .,;!?'…—3", max_size=120), st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_clauses_lose_nothing(text: str, sizes: list[int]) -> None:
    clauses = Clauses()
    out: list[str] = []
    position = 0
    for size in sizes * (len(text) + 1):
        if position >= len(text):
            break
        out += clauses.feed(text[position : position + size])
        position += size
    out += clauses.flush()
    assert "".join(out).rstrip() == text.rstrip()
