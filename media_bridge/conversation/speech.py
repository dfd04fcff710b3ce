"""What the agent is saying and generating: the open utterances and the reply behind them."""

from __future__ import annotations

import dataclasses

from media_bridge.conversation.clauses import Clauses
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

    def latency(self, tts_ms: int | None, now: int) -> TurnLatency:
        """The turn's latency, known when its first audio is sent."""
        return TurnLatency(
            endpoint_ms=_between(self.speech_end_ms, self.turn_ms),
            llm_ms=_between(self.started_ms, self.first_token_ms),
            tts_ms=tts_ms,
            total_ms=_between(self.speech_end_ms, now),
        )


def _between(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None else max(0, end - start)
