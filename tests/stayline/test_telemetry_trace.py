"""One trace per call over two processes and a replay at every step, and nothing personal in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from stayline import telemetry
from stayline.dev_server import DevServer
from stayline.settings import Settings
from stayline.telemetry import attributes
from stayline.temporal import connect
from tests.fakes.otlp import Collector
from tests.stayline.traced_workflow import TracedCall

ROOT = Path(__file__).resolve().parents[2]
NUMBER = "+14155550123"
SAID = "my cat is called Mephisto, call +14155550123"


async def test_one_trace_covers_bridge_workflow_and_activities(temporal_server: DevServer, client: Client) -> None:
    """The bridge's process and the worker's export to one collector; the worker replays at every task."""
    async with Collector() as collector:
        settings = Settings(otlp_endpoint=collector.origin)
        call, logged = await _a_call(settings, temporal_server.address, client, collector)

    traceparent = call.traceparent
    assert {span.trace_id.hex() for _, span in collector.spans} == {traceparent.split("-")[1]}
    assert {service for service, _ in collector.spans} == {"stayline-bridge", "stayline-worker"}
    names = Counter(collector.names())
    assert {name: names[name] for name in EXPECTED} == EXPECTED
    assert not [name for name in names if "Query" in name]
    ids = [span.span_id for _, span in collector.spans]
    assert len(set(ids)) == len(ids), "a span was exported twice"

    by_id = {span.span_id: span for _, span in collector.spans}
    run = next(span for _, span in collector.spans if span.name == "RunWorkflow:TracedCall")
    assert by_id[by_id[run.parent_span_id].parent_span_id].name == attributes.SPAN_CALL
    assert run.end_time_unix_nano > run.start_time_unix_nano

    failed = [span for _, span in collector.spans if span.name == "tool" and span.status.code == 2]
    assert [span.status.message for span in failed] == ["ValueError"]
    assert b"Mephisto" not in collector.raw
    assert NUMBER[1:].encode() not in collector.raw
    _logs_name_the_call_but_no_number(logged)


async def test_a_bridge_that_exports_nothing_leaves_the_trace_to_others(
    temporal_server: DevServer, client: Client
) -> None:
    """Its messages carry no headers, only the start does; the worker's spans are one trace all the same."""
    async with Collector() as collector:
        call, _ = await _a_call(Settings(), temporal_server.address, client, collector)

    assert {span.trace_id.hex() for _, span in collector.spans} == {call.traceparent.split("-")[1]}
    assert {service for service, _ in collector.spans} == {"stayline-worker"}
    names = Counter(collector.names())
    assert {name: names[name] for name in EXPECTED_OF_THE_WORKER} == EXPECTED_OF_THE_WORKER
    history = await client.get_workflow_handle(call.id).fetch_history()
    for event in history.events:
        signal, update = (
            event.workflow_execution_signaled_event_attributes,
            event.workflow_execution_update_accepted_event_attributes,
        )
        assert not signal.header.fields
        assert not update.accepted_request.input.header.fields
    assert set(history.events[0].workflow_execution_started_event_attributes.header.fields) == {"_tracer-data"}


def _logs_name_the_call_but_no_number(logged: bytes) -> None:
    """The SDK logs a failed attempt with its exception, whose message quotes the caller."""
    assert NUMBER[1:].encode() not in logged
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith(b"{")]
    failure = next(line for line in lines if line.get("activity_type") == "book")
    assert failure["call_id"]
    assert failure["attempt"] == 1
    assert "ValueError" in failure["exception"]


EXPECTED_OF_THE_WORKER = {
    "RunWorkflow:TracedCall": 1,
    "HandleUpdate:admit": 1,
    "HandleUpdate:run_tool": 1,
    "HandleSignal:record": 2,
    "HandleSignal:end": 1,
    "StartActivity:book": 2,
    "RunActivity:book": 3,
    "tool": 3,
}
EXPECTED = {
    **EXPECTED_OF_THE_WORKER,
    "call": 1,
    "session": 2,
    "StartUpdateWithStartWorkflow:TracedCall": 1,
    "StartWorkflowUpdate:run_tool": 1,
    "SignalWorkflow:record": 2,
}


@dataclass(frozen=True)
class Traced:
    id: str
    traceparent: str


async def _a_call(settings: Settings, address: str, stranger: Client, collector: Collector) -> tuple[Traced, bytes]:
    """One call with a worker that exports to the collector, and what that worker logged."""
    queue = f"traced-{uuid4()}"
    environment = {
        **os.environ,
        "TEMPORAL_ADDRESS": address,
        "STAYLINE_OTLP_ENDPOINT": collector.origin,
        "STAYLINE_LOG_FORMAT": "json",
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.stayline.traced_worker",
        queue,
        cwd=ROOT,
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        call = await _talk(settings, address, queue, stranger)
        worker.send_signal(signal.SIGTERM)
        _, logged = await worker.communicate()
        assert worker.returncode == 0, logged.decode()
    finally:
        await asyncio.to_thread(telemetry.shutdown)  # it waits for the collector, which this loop serves
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    return call, logged


async def _talk(settings: Settings, address: str, queue: str, stranger: Client) -> Traced:
    """Admission in one bridge, a second session by another client, an `end` by somebody without telemetry."""
    telemetry.configure(settings, "bridge")
    bridge = await connect(settings, address=address)
    call = f"call-{uuid4()}"
    with telemetry.span(attributes.SPAN_CALL, attributes={attributes.PII_FROM_NUMBER: NUMBER}):
        start = WithStartWorkflowOperation(
            TracedCall.run,
            NUMBER,
            id=call,
            task_queue=queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        assert await bridge.execute_update_with_start_workflow(TracedCall.admit, start_workflow_operation=start)
        traceparent = telemetry.current_traceparent()
    assert traceparent is not None
    with telemetry.span(attributes.SPAN_SESSION, context=telemetry.call_context(traceparent)):
        handle = bridge.get_workflow_handle(call)
        assert await handle.execute_update("run_tool", SAID) == SAID
        await handle.signal("record", SAID)
    other_bridge = await connect(settings, address=address)
    with telemetry.span(attributes.SPAN_SESSION, context=telemetry.call_context(traceparent)):
        handle = other_bridge.get_workflow_handle(call)
        await handle.signal("record", SAID)
        assert await handle.query("snapshot") == 2
    await stranger.get_workflow_handle(call).signal("end")
    assert await handle.result() == 2
    return Traced(call, traceparent)
