"""Everything that a call's workflow asks of the world outside, each with its limits: activities, by name.

On the worker's queue: `screen_call`, `place_call`, `hang_up`, `redirect_call`, `extend_call`, `save_call` and one
activity per tool, named as the tool. On the queue of the bridge that holds the call: `speak` and `close_session`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from stayline.messages import (
        Admission,
        CloseSession,
        ExtendCall,
        HangUp,
        PlaceCall,
        Placed,
        Redirect,
        Speak,
    )
    from stayline.models import CallInfo, ToolInvocation, ToolReturn, ToolSpec
    from stayline.names import bridge_task_queue
    from stayline.timeline import CallRecord
    from workflows.packing import portable

ATTEMPT_MARGIN: Final = timedelta(seconds=2)
"""The worker ends an attempt at `attempt_timeout` itself, so that its error is known; the server only later."""
TOOL_WORKER_SILENT_FOR: Final = 10.0
"""Seconds. A tool that does not heartbeat itself is heartbeaten for: a dead worker is known long before the
attempt's time is over. Generous, since an asynchronous tool that blocks its worker also stops these."""
CARRIER_WORKER_SILENT_FOR: Final = timedelta(seconds=5)
"""While a worker changes a live call, it heartbeats: if it dies, the caller hears nothing until another does it."""
BRIDGE_ANSWERS_WITHIN: Final = timedelta(seconds=5)
FAREWELL_WITHIN: Final = timedelta(seconds=45)
HANG_UP_WITHIN: Final = timedelta(minutes=10)
PLACE_WITHIN: Final = timedelta(minutes=2)
"""A call that could not be placed by then is not placed later: nobody waits for it any more."""


async def screen_call(call: CallInfo) -> Admission:
    """The user's policy. Bounded well below the 15 s that Twilio waits for a webhook's answer."""
    admission: Admission = await workflow.execute_activity(
        "screen_call",
        call,
        result_type=Admission,
        start_to_close_timeout=timedelta(seconds=5),
        schedule_to_close_timeout=timedelta(seconds=8),
        retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(seconds=1)),
        summary="on_call policy",
    )
    return admission


async def run_tool(spec: ToolSpec, call_id: str, invocation: ToolInvocation) -> ToolReturn:
    returned: ToolReturn = await workflow.execute_activity(
        spec.name,
        invocation,
        result_type=ToolReturn,
        activity_id=call_id,
        start_to_close_timeout=timedelta(seconds=spec.attempt_timeout) + ATTEMPT_MARGIN,
        schedule_to_close_timeout=timedelta(seconds=max(spec.total_timeout, 0.001)),
        heartbeat_timeout=timedelta(seconds=spec.heartbeat_timeout or TOOL_WORKER_SILENT_FOR),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=spec.backoff),
            maximum_interval=timedelta(seconds=max(60.0, spec.backoff)),
            maximum_attempts=spec.max_attempts,
        ),
        summary=f"tool {spec.name}",
    )
    return returned


async def speak(bridge_id: str, speech: Speak) -> bool:
    """Say something in the call. False: it was not said because somebody was speaking (see `Speak`)."""
    said = await workflow.execute_activity(
        "speak",
        speech,
        task_queue=bridge_task_queue(bridge_id),
        schedule_to_start_timeout=BRIDGE_ANSWERS_WITHIN,
        start_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(maximum_attempts=1),
        summary=f"say ({speech.source})",
    )
    return said is not False


async def close_session(bridge_id: str, close: CloseSession) -> None:
    """Let the caller hear the last words, then close the stream."""
    await workflow.execute_activity(
        "close_session",
        close,
        task_queue=bridge_task_queue(bridge_id),
        schedule_to_start_timeout=BRIDGE_ANSWERS_WITHIN,
        start_to_close_timeout=FAREWELL_WITHIN,
        retry_policy=RetryPolicy(maximum_attempts=1),
        summary=f"close stream: {close.reason}",
    )


async def place_call(ask: PlaceCall) -> Placed:
    """Have the carrier dial. A request that is on its way when this is cancelled is waited for."""
    placed: Placed = await workflow.execute_activity(
        "place_call",
        ask,
        result_type=Placed,
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=PLACE_WITHIN,
        # Late enough that a request whose answer was lost has come into effect: the next attempt looks for it.
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=4), maximum_interval=timedelta(seconds=15)),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary="have the carrier dial",
    )
    return placed


async def hang_up(ask: HangUp) -> None:
    await workflow.execute_activity(
        "hang_up",
        ask,
        start_to_close_timeout=timedelta(seconds=15),
        heartbeat_timeout=CARRIER_WORKER_SILENT_FOR,
        schedule_to_close_timeout=HANG_UP_WITHIN,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=20)),
        summary="hang up",
    )


async def redirect_call(ask: Redirect, within: timedelta) -> bool:
    """Send the caller to a living bridge, or have the carrier itself say the last words. False: the carrier says
    that the call is over."""
    redirected = await workflow.execute_activity(
        "redirect_call",
        ask,
        start_to_close_timeout=timedelta(seconds=15),
        heartbeat_timeout=CARRIER_WORKER_SILENT_FOR,
        schedule_to_close_timeout=within,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=2), backoff_coefficient=1.0
        ),
        summary="the carrier says it" if ask.say else "fetch the caller back",
    )
    return redirected is not False


async def extend_call(ask: ExtendCall) -> None:
    await workflow.execute_activity(
        "extend_call",
        ask,
        start_to_close_timeout=timedelta(seconds=15),
        heartbeat_timeout=CARRIER_WORKER_SILENT_FOR,
        schedule_to_close_timeout=timedelta(minutes=2),
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=20)),
        summary="move the carrier's time limit",
    )


async def save_call(record: CallRecord) -> None:
    """Write the record; waits for the database for as long as it takes."""
    await workflow.execute_activity(
        "save_call",
        portable(record),
        start_to_close_timeout=timedelta(seconds=60),
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=60)),
        summary="final record" if record.final else "record; tools still run",
    )
