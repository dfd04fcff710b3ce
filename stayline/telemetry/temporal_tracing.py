"""Temporal's part of a call's trace: workflow, handlers and activities, with real durations and no duplicates.

Built on the SDK's `OpenTelemetryInterceptor(add_temporal_spans=True)`. The older `TracingInterceptor` writes
workflow spans of zero length; this one ends a span when the work ends, draws ids from the workflow's own
deterministic randomness and drops what a replay repeats. A workflow's own span is exported when it completes.

Messages that people send from Temporal's UI or CLI carry no trace, and those from other workflows carry
theirs: `JoinCallTrace` puts both into the trace of the workflow that handles them.

A span for each request, and its id in a header of each message, are an eighth of a history of a call with tools.
A process whose spans go nowhere makes none: it only hands a call's trace on when it starts the call's workflow, so
that others, which do export, still agree on one trace (`BeginCallTrace`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import temporalio.client
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor
from temporalio.converter import PayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from stayline.telemetry.spans import current_traceparent

_HEADER = "_tracer-data"  # temporalio.contrib.opentelemetry, _otel_interceptor.py


def plugin(*, exported: bool) -> SimplePlugin:
    """The plugin that clients, workers and replayers use alike. Needs `setup.ensure_provider` to have run.

    Args:
        exported: whether this process' spans go anywhere.
    """
    traced = [JoinCallTrace(), OpenTelemetryInterceptor(add_temporal_spans=True)]
    return SimplePlugin(
        "StaylineTracing",
        interceptors=traced if exported else [BeginCallTrace()],
        workflow_runner=_let_opentelemetry_pass,
    )


class BeginCallTrace(temporalio.client.Interceptor):
    """Gives the present trace to each workflow that this client starts, and to nothing else."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _BeginCallTrace(next)


class _BeginCallTrace(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        input.headers = _with_trace(input.headers)
        return await super().start_workflow(input)

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        start = input.start_workflow_input
        start.headers = _with_trace(start.headers)
        return await super().start_update_with_start_workflow(input)


def _with_trace(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    traceparent = current_traceparent()
    if traceparent is None:
        return headers
    (payload,) = PayloadConverter.default.to_payloads([{"traceparent": traceparent}])
    return {**headers, _HEADER: payload}


class JoinCallTrace(temporalio.client.Interceptor, Interceptor):
    """Lets signals and updates from elsewhere appear in the trace of the workflow that handles them.

    It does nothing in a client. It is a client's interceptor too because workers put those before their own, and
    this one must come before OpenTelemetry's.
    """

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        return _JoinCallTrace


class _JoinCallTrace(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:
        await super().handle_signal(dataclasses.replace(input, headers=_joined(input.headers)))

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        super().handle_update_validator(dataclasses.replace(input, headers=_joined(input.headers)))

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        return await super().handle_update_handler(dataclasses.replace(input, headers=_joined(input.headers)))


def _joined(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    """The headers, with the workflow's own trace unless the message already belongs to it."""
    own = workflow.info().headers.get(_HEADER)
    if own is None or _trace_id(headers.get(_HEADER)) == _trace_id(own):
        return headers
    return {**headers, _HEADER: own}


def _trace_id(payload: Payload | None) -> str:
    if payload is None:
        return ""
    try:
        return str(json.loads(payload.data)["traceparent"]).split("-")[1]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _let_opentelemetry_pass(runner: WorkflowRunner | None) -> WorkflowRunner:
    if isinstance(runner, SandboxedWorkflowRunner):
        return dataclasses.replace(
            runner, restrictions=runner.restrictions.with_passthrough_modules("opentelemetry")
        )
    if runner is None:
        raise ValueError("a worker always has a workflow runner")
    return runner
