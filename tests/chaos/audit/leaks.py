"""When all calls are over nobody holds anything for them: slots, tasks, sockets, files, leases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from tests.chaos.audit.evidence import Evidence, Finding, Line

ALLOWED: Final = {"fds": 4, "sockets": 36, "threads": 24, "tasks": 4}
"""More than before the first call: connections kept for the next (for each of 16 calls at once one to each language
model, and some), pools of threads. None grows with the calls."""
THAWED_WITHIN: Final = 5.0
"""Seconds after a freeze in which the SDK may still complain of it."""
EMPTY: Final = {"calls": "calls", "sessions": "open sessions", "records_waiting": "records that wait"}


def check(seen: Evidence) -> Iterator[Finding]:
    yield from _processes(seen)
    yield from _leases(seen)
    for name in seen.spool:
        yield Finding(name, "spool not empty", "records that nobody sent")
    for line in seen.logs:
        if _of_the_sdk(line) or _was_frozen(seen, line):
            continue
        if "exception" in line or line.get("event") in ("records_refused", "spool_file_unreadable"):
            told = str(line.get("exception", "")).strip().splitlines()[-1:]
            evidence = f"{line.get('event')} {' '.join(told)}"[:300]
            yield Finding(str(line.get("call_id") or line["name"]), "defect", f"{line['name']}: {evidence}")


def _of_the_sdk(line: Line) -> bool:
    """Temporal's client keeps a future of each update-with-start that nobody need ask for, and asyncio complains
    when the request was given up (temporalio 1.35). Nothing is lost by it."""
    return "never retrieved" in str(line.get("event")) and "update_with_start" in str(line.get("exception"))


def _was_frozen(seen: Evidence, line: Line) -> bool:
    """Temporal's SDK takes a workflow that did not yield for 2 s for a deadlock, also when the whole worker was
    frozen meanwhile. The workflow task is tried again."""
    if "[TMPRL1101]" not in str(line.get("exception")):
        return False
    at = datetime.fromisoformat(line["timestamp"]).timestamp()
    freezes = (fault for fault in seen.faults if fault.kind == "freeze" and fault.what == line["name"])
    return any(fault.begun <= at <= fault.over + THAWED_WITHIN for fault in freezes)


def _processes(seen: Evidence) -> Iterator[Finding]:
    before = {line["name"]: line for line in seen.processes if line["kind"] == "baseline"}
    for line in seen.processes:
        name = line["name"]
        if line["kind"] == "died":
            yield Finding(name, "process died", "nobody killed or stopped it")
        if line["kind"] != "left" or line.get("dead"):
            continue
        if "silent" in line:
            yield Finding(name, "does not answer", line["silent"])
        for key, what in EMPTY.items():
            if line.get(key):
                yield Finding(name, "slot leaked", f"{line[key]:g} {what}")
        for key, allowed in ALLOWED.items():
            was, now = _held(before.get(name, {}), key), _held(line, key)
            if was is not None and now is not None and now - was > allowed:
                yield Finding(name, f"{key} leaked", f"{was:g} before the first call, {now:g} after the last")


def _held(line: Line, key: str) -> int | None:
    """Tasks without those of the HTTP server, which has one for each connection to it until that is closed."""
    held: int | None = line.get(key)
    return held - line.get("inbound", 0) if held is not None and key == "tasks" else held


def _leases(seen: Evidence) -> Iterator[Finding]:
    """A lease lives as long as its bridge."""
    living = {line["name"] for line in seen.processes if line["kind"] == "left" and not line.get("dead")}
    held = {
        workflow.id.removeprefix("bridge-").rpartition("-")[0]
        for workflow in seen.workflows
        if workflow.type == "BridgeWorkflow" and workflow.status == "RUNNING"
    }
    for name in held - living:
        yield Finding(name, "lease leaked", "the bridge is gone, its lease is not")
    for name in living - held:
        yield Finding(name, "no lease", "the bridge is there, and holds no lease")
