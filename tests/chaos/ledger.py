"""Ledgers: what somebody saw with their own eyes, as JSON lines with the wall clock of the test's process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

CARRIER, CALLERS, FAULTS, PROCESSES, TOOLS = (
    "carrier.jsonl",
    "callers.jsonl",
    "faults.jsonl",
    "processes.jsonl",
    "tools.jsonl",
)


class Ledger:
    """One file; a line is there as soon as `write` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a", buffering=1)

    def write(self, kind: str, **what: Any) -> None:
        """Add a line: `at` (seconds since the epoch), `kind`, and what else there is to say."""
        self._file.write(json.dumps({"at": round(time.time(), 3), "kind": kind, **what}, default=repr) + "\n")

    def close(self) -> None:
        self._file.close()
