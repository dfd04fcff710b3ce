"""No call without an end, and no caller left in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.chaos.audit.evidence import Evidence, Fault, Finding, Line

LEFT_ALONE: Final = {
    "silence": "heard nothing for so long that they hung up",
    "unanswered": "was never answered",
    "endless": "could not get out of the call",
}
LAST_WORDS: Final = ("goodbye", "sorry", "trouble", "connect you")
"""What an agent's last words have in them."""
NOTED_AFTER: Final = 0.3
"""Seconds of silence after which a caller writes down what was heard."""
OWN_WILL: Final = ("done", "leaves")
NOTICED_WITHIN: Final = 12.0
"""Seconds after a fault in which whoever was done with the call has not been waiting for anything yet."""
ONE_UPON_ANOTHER: Final = 3.0
"""Seconds between two faults in which what the first has held up is not yet done."""


def check(seen: Evidence) -> Iterator[Finding]:
    yield from _workflows(seen)
    yield from _placed(seen)
    for call in seen.calls():
        yield from _end(seen, call)
        yield from _record(seen, call)
        yield from _words(seen, call)
        yield from _after_faults(seen, call)


def _workflows(seen: Evidence) -> Iterator[Finding]:
    for workflow in seen.workflows:
        if workflow.type == "CallWorkflow" and workflow.status not in ("COMPLETED", "CONTINUED_AS_NEW"):
            yield Finding(workflow.call_id, "workflow without an end", workflow.status)


def _placed(seen: Evidence) -> Iterator[Finding]:
    """Whom we call, rings, or there is a record that says why not."""
    rung = {seen.ours(call) for call in seen.calls()}
    for line in seen.callers:
        if line["kind"] == "expects" and line["call"] not in rung:
            record = seen.records.get(line["call"])
            if record is None or not record.final:
                yield Finding(line["call"], "call never placed", "no ring at the carrier, and no record")


def _end(seen: Evidence, call: str) -> Iterator[Finding]:
    if not seen.of_carrier(call, "hang_up"):
        yield Finding(call, "call without an end", "the carrier still holds it")
    for line in seen.of_caller(call, "hangs_up"):
        if line["why"] in LEFT_ALONE:
            yield Finding(call, "caller left alone", f"{line['caller']} {LEFT_ALONE[line['why']]}")


def _record(seen: Evidence, call: str) -> Iterator[Finding]:
    connected = [line for line in seen.of_carrier(call, "webhook") if "<Connect" in line.get("twiml", "")]
    ours = seen.ours(call)
    record = seen.record(call)
    known = any(workflow.id == f"call-{ours}" for workflow in seen.workflows)
    if connected and not known:
        yield Finding(call, "call without a workflow", "it was given a stream")
    if (connected or known) and record is None:
        yield Finding(call, "call without a record", f"of {ours}")
    elif record is not None and not (record.final and record.ended and record.outcome):
        yield Finding(call, "record without an end", f"final={record.final} outcome={record.outcome}")
    elif record is not None and record.outcome in ("failed", "lost") and _unaware(seen, call):
        yield Finding(call, "call lost", f"outcome {record.outcome}, and nobody told the caller")


def _unaware(seen: Evidence, call: str) -> bool:
    """They were in conversation, and were told no farewell."""
    return bool(seen.of_caller(call, "heard")) and not told_farewell(seen, call)


def told_farewell(seen: Evidence, call: str) -> bool:
    """The last thing that the caller heard, of agent or carrier, was a farewell."""
    heard = [(float(line["at"]) - NOTED_AFTER, str(line["text"])) for line in seen.of_caller(call, "heard")]
    heard += [(float(line["at"]), str(line["text"])) for line in _said_by_carrier(seen, call)]
    return bool(heard) and any(word in max(heard)[1].lower() for word in LAST_WORDS)


def _said_by_carrier(seen: Evidence, call: str) -> list[Line]:
    return [line for line in seen.of_carrier(call, "twiml") if line["detail"] == "Say" and line.get("text")]


def _words(seen: Evidence, call: str) -> Iterator[Finding]:
    """Whom the system leaves, it tells so."""
    ended = seen.of_carrier(call, "hang_up")
    if not ended or ended[0].get("by") == "caller" or not seen.of_carrier(call, "answered"):
        return
    dialled = any(line["detail"] in ("Dial", "Reject") for line in seen.of_carrier(call, "twiml"))
    if not dialled and not told_farewell(seen, call):
        yield Finding(call, "ended without a word", f"by {ended[0].get('by')}: {ended[0]['detail']}")


def _after_faults(seen: Evidence, call: str) -> Iterator[Finding]:
    """After a fault each caller heard something: the conversation go on, or a farewell."""
    begun, over = seen.life(call)
    heard = [line["at"] for line in [*seen.of_caller(call, "heard"), *_said_by_carrier(seen, call)]]
    heard += [line["at"] for line in seen.of_carrier(call, "twiml") if line["detail"] in ("Dial", "Reject")]
    person = ("answered", "completed")
    heard += [line["at"] for line in seen.of_carrier(call, "dial") if line["detail"].endswith(person)]
    left = any(line["why"] in OWN_WILL for line in seen.of_caller(call, "hangs_up"))
    was_done = left or told_farewell(seen, call)
    talked = [line["at"] for line in seen.of_carrier(call, "dial") if line.get("status") == "completed"]
    for fault in seen.faults:
        if not begun < fault.begun < over or any(at >= fault.begun for at in heard):
            continue
        if was_done and over - _held_up_until(seen, fault) <= NOTICED_WITHIN:
            continue
        if any(at <= fault.begun for at in talked):
            continue  # they had the person whom they wanted
        evidence = f"heard nothing after {fault.kind} {fault.what}, {over - fault.begun:.0f} s before the end"
        yield Finding(call, "silence after a fault", evidence)


def _held_up_until(seen: Evidence, first: Fault) -> float:
    """Until when this fault, and others right after it, kept a call that was over from being closed."""
    until = first.over if _closes_lines(first) else first.begun
    for fault in sorted(seen.faults, key=lambda fault: fault.begun):
        if _closes_lines(fault) and first.begun <= fault.begun <= until + ONE_UPON_ANOTHER:
            until = max(until, fault.over)
    return until


def _closes_lines(fault: Fault) -> bool:
    """It was done to Temporal, to a worker, or to a link between them and the bridges: they close a call's line."""
    return "temporal" in fault.what or (fault.what.startswith("w") and fault.what[1:].isdigit())
