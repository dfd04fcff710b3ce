"""What a realtime model is asked and told: one request at a time, and nothing is lost with a connection."""

from __future__ import annotations

from collections import deque
from typing import Final

from media_bridge.conversation import commands as do
from media_bridge.conversation.realtime_state import Response, Wish
from stayline.models import ToolMessage
from stayline.timeline import AgentSource

RESPONSE_MS: Final = 8000
"""A model that was asked, or is answering, and gives nothing for so long has failed."""
TRIES: Final = 3
"""How often the model is asked to say something before that is given up."""


class Requests:
    """Who asks what of the model, and what it owes.

    Args:
        out: takes the commands.
    """

    def __init__(self, out: list[do.Command]) -> None:
        self.out = out
        self.connected = False
        self.reply_due = False  #: an answer is to be asked for
        self.open = False  #: an answer was asked for and has not begun
        self.asked: Wish | None = None  #: to be said; its response has not begun
        self.wishes: deque[Wish] = deque()  #: to be said when the model is free
        self._late: list[do.Command] = []  #: told while there was no connection to tell it to
        self._closing = False
        self._watched = False  #: the model owes something, and the clock runs
        self._progress = False  #: it gave something just now

    @property
    def waiting(self) -> bool:
        """The model was asked for something that it has not begun."""
        return self.open or self.asked is not None

    # --- asking and telling ---

    def wish(self, text: str, source: AgentSource) -> None:
        if text and not (self._closing and source != "goodbye"):
            self.wishes.append(Wish(text, source))

    def again(self, wish: Wish) -> None:
        """It was asked for and not heard."""
        wish.tries += 1
        if wish.tries < TRIES and not wish.given_up and not (self._closing and wish.source != "goodbye"):
            self.wishes.appendleft(wish)

    def say_next(self) -> None:
        self.asked = self.wishes.popleft()
        self._progress = True
        self.out.append(do.AskToSay(self.asked.text))

    def respond(self) -> None:
        self.reply_due = False
        self.open = self._progress = True
        self.out.append(do.Respond())

    def answer_tool(self, result: do.AnswerTool) -> None:
        """Give a result; a reply is due unless the model goes on with it by itself."""
        self.tell(result)
        if result.respond and self.connected:
            self.open = self._progress = True
        elif not self._closing:
            self.reply_due = True

    def tell(self, command: do.Command) -> None:
        """Tell the model, or its successor when that is there."""
        if self.connected:
            self.out.append(command)
        elif isinstance(command, (do.TellModel, do.AnswerTool)):
            self._late.append(command)

    def forget_unheard(self, response: Response, heard: str, heard_ms: int, *, can_truncate: bool) -> None:
        """A response was cut: the model must not believe that it said what nobody heard."""
        if response.lost or (response.status == "completed" and not can_truncate):
            self.tell_heard(heard)
        elif can_truncate:
            self.tell(do.Truncate(response.name, heard_ms))
        elif response.status is None:
            response.heard = heard  # to be told when it has said all; one that is cancelled is cut there too

    def tell_heard(self, heard: str) -> None:
        of_it = f'only: "{heard}"' if heard else "nothing of it."
        self.tell(do.TellModel(f"You were interrupted. The caller heard {of_it}"))

    # --- what it does ---

    def began(self, *, by_itself: bool) -> Wish | None:
        """A response began; returns what it was asked to say with it."""
        self._progress = True
        wish = None if by_itself else self.asked
        if wish is not None:
            self.asked = None
        else:
            self.open = self.reply_due = False
        return wish

    def gave(self) -> None:
        """Some more of what it owes."""
        self._progress = True
        self.open = False  # some go on with the response that asked for the tool

    # --- connections, the end ---

    def opening(self) -> None:
        """A new connection is told everything up to now as it begins."""
        self._late.clear()

    def back(self, *, knows_tools: bool) -> None:
        self.connected = True
        late, self._late = self._late, []
        self.out += late if knows_tools else [_as_note(command) for command in late]

    def lost(self) -> bool:
        """The connection is gone: what was asked is asked again. Whether an answer was owed."""
        self.connected = False
        owed, self.open = self.open, False
        wish, self.asked = self.asked, None
        if wish is not None:
            self.again(wish)
        return owed

    def close(self, say: str) -> None:
        """Nothing is wanted any more but a goodbye."""
        self._closing = True
        self.reply_due = False
        self.wishes.clear()
        if self.asked is not None:
            self.asked.given_up = True
        self.wish(say, "goodbye")

    # --- the clock ---

    def watch(self, *, owes: bool) -> None:
        """Let the clock run while the model owes something; it starts over with each thing that it gives."""
        if owes and (self._progress or not self._watched):
            self.out.append(do.StartTimer("response", RESPONSE_MS))
        elif not owes and self._watched:
            self.out.append(do.StopTimer("response"))
        self._watched, self._progress = owes, False

    def is_overdue(self) -> bool:
        """The clock has run out; False: it was none of ours."""
        watched, self._watched = self._watched, False
        return watched


def _as_note(command: do.Command) -> do.Command:
    """A result for a call that the new model does not know of."""
    if isinstance(command, do.AnswerTool):
        return do.TellModel(has_ended(command.result))
    return command


def has_ended(result: ToolMessage) -> str:
    """The result as a note, for a model that does not wait for it."""
    return f"The tool {result.name} has ended. Result: {result.content}"
