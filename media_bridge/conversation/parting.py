"""The model's own farewell: whether the caller has heard it when the call closes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from stayline.models import ToolCall, ToolOutcome
from stayline.timeline import AgentSource

END_CALL: Final = "end_call"

Said = tuple[AgentSource, Sequence[str]]
"""Whence a piece of agent speech is, and the tool calls that came with it."""


class Parting:
    """A model that ends the call says goodbye in the reply that asks for `end_call`; the call then closes at once.

    But the caller may speak over that reply, or say something after it where Temporal is slow, and some models
    say nothing. Then a goodbye is still owed.
    """

    def __init__(self) -> None:
        self._asked: set[str] = set()  #: calls of `end_call` that run or have succeeded
        self._last: Said | None = None  #: what the caller heard last, to its end, and has not spoken since

    def tool_asked(self, call: ToolCall) -> None:
        if call.name == END_CALL:
            self._asked.add(call.id)

    def tool_done(self, outcome: ToolOutcome) -> None:
        if outcome.status != "succeeded":
            self._asked.discard(outcome.id)

    def caller_spoke(self) -> None:
        self._last = None

    def heard(self, said: Said, *, complete: bool) -> None:
        """The caller heard this, or its beginning."""
        self._last = said if complete else None

    def owed(self, playing: Iterable[Said]) -> bool:
        """The model has ended the call; no farewell was the last that the caller heard, and none is `playing`."""
        said = [*playing, *([self._last] if self._last else [])]
        return bool(self._asked) and not any(self._is_farewell(*one) for one in said)

    def _is_farewell(self, source: AgentSource, calls: Sequence[str]) -> bool:
        return source == "goodbye" or not self._asked.isdisjoint(calls)
