"""The evidence of one run, as it lies in its folder. Nothing here knows our code, only what it leaves behind.

`workflows.json`, `histories/`   Temporal's own word, as JSON
`carrier.jsonl`                  the carrier: calls, TwiML, streams, REST requests
`callers.jsonl`                  the callers: what they said, what they heard, why they hung up
`tools.jsonl`                    the system behind the tools: who asked, what took effect
`faults.jsonl`                   what was done to whom, and when it was over
`processes.jsonl`                what each bridge held before the first and after the last call
`calls.db`, `spool/`, `logs/`    what the product itself wrote
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]

TAG = re.compile(r"\bc\d+n\d+\b")
"""What each utterance of a caller begins with, and what its answer names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be."""

    call: str  #: its id, or what else it is about
    rule: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.rule:24} {self.call}: {self.evidence}"


@dataclasses.dataclass(slots=True)
class Workflow:
    id: str
    type: str
    status: str
    run_id: str = ""
    events: list[Line] = dataclasses.field(default_factory=list)

    @property
    def call_id(self) -> str:
        return self.id.removeprefix("call-")

    def signals(self, name: str) -> Iterator[Any]:
        """The first input of each such signal, in order."""
        for event in self.events:
            told = event.get("workflowExecutionSignaledEventAttributes", {})
            if told.get("signalName") == name:
                yield from _payloads(told.get("input"))[:1]


@dataclasses.dataclass(slots=True)
class Record:
    """A call as the product wrote it down at last."""

    call_id: str
    final: bool
    outcome: str | None
    status: str
    ended: bool
    carrier_call_id: str
    entries: list[Line] = dataclasses.field(default_factory=list)  #: session, and the event's own keys
    tools: list[Line] = dataclasses.field(default_factory=list)

    def of(self, *types: str) -> list[Line]:
        return [entry for entry in self.entries if entry["type"] in types]


AT_ONCE = ("kill", "dropped", "silent", "broken")
"""Faults that one line tells of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    what: str
    begun: float
    over: float  #: the same for one that is done at once


@dataclasses.dataclass(slots=True)
class Evidence:
    """All of it, sorted by whom it is about."""

    carrier: list[Line] = dataclasses.field(default_factory=list)
    callers: list[Line] = dataclasses.field(default_factory=list)
    tools: list[Line] = dataclasses.field(default_factory=list)
    processes: list[Line] = dataclasses.field(default_factory=list)
    faults: list[Fault] = dataclasses.field(default_factory=list)
    ended_bridges: list[str] = dataclasses.field(default_factory=list)  #: killed or stopped, by name
    workflows: list[Workflow] = dataclasses.field(default_factory=list)
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    spool: list[str] = dataclasses.field(default_factory=list)
    logs: list[Line] = dataclasses.field(default_factory=list)  #: errors only, with `name` of the process

    def calls(self) -> list[str]:
        """The carrier's ids, in the order in which they began."""
        return list(dict.fromkeys(line["call"] for line in self.callers if line["kind"] == "begins"))

    def of_carrier(self, call: str, *kinds: str) -> list[Line]:
        return [line for line in self.carrier if line["call"] == call and (not kinds or line["kind"] in kinds)]

    def of_caller(self, call: str, *kinds: str) -> list[Line]:
        return [line for line in self.callers if line["call"] == call and (not kinds or line["kind"] in kinds)]

    def ours(self, call: str) -> str:
        """The product's id of a call: the carrier's, but of one that it placed its own."""
        return next((line["ours"] for line in self.of_caller(call, "begins") if line.get("ours")), call)

    def record(self, call: str) -> Record | None:
        return self.records.get(self.ours(call))

    def life(self, call: str) -> tuple[float, float]:
        """When the caller was there."""
        lines = [line["at"] for line in self.of_carrier(call)] or [0.0]
        over = [line["at"] for line in self.of_carrier(call, "hang_up")]
        return min(lines), (over or [max(lines)])[0]

    def fault_near(self, at: float, before: float, after: float = 0.0, *kinds: str) -> Fault | None:
        """One that was under way in the `before` seconds until `at`, or will begin within `after`."""
        for fault in self.faults:
            if kinds and fault.kind not in kinds:
                continue
            if fault.begun <= at + after and fault.over >= at - before:
                return fault
        return None


def load(folder: Path) -> Evidence:
    """Read a run's folder.

    Raises:
        FileNotFoundError: it holds no run that was collected.
    """
    found = Evidence(
        carrier=_lines(folder / "carrier.jsonl"),
        callers=_lines(folder / "callers.jsonl"),
        tools=_lines(folder / "tools.jsonl"),
        processes=_lines(folder / "processes.jsonl"),
        workflows=list(_workflows(folder)),
        records=_records(folder / "calls.db"),
        spool=sorted(path.name for path in (folder / "spool").glob("*")) if (folder / "spool").is_dir() else [],
        logs=list(_errors(folder / "logs")),
    )
    _sort_faults(found, _lines(folder / "faults.jsonl"))
    return found


def _lines(path: Path) -> list[Line]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def _sort_faults(found: Evidence, lines: list[Line]) -> None:
    """A fault lasts until the next line that says of the same thing that it is over; some are over at once."""
    for place, line in enumerate(lines):
        if line["kind"] in ("kill", "stop") and line["what"].startswith("b"):
            found.ended_bridges.append(line["what"])
        if line.get("end") and line["kind"] not in AT_ONCE:
            continue
        over = line["at"]
        if line["kind"] == "kill" or not line.get("end"):
            later = (row["at"] for row in lines[place + 1 :] if row["what"] == line["what"] and row.get("end"))
            over = next(later, line["at"] if line.get("end") else float("inf"))
        found.faults.append(Fault(line["kind"], line["what"], line["at"], over))


def _workflows(folder: Path) -> Iterator[Workflow]:
    for row in json.loads((folder / "workflows.json").read_text()):
        history = json.loads((folder / "histories" / row["file"]).read_text())
        yield Workflow(row["id"], row["type"], row["status"], row["run_id"], history.get("events", []))


def _payloads(inputs: Any) -> list[Any]:
    values: list[Any] = []
    for payload in (inputs or {}).get("payloads", []):
        with contextlib.suppress(ValueError):
            values.append(json.loads(base64.b64decode(payload.get("data", ""))))
    return values


def _records(path: Path) -> dict[str, Record]:
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        try:
            rows = db.execute("select * from calls").fetchall()
        except sqlite3.OperationalError:  # the product never came to make its tables
            return {}
        found = {
            row["call_id"]: Record(
                call_id=row["call_id"],
                final=bool(row["final"]),
                outcome=row["outcome"],
                status=row["status"],
                ended=row["ended_at"] is not None,
                carrier_call_id=row["carrier_call_id"],
            )
            for row in rows
        }
        for row in db.execute("select * from events order by call_id, timeline_index"):
            found[row["call_id"]].entries.append({"session": row["session"], **json.loads(row["body"])})
        for row in db.execute("select * from tool_calls order by call_id, position"):
            found[row["call_id"]].tools.append(dict(row))
    return found


def _errors(folder: Path) -> Iterator[Line]:
    for path in sorted(folder.glob("*.log")) if folder.is_dir() else []:
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and row.get("level") in ("error", "critical"):
                    yield {"name": path.stem, **row}
