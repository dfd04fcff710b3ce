"""Who has the floor in a realtime conversation: the caller, the agent, or both at once."""

from __future__ import annotations

from typing import Final

from media_bridge.conversation import commands as do
from media_bridge.conversation.realtime_state import Response
from stayline.models import TurnTaking

TALK_MS: Final = 30_000
"""A caller who speaks for so long without a word or an end is not believed to speak."""


class Floor:
    """The agent's speech, the caller's sound, and how one yields to the other.

    Args:
        out: takes the commands.
    """

    def __init__(self, rules: TurnTaking, out: list[do.Command]) -> None:
        self._rules = rules
        self._out = out
        self.speech: dict[int, Response] = {}  #: by utterance: what is played or waits to be
        self.caller_since: int | None = None  #: stream time since which the caller speaks
        self._spoke_over = False  #: … and the agent was speaking then
        self.paused = False
        self.cut_by_sound = False  #: the agent was cut by sound of the caller, and nothing was said since
        self.yielding: set[int] = set()  #: utterances that end with their sentence
        self.closing = False  #: nobody interrupts a goodbye

    @property
    def caller_speaks(self) -> bool:
        return self.caller_since is not None

    @property
    def is_clear(self) -> bool:
        """The agent may begin to say something: nobody interrupts it, or is about to."""
        return not (self.caller_speaks or self.yielding or self.paused)

    # --- the caller ---

    def caller_begins(self, since: int) -> None:
        if self.caller_since is None:
            self.caller_since, self._spoke_over = since, bool(self.speech)
            self.caller_goes_on()
        self.both_speak()

    def caller_goes_on(self) -> None:
        self._out.append(do.StartTimer("talk", TALK_MS))

    def caller_ceases(self, otherwise: int) -> tuple[int, bool]:
        """Returns since when the caller spoke (`otherwise`, if that is not known), and whether over the agent."""
        known = self.caller_since is not None
        since = self.caller_since if self.caller_since is not None else otherwise
        over = self._spoke_over if known else bool(self.speech)
        self.caller_is_quiet()
        if self.paused:
            self.wait_for_words()
        return since, over

    def caller_is_quiet(self) -> None:
        self.caller_since = None
        self._out += [do.StopTimer("min_speech"), do.StopTimer("talk")]

    def wait_for_words(self) -> None:
        """If none come, it was a noise."""
        self._out.append(do.StartTimer("false_interruption", self._rules.false_interruption_ms))

    # --- the agent ---

    def agent_begins(self, utterance: int, response: Response) -> None:
        self.speech[utterance] = response
        if self.caller_speaks:
            self.both_speak()

    def agent_ended(self, utterance: int) -> Response | None:
        response = self.speech.pop(utterance, None)
        self.yielding.discard(utterance)
        if not self.speech:
            self.paused = False
        return response

    def both_speak(self) -> None:
        """The agent is silent at once (`immediate`), and yields if the caller goes on."""
        if self.closing or not self.speech or self.yielding or self._rules.interruption == "disabled":
            return
        self._out.append(do.StartTimer("min_speech", self._rules.min_speech_ms))
        if self._rules.interruption == "immediate" and not self.paused:
            self.paused = True
            self._out.append(do.PauseSpeech())
            self.wait_for_words()

    def interrupt(self, *, now: bool = False) -> bool:
        """The caller takes the floor. `now`: whatever the agent's own rule is, except that it says goodbye.

        Returns:
            Whether the agent yields: what it has not begun to say is not wanted any more.
        """
        if not self.speech or self.closing:
            return False
        rule = "immediate" if now else self._rules.interruption
        if rule == "disabled" or (rule == "after_sentence" and self.yielding):
            return False
        self.paused = False
        self.cut_by_sound = self.caller_speaks
        self._out += [do.StopTimer("min_speech"), do.StopTimer("false_interruption")]
        if rule == "after_sentence":
            self.yielding = set(self.speech)
            self._out.append(do.StopAfterSentence())
        else:
            self._out.append(do.DropSpeech())
        return True

    def resume(self) -> None:
        """The agent goes on where it was paused."""
        self.paused = False
        self._out += [do.StopTimer("false_interruption"), do.ResumeSpeech()]
