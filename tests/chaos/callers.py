"""Callers who want something, notice what they get, and do not wait for ever.

Each has a list of wishes. It says one when the agent has finished, waits for the answer that names the wish's tag,
asks again when nothing comes, and hangs up after the last answer, or out of patience. All that it said and heard
goes into the callers' ledger.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final, Literal

from stayline.lab.line import Spoken, quiet_frame
from tests.chaos import speech
from tests.chaos.ledger import Ledger

FRAME_MS: Final = 20
QUIET_MS: Final = 300  #: of the agent, then it has finished
ASK_AGAIN_MS: Final = 7_000  #: of silence, then the caller says something
PATIENCE_MS: Final = 45_000  #: of silence, then the caller hangs up
CUT_IN_MS: Final = 700  #: into the answer, where the wish is to interrupt

Kind = Literal["say", "book", "tell", "connect", "goodbye"]
WORDS: Final[dict[Kind, str]] = {
    "say": "say hello",
    "book": "book a table",
    "tell": "tell me a story",
    "connect": "connect me",
    "goodbye": "goodbye",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    kind: Kind
    cut_in: bool = False  #: speak the next one into its answer
    leave: bool = False  #: hang up while it is worked on


def wishes(luck: random.Random, exchanges: tuple[int, int]) -> list[Wish]:
    """What one caller wants: mostly talk, now and then a booking, a story to interrupt, a way to end."""
    found: list[Wish] = []
    for _ in range(luck.randint(*exchanges)):
        draw = luck.random()
        if draw < 0.25:
            found.append(Wish("book"))
        elif draw < 0.45:
            found.append(Wish("tell", cut_in=luck.random() < 0.7))
        else:
            found.append(Wish("say"))
    if found[-1].cut_in:
        found.append(Wish("say"))
    draw = luck.random()
    if draw < 0.1:
        found.append(Wish("goodbye"))
    elif draw < 0.18:
        found.append(Wish("connect"))
    elif draw < 0.28:
        found.append(Wish("book", leave=True))
    return found


class Caller:
    """One party to a call, as `stayline.lab.line.Caller` wants it.

    Attributes:
        talking: the agent was heard, so that there is a conversation.
        answers: wishes that were answered so far.
        holds: does not say the next wish for as long as this is set.
    """

    def __init__(self, name: str, plan: list[Wish], ledger: Ledger, luck: random.Random) -> None:
        self.name = name
        self.sid = ""
        self.talking = False
        self.answers = 0
        self.holds = False
        self._plan = plan
        self._ledger = ledger
        self._luck = luck
        self._reader = speech.Reader()
        self._now = 0
        self._heard_at = 0  #: when the agent was last heard
        self._quiet_since = 0  #: when the line became quiet, by either side
        self._episode = ""  #: what the agent said since the caller last spoke
        self._wish: Wish | None = None
        self._tag = ""
        self._count = 0
        self._voice = b""
        self._answer_began = 0
        self._pause = 0
        self._leave_at: int | None = None
        self._leaving = False

    # --- the line ---

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        self._now = at_ms
        letter = self._reader.take(heard)
        if letter is not None:
            self.talking = True
            self._heard_at = self._quiet_since = at_ms
        elif at_ms - self._heard_at == QUIET_MS:
            self._write_down()
        if self._voice:
            frame, self._voice = self._voice[: speech.FRAME_BYTES], self._voice[speech.FRAME_BYTES :]
            self._quiet_since = at_ms
            return Spoken(frame)
        if not self._leaving:
            self._decide(at_ms, queued_ms)
        return Spoken(quiet_frame(at_ms), hang_up=self._leaving)

    def cleared(self, at_ms: int) -> None:
        pass

    def close(self) -> None:
        self._write_down()

    # --- what it does ---

    def _decide(self, now: int, queued_ms: float) -> None:
        if self._leave_at is not None and now >= self._leave_at:
            return self._hang_up("leaves")
        if now - self._heard_at > PATIENCE_MS:
            return self._hang_up("silence")
        agent_quiet = now - self._heard_at >= QUIET_MS and not queued_ms
        if self._wish is None:
            if agent_quiet and self.talking:
                self._next()
            return
        answered = self._tag in self._episode or self._tag in self._reader.text
        if answered and self._wish.cut_in and not agent_quiet:
            self._answer_began = self._answer_began or now
            if now - self._answer_began >= CUT_IN_MS:
                self._ledger.write("cut_in", call=self.sid, caller=self.name, tag=self._tag)
                self._next()
        elif answered and agent_quiet and self._wish.kind not in ("goodbye", "connect"):
            if not self._pause:
                self._pause = now + self._luck.randrange(100, 800)
                self.answers += 1
                self._ledger.write("answered", call=self.sid, caller=self.name, tag=self._tag)
            elif now >= self._pause and not self.holds:
                self._next()
        elif agent_quiet and now - self._quiet_since > ASK_AGAIN_MS:
            if self._wish.kind == "connect" and answered:
                return  # the agent says that it connects: who comes now is no agent
            ends = self._wish.kind in ("goodbye", "connect")
            self._say(WORDS[self._wish.kind] if ends else "say are you there", again=True)

    def _next(self) -> None:
        self._pause = 0
        if not self._plan:
            return self._hang_up("done")
        self._wish = self._plan.pop(0)
        self._say(WORDS[self._wish.kind])
        if self._wish.leave:
            self._leave_at = self._now + self._luck.randrange(1500, 2500)

    def _say(self, words: str, *, again: bool = False) -> None:
        self._write_down()
        self._episode = ""
        self._answer_began = 0
        self._count += 1
        self._tag = f"{self.name}n{self._count}"
        text = f"{self._tag} {words}"
        self._ledger.write("said", call=self.sid, caller=self.name, tag=self._tag, text=text, again=again)
        self._voice = speech.utter(text, least_frames=25)

    def _hang_up(self, why: str) -> None:
        self._leaving = True
        self._ledger.write("hangs_up", call=self.sid, caller=self.name, why=why)

    def _write_down(self) -> None:
        """What was heard since the last silence."""
        heard, whole = self._reader.text, all(piece.whole for piece in self._reader.heard)
        if heard:
            self._episode += heard + " "
            self._ledger.write("heard", call=self.sid, caller=self.name, text=heard, whole=whole)
        self._reader.clear()
