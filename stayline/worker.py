"""The worker process: runs workflows, tools, policies, carrier requests and call records.

Whoever starts a call should give `task_timeout=5s` to its workflow, so that a worker that dies inside a
workflow task costs seconds; one that dies between tasks costs one (`sticky_queue_schedule_to_start_timeout`).
Keep workers apart from bridges: a replay holds the interpreter for longer than an audio frame lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Final

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from activities.carrier import CarrierActivities
from activities.policy import PolicyActivities
from activities.tools import ToolActivities
from stayline.agent import Agent
from stayline.errors import ConfigError
from stayline.names import DEPLOYMENT_NAME, TASK_QUEUE
from stayline.settings import Settings, TwilioCredentials
from workflows.bridge import BridgeWorkflow, VersionedBridgeWorkflow
from workflows.call import CallWorkflow

THREADS: Final = 100
"""As many as activities at once: the SDK's own default. Threads are made when they are needed."""

WORKFLOW_TASKS: Final = 4
"""Workflow tasks that a worker takes at once. The others wait at the server, where no time limit runs for them.

They share one interpreter: of a hundred at once, as the SDK would take them, each is a hundred times slower. After
another worker's death all calls are replayed, and replays that last longer than `task_timeout` are thrown away and
begun again, for ever. Measured in the sandbox, 30 calls of 90 events on 15 % of a core: none answered within 60 s;
with 4 tasks at once half of them after 13 s, all after 22 s.
"""


def build_worker(
    client: Client,
    agents: Mapping[str, Agent],
    settings: Settings,
    records_activities: Sequence[Callable[..., Any]],
    *,
    credentials: TwilioCredentials | None = None,
    task_queue: str = TASK_QUEUE,
) -> Worker:
    """Make the worker; run it with `async with` or `run()`.

    Args:
        agents: by name; their tools and policies run here.
        records_activities: `save_call` and what else writes records.
        credentials: default: from the environment (`TWILIO_…`).
    """
    tools, policies = ToolActivities(agents), PolicyActivities(agents)
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="activity")
    carrier = CarrierActivities(credentials or TwilioCredentials(), threads)
    threads.submit(carrier.warm)
    throttle = timedelta(milliseconds=200)
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[CallWorkflow, VersionedBridgeWorkflow if settings.build_id else BridgeWorkflow],
        activities=[
            tools.run,
            policies.screen_call,
            carrier.place_call,
            carrier.hang_up,
            carrier.redirect_call,
            carrier.extend_call,
            *records_activities,
        ],
        activity_executor=threads,
        # The sandbox imports `workflows` anew for each call, and for each replay of one: 70 ms of the interpreter,
        # more than all that a short call does. What it would refuse is refused by `make check` and by the tests,
        # which run the same workflows in it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=WORKFLOW_TASKS,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=throttle,
        default_heartbeat_throttle_interval=throttle,
        max_cached_workflows=settings.max_cached_workflows,
        graceful_shutdown_timeout=timedelta(seconds=settings.tool_grace),
        deployment_config=_deployment(settings),
        # Stands in most events. By default the SDK hashes the code of all loaded modules: 0.4 s of a start.
        build_id=None if settings.build_id else version("stayline"),
    )


def _deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    """A call stays on the build that it began on."""
    if not settings.build_id:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=DEPLOYMENT_NAME, build_id=settings.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def promote_build(client: Client, settings: Settings, *, patience: float = 30.0) -> None:
    """Make this worker's build the one that new calls begin on. Its worker must be running.

    Args:
        patience: seconds to wait for Temporal to notice the worker.
    Raises:
        ConfigError: no build id is set, or Temporal never saw the worker.
    """
    if not settings.build_id:
        raise ConfigError("There is no build to promote.", fix="Set STAYLINE_BUILD_ID.")
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=DEPLOYMENT_NAME,
        build_id=settings.build_id,
        identity=client.identity,
        ignore_missing_task_queues=True,
    )
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
            return
        except RPCError as error:
            unseen = error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION)
            if not unseen or loop.time() > until:
                raise ConfigError(
                    f"Build {settings.build_id!r} could not be promoted: {error.message}",
                    fix="Is its worker running, with the same STAYLINE_BUILD_ID?",
                ) from error
        await asyncio.sleep(0.3)
