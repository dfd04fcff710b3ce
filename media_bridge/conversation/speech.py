"""What the agent is saying and generating: the open utterances and the reply behind them."""

from __future__ import annotations

import dataclasses

from media_bridge.conversation.clauses import Clauses
from stayline.models import ToolCall
from stayline.timeline import AgentSource, TurnLatency


@dataclasses.dataclass(slots=True)
class Utterance:
    """Something the agent is saying: opened with its first clause, over with SpeechEnded."""

    id: int
    source: AgentSource
    reply: Reply | None = None
    text: str = ""
    latency: TurnLatency | None = None
    tool_calls: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Reply:
    """A reply that the language model is generating."""

    id: int
    started_ms: int
    speech_end_ms: int | None  #: when the caller stopped speaking; None when no turn led to this reply
    turn_ms: int | None  #: when the turn was found to be over
    clauses: Clauses = dataclasses.field(default_factory=Clauses)
    utterance: Utterance | None = None
    first_token_ms: int | None = None
    calls: list[str] = dataclasses.field(default_factory=list)
    guess: str | None = None  #: the words it was begun for, while the caller's turn may still go on
    held: list[str | tuple[ToolCall, bool]] = dataclasses.field(default_factory=list)  #: what came of it meanwhile
    done: bool = False  #: all of it is held
    committed_ms: int | None = None  #: when the guess proved right

    def latency(self, tts_ms: int | None, now: int) -> TurnLatency:
        """The turn's latency, known when its first audio is sent."""
        return TurnLatency(
            endpoint_ms=_between(self.speech_end_ms, self.turn_ms),
            llm_ms=_between(self.started_ms, self.first_token_ms),
            tts_ms=tts_ms,
            total_ms=_between(self.speech_end_ms, now),
            saved_ms=self._saved(),
        )

    def _saved(self) -> int | None:
        """By how much the first token came sooner than if the end of the turn had been waited for."""
        if self.committed_ms is None or self.first_token_ms is None:
            return None
        return min(self.committed_ms, self.first_token_ms) - self.started_ms


def _between(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None else max(0, end - start)
