"""Cut streamed text into clauses that can be spoken on their own."""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(r"[.!?…]+[\"')\]]*\s+|[;:]\s+|[,–—]\s+")
_ABBREVIATIONS: Final = frozenset(
    {"mr", "mrs", "ms", "dr", "st", "no", "vs", "e.g", "i.e", "a.m", "p.m", "inc", "approx"}
)
FIRST_CLAUSE: Final = 12
"""Characters: the first clause may be short, so that the caller hears something soon."""
LATER_CLAUSE: Final = 40
"""Characters: later clauses are longer at a comma, so that the voice keeps its melody."""


class Clauses:
    """Feed text deltas, get whole clauses back. Joining all clauses gives the text back, unchanged."""

    def __init__(self) -> None:
        self._text = ""
        self._given = False

    def feed(self, delta: str) -> list[str]:
        self._text += delta
        clauses = []
        while (clause := self._next()) is not None:
            clauses.append(clause)
            self._given = True
        return clauses

    def flush(self) -> list[str]:
        rest, self._text = self._text, ""
        return [rest] if rest.strip() else []

    def _next(self) -> str | None:
        for match in _END.finditer(self._text):
            before = self._text[: match.start()]
            if match.group()[0] in ".!?…":
                if before.rpartition(" ")[2].lower() in _ABBREVIATIONS:
                    continue
            elif len(before) < (LATER_CLAUSE if self._given else FIRST_CLAUSE):
                continue
            clause, self._text = self._text[: match.end()], self._text[match.end() :]
            return clause
        return None
