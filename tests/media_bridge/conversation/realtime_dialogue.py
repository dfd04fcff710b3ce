"""A realtime dialogue on a virtual clock: the real core and playout, a scripted caller, model and carrier.

The model hears only what it is told here, and is as strict as the vendors: it takes no second request while one is
open, no result for a call that it did not make, no cut of a response that it did not give.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from media_bridge.audio import playout as out
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.realtime_core import RealtimeConversation
from media_bridge.providers.base import RealtimeProfile
from stayline.models import (
    AgentMessage,
    AgentSpec,
    Message,
    ToolCall,
    ToolMessage,
    ToolOutcome,
    UserMessage,
)
from stayline.timeline import AgentTurn, Interruption, TimelineEvent, UserTurn
from tests.media_bridge.conversation.dialogue import EPOCH, MS_PER_CHAR, TICK, Part

Answer = Callable[["Memory"], Sequence[Part]]
"""What the model answers, given what it remembers."""

OPENAI = RealtimeProfile(
    native_mulaw=True, can_truncate=True, can_cancel=True, manual_responses=True, speaks_during_tools=True
)
GEMINI = RealtimeProfile(
    native_mulaw=False,
    can_truncate=False,
    can_cancel=False,
    speaks_during_tools=False,
    can_resume=True,
    session_seconds=600,
)

SPEED = 4
"""The model's audio comes so many times faster than it is played."""
PIECE_MS = 400


@dataclasses.dataclass
class Said:
    """One response, as the model remembers it."""

    name: str
    text: str = ""
    heard_ms: int | None = None  #: set by a cut
    audio_ms: int = 0
    status: str = ""


@dataclasses.dataclass
class Memory:
    """All that a model knows of the conversation."""

    opening: tuple[Message, ...]
    entries: list[Any] = dataclasses.field(default_factory=list)

    @property
    def last(self) -> Any:
        """What was heard or told last, its own words left out."""
        entries = [*self.opening, *self.entries]
        mine = (Said, AgentMessage)
        return next((entry for entry in reversed(entries) if not isinstance(entry, mine)), None)

    def texts(self) -> list[str]:
        """Everything, as lines: `caller:`, `agent:` (as far as it was heard), `note:`, `result:`."""
        lines = []
        for entry in [*self.opening, *self.entries]:
            match entry:
                case UserMessage(text=text):
                    lines.append(f"caller: {text}")
                case AgentMessage(text=text):
                    lines += [f"agent: {text}"] if text else []
                case ToolMessage(content=content):
                    lines.append(f"result: {content}")
                case Said(text=text, heard_ms=heard):
                    cut = text if heard is None else text[: heard // MS_PER_CHAR]
                    lines += [f"agent: {cut.strip()}"] if cut.strip() else []
                case _:
                    lines.append(f"note: {getattr(entry, 'text', entry)}")
        return lines


class Model:
    """One connection to a scripted voice-to-voice model."""

    def __init__(self, talk: RealtimeDialogue, number: int, opening: tuple[Message, ...]) -> None:
        self.talk = talk
        self.number = number
        self.memory = Memory(opening)
        self.alive = True
        self.said: dict[str, Said] = {}
        self.waits_for: set[str] = set()
        self.asked_for: list[str] = []  #: commands, for tests
        self._active = ""
        self._announced = False
        self._queue: deque[Sequence[Part] | None] = deque()
        self._responses = 0

    @property
    def profile(self) -> RealtimeProfile:
        return self.talk.profile

    # --- from the bridge ---

    def say(self, text: str) -> None:
        self.asked_for.append(f"say {text}")
        self._ask([text])

    def respond(self) -> None:
        self.asked_for.append("respond")
        if not self._active:
            self._ask(None)
        else:
            assert not self._announced, "asked to answer while it speaks"

    def _ask(self, parts: Sequence[Part] | None) -> None:
        """Begin now, or after what it has begun by itself; the bridge cannot have known of that."""
        if not self._active:
            self._begin(parts)
        else:
            assert not self._announced, "asked to speak while it speaks"
            self._queue.append(parts)

    def note(self, text: str) -> None:
        self.memory.entries.append(text)

    def tool_result(self, result: ToolMessage, respond: bool) -> None:
        assert result.tool_call_id in self.waits_for, (
            f"a result for {result.tool_call_id}, which it does not wait for"
        )
        self.waits_for.discard(result.tool_call_id)
        self.memory.entries.append(result)
        if respond:
            assert not self.waits_for, "asked to go on while calls are open"
            self.asked_for.append("go on")
            self._ask(None)

    def cancel(self) -> None:
        self.asked_for.append("cancel")
        if self._active and self.profile.can_cancel:
            self._end("cancelled")

    def truncate(self, response: str, heard_ms: int) -> None:
        assert self.profile.can_truncate
        said = self.said[response]
        assert heard_ms <= said.audio_ms, "cut beyond its end"
        said.heard_ms = heard_ms

    # --- the caller ---

    def hears(self, text: str, at: int, end: int, *, words_after: int, wrong: bool = False) -> None:
        """Sound from `at` to `end`; `text` empty: a noise that it does not answer."""
        talk = self.talk
        talk.at(max(talk.now, at + 60), lambda: self._caller_speaks(at))
        talk.at(max(talk.now, end + 500), lambda: self._caller_stopped(text, at, end, words_after, wrong))

    def _caller_speaks(self, at: int) -> None:
        if not self.alive:
            return
        self._tell(ev.CallerSpoke(at))
        if self._active and self.talk.spec.turn_taking.interruption == "immediate" and self.talk.hasty:
            self._end("cancelled")

    def _caller_stopped(self, text: str, at: int, end: int, words_after: int, wrong: bool) -> None:
        if not self.alive:
            return
        if text:
            self.memory.entries.append(UserMessage(text=text))
        words = ev.CallerWords("" if wrong else text, failed=wrong)
        self.talk.at(self.talk.now + words_after, lambda: self._tell(words))
        self._tell(ev.CallerStopped(end, end - at))
        by_itself = self.talk.spec.turn_taking.interruption == "immediate" or not self.profile.manual_responses
        if by_itself and text and self.talk.answers_by_itself and not self._active:
            self._begin(None, by_itself=True)

    # --- to the bridge ---

    def _begin(self, parts: Sequence[Part] | None, *, by_itself: bool = False) -> None:
        """`parts` None: whatever it answers now."""
        if self.talk.mute:
            return
        if parts is None:
            parts = self.talk.answer(self.memory)
        self._responses += 1
        name = f"r{self._responses}"  # the same names on each connection
        self._active, self._announced = name, False
        self.said[name] = Said(name)
        self.memory.entries.append(self.said[name])
        at = self.talk.now + self.talk.llm_ms
        known = by_itself and self.talk.tells_why
        self.talk.at(at, lambda: self._announce(name, known))
        for part in parts:
            if isinstance(part, str):
                for start in range(0, len(part), PIECE_MS // MS_PER_CHAR):
                    piece = part[start : start + PIECE_MS // MS_PER_CHAR]
                    at += len(piece) * MS_PER_CHAR // SPEED
                    self.talk.at(at, lambda p=piece: self._speaks(name, p))
            else:
                self.talk.at(at + 1, lambda c=part: self._calls(name, c))
        self.talk.at(at + 2, lambda: self._end("completed") if self._active == name else None)

    def _speaks(self, name: str, text: str) -> None:
        if self._active != name or not self.alive:
            return
        self.said[name].text += text
        self.said[name].audio_ms += len(text) * MS_PER_CHAR
        self._tell(ev.ResponseSaid(name, text))
        self.talk.audio(name, len(text) * MS_PER_CHAR)

    def _calls(self, name: str, call: ToolCall) -> None:
        if self._active == name and self.alive:
            self.waits_for.add(call.id)
            self._tell(ev.ToolAsked(call, call.name == "malformed"))

    def _end(self, status: Literal["completed", "cancelled", "failed"]) -> None:
        name, self._active = self._active, ""
        self.said[name].status = status
        if self._announced:
            self._tell(ev.ResponseEnded(name, status))
        if self._queue and self.alive:
            self._begin(self._queue.popleft())

    def fails(self) -> None:
        """The response under way fails."""
        if self._active:
            self._end("failed")

    def _announce(self, name: str, by_itself: bool) -> None:
        if self._active == name:
            self._announced = True
            self._tell(ev.ResponseBegan(name, by_itself))

    def _tell(self, event: ev.Event) -> None:
        if self.alive:
            self.talk.feed(event)


@dataclasses.dataclass
class RealtimeDialogue:
    """One simulated session.

    Args:
        answer: what the model answers.
        llm_ms, tool_ms: how long each takes.
        words_after: milliseconds from the end of a turn to its words.
        hasty: the model stops by itself when it hears the caller, while it still generates.
    """

    spec: AgentSpec
    answer: Answer
    profile: RealtimeProfile = OPENAI
    llm_ms: int = 300
    tool_ms: int = 500
    words_after: int = 200
    connect_ms: int = 100
    hasty: bool = True
    answers_by_itself: bool = True
    tells_why: bool = True  #: whether a response was asked for
    mute: bool = False  #: the model's responses never begin
    messages: Sequence[Message] = ()
    running_tools: Sequence[ToolCall] = ()
    resumed: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        self.now = 0
        self.core = RealtimeConversation(
            self.spec, EPOCH, self.messages, self.running_tools, self.resumed, self.note
        )
        self.playout = out.Playout()
        self.records: list[TimelineEvent] = []
        self.commands: list[do.Command] = []
        self.played = bytearray()
        self.clears: list[int] = []
        self.closed_at: int | None = None
        self.tool_runs: list[ToolCall] = []
        self.models: list[Model] = []
        self.opened: set[int] = set()
        self.ended: set[int] = set()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._timers: dict[str, int] = {}
        self._tools: dict[str, Any] = {}
        self._utterances: dict[str, int] = {}
        self._buffer: deque[bytes | str] = deque()
        self._inbox: deque[ev.Event] = deque()
        self._busy = False
        self._sounds: list[tuple[str, int, int, bool]] = []
        self._replay = 0  #: from where the next connection hears the caller
        self.feed(ev.CallStarted())
        self.connects()

    # --- the model's connections ---

    @property
    def model(self) -> Model:
        return self.models[-1]

    def connects(self, *, after: int | None = None, handle: bool = False) -> None:
        """A model is there `after` milliseconds; `handle`: it remembers the conversation."""
        before = self.models[-1] if self.models else None
        opening = () if handle else self.core.opening()

        def there() -> None:
            model = Model(self, len(self.models) + 1, opening)
            if handle and before is not None:
                model.memory, model.waits_for = before.memory, before.waits_for
            self.models.append(model)
            heard_from = self._replay
            self.core.profile = self.profile
            self.feed(ev.ModelBack(handle))
            for text, at, end, wrong in self._sounds:
                if at >= heard_from:
                    model.hears(text, at, end, words_after=self.words_after, wrong=wrong)

        self.at(self.now + (self.connect_ms if after is None else after), there)

    def loses_model(self, at: int, *, after: int | None = None, handle: bool = False) -> None:
        """The connection breaks, or is renewed, and another one is made."""

        def lost() -> None:
            if not self.models or not self.model.alive:
                return
            self._lose()
            self.connects(after=after, handle=handle)

        self.at(at, lost)

    def _lose(self) -> None:
        self._replay = self.core.replay_from(self.now)
        self.model.alive = False
        self._utterances.clear()
        self.feed(ev.ModelLost())

    # --- the caller ---

    def says(self, text: str, at: int, ms: int | None = None, wrong: bool = False) -> None:
        """The caller speaks from `at`. `wrong`: it cannot be written down."""
        length = ms if ms is not None else MS_PER_CHAR * max(1, len(text))
        self.at(at, lambda: self._sound(text, at, at + length, wrong))

    def noise(self, at: int, ms: int) -> None:
        self.says("", at, ms)

    def _sound(self, text: str, at: int, end: int, wrong: bool) -> None:
        self._sounds.append((text, at, end, wrong))
        if self.models and self.model.alive:
            self.model.hears(text, at, end, words_after=self.words_after, wrong=wrong)

    def at(self, ms: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (ms, self._order, action))

    # --- running ---

    def run(self, until: int) -> RealtimeDialogue:
        while self.now < until:
            target = self.now + TICK
            while self._due and self._due[0][0] <= target:
                at, _, action = heapq.heappop(self._due)
                self.now = max(self.now, at)
                action()
            self.now = target
            self._play()
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

    def ordered(self, kind: type) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    # --- commands ---

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.OpenSpeech(response, utterance):
                assert utterance not in self.opened
                self.opened.add(utterance)
                self._utterances[response] = utterance
                self.playout.add_text(utterance, "")
            case do.AddText(utterance, text):
                self.playout.add_text(utterance, text)
            case do.EndUtterance(utterance, cut):
                self.playout.close(utterance, cut=cut)
            case do.AskToSay(text):
                self.model.say(text)
            case do.Respond():
                self.model.respond()
            case do.TellModel(text):
                self.model.note(text)
            case do.AnswerTool(result, respond):
                self.model.tool_result(result, respond)
            case do.CancelResponse():
                self.model.cancel()
            case do.Truncate(response, heard_ms):
                self.model.truncate(response, heard_ms)
            case do.GiveUpModel():
                self.at(self.now, self._given_up)
            case do.PauseSpeech():
                self._send(self.playout.pause(self.now))
            case do.ResumeSpeech():
                self.playout.resume()
            case do.DropSpeech():
                messages, ended = self.playout.drop(self.now)
                self._send(messages)
                for item in ended:
                    self._speech_ended(item)
            case do.StopAfterSentence():
                self.playout.stop_after_sentence(self.now)
            case do.RunTool(call):
                self.tool_runs.append(call)
                self.at(self.now + self.tool_ms, lambda: self.finishes(call))
            case do.Record(event):
                self.records.append(event)
            case do.StartTimer(name, ms):
                self._timers[name] = self.now + ms
                self.at(self.now + ms, lambda at=self.now + ms: self._timer(name, at))
            case do.StopTimer(name):
                self._timers.pop(name, None)
            case do.Close():
                self.closed_at = self.now
            case _:
                raise AssertionError(f"{command} is not of the realtime pipeline")

    def _given_up(self) -> None:
        if self.model.alive:
            self._lose()
            self.mute = False
            self.connects()

    def finishes(self, call: ToolCall) -> None:
        outcome = ToolOutcome(id=call.id, name=call.name, status="succeeded", result={"ok": True})
        self.feed(ev.ToolDone(outcome))

    def _timer(self, name: str, at: int) -> None:
        if self._timers.get(name) == at:
            del self._timers[name]
            self.feed(ev.TimerFired(name))

    # --- the model's sound ---

    def audio(self, response: str, ms: int) -> None:
        if (utterance := self._utterances.get(response)) is not None:
            self.playout.add_audio(utterance, b"\x01" * (ms * 8), None)

    # --- the carrier ---

    def _pump(self) -> None:
        messages, news = self.playout.due(self.now)
        self._send(messages)
        for item in news:
            if isinstance(item, out.Started):
                self.feed(ev.SpeechBegan(item.utterance))
            else:
                self._speech_ended(item)

    def _speech_ended(self, ended: out.Ended) -> None:
        self.ended.add(ended.utterance)
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
