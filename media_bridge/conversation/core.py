"""Who speaks, and when: the turn-taking of a call as a pure state machine.

`Conversation.handle` takes one event and returns the commands that follow from it. It does no I/O and reads no
clock: times come with the events. Three rules carry it:

- A turn is recorded when it is over, and an agent turn holds what the caller heard.
- While the agent speaks, caller sound first only pauses it (in `immediate` mode). Words confirm the
  interruption; a noise or a backchannel ("mhm") lets the agent go on where it stopped.
- A tool is never cancelled by speech, and never asked for twice. What the caller says while one runs is kept
  and answered together with the tool's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.history import History
from media_bridge.conversation.parting import END_CALL, Parting
from media_bridge.conversation.speech import Reply, Utterance
from media_bridge.conversation.words import is_listening_noise, same_words
from stayline.models import AgentSpec, Message, NoteMessage, ToolCall, ToolOutcome, UserMessage
from stayline.timeline import (
    ASIDES,
    AgentSource,
    AgentTurn,
    Dtmf,
    Interruption,
    TimelineEvent,
    UserTurn,
)

KEYS_MS: Final = 1500
"""Keys pressed within this time of each other are one entry; `#` ends it at once."""
CLOSE_MS: Final = 15_000
"""A goodbye that is not over after this long is cut."""
PARTINGS: Final = (END_CALL, "transfer_call")
"""Tools after which the caller is somebody else's: the model is not asked for more."""
OPEN_TURN_MS: Final = 5000
"""A caller turn without a new word for this long is taken as over: its recogniser was lost."""


class Conversation:
    """Decides who speaks. Takes events, returns commands; does no I/O and reads no clock.

    Args:
        agent: the agent's configuration.
        epoch: UTC time of stream position 0, for the timestamps of records.
        messages: the conversation of earlier sessions.
        running_tools: tools of an earlier session that still run.
        resumed: an earlier session was lost; say so before going on.
        note: why the caller is back (already among the messages); takes the place of the resume sentence.
    """

    def __init__(
        self,
        agent: AgentSpec,
        epoch: datetime,
        messages: Sequence[Message] = (),
        running_tools: Sequence[ToolCall] = (),
        resumed: bool = False,
        note: str = "",
    ) -> None:
        self._agent = agent
        self._rules = agent.turn_taking
        self._epoch = epoch
        self._resumed = resumed
        self._note = note
        self._history = History(messages)
        self._now = 0
        self._out: list[do.Command] = []
        self._next_id = 1
        self._speech: dict[int, Utterance] = {}
        self._reply: Reply | None = None
        self._needs_reply = False
        self._turn_end: tuple[int | None, int] | None = None  #: (speech end, turn decided) of the open question
        self._caller_talking = False  #: words of an open caller turn were heard
        self._paused = False
        self._yielding = False  #: `after_sentence`: the agent is finishing its sentence
        self._tools: dict[str, ToolCall] = {}  #: running, and the conversation waits for them
        self._background: dict[str, ToolCall] = {}
        self._earlier_tools = tuple(running_tools)
        self._parting = Parting()
        self._keys = ""
        self._closing = False
        self._closed = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as a language model would get it now."""
        return self._history.messages()

    @property
    def silent(self) -> bool:
        """Nobody speaks, and nobody is about to."""
        busy = self._speech or self._caller_talking or self._reply or self._needs_reply or self._tools
        return not busy and not self._closing

    def handle(self, event: ev.Event, at_ms: int) -> list[do.Command]:
        """Take one event that happened at stream time `at_ms`; return what is to be done, in order."""
        self._now = max(self._now, at_ms)
        self._out = []
        if not self._closed or isinstance(event, ev.SpeechEnded):
            self._take(event)
        return self._out

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.CallStarted():
                self._start()
            case ev.CallerSpoke(at_ms):
                self._caller_spoke(self._now if at_ms is None else at_ms)
            case ev.CallerPartial(text):
                self._caller_partial(text)
            case ev.CallerPaused(text):
                self._caller_paused(text)
            case ev.CallerResumed():
                self._give_up_guess()
            case ev.CallerTurn():
                self._caller_turn(event)
            case ev.ReplyText(reply, text):
                self._reply_text(reply, text)
            case ev.ReplyTool(reply, call, malformed):
                self._reply_tool(reply, call, malformed)
            case ev.ReplyDone(reply):
                self._reply_done(reply)
            case ev.ReplyFailed(reply):
                self._reply_failed(reply)
            case ev.ToolDone(outcome):
                self._tool_done(outcome)
            case ev.SpeechBegan(utterance, tts_ms):
                self._speech_began(utterance, tts_ms)
            case ev.SpeechEnded():
                self._speech_ended(event)
            case ev.KeyPressed(digit):
                self._key_pressed(digit)
            case ev.SayRequested(text, source):
                self._say_whole(text, source)
            case ev.InterruptRequested():
                if self._speech and not self._closing:
                    self._interrupt(now=True)
            case ev.CloseRequested(say):
                self._close_requested(say)
            case ev.StreamGone():
                self._stream_gone()
            case ev.TimerFired(name):
                self._timer(name)
            case _:  # of the realtime pipeline
                pass

    # --- the call begins ---

    def _start(self) -> None:
        self._needs_reply = self._history.unanswered or bool(self._note)
        if self._resumed and not self._note and self._agent.resume_text:
            self._say_whole(self._agent.resume_text, "resume")
        if self._agent.greeting and not self._history.agent_has_spoken:
            self._say_whole(self._agent.greeting, "greeting")
        for call in self._earlier_tools:
            self._run(call, reply=0)
        self._maybe_reply()

    # --- the caller ---

    def _caller_spoke(self, since_ms: int) -> None:
        if self._speech and not self._paused and not self._yielding and self._may_interrupt():
            left = since_ms + self._rules.min_speech_ms - self._now
            self._out.append(do.StartTimer("min_speech", min(max(0, left), self._rules.min_speech_ms)))

    def _caller_partial(self, text: str) -> None:
        if not text.strip():
            return
        if not is_listening_noise(text, self._rules):
            self._caller_talking = True
            self._out.append(do.StartTimer("open_turn", OPEN_TURN_MS))
            if self._reply is not None and self._reply.guess is not None:
                if not same_words(text, self._reply.guess):
                    self._give_up_guess()
            elif self._reply is not None and not self._speech and self._rules.interruption != "disabled":
                self._cancel_reply()  # nothing was heard of it, and the caller goes on talking
                self._needs_reply = True
        if self._speech and self._interrupts(text):
            self._interrupt()

    def _caller_turn(self, turn: ev.CallerTurn) -> None:
        self._caller_talking = False
        self._out += [do.StopTimer("min_speech"), do.StopTimer("open_turn")]
        text = turn.text.strip()
        if not text or (self._speech and is_listening_noise(text, self._rules)):
            self._give_up_guess()
            if self._paused:
                self._resume()
            self._maybe_reply()
            return
        if self._speech and self._may_interrupt() and not self._closing:
            self._interrupt()
        self._record(UserTurn(at=self._at(), text=text, confidence=turn.confidence, speech_ms=turn.speech_ms))
        self._history.add(UserMessage(text=text, confidence=turn.confidence))
        self._parting.caller_spoke()
        if self._closing or self._part_again():
            return
        self._turn_end = (turn.speech_end_ms, self._now)
        if self._guessed_right(text):
            return
        self._needs_reply = True
        if self._reply is not None and not self._reply.calls and self._rules.interruption != "disabled":
            self._cancel_reply()  # the caller said more before anything was heard
        if self._tools and not self._speech and self._rules.hold_text:
            self._say_whole(self._rules.hold_text, "filler")
        self._maybe_reply()

    def _part_again(self) -> bool:
        """Who speaks after the farewell, while `end_call` is under way, is told goodbye once more."""
        ending = any(call.name == END_CALL for call in self._tools.values())
        if not ending or self._speech or self._reply is not None or not self._agent.goodbye:
            return False
        self._say_whole(self._agent.goodbye, "goodbye")
        return True

    # --- a reply that is begun before the turn is surely over ---

    def _caller_paused(self, text: str) -> None:
        """The turn is probably over: have the model begin. Nothing of it is heard or done before it is certain."""
        text = text.strip()
        busy = self._speech or self._tools or self._needs_reply or self._reply or self._closing or self._yielding
        if not text or busy:
            return
        reply = Reply(self._new_id(), self._now, None, None, guess=text)
        self._reply = reply
        self._out.append(do.StartReply(reply.id, (*self._history.messages(), UserMessage(text=text))))

    def _give_up_guess(self) -> None:
        if self._reply is not None and self._reply.guess is not None:
            self._cancel_reply()

    def _guessed_right(self, text: str) -> bool:
        """The turn is over: with the words that the reply was begun for, it is the reply; else it is none."""
        reply = self._reply
        if reply is None or reply.guess is None:
            return False
        if not same_words(text, reply.guess):
            self._give_up_guess()
            return False
        reply.guess = None
        reply.committed_ms = self._now
        reply.speech_end_ms, reply.turn_ms = self._turn_end or (None, None)
        self._turn_end = None
        held, reply.held = reply.held, []
        for item in held:
            if isinstance(item, str):
                self._speak_of(reply, item)
            else:
                self._reply_tool(reply.id, *item)
        if reply.done:
            self._reply_done(reply.id)
        return True

    def _key_pressed(self, digit: str) -> None:
        self._record(Dtmf(at=self._at(), digit=digit))
        if digit != "#":
            self._keys += digit
            self._out.append(do.StartTimer("keys", KEYS_MS))
        else:
            self._keys_entered()

    def _keys_entered(self) -> None:
        self._out.append(do.StopTimer("keys"))
        keys, self._keys = self._keys, ""
        if not keys or self._closing:
            return
        self._history.add(NoteMessage(text=f"The caller pressed {keys}."))
        if self._speech and self._may_interrupt():
            self._interrupt()
        self._turn_end = (None, self._now)
        self._needs_reply = True
        self._maybe_reply()

    # --- interruption ---

    def _may_interrupt(self) -> bool:
        return self._rules.interruption != "disabled" and not self._closing

    def _interrupts(self, text: str) -> bool:
        words = len(text.split())
        return (
            self._may_interrupt() and words >= self._rules.min_words and not is_listening_noise(text, self._rules)
        )

    def _pause(self) -> None:
        """Caller sound while the agent speaks: be silent at once, decide when there are words."""
        if not self._speech or self._paused or self._yielding:
            return
        if self._rules.interruption == "immediate":
            self._paused = True
            self._out.append(do.PauseSpeech())
            self._out.append(do.StartTimer("false_interruption", self._rules.false_interruption_ms))

    def _resume(self) -> None:
        self._paused = False
        self._out.append(do.StopTimer("false_interruption"))
        if not self._rules.resume_after_false_interruption:
            self._interrupt()
            return
        self._record(Interruption(at=self._at(), mode=self._rules.interruption, resumed=True))
        self._out.append(do.ResumeSpeech())

    def _interrupt(self, *, now: bool = False) -> None:
        """The caller takes the floor. `now`: whatever the agent's own rule is."""
        if self._yielding:
            return
        self._paused = False
        self._out += [do.StopTimer("min_speech"), do.StopTimer("false_interruption")]
        self._cancel_reply()
        if self._rules.interruption == "after_sentence" and not now:
            self._yielding = True
            self._out.append(do.StopAfterSentence())
        else:
            self._out.append(do.DropSpeech())

    # --- the agent's reply ---

    def _maybe_reply(self) -> None:
        """Start a reply when one is due and nothing stands against it."""
        waiting = self._tools or self._caller_talking or self._closing or self._yielding
        if not self._needs_reply or self._reply is not None or waiting:
            return
        if self._speech and self._rules.interruption == "disabled" and not self._only_fillers():
            return
        self._needs_reply = False
        speech_end, turn = self._turn_end or (None, None)
        self._turn_end = None
        self._reply = Reply(self._new_id(), self._now, speech_end, turn)
        self._out.append(do.StartReply(self._reply.id, self._history.messages()))

    def _only_fillers(self) -> bool:
        return all(u.source == "filler" for u in self._speech.values())

    def _reply_text(self, reply_id: int, text: str) -> None:
        reply = self._current(reply_id)
        if reply is None:
            return
        if reply.first_token_ms is None:
            reply.first_token_ms = self._now
        if reply.guess is not None:
            reply.held.append(text)
        else:
            self._speak_of(reply, text)

    def _speak_of(self, reply: Reply, text: str) -> None:
        for clause in reply.clauses.feed(text):
            self._say_clause(reply, clause)

    def _say_clause(self, reply: Reply, clause: str) -> None:
        if reply.utterance is None:
            reply.utterance = self._open("reply", reply)
        self._say(reply.utterance, clause)

    def _reply_tool(self, reply_id: int, call: ToolCall, malformed: bool) -> None:
        reply = self._current(reply_id)
        if reply is None:
            return
        if reply.first_token_ms is None:
            reply.first_token_ms = self._now
        if reply.guess is not None:
            reply.held.append((call, malformed))
            return
        if malformed:
            error = "The arguments were not a JSON object."
            self._history.add_tool(reply_id, call)
            self._history.settle(ToolOutcome(id=call.id, name=call.name, status="failed", error=error))
            self._needs_reply = True
            return
        reply.calls.append(call.id)
        self._run(call, reply_id)

    def _reply_done(self, reply_id: int) -> None:
        reply = self._current(reply_id)
        if reply is None:
            return
        if reply.guess is not None:
            reply.done = True
            return
        for clause in reply.clauses.flush():
            self._say_clause(reply, clause)
        if reply.utterance is not None:
            reply.utterance.tool_calls += reply.calls
            self._out.append(do.EndUtterance(reply.utterance.id))
        self._reply = None
        self._maybe_reply()

    def _reply_failed(self, reply_id: int) -> None:
        reply = self._current(reply_id)
        if reply is None:
            return
        if reply.guess is not None:  # it is asked for again when the turn is over
            self._reply = None
            return
        if reply.utterance is not None:
            self._out.append(do.EndUtterance(reply.utterance.id))
        self._reply = None
        if not reply.calls:
            self._say_whole(self._agent.apology_text, "apology")

    def _cancel_reply(self) -> None:
        reply, self._reply = self._reply, None
        if reply is None:
            return
        self._out.append(do.CancelReply(reply.id))
        if reply.utterance is not None:
            reply.utterance.tool_calls += reply.calls
            self._out.append(do.EndUtterance(reply.utterance.id))

    def _current(self, reply_id: int) -> Reply | None:
        return self._reply if self._reply is not None and self._reply.id == reply_id else None

    # --- tools ---

    def _run(self, call: ToolCall, reply: int) -> None:
        spec = self._agent.tool(call.name)
        background = spec is not None and spec.background
        self._history.add_tool(reply, call, background=background)
        if background:
            self._background[call.id] = call
            self._needs_reply = True
        else:
            self._tools[call.id] = call
        self._parting.tool_asked(call)
        self._out.append(do.RunTool(call))
        if spec is not None and spec.filler and not background:
            self._out.append(do.StartTimer(f"filler:{call.id}", self._rules.filler_after_ms))

    def _tool_done(self, outcome: ToolOutcome) -> None:
        self._parting.tool_done(outcome)
        call = self._tools.pop(outcome.id, None)
        if call is not None:
            self._out.append(do.StopTimer(f"filler:{outcome.id}"))
            self._history.settle(outcome)
        elif self._background.pop(outcome.id, None) is not None:
            self._history.settle(outcome)
        else:
            return
        if outcome.name in PARTINGS and outcome.status == "succeeded":
            return  # all was said: the workflow closes the stream in a moment, or later where Temporal is slow
        if self._turn_end is None:
            self._turn_end = (None, self._now)
        self._needs_reply = True
        self._maybe_reply()

    def _filler_due(self, tool_id: str) -> None:
        call = self._tools.get(tool_id)
        spec = self._agent.tool(call.name) if call else None
        if spec is not None and spec.filler and not self._speech and not self._caller_talking and not self._closing:
            self._say_whole(spec.filler, "filler")

    # --- speech ---

    def _open(self, source: AgentSource, reply: Reply | None = None) -> Utterance:
        utterance = Utterance(self._new_id(), source, reply)
        self._speech[utterance.id] = utterance
        self._history.open_speech(utterance.id, spoken_to_model=source not in ASIDES)
        return utterance

    def _say(self, utterance: Utterance, text: str) -> None:
        utterance.text += text
        self._history.extend_speech(utterance.id, text)
        self._out.append(do.Say(utterance.id, text))

    def _say_whole(self, text: str, source: AgentSource) -> None:
        if not text or self._closed:
            return
        utterance = self._open(source)
        self._say(utterance, text)
        self._out.append(do.EndUtterance(utterance.id))

    def _speech_began(self, utterance_id: int, tts_ms: int | None) -> None:
        utterance = self._speech.get(utterance_id)
        reply = utterance.reply if utterance else None
        if utterance is None or reply is None:
            return
        utterance.latency = reply.latency(tts_ms, self._now)

    def _speech_ended(self, ended: ev.SpeechEnded) -> None:
        utterance = self._speech.pop(ended.utterance, None)
        if utterance is None:
            return
        cut = not ended.complete
        self._history.end_speech(utterance.id, ended.heard, interrupted=cut)
        if cut and ended.speech_ms and utterance.source != "filler" and not self._closing:
            self._record(Interruption(at=self._at(), mode=self._rules.interruption, heard=ended.heard))
        if ended.heard:
            self._parting.heard((utterance.source, utterance.tool_calls), complete=ended.complete)
            self._record(
                AgentTurn(
                    at=self._at(),
                    text=ended.heard,
                    generated=utterance.text.strip() if cut else None,
                    interrupted=cut,
                    source=utterance.source,
                    speech_ms=ended.speech_ms,
                    latency=utterance.latency,
                    tool_calls=tuple(utterance.tool_calls),
                )
            )
        if not self._speech:
            self._yielding = False
            self._paused = False
            if self._closing:
                self._close()
        self._maybe_reply()

    # --- the end, timers ---

    def _close_requested(self, say: str) -> None:
        if self._closing:
            return
        self._closing = True
        if self._paused:
            self._paused = False
            self._out.append(do.ResumeSpeech())
        self._cancel_reply()
        playing = () if self._yielding else ((u.source, u.tool_calls) for u in self._speech.values())
        self._say_whole(say or (self._agent.goodbye if self._parting.owed(playing) else ""), "goodbye")
        if self._speech:
            self._out.append(do.StartTimer("close", CLOSE_MS))
        else:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._out += [do.StopTimer("close"), do.Close()]

    def _stream_gone(self) -> None:
        """The carrier's stream ended: account for what was heard, do nothing more."""
        self._closing = self._closed = True
        self._cancel_reply()
        if self._speech:
            self._out.append(do.DropSpeech())

    def _timer(self, name: str) -> None:
        if name == "min_speech":
            self._pause()
        elif name == "false_interruption" and self._paused and not self._caller_talking:
            self._resume()
        elif name == "open_turn":
            self._caller_talking = False
            self._give_up_guess()
            if self._paused:
                self._resume()
            self._maybe_reply()
        elif name == "keys":
            self._keys_entered()
        elif name == "close":
            self._out.append(do.DropSpeech())
            self._close()
        elif name.startswith("filler:"):
            self._filler_due(name.removeprefix("filler:"))

    def _record(self, event: TimelineEvent) -> None:
        self._out.append(do.Record(event))

    def _at(self) -> datetime:
        return self._epoch + timedelta(milliseconds=self._now)

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1
