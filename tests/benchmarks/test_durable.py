"""The durability benchmarks still measure what they say: a little of each, and what their counts must be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from benchmarks import durable_curves, durable_history, durable_recovery, durable_tools
from benchmarks.durable_curves import calm
from benchmarks.durable_line import line
from benchmarks.durable_place import actions, signal_latencies, task_times, temporal, whole_history
from benchmarks.durable_report import Row, percentile, write
from benchmarks.durable_worker import worker

pytestmark = pytest.mark.timeout(300)  # three minutes of it on a machine that has much else to do

CONVERSATION = ("WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_UPDATE_ACCEPTED", "ACTIVITY_TASK_SCHEDULED")
"""Events that are what the bridge sent, however busy the machine was."""


def event(kind: str, seconds: float, **attributes: Any) -> HistoryEvent:
    made = HistoryEvent(event_type=EventType.Value(f"EVENT_TYPE_{kind}"), **attributes)
    made.event_time.FromMilliseconds(round(seconds * 1000))
    return made


def test_times_read_from_a_history() -> None:
    events = [
        event("WORKFLOW_EXECUTION_SIGNALED", 1.0),
        event("WORKFLOW_TASK_SCHEDULED", 1.0),
        event("WORKFLOW_TASK_STARTED", 1.01),
        event("WORKFLOW_EXECUTION_SIGNALED", 1.02),  # too late for this task
        event("WORKFLOW_TASK_COMPLETED", 1.03),
        event("WORKFLOW_TASK_STARTED", 1.04),
        event("WORKFLOW_TASK_COMPLETED", 1.09),
    ]
    assert signal_latencies(events) == pytest.approx([30, 70])
    assert task_times(events) == pytest.approx([20, 50])


def test_billed_actions() -> None:
    retried = event("ACTIVITY_TASK_STARTED", 0, activity_task_started_event_attributes={"attempt": 3})
    events = [event("ACTIVITY_TASK_SCHEDULED", 0), retried, event("TIMER_STARTED", 0), event("TIMER_FIRED", 0)]
    assert actions(events) == {"ACTIVITY_TASK_SCHEDULED": 1, "activity retry": 2, "TIMER_STARTED": 1}


def test_percentiles_and_the_file_of_results(tmp_path: Path) -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 95, 100)] == [50, 95, 100]
    assert percentile([7.0], 95) == 7
    path = tmp_path / "results" / "durable.json"
    write(path, "T", "first", {"cores": 2}, {"a": {"rows": [Row("x", 1, "ms", "≤ 2", True)], "series": [1]}})
    write(path, "T", "second", {"cores": 2}, {"b": {"rows": [Row("y", 3, "ms")], "series": []}})
    text = path.read_text()
    assert '"first"' in text, "a part that was not run again keeps its own command"
    assert text.index('"x"') < text.index('"y"')


async def test_tools_and_curves(tmp_path: Path) -> None:
    async with temporal(tmp_path) as client, worker(client, tmp_path) as process:
        times = await durable_tools.measure(client, tmp_path, 2, 0, warm_up=1)
        assert {way: len(of_way) for way, of_way in times.items()} == {"ours": 2, "bare": 2}
        assert len(durable_tools.rows(times, "here")) == 6

        call = await durable_history.long_call(client, tmp_path, 2, speed=200, exchanges=4)
        assert call["types"]["WORKFLOW_EXECUTION_UPDATE_COMPLETED"] == 4  # admit, open_session, two tools
        assert call["actions"]["WORKFLOW_EXECUTION_SIGNALED"] >= 8
        assert sum(call["types"].values()) == call["events"]

        one = await durable_curves.in_one_call(client, tmp_path, 12)
        assert len(one["tool_ms"]) == 12
        assert len(one["record_ms"]) >= 24
        assert durable_curves.rows_of_one(one)
        lengths = await durable_curves.by_length(client, tmp_path, process, (1, 4), 1)
        assert lengths[0]["events"] < lengths[1]["events"] == lengths[1]["replayed_events"]
        assert durable_curves.rows_of_lengths(lengths)
        at_once = await durable_curves.at_once(client, tmp_path, {"worker": process}, (2,), 1)
        assert at_once[0]["cpu_ms_per_exchange"]["worker"] > 0
        assert durable_curves.rows_of_calls(at_once)


async def test_what_a_real_bridge_sends_is_what_the_line_sends(tmp_path: Path) -> None:
    """And no more than it must: a signal for each turn, with what the model has cost."""
    async with temporal(tmp_path) as client:
        address = client.service_client.config.target_host
        real = await durable_history.per_exchange(address, tmp_path / "bridge", client, 1, lease_seconds=2)
        signals = [real[name]["types"]["WORKFLOW_EXECUTION_SIGNALED"] for name in ("plain", "tool")]
        assert signals == [2, 2], "a tool has no signal of its own"
        assert real["heartbeats of one bridge per minute"] > 0
        async with worker(client, tmp_path):
            for name, tool in (("plain", False), ("tool", True)):
                counts = []
                for exchanges in (0, 1):
                    async with line(client, calm(), tmp_path) as call:
                        for _ in range(exchanges):
                            await call.turns(0.1, tool)
                        await call.caught_up()
                        await call.end()
                        (run,) = await whole_history(client, call.workflow_id)
                    counts.append(Counter({k: n for k, n in run.types.items() if k in CONVERSATION}))
                sent = counts[1] - counts[0]
                assert sent == Counter({k: n for k, n in real[name]["types"].items() if k in CONVERSATION}), name


async def test_recovery(tmp_path: Path) -> None:
    found = await durable_recovery.measure(tmp_path, calls=1, rounds=1)
    assert [recovery.on_break for recovery in found] == ["next", "wait"]
    for recovery in found:
        steps = list(recovery.steps.values())
        assert steps == sorted(steps), "each follows from the one before"
        assert recovery.seconds > steps[-1] - 0.1, "what is heard was sent before"
    assert len(durable_recovery.rows(found)) == 4 + 7
