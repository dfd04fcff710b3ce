"""The auditor itself: a run in order has no finding, and every rule is tripped by a ledger with one thing wrong."""

from __future__ import annotations

import ast
import base64
import copy
import json
import re
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.audit.evidence import Evidence, Fault, Record, Workflow, load
from tests.chaos.auditor import audit, judge

CALL = "CA1"
CHAOS = Path(__file__).parent


def line(at: float, kind: str, **more: Any) -> dict[str, Any]:
    return {"at": at, "kind": kind, "call": CALL, **more}


def signal(session: int, first_seq: int, *events: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps({"session": session, "first_seq": first_seq, "events": events}).encode()
    payload = {"metadata": {}, "data": base64.b64encode(data).decode()}
    told = {"signalName": "record", "input": {"payloads": [payload]}}
    return {"workflowExecutionSignaledEventAttributes": told}


def turn(kind: str, text: str, at: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "text": text, "at": f"2026-11-25T10:00:{at}Z", **more}


TURNS = [
    turn("agent_turn", "Hello there.", "01", source="greeting"),
    turn("user_turn", "c1n1 say hello", "02"),
    turn("agent_turn", "You said c1n1 say hello.", "03", source="reply"),
    turn("user_turn", "c1n2 book a table", "04"),
    turn("agent_turn", "Done: c1n2 is booked.", "05", source="reply"),
]


def good() -> Evidence:
    """One call: a greeting, a question, a booking; a bridge was frozen meanwhile; the caller hung up."""
    key = f"call-{CALL}:t1"
    booked = {"call": CALL, "key": key, "what": "c1n2"}
    before = {"kind": "baseline", "name": "b1", "fds": 14, "sockets": 7, "threads": 10, "tasks": 12}
    return Evidence(
        carrier=[
            line(1, "call", detail="+1 -> +2"),
            line(1.1, "webhook", detail="POST /voice/inbound", twiml="<Response><Connect/></Response>"),
            line(1.1, "twiml", detail="Connect"),
            line(1.2, "answered", detail=""),
            line(1.2, "stream_opened", detail="MZ1"),
            line(9, "hang_up", detail="by: caller", by="caller"),
            line(9, "stream_stopped", detail="MZ1"),
            line(9.1, "ended", detail="completed", by="caller"),
        ],
        callers=[
            line(1, "begins", caller="c1", ours=""),
            line(2, "heard", caller="c1", text="Hello there. ", whole=True),
            line(2.5, "said", caller="c1", tag="c1n1", text="c1n1 say hello", again=False),
            line(4, "heard", caller="c1", text="You said c1n1 say hello. ", whole=True),
            line(5, "said", caller="c1", tag="c1n2", text="c1n2 book a table", again=False),
            line(8, "heard", caller="c1", text="Done: c1n2 is booked. ", whole=True),
            line(9, "hangs_up", caller="c1", why="done"),
        ],
        tools=[line(6, "asked", **booked, attempt=1), line(6.1, "effect", **booked, attempt=1)],
        processes=[{**before, "at": 0}, {**before, "at": 20, "kind": "left", "calls": 0, "sockets": 10}],
        faults=[Fault("freeze", "b1", 3.0, 3.5)],
        workflows=[
            Workflow(
                f"call-{CALL}",
                "CallWorkflow",
                "COMPLETED",
                "r",
                [signal(1, 1, *TURNS[:3]), signal(1, 4, *TURNS[3:])],
            ),
            Workflow("bridge-b1-77aa", "BridgeWorkflow", "RUNNING"),
        ],
        records={
            CALL: Record(
                CALL,
                True,
                "caller_hung_up",
                "ended",
                True,
                "",
                [{"session": 0, "type": "session_opened"}, *({"session": 1, **event} for event in TURNS)],
                [{"tool_call_id": "t1", "name": "book", "status": "succeeded", "error": None}],
            )
        },
    )


def test_a_run_in_order_has_no_finding() -> None:
    report = judge(good())
    assert report.findings == []
    assert report.heard == {"had every answer and hung up": 1}
    assert report.calls == 1


@pytest.mark.parametrize(("at", "last"), [(7.9, True), (7.6, False)])
def test_what_was_heard_before_the_carriers_words_is_noted_after_them(at: float, last: bool) -> None:
    seen = good()
    _hung_up_by("bridge")(seen)
    seen.carrier.insert(-3, line(at, "twiml", detail="Say", text="Sorry, we have trouble."))
    assert ("ended without a word" in {finding.rule for finding in judge(seen).findings}) == (not last)


def cut_short() -> tuple[Evidence, dict[str, Any]]:
    """The caller heard an answer, of which the record says that it was generated; and that answer in the record."""
    seen = good()
    answer = seen.records[CALL].entries[-1]
    answer.update(text="Done:", generated=answer["text"])
    seen.workflows[0].events[1] = signal(1, 4, TURNS[3], {**TURNS[4], "text": "Done:"})
    assert {finding.rule for finding in judge(seen).findings} == {"turn missing"}
    return seen, answer


@pytest.mark.parametrize(("kind", "what"), [("slow", "carrier-bridge"), ("hang", "realtime")])
@pytest.mark.parametrize(
    ("begun", "over", "forgiven"), [(6, 8.5, True), (6, 7, True), (9, 12, False), (2, 4, False)]
)
def test_what_was_stopped_over_a_slow_line_or_never_ended_may_have_been_heard(
    kind: str, what: str, begun: float, over: float, forgiven: bool
) -> None:
    seen, _ = cut_short()
    seen.faults.append(Fault(kind, what, begun, over))
    assert {finding.rule for finding in judge(seen).findings} == (set() if forgiven else {"turn missing"})


def test_what_was_heard_as_the_caller_hung_up_may_be_known_as_generated_only() -> None:
    seen, _ = cut_short()
    heard = next(row for row in seen.callers if row["at"] == 8)
    seen.callers.remove(heard)
    seen.callers.append({**heard, "at": 9.0})
    assert judge(seen).findings == []


def test_two_answers_may_be_heard_without_a_pause() -> None:
    seen = good()
    both = [TURNS[4], turn("agent_turn", "It is c1n2, yes.", "06", source="reply")]
    seen.workflows[0].events[1] = signal(1, 4, TURNS[3], *both)
    seen.records[CALL].entries.append({"session": 1, **both[1]})
    assert {finding.rule for finding in judge(seen).findings} == {"turn twice", "turn that nobody heard"}
    heard = next(row for row in seen.callers if row["at"] == 8)
    heard["text"] += "It is c1n2, yes."
    assert judge(seen).findings == []


def test_a_connection_that_is_kept_open_has_a_task() -> None:
    seen = good()
    _left(tasks=50, inbound=35)(seen)
    assert judge(seen).findings == []


@pytest.mark.parametrize(
    ("pieces", "fine"),
    [
        (("Done: c1n2 is b", "ooked. "), True),
        (("Done: c1n2 is bo", "is booked. "), False),
        (("Done: c1n2 is boo", "booked. "), True),  # heard again
        (("Done: c1n2 is b", "ked. "), True),  # lost
        (("Done: c1n2", " is bo", " booked. "), True),
        (("Done: c1n2 is b", "."), False),
        (("Done: c1n2 is ", "not booked. "), False),
    ],
)
def test_a_word_may_be_paused_in_its_middle(pieces: tuple[str, ...], fine: bool) -> None:
    seen = good()
    place = next(at for at, row in enumerate(seen.callers) if row["at"] == 8)
    seen.callers[place : place + 1] = [{**seen.callers[place], "text": text} for text in pieces]
    assert {finding.rule for finding in judge(seen).findings} == (set() if fine else {"turn that nobody heard"})


def test_what_a_mute_carrier_played_may_be_known_as_generated_only() -> None:
    seen, answer = cut_short()
    seen.carrier.insert(5, line(7, "fault", detail="the stream falls silent"))
    assert judge(seen).findings == []
    del answer["generated"]
    assert {finding.rule for finding in judge(seen).findings} == {"turn missing"}


@pytest.mark.parametrize(
    ("at", "frozen", "false_alarm"),
    [(12.0, "w1", True), (14.5, "w1", True), (9.0, "w1", False), (25.0, "w1", False), (12.0, "w2", False)],
)
def test_a_worker_that_was_frozen_may_speak_of_a_deadlock(at: float, frozen: str, false_alarm: bool) -> None:
    seen = good()
    seen.faults.append(Fault("freeze", frozen, 10.0, 14.0))
    told = "Traceback\n_DeadlockError: [TMPRL1101] Potential deadlock detected: workflow didn't yield"
    stamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    seen.logs.append({"name": "w1", "timestamp": stamp, "event": "Failed handling", "exception": told})
    assert [finding.rule for finding in judge(seen).findings] == ([] if false_alarm else ["defect"])


@pytest.mark.parametrize("what", ["w2", "stt"])
def test_after_a_farewell_faults_may_hold_up_the_end_of_the_line(what: str) -> None:
    """Faults one upon another, of those who close it; not of others."""
    seen = good()
    seen.callers[-2]["text"] = "Goodbye, c1n2."
    seen.callers.pop()
    _carrier(seen, "hang_up").update(at=30, by="bridge")
    seen.records[CALL].outcome = "completed"
    seen.faults = [Fault("cut", "worker-temporal", 10, 14), Fault("freeze", what, 16, 20)]
    found = {finding.rule for finding in judge(seen).findings}
    assert ("silence after a fault" in found) == (what == "stt")


Spoil = Callable[[Evidence], object]


def _carrier(seen: Evidence, kind: str) -> dict[str, Any]:
    return next(row for row in seen.carrier if row["kind"] == kind)


def _hung_up_by(who: str) -> Spoil:
    def spoil(seen: Evidence) -> None:
        _carrier(seen, "hang_up").update(by=who, detail=f"by: {who}")
        seen.callers.pop()

    return spoil


def _leave(why: str) -> Spoil:
    return lambda seen: seen.callers[-1].update(why=why)


def _record(**changes: Any) -> Spoil:
    return lambda seen: [setattr(seen.records[CALL], key, value) for key, value in changes.items()]


def _left(**changes: Any) -> Spoil:
    return lambda seen: seen.processes[-1].update(changes)


def _outbound(seen: Evidence) -> None:
    for call in (CALL, "CA2"):
        seen.carrier.append(
            {**line(1, "status", detail="ringing", url="http://b/voice/status?call=out-7"), "call": call}
        )


def _redirected(seen: Evidence) -> None:
    seen.faults.clear()
    rest = "POST Twiml=<Response><Redirect>http://b/voice/next</Redirect></Response> -> 200"
    seen.carrier.insert(5, line(5, "rest", detail=rest, status=200))


def _late_fault(seen: Evidence) -> None:
    """The last that was heard came before it, and the caller stayed for long."""
    seen.faults.append(Fault("kill", "b1", 8.5, 8.5))
    seen.callers[-1]["at"] = _carrier(seen, "hang_up")["at"] = 60


def _twice(seen: Evidence) -> None:
    seen.records[CALL].entries.append({"session": 1, **TURNS[1]})


def _answer_twice(seen: Evidence) -> None:
    again = {"session": 1, **TURNS[2], "at": "2026-11-25T10:00:09Z"}
    seen.records[CALL].entries.append(again)
    seen.workflows[0].events.append(signal(1, 6, again))


def _unheard(seen: Evidence) -> None:
    del seen.callers[3]


def _out_of_ear(seen: Evidence) -> None:
    """It was answered, but neither bridge nor record know of it."""
    seen.callers.insert(-1, line(8.5, "said", caller="c1", tag="c1n3", text="c1n3 say hello", again=False))
    seen.callers.insert(-1, line(8.7, "heard", caller="c1", text="You said c1n3 say hello. ", whole=True))


RULES: dict[str, list[Spoil]] = {
    "workflow without an end": [lambda s: setattr(s.workflows[0], "status", "RUNNING")],
    "call never placed": [lambda s: s.callers.append({**line(1, "expects", caller="c2"), "call": "out-9"})],
    "call without an end": [lambda s: s.carrier.remove(_carrier(s, "hang_up"))],
    "caller left alone": [_leave("silence"), _leave("unanswered"), _leave("endless")],
    "call without a workflow": [lambda s: s.workflows.pop(0)],
    "call without a record": [lambda s: s.records.clear()],
    "record without an end": [_record(final=False), _record(ended=False), _record(outcome=None)],
    "call lost": [_record(outcome="lost"), _record(outcome="failed")],
    "ended without a word": [_hung_up_by("bridge"), _hung_up_by("error"), _hung_up_by("carrier")],
    "silence after a fault": [_late_fault],
    "records missing": [lambda s: s.workflows[0].events.__setitem__(1, signal(1, 5, *TURNS[3:]))],
    "turn missing": [
        lambda s: s.records[CALL].entries.pop(3),
        lambda s: s.records[CALL].entries.pop(2),
        _out_of_ear,
    ],
    "turn twice": [_twice, _answer_twice],
    "turn from nowhere": [
        lambda s: s.records[CALL].entries.append({"session": 1, **turn("user_turn", "hm", "07")}),
        lambda s: s.callers.remove(next(row for row in s.callers if row.get("tag") == "c1n1")),
    ],
    "turn that nobody heard": [_unheard],
    "effect twice": [
        lambda s: s.tools.append(s.tools[-1]),
        lambda s: s.tools.append({**s.tools[-1], "key": "call-CA1:t2"}),
    ],
    "effect from nowhere": [lambda s: s.tools.pop(0)],
    "tool without an end": [lambda s: s.records[CALL].tools[0].update(status=None)],
    "success without effect": [lambda s: s.tools.clear()],
    "effect called a failure": [lambda s: s.records[CALL].tools[0].update(status="failed")],
    "dialled twice": [_outbound, lambda s: s.carrier.insert(5, line(5, "twiml", detail="Dial", to="+3"))],
    "hung up on a caller": [_hung_up_by("rest")],
    "taken out of a talk": [_redirected],
    "spool not empty": [lambda s: s.spool.append("CA1.1.json")],
    "defect": [
        lambda s: s.logs.append({"name": "b1", "event": "session_failed", "exception": "Traceback\nKeyError: 1"}),
        lambda s: s.logs.append({"name": "b1", "event": "records_refused"}),
    ],
    "does not answer": [_left(silent="TimeoutError")],
    "process died": [lambda s: s.processes.append({"kind": "died", "name": "b1", "at": 9})],
    "slot leaked": [_left(calls=1), _left(sessions=1.0), _left(records_waiting=2.0)],
    "fds leaked": [_left(fds=40)],
    "sockets leaked": [_left(sockets=60)],
    "threads leaked": [_left(threads=80)],
    "tasks leaked": [_left(tasks=50), _left(tasks=50, inbound=20)],
    "lease leaked": [lambda s: s.workflows.append(Workflow("bridge-b2-12ab", "BridgeWorkflow", "RUNNING"))],
    "no lease": [lambda s: s.workflows.pop()],
}
CASES = [(rule, spoil) for rule, spoils in RULES.items() for spoil in spoils]


@pytest.mark.parametrize(("rule", "spoil"), CASES, ids=[f"{rule} {i}" for i, (rule, _) in enumerate(CASES)])
def test_each_rule_is_tripped_by_a_ledger_that_breaks_it(rule: str, spoil: Spoil) -> None:
    seen = copy.deepcopy(good())
    spoil(seen)
    assert rule in {finding.rule for finding in judge(seen).findings}


def test_every_rule_has_such_a_ledger() -> None:
    sources = "\n".join(path.read_text() for path in (CHAOS / "audit").glob("*.py"))
    written = set(re.findall(r'Finding\(\s*[^,]+,\s*"([^"]+)"', sources))
    written |= {"turn twice", "turn from nowhere"} | {
        f"{key} leaked" for key in ("fds", "sockets", "threads", "tasks")
    }
    assert written == set(RULES)


def test_the_auditor_shares_no_code_with_the_product() -> None:
    """Standard library and itself, nothing else: not even what the rest of the suite is made of."""
    allowed = sys.stdlib_module_names
    for path in [CHAOS / "auditor.py", *(CHAOS / "audit").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("tests.chaos.audit"), f"{path.name}: {name}"


def test_faults_last_until_they_are_said_to_be_over(tmp_path: Path) -> None:
    lines = [
        {"at": 1, "kind": "seed", "what": "7", "end": True},
        {"at": 2, "kind": "freeze", "what": "b1", "end": False},
        {"at": 3, "kind": "kill", "what": "w1", "end": True},
        {"at": 4, "kind": "thaw", "what": "b1", "end": True},
        {"at": 5, "kind": "started", "what": "w1", "end": True},
        {"at": 6, "kind": "stop", "what": "b2", "end": False},
    ]
    _folder(tmp_path, faults=lines)
    seen = load(tmp_path)
    assert seen.faults == [
        Fault("freeze", "b1", 2, 4),
        Fault("kill", "w1", 3, 5),
        Fault("stop", "b2", 6, float("inf")),
    ]
    assert seen.ended_bridges == ["b2"]


def test_a_folder_is_read_as_it_lies(tmp_path: Path) -> None:
    """The same call as files: histories as Temporal gives them, records as the product's database has them."""
    seen = good()
    _folder(
        tmp_path,
        carrier=seen.carrier,
        callers=seen.callers,
        tools=seen.tools,
        processes=seen.processes,
        faults=[{"at": 3, "kind": "freeze", "what": "b1"}, {"at": 3.5, "kind": "thaw", "what": "b1", "end": True}],
        workflows=seen.workflows,
        record=seen.records[CALL],
    )
    report = audit(tmp_path)
    assert report.findings == []
    assert report.counts["turns"] == len(TURNS)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "CA1.1.json").touch()
    assert [finding.rule for finding in audit(tmp_path).findings] == ["spool not empty"]
    assert "CA1.1.json" in audit(tmp_path).text()


def _folder(
    folder: Path, *, workflows: list[Workflow] | None = None, record: Record | None = None, **ledgers: list[Any]
) -> None:
    for name, rows in ledgers.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "histories").mkdir()
    index = []
    for workflow in workflows or ():
        (folder / "histories" / f"{workflow.id}.json").write_text(json.dumps({"events": workflow.events}))
        row = {"id": workflow.id, "run_id": workflow.run_id, "type": workflow.type, "status": workflow.status}
        index.append(row | {"file": f"{workflow.id}.json"})
    (folder / "workflows.json").write_text(json.dumps(index))
    if record is None:
        return
    with sqlite3.connect(folder / "calls.db") as db:
        db.execute("create table calls (call_id, final, outcome, status, ended_at, carrier_call_id)")
        db.execute("create table events (call_id, timeline_index, session, body)")
        db.execute("create table tool_calls (call_id, position, tool_call_id, name, status, error)")
        db.execute("insert into calls values (?, 1, ?, ?, '2026', '')", (CALL, record.outcome, record.status))
        for index_, entry in enumerate(record.entries):
            body = {key: value for key, value in entry.items() if key != "session"}
            db.execute("insert into events values (?, ?, ?, ?)", (CALL, index_, entry["session"], json.dumps(body)))
        for position, tool in enumerate(record.tools):
            row_ = (CALL, position, tool["tool_call_id"], tool["name"], tool["status"], tool["error"])
            db.execute("insert into tool_calls values (?, ?, ?, ?, ?, ?)", row_)
    db.close()
