"""What holds in every realtime dialogue: whoever speaks when, and whenever the connection breaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.core import CLOSE_MS
from media_bridge.conversation.realtime_core import RealtimeConversation
from media_bridge.conversation.realtime_state import INAUDIBLE
from media_bridge.providers.base import RealtimeProfile
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, ToolOutcome, UserMessage
from stayline.timeline import AgentTurn, UserTurn
from tests.media_bridge.conversation.dialogue import EPOCH, Part, agent
from tests.media_bridge.conversation.realtime_dialogue import GEMINI, OPENAI, Memory, RealtimeDialogue

PROFILES = st.sampled_from(
    [OPENAI, GEMINI, dataclasses.replace(OPENAI, can_truncate=False), dataclasses.replace(GEMINI, can_cancel=True)]
)
MODES = st.sampled_from(["immediate", "after_sentence", "disabled"])
WORDS = st.sampled_from(["hello", "mhm", "book a table please", "yeah", "what is the time now", "stop"])
KINDS = ["say", "noise", "key", "operator", "lost", "renewed", "fail", "interrupt"]
ACTIONS = st.lists(st.tuples(st.integers(100, 4000), st.sampled_from(KINDS), WORDS), max_size=7)


def answer(memory: Memory) -> Sequence[Part]:
    """Asks for a tool once per request for a table, and talks otherwise."""
    if isinstance(memory.last, UserMessage) and "table" in memory.last.text:
        number = len(memory.entries) + 100 * len(memory.opening)
        return ["One second. ", ToolCall(id=f"t{number}", name="lookup", arguments={"n": number})]
    return ["Well, let me tell you something about that. ", "It is a longer story, really."]


def well_formed(messages: Sequence[Message]) -> None:
    """Each tool call is followed by its results, and each result answers a call."""
    open_calls: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert open_calls.pop(0) == message.tool_call_id
        else:
            assert not open_calls
            if isinstance(message, AgentMessage):
                open_calls = [call.id for call in message.tool_calls]
    assert not open_calls


@settings(max_examples=150, deadline=None)
@given(
    ACTIONS,
    PROFILES,
    MODES,
    st.integers(20, 1500),
    st.integers(0, 6000),
    st.sampled_from([0, 150, 700, 3000]),
    st.integers(20, 3000),
    st.booleans(),
)
def test_every_dialogue_keeps_its_promises(
    actions: list[tuple[int, str, str]],
    profile: RealtimeProfile,
    mode: str,
    llm_ms: int,
    tool_ms: int,
    words_after: int,
    connect_ms: int,
    hasty: bool,
) -> None:
    talk = RealtimeDialogue(
        agent(interruption=mode),
        answer,
        profile,
        llm_ms=llm_ms,
        tool_ms=tool_ms,
        words_after=words_after,
        connect_ms=connect_ms,
        hasty=hasty,
    )
    at, breaks = connect_ms + 100, False
    for pause, kind, text in actions:
        at += pause
        match kind:
            case "say":
                talk.says(text, at)
                at += 60 * len(text) + 700  # one turn after the other
            case "noise":
                talk.noise(at, 300)
                at += 900
            case "key":
                talk.at(at, lambda: talk.feed(ev.KeyPressed("5")))
            case "operator":
                talk.at(at, lambda: talk.feed(ev.SayRequested("A word from the house.", "operator")))
            case "interrupt":
                talk.at(at, lambda: talk.feed(ev.InterruptRequested()))
            case "fail":
                breaks = True
                talk.at(at, lambda: talk.models and talk.model._announced and talk.model.fails())
            case "lost" | "renewed":
                breaks = True
                talk.loses_model(at, handle=kind == "renewed" and profile.can_resume)
    talk.run(at + 60_000)

    heard = [e.text for e in talk.of(UserTurn)]
    said = [text for _, kind, text in actions if kind == "say"]
    clear = {"hello", "book a table please", "what is the time now", "stop"}
    if not breaks:
        assert [t for t in heard if t in clear] == [t for t in said if t in clear], "a turn was lost"
    else:  # a turn may be inaudible, but none is recorded twice or out of order
        rest = iter(said)
        assert all(text in rest for text in heard if text != INAUDIBLE)
        assert sum(t in clear for t in said) <= len(heard), "a turn was lost"

    for turn in talk.of(AgentTurn):
        if turn.interrupted:
            assert turn.generated is not None
            assert turn.generated.startswith(turn.text), "heard something that was not generated"

    ids = [call.id for call in talk.tool_runs]
    assert len(ids) == len(set(ids)), "a tool ran twice"
    if mode == "disabled" and all(kind != "interrupt" for _, kind, _ in actions):
        assert talk.clears == []

    # Nobody waits for ever, and the floor is free again.
    well_formed(talk.core.messages)
    last_user = max((i for i, m in enumerate(talk.core.messages) if isinstance(m, UserMessage)), default=None)
    if last_user is not None and all(kind != "interrupt" for _, kind, _ in actions):
        after = talk.core.messages[last_user + 1 :]
        assert any(isinstance(m, AgentMessage) for m in after), "the last turn was never answered"
    assert talk.playout.idle
    assert talk.opened == talk.ended
    assert talk.core.silent

    talk.feed(ev.CloseRequested("Goodbye."))
    talk.run(talk.now + CLOSE_MS + 100)
    assert talk.closed_at is not None
    assert talk.turns[-1] == ("agent", "Goodbye.")


# --- any events in any order ------------------------------------------------------------------------------

NAMES = st.sampled_from(["r1", "r2", "r3"])
CALLS = st.builds(ToolCall, id=st.sampled_from(["t1", "t2"]), name=st.sampled_from(["lookup", "report", "unknown"]))
TIMERS = st.sampled_from(
    ["min_speech", "false_interruption", "words", "response", "answer", "again", "talk", "keys", "last_words"]
)
STATUS = st.sampled_from(["completed", "cancelled", "failed"])
EVENTS = st.one_of(
    st.builds(ev.CallerSpoke, st.none() | st.integers(0, 5000)),
    st.builds(ev.CallerPartial, WORDS),
    st.builds(ev.CallerStopped, st.integers(0, 9000), st.integers(0, 3000)),
    st.builds(ev.CallerWords, st.sampled_from(["", "mhm", "hello"]), st.booleans()),
    st.builds(ev.ResponseBegan, NAMES, st.booleans()),
    st.builds(ev.ResponseSaid, NAMES, st.sampled_from(["", "Some words. "])),
    st.builds(ev.ResponseEnded, NAMES, STATUS),
    st.builds(ev.ToolAsked, CALLS, st.booleans()),
    st.builds(ev.ToolsForgotten, st.just(("t1",))),
    st.builds(ev.ModelLost),
    st.builds(ev.ModelBack, st.booleans()),
    st.builds(ev.KeyPressed, st.sampled_from("12#")),
    st.builds(ev.SayRequested, st.just("A word."), st.sampled_from(["operator", "limit", "silence"])),
    st.builds(ev.InterruptRequested),
    st.builds(ev.TimerFired, TIMERS),
    st.just("tool"),
    st.just("played"),
)


class Shell:
    """Carries out commands with the least that the core may rely on, and checks their order."""

    def __init__(self, mode: str, profile: RealtimeProfile, running: bool) -> None:
        calls = (ToolCall(id="t0", name="lookup"),) if running else ()
        self.core = RealtimeConversation(agent(interruption=mode), EPOCH, running_tools=calls, resumed=running)
        self.core.profile = profile
        self.now = 0
        self.open: dict[int, str] = {}  #: utterances that have not ended
        self.tools: list[ToolCall] = []
        self.records: list[Any] = []
        self.connected = False
        self.active = ""
        self.asked = 0  #: requests that no response has answered
        self.closed = False
        self.feed(ev.CallStarted())

    def feed(self, event: ev.Event) -> None:
        self.now += 50
        match event:
            case ev.ModelBack():
                if self.connected:
                    return
                self.connected, self.asked = True, 0
                if not event.knows_tools:
                    well_formed(self.core.opening())
            case ev.ModelLost():
                self.connected, self.active, self.asked = False, "", 0
            case ev.ResponseBegan(name, by_itself):
                if not self.connected or self.active:
                    return
                self.active = name
                self.asked = max(0, self.asked - (not by_itself))
            case ev.ResponseEnded(name):
                if name == self.active:
                    self.active = ""
            case ev.ResponseSaid() | ev.ToolAsked() | ev.CallerPartial() | ev.CallerWords() if not self.connected:
                return
            case _:
                pass
        ended: list[int] = []
        for command in self.core.handle(event, self.now):
            match command:
                case do.OpenSpeech(_, utterance):
                    assert utterance not in self.open
                    self.open[utterance] = ""
                case do.AddText(utterance, text):
                    if utterance in self.open:
                        self.open[utterance] += text
                case do.DropSpeech():
                    ended += [u for u in self.open if u not in ended]
                case do.AskToSay() | do.Respond():
                    assert self.connected
                    assert not self.active, "asked while it answers"
                    assert not self.closed
                case do.Truncate() | do.CancelResponse() | do.AnswerTool() | do.TellModel():
                    assert self.connected
                case do.RunTool(call):
                    assert call.id not in [c.id for c in self.tools], "the same id twice"
                    self.tools.append(call)
                case do.Record(record):
                    self.records.append(record)
                case do.Close():
                    assert not self.closed
                    self.closed = True
        for utterance in ended:
            self.ends(utterance, complete=False)

    def ends(self, utterance: int, *, complete: bool) -> None:
        text = self.open.pop(utterance)
        heard = text.strip() if complete else text[: len(text) // 2].strip()
        self.feed(ev.SpeechEnded(utterance, heard, complete, len(heard) * 60))


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=60), MODES, PROFILES, st.booleans())
def test_nothing_that_happens_breaks_it(
    events: list[Any], mode: str, profile: RealtimeProfile, running: bool
) -> None:
    shell = Shell(mode, profile, running)
    for event in events:
        if event == "played":
            if shell.open:
                shell.ends(min(shell.open), complete=True)
        elif event == "tool":
            done = shell.tools[-1:] if shell.tools else []
            for call in done:
                shell.feed(ev.ToolDone(ToolOutcome(id=call.id, name=call.name, status="succeeded", result=1)))
        else:
            shell.feed(event)
        well_formed(shell.core.messages)
    turns = [r for r in shell.records if isinstance(r, UserTurn)]
    words = [e for e in events if isinstance(e, ev.CallerWords)]
    assert len(turns) <= len(words) + sum(isinstance(e, ev.CallerStopped) for e in events)

    shell.feed(ev.CloseRequested("Goodbye."))
    shell.feed(ev.TimerFired("close"))
    assert shell.closed
    assert not shell.open
    assert shell.core.handle(ev.CallerSpoke(), shell.now) == []
