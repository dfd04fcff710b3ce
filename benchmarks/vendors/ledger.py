"""What the vendors did, and when, by the clock that all processes of a machine share (CLOCK_MONOTONIC)."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Literal

Happened = Literal["heard", "began", "final", "asked"]
"""`heard`: the first loud sound of an utterance came; `began`: we said that the caller speaks (with an interim
transcript); `final`: we said what they said (realtime: the first sound of the answer follows); `asked`: the
language model was asked."""


@dataclasses.dataclass(slots=True)
class Line:
    """One caller's line to one vendor."""

    vendor: str
    call: int | None = None  #: the number that the sound carries
    events: list[tuple[Happened, float]] = dataclasses.field(default_factory=list)

    def note(self, what: Happened) -> None:
        self.events.append((what, time.monotonic()))


@dataclasses.dataclass(slots=True)
class Ledger:
    lines: list[Line] = dataclasses.field(default_factory=list)

    def line(self, vendor: str, call: int | None = None) -> Line:
        self.lines.append(Line(vendor, call))
        return self.lines[-1]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps([dataclasses.asdict(line) for line in self.lines]))
