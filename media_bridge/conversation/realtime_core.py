"""Who speaks, and when, with a voice-to-voice model: a pure state machine like `core.Conversation`.

The model hears, thinks and speaks by itself; what is decided here is what the caller hears of it, what the model
is asked and told, and what is recorded. Four rules carry it:

- The caller's first sound pauses the agent at once (`immediate`); the sound going on, words, or the model's own
  decision make it an interruption, a mere noise lets the agent go on.
- A response that was cut is cut in the model's memory too, to what the caller heard.
- Words of the caller often come after the answer to them has begun; a turn keeps its place until then.
- A connection may be lost or renewed at any time. What was asked of the model and not given is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.core import CLOSE_MS, KEYS_MS
from media_bridge.conversation.history import CUT_OFF, History
from media_bridge.conversation.parting import Parting
from media_bridge.conversation.realtime_floor import Floor
from media_bridge.conversation.realtime_requests import Requests
from media_bridge.conversation.realtime_state import INAUDIBLE, Response, Turns, Wish
from media_bridge.conversation.realtime_tools import ToolCalls
from media_bridge.conversation.words import is_listening_noise
from media_bridge.providers.base import RealtimeProfile
from stayline.models import AgentSpec, Message, NoteMessage, ToolCall, ToolOutcome
from stayline.timeline import ASIDES, Dtmf, Interruption, TimelineEvent

ANSWER_MS: Final = 4000
"""A turn that the model does not answer by itself for so long after its words is put to it."""
WORDS_MS: Final = 5000
"""How long the words of a turn are waited for after its end."""
RUN_UP_MS: Final = 500
"""Sound before the caller's first word that a new connection hears with it."""
UNNOTICED_MS: Final = 3000
"""Speech may have begun so long ago, and the model has not told of it yet."""
AGAIN_MS: Final = 4000
"""How long a new connection may take to notice the turn that it hears again."""
LAST_WORDS_MS: Final = 6000
"""How long the agent may go on with what it is saying before a goodbye; then its sentence ends."""


class RealtimeConversation:
    """Decides who speaks. Takes events, returns commands; does no I/O and reads no clock.

    Args: as `core.Conversation`'s.
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
        self._earlier_tools = tuple(running_tools)
        self.profile = RealtimeProfile(native_mulaw=True, can_truncate=True, can_cancel=True)  #: set when connected
        self._now = 0
        self._out: list[do.Command] = []
        self._numbers = 0
        # the model
        self._requests = Requests(self._out)
        self._active: Response | None = None  #: being generated
        self._gave_up = False
        self._apologised = False
        self._cut = False  #: a response was cut by a lost connection
        self._listens_again = False  #: a new connection hears the caller's last sound once more
        # the floor
        self._floor = Floor(self._rules, self._out)
        self._turns = Turns(self._history, epoch)
        self._turn_end: tuple[int | None, int] | None = None  #: (speech end, decided) of what waits for an answer
        # the rest
        self._tools = ToolCalls(agent, messages, self._history, self._requests)
        self._parting = Parting()
        self._keys = ""
        self._closing = False
        self._closed = False

    # --- what others need to know ---

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as a model would get it now."""
        return self._history.messages()

    def opening(self) -> tuple[Message, ...]:
        """The messages that a new connection begins with; what happens from now on it is told when it is there."""
        self._requests.opening()
        return self.messages

    def replay_from(self, now_ms: int) -> int:
        """Stream time from which a new connection must hear the caller again."""
        times = [t for t in (self._turns.open_since, self._floor.caller_since) if t is not None]
        since = min(times) - RUN_UP_MS if times else now_ms - UNNOTICED_MS
        return max(since, self._turns.settled_until)

    @property
    def silent(self) -> bool:
        """Nobody speaks, and nobody is about to."""
        return self.may_renew and not self._tools.running

    @property
    def may_renew(self) -> bool:
        """A change of the connection would be noticed by nobody now."""
        speaking = self._floor.speech or self._floor.caller_speaks or self._turns.open or self._closing
        return not (speaking or self._busy or self._requests.wishes or self._reply_due or self._tools.awaited)

    def handle(self, event: ev.Event, at_ms: int) -> list[do.Command]:
        """Take one event that happened at stream time `at_ms`; return what is to be done, in order."""
        self._now = max(self._now, at_ms)
        if not self._closed or isinstance(event, ev.SpeechEnded):
            self._take(event)
            self._go_on()
            self._watch()
            self._out += map(do.Record, self._turns.recordable())
        out = self._out.copy()
        self._out.clear()
        return out

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.CallStarted():
                self._start()
            case ev.ModelBack(knows_tools):
                self._model_back(knows_tools)
            case ev.ModelLost():
                self._model_lost()
            case ev.CallerSpoke(at_ms):
                self._caller_spoke(self._now if at_ms is None else at_ms)
            case ev.CallerPartial(text):
                self._caller_partial(text)
            case ev.CallerStopped(speech_end_ms, speech_ms):
                self._caller_stopped(min(speech_end_ms, self._now), speech_ms)
            case ev.CallerWords(text, failed):
                self._caller_words(text.strip(), failed)
            case ev.ResponseBegan(response, by_itself):
                self._response_began(response, by_itself)
            case ev.ResponseSaid(response, text):
                self._response_said(response, text)
            case ev.ResponseEnded(response, status):
                self._response_ended(response, status)
            case ev.ToolAsked(call, malformed):
                self._tool_asked(call, malformed)
            case ev.ToolsForgotten(ids):
                self._tools.forgotten(ids)
            case ev.ToolDone(outcome):
                self._tool_done(outcome)
            case ev.SpeechBegan(utterance):
                self._speech_began(utterance)
            case ev.SpeechEnded():
                self._speech_ended(event)
            case ev.KeyPressed(digit):
                self._key_pressed(digit)
            case ev.SayRequested(text, source):
                self._requests.wish(text, source)
            case ev.InterruptRequested():
                self._interrupt(now=True)
            case ev.CloseRequested(say):
                self._close_requested(say)
            case ev.StreamGone():
                self._stream_gone()
            case ev.TimerFired(name):
                self._timer(name)
            case _:  # of the text pipeline
                pass

    # --- the call, and the model's connections ---

    def _start(self) -> None:
        self._requests.reply_due = self._history.unanswered or bool(self._note)
        if self._resumed and not self._note:
            self._requests.wish(self._agent.resume_text, "resume")
        if not self._history.agent_has_spoken:
            self._requests.wish(self._agent.greeting, "greeting")
        for call in self._earlier_tools:
            self._run(call)

    def _model_back(self, knows_tools: bool) -> None:
        self._requests.back(knows_tools=knows_tools)
        if not knows_tools:
            self._out += self._tools.new_model()
        if self._cut:
            self._cut = False
            self._requests.reply_due = True
            self._out.append(do.TellModel(CUT_OFF))
        if self._listens_again:
            self._out.append(do.StartTimer("again", AGAIN_MS))

    def _model_lost(self) -> None:
        """What the model was asked and did not give is asked again of its successor."""
        if not self._requests.connected:
            return
        for speech in self._floor.speech.values():
            speech.lost = True
        owed = self._requests.lost() or self._turns.understood
        response, self._active = self._active, None
        if response is not None:
            response.status, response.lost = "cancelled", True
            if response.utterance is not None:
                self._out.append(do.EndUtterance(response.utterance, cut=True))
                self._cut = response.utterance in self._floor.speech and not self._floor.caller_speaks
            elif response.wish is not None:
                self._requests.again(response.wish)
            else:
                owed = owed or not response.muted
        self._requests.reply_due = self._requests.reply_due or owed
        replay = self._turns.lost()
        self._listens_again = replay or self._floor.caller_speaks
        self._floor.caller_is_quiet()
        self._turn_end = None
        self._out.append(do.StopTimer("answer"))
        if self._floor.paused:
            self._floor.wait_for_words()
        if self._gave_up and owed and not self._apologised and not self._closing:
            self._apologised = True
            self._requests.wishes.appendleft(Wish(self._agent.apology_text, "apology"))
        self._gave_up = False

    # --- the caller ---

    def _caller_spoke(self, since: int) -> None:
        self._listens_again = False
        self._floor.caller_begins(since)

    def _caller_partial(self, text: str) -> None:
        words = len(text.split())
        if words:
            self._floor.caller_goes_on()
        if words and words >= self._rules.min_words and not is_listening_noise(text, self._rules):
            self._interrupt()

    def _caller_stopped(self, end_ms: int, speech_ms: int) -> None:
        since, over = self._floor.caller_ceases(otherwise=max(0, end_ms - speech_ms))
        self._listens_again = False
        self._turns.stopped(since, end_ms, speech_ms, self._now, during_speech=over)
        self._wait_for_words()
        if self._closing:
            self._turns.need_no_answer()
            return
        self._turn_end = (end_ms, self._now)
        waits = self._asks_itself and self._tools.running and self.profile.speaks_during_tools
        if waits and not self._floor.speech:
            self._requests.wish(self._rules.hold_text, "filler")

    def _caller_words(self, text: str, failed: bool) -> None:
        turn = self._turns.next_wordless()
        if turn is None:  # the vendor told of words only
            turn = self._turns.stopped(self._now, self._now, 0, self._now, during_speech=bool(self._floor.speech))
            self._floor.caller_is_quiet()
            if self.profile.server_turns:  # … which came too late for their turn
                self._turns.need_no_answer(turn)
        if failed:
            text = text or INAUDIBLE
        listening = turn.during_speech and turn.answer is None and self._floor.speech
        noise = not text or (bool(listening) and is_listening_noise(text, self._rules))
        self._turns.settle(turn, "" if noise else text)
        if noise:
            self._was_noise()
            return
        self._floor.cut_by_sound = False
        if turn.answer is None:  # else the words come late, and what was heard is the answer to them
            self._parting.caller_spoke()
        if self._floor.paused:
            self._interrupt(now=True)
        if self._closing:
            self._turns.need_no_answer()
        elif self._turns.understood:
            self._out.append(do.StartTimer("answer", ANSWER_MS))

    def _wait_for_words(self) -> None:
        since = self._turns.words_since
        if since is not None:
            self._out.append(do.StartTimer("words", max(0, since + WORDS_MS - self._now)))

    def _was_noise(self) -> None:
        """What seemed to be a turn was none: the agent goes on, with its sentence or with a new one."""
        if self._turns.unanswered:
            return
        self._turn_end = None
        if self._floor.paused and not self._floor.caller_speaks:
            self._resume()
        elif self._floor.cut_by_sound and self._rules.resume_after_false_interruption:
            self._requests.reply_due = True
        self._floor.cut_by_sound = False

    @property
    def _asks_itself(self) -> bool:
        """The model answers a turn only when it is asked to."""
        return self._rules.interruption != "immediate" and self.profile.manual_responses

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
        text = f"The caller pressed {keys}."
        self._history.add(NoteMessage(text=text))
        self._requests.tell(do.TellModel(text))
        self._interrupt()
        self._turn_end = (None, self._now)
        self._requests.reply_due = True

    # --- interruption ---

    def _interrupt(self, *, now: bool = False) -> None:
        """The caller takes the floor. `now`: whatever the agent's own rule is, except that it says goodbye."""
        if self._floor.interrupt(now=now) and self._active is not None and self._active.utterance is not None:
            self._requests.tell(do.CancelResponse())

    def _resume(self) -> None:
        if not self._rules.resume_after_false_interruption:
            self._interrupt(now=True)
            return
        self._floor.resume()
        self._record(Interruption(at=self._at(), mode=self._rules.interruption, resumed=True))

    # --- the model's responses ---

    def _response_began(self, name: str, by_itself: bool) -> None:
        if self._active is not None:  # its end was lost
            self._response_ended(self._active.name, "completed")
        asked_for = self._requests.waiting
        wish = self._requests.began(by_itself=by_itself)
        self._numbers += 1
        response = Response(name, self._numbers, wish.source if wish else "reply", wish)
        if wish is None:
            if self._floor.paused and not asked_for:  # it answers what seemed a noise to us
                self._interrupt(now=True)
            self._listens_again = self._floor.cut_by_sound = False
            self._turns.answered(response)
            if self._turn_end is not None:
                response.speech_end_ms, response.turn_ms = self._turn_end
            self._turn_end = None
            self._out.append(do.StopTimer("answer"))
        response.muted = wish.given_up if wish is not None else self._closing
        if response.muted:
            self._requests.tell(do.CancelResponse())
        self._active = response

    def _response_said(self, name: str, text: str) -> None:
        """More of the response; with no text, a piece of its audio."""
        response = self._active
        if response is None or response.name != name:
            return
        self._requests.gave()
        if response.muted:
            return
        if response.utterance is None:
            if response.wish is None:
                self._apologised = False
            self._numbers += 1
            response.utterance = self._numbers
            self._history.open_speech(response.utterance, spoken_to_model=response.source not in ASIDES)
            self._out.append(do.OpenSpeech(name, response.utterance))
            self._floor.agent_begins(response.utterance, response)
        if text and response.utterance in self._floor.speech:
            response.text += text
            self._history.extend_speech(response.utterance, text)
            self._out.append(do.AddText(response.utterance, text))

    def _response_ended(self, name: str, status: Literal["completed", "cancelled", "failed"]) -> None:
        response = self._active
        if response is None or response.name != name:
            return
        self._active = None
        response.status = status
        if response.utterance is not None:
            cut = status != "completed" or self._closing  # then it was told to stop, and its sound is dropped
            self._out.append(do.EndUtterance(response.utterance, cut=cut))
            if response.utterance in self._floor.speech:
                if self._closing and status != "completed" and response.wish is not None:
                    self._requests.again(response.wish)  # half a goodbye is none
                elif status == "cancelled" and self._rules.interruption == "immediate":
                    self._interrupt(now=True)
                elif status == "failed":
                    self._requests.reply_due = True
                    self._requests.tell(do.TellModel(CUT_OFF))
            elif response.heard is not None and status == "completed":
                self._requests.tell_heard(response.heard)
        elif response.muted or response.calls:
            pass
        elif response.wish is not None:
            if status == "failed" or (status == "cancelled" and response.source != "filler"):
                self._requests.again(response.wish)
        elif status == "failed":  # nothing was heard of it: it is still owed
            self._requests.reply_due = True

    # --- tools ---

    def _tool_asked(self, asked: ToolCall, malformed: bool) -> None:
        response = self._active
        if self._closing or (response is not None and response.muted):
            return
        self._requests.gave()
        call = self._tools.asked(asked, response)
        if malformed:
            self._tools.refuse(call, response, may_go_on=self._may_go_on)
        else:
            self._run(call)

    def _run(self, call: ToolCall) -> None:
        self._parting.tool_asked(call)
        after = self._rules.filler_after_ms if self.profile.speaks_during_tools else None
        self._tools.run(call, self._active, filler_after_ms=after, may_go_on=self._may_go_on)

    def _tool_done(self, outcome: ToolOutcome) -> None:
        self._parting.tool_done(outcome)
        if self._turn_end is None:
            self._turn_end = (None, self._now)
        self._tools.done(outcome, may_go_on=self._may_go_on)

    @property
    def _may_go_on(self) -> bool:
        """A model that gets its last result may speak at once; otherwise it is asked to when it is free."""
        return not self._busy and not self._floor.caller_speaks and not self._closing

    def _filler_due(self, tool_id: str) -> None:
        if not (self._floor.speech or self._busy or self._floor.caller_speaks):
            self._requests.wish(self._tools.filler(tool_id), "filler")

    # --- speech ---

    def _speech_began(self, utterance: int) -> None:
        response = self._floor.speech.get(utterance)
        if response is not None:
            response.sounds(self._now)

    def _speech_ended(self, ended: ev.SpeechEnded) -> None:
        response = self._floor.agent_ended(ended.utterance)
        if response is None:
            return
        cut = not ended.complete
        self._history.end_speech(ended.utterance, ended.heard, interrupted=cut)
        if cut and not self._closed:
            truncates = self.profile.can_truncate
            self._requests.forget_unheard(response, ended.heard, ended.speech_ms, can_truncate=truncates)
        if cut and ended.speech_ms and response.source != "filler" and not self._closing:
            self._record(Interruption(at=self._at(), mode=self._rules.interruption, heard=ended.heard))
        if ended.heard:
            self._parting.heard((response.source, response.calls), complete=ended.complete)
            self._record(response.record(self._at(), ended.heard, ended.speech_ms, cut=cut))

    # --- what comes next ---

    @property
    def _busy(self) -> bool:
        """The model speaks, or will in a moment."""
        return self._active is not None or self._requests.waiting

    @property
    def _reply_due(self) -> bool:
        return self._requests.reply_due or (self._asks_itself and self._turns.unanswered)

    def _go_on(self) -> None:
        """Ask the model for what is due, if it is free."""
        if self._closed:
            return
        requests = self._requests
        spoken = not self._floor.speech and (self._active is None or self._active.muted)
        if self._closing and spoken and not requests.wishes and (requests.asked is None or requests.asked.given_up):
            self._close()
        elif not requests.connected or self._busy:
            return
        elif requests.wishes and self._may_say():
            requests.say_next()
        elif self._reply_due and self._may_reply():
            requests.respond()

    def _may_say(self) -> bool:
        if self._closing:
            return not self._floor.speech
        return self._floor.is_clear and not self._listens_again

    def _may_reply(self) -> bool:
        waiting = self._tools.running or self._closing or not self._may_say()
        speaks = any(speech.source != "filler" for speech in self._floor.speech.values())
        return not waiting and not (speaks and self._rules.interruption == "disabled")

    def _watch(self) -> None:
        """Who waits for a tool owes nothing."""
        active = self._active is not None and not (self._active.calls and self._tools.awaited)
        owes = self._requests.connected and not self._closed and (self._requests.waiting or active)
        self._requests.watch(owes=owes)

    # --- the end, timers ---

    def _close_requested(self, say: str) -> None:
        if self._closing:
            return
        self._closing = self._floor.closing = True
        speech = self._floor.speech.items()
        playing = ((r.source, r.calls) for utterance, r in speech if utterance not in self._floor.yielding)
        self._requests.close(say or (self._agent.goodbye if self._parting.owed(playing) else ""))
        self._turns.need_no_answer()
        if self._floor.paused:
            self._floor.resume()
        if self._active is not None:
            self._active.muted = self._active.utterance is None
            self._requests.tell(do.CancelResponse())
        self._out += [do.StartTimer("last_words", LAST_WORDS_MS), do.StartTimer("close", CLOSE_MS)]

    def _close(self) -> None:
        self._closed = True
        self._turns.give_up_words()
        self._out += [do.StopTimer("close"), do.Close()]

    def _stream_gone(self) -> None:
        """The carrier's stream ended: account for what was said and heard, do nothing more."""
        self._closing = self._closed = True
        self._turns.give_up_words()
        if self._floor.speech:
            self._out.append(do.DropSpeech())

    def _timer(self, name: str) -> None:
        match name:
            case "min_speech" if self._floor.caller_speaks:
                self._interrupt()
            case "false_interruption" if self._floor.paused and not self._floor.caller_speaks:
                self._resume()
            case "talk":
                self._floor.caller_is_quiet()
                if self._floor.paused:
                    self._resume()
            case "words":
                self._turns.give_up_words(self._now - WORDS_MS)
                self._wait_for_words()
                self._was_noise()
            case "answer":
                self._requests.reply_due = self._requests.reply_due or self._turns.understood
            case "again":
                self._listens_again = False
                self._turns.give_up_words(lost=True)
            case "response" if self._requests.is_overdue():
                self._gave_up = True
                self._out.append(do.GiveUpModel())
            case "keys":
                self._keys_entered()
            case "last_words" if self._floor.speech and (self._requests.wishes or self._requests.asked is not None):
                self._out.append(do.StopAfterSentence())
            case "close":
                self._out.append(do.DropSpeech())
                self._close()
            case _ if name.startswith("filler:"):
                self._filler_due(name.removeprefix("filler:"))
            case _:
                pass

    def _record(self, event: TimelineEvent) -> None:
        self._turns.record(event)

    def _at(self) -> datetime:
        return self._epoch + timedelta(milliseconds=self._now)
