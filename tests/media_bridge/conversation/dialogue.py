"""A dialogue on a virtual clock: the real conversation core and playout, with a scripted caller, model and carrier.

Thirty seconds of talk run in milliseconds, and always the same way. Speech costs 60 ms a character; the carrier
plays 20 ms a tick, echoes marks when it reaches them, and all outstanding ones after a clear, as Twilio does.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from media_bridge.audio import playout as out
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.core import Conversation
from stayline.models import AgentSpec, Message, ToolCall, ToolOutcome, ToolSpec, TurnTaking
from stayline.timeline import AgentTurn, Interruption, TimelineEvent, UserTurn

TICK = 20
MS_PER_CHAR = 60
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Part = str | ToolCall
Model = Callable[[Sequence[Message]], list[Part]]


def agent(**settings: Any) -> AgentSpec:
    """An agent with a greeting and a slow tool, for tests."""
    rules = {k: settings.pop(k) for k in list(settings) if k in TurnTaking.model_fields}
    tools = settings.pop(
        "tools",
        (
            ToolSpec(name="lookup", description="Look up.", parameters={"type": "object"}, filler="Let me check."),
            ToolSpec(name="report", description="Report.", parameters={"type": "object"}, background=True),
        ),
    )
    return AgentSpec(
        name="test",
        greeting=settings.pop("greeting", "Hello there."),
        turn_taking=TurnTaking(**rules),
        tools=tools,
        **settings,
    )


@dataclasses.dataclass
class Dialogue:
    """One simulated session.

    Args:
        model: what the language model answers to the messages it is given.
        llm_ms, tts_ms, tool_ms: how long each takes to its first (or only) answer.
    """

    spec: AgentSpec
    model: Model
    llm_ms: int = 300
    tts_ms: int = 100
    tool_ms: int = 500
    messages: Sequence[Message] = ()
    running_tools: Sequence[ToolCall] = ()
    resumed: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        self.now = 0
        self.core = Conversation(self.spec, EPOCH, self.messages, self.running_tools, self.resumed, self.note)
        self.playout = out.Playout()
        self.records: list[TimelineEvent] = []
        self.commands: list[do.Command] = []
        self.played = bytearray()  #: every byte that the caller heard
        self.clears: list[int] = []
        self.closed_at: int | None = None
        self.heard_ms = 0  #: what the playout says was heard, fillers and half words too
        self.tool_runs: list[ToolCall] = []
        self.requests: list[tuple[Message, ...]] = []
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._timers: dict[str, int] = {}
        self._replies: set[int] = set()
        self._buffer: deque[bytes | str] = deque()
        self._texts: dict[int, int] = {}  #: characters synthesised so far
        self._dropped: set[int] = set()
        self._utterances: set[int] = set()
        self._inbox: deque[ev.Event] = deque()
        self._busy = False
        self.feed(ev.CallStarted())

    # --- the caller ---

    def says(self, text: str, at: int, ms: int | None = None, confidence: float = 0.9) -> None:
        """The caller speaks from `at`: sound after 60 ms, partials while talking, the turn 500 ms after the end."""
        length = ms if ms is not None else MS_PER_CHAR * max(1, len(text))
        self.at(at + 60, lambda: self.feed(ev.CallerSpoke(at)))
        words = text.split()
        for count in range(1, len(words) + 1):
            partial = " ".join(words[:count])
            self.at(at + 60 + length * count // len(words), lambda p=partial: self.feed(ev.CallerPartial(p)))
        self.at(at + length + 500, lambda: self.feed(ev.CallerTurn(text, confidence, at + length, length)))

    def pauses(self, text: str, at: int) -> None:
        """The recogniser takes the turn for over, but is not sure."""
        self.at(at, lambda: self.feed(ev.CallerPaused(text)))

    def goes_on(self, at: int) -> None:
        """It was not over."""
        self.at(at, lambda: self.feed(ev.CallerResumed()))

    def noise(self, at: int, ms: int) -> None:
        """Sound without words."""
        self.at(at + 60, lambda: self.feed(ev.CallerSpoke(at)))
        self.at(at + ms + 500, lambda: self.feed(ev.CallerTurn("", None, at + ms, ms)))

    def at(self, ms: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (ms, self._order, action))

    # --- running ---

    def run(self, until: int) -> Dialogue:
        """Let time pass up to `until` milliseconds."""
        while self.now < until:
            target = self.now + TICK
            while self._due and self._due[0][0] <= target:
                at, _, action = heapq.heappop(self._due)
                self.now = max(self.now, at)
                action()
            self.now = target
            self._play()
            self.playout.frame(self.now)
            self._pump()
        return self

    def feed(self, event: ev.Event) -> None:
        self._inbox.append(event)
        if self._busy:
            return
        self._busy = True
        while self._inbox:
            for command in self.core.handle(self._inbox.popleft(), self.now):
                self.commands.append(command)
                self._carry_out(command)
        self._busy = False

    # --- what was recorded ---

    @property
    def turns(self) -> list[tuple[str, str]]:
        """("user" | "agent", text) in the order of the record, without fillers."""
        turns = []
        for event in self.records:
            if isinstance(event, UserTurn):
                turns.append(("user", event.text))
            elif isinstance(event, AgentTurn) and event.source != "filler":
                turns.append(("agent", event.text))
        return turns

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.records if isinstance(event, kind)]

    @property
    def interruptions(self) -> list[Interruption]:
        return self.of(Interruption)

    # --- commands ---

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.StartReply(reply, messages):
                self._replies.add(reply)
                self.requests.append(messages)
                parts = self.model(messages)
                self.at(self.now + self.llm_ms, lambda: self._answer(reply, parts))
            case do.CancelReply(reply):
                self._replies.discard(reply)
            case do.Say(utterance, text):
                assert utterance not in self._dropped, "text for an utterance that was given up"
                self._utterances.add(utterance)
                self.playout.add_text(utterance, text)
                self._texts[utterance] = self._texts.get(utterance, 0) + len(text)
                chars, audio = self._texts[utterance], b"\x01" * (MS_PER_CHAR * 8 * len(text))
                self.at(self.now + self.tts_ms, lambda: self.playout.add_audio(utterance, audio, chars))
            case do.EndUtterance(utterance):
                self.at(self.now + self.tts_ms + 1, lambda: self.playout.close(utterance))
            case do.PauseSpeech():
                self._send(self.playout.pause(self.now))
            case do.ResumeSpeech():
                self.playout.resume()
            case do.DropSpeech():
                messages_out, ended = self.playout.drop(self.now)
                self._dropped |= self._utterances
                self._send(messages_out)
                for item in ended:
                    self._speech_ended(item)
            case do.StopAfterSentence():
                self.playout.stop_after_sentence(self.now)
            case do.RunTool(call):
                self.tool_runs.append(call)
                outcome = ToolOutcome(id=call.id, name=call.name, status="succeeded", result={"ok": True})
                self.at(self.now + self.tool_ms, lambda: self.feed(ev.ToolDone(outcome)))
            case do.Record(event):
                self.records.append(event)
            case do.StartTimer(name, ms):
                self._timers[name] = self.now + ms
                self.at(self.now + ms, lambda at=self.now + ms: self._timer(name, at))
            case do.StopTimer(name):
                self._timers.pop(name, None)
            case do.Close():
                self.closed_at = self.now

    def _timer(self, name: str, at: int) -> None:
        if self._timers.get(name) == at:
            del self._timers[name]
            self.feed(ev.TimerFired(name))

    def _answer(self, reply: int, parts: list[Part]) -> None:
        for part in parts:
            if reply not in self._replies:
                return
            if isinstance(part, str):
                self.feed(ev.ReplyText(reply, part))
            else:
                self.feed(ev.ReplyTool(reply, part))
        if reply in self._replies:
            self._replies.discard(reply)
            self.feed(ev.ReplyDone(reply))

    # --- the carrier ---

    def _pump(self) -> None:
        messages, news = self.playout.due(self.now)
        self._send(messages)
        for item in news:
            if isinstance(item, out.Started):
                self.feed(ev.SpeechBegan(item.utterance, self.tts_ms))
            else:
                self._speech_ended(item)

    def _speech_ended(self, ended: out.Ended) -> None:
        self.heard_ms += ended.speech_ms
        self.feed(ev.SpeechEnded(ended.utterance, ended.heard, ended.complete, ended.speech_ms))

    def _send(self, messages: list[out.Outbound]) -> None:
        for message in messages:
            match message:
                case out.SendAudio(audio):
                    self._buffer.append(audio)
                case out.SendMark(name):
                    self._buffer.append(name)
                case out.SendClear():
                    self.clears.append(self.now)
                    marks = [m for m in self._buffer if isinstance(m, str)]
                    self._buffer.clear()
                    for name in marks:
                        self.playout.mark(name, self.now)

    def _play(self) -> None:
        budget = TICK * 8
        while self._buffer:
            item = self._buffer[0]
            if isinstance(item, str):
                self._buffer.popleft()
                self.playout.mark(item, self.now)
            elif budget == 0:
                return
            else:
                self.played += item[:budget]
                rest = item[budget:]
                budget = max(0, budget - len(item))
                if rest:
                    self._buffer[0] = rest
                else:
                    self._buffer.popleft()
