"""Stayline's processes as children of a command: bridge, worker. They end with the command that started them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from stayline import names
from stayline.errors import StaylineError
from stayline.tether import tethered

EVER = datetime.min.replace(tzinfo=UTC)
READY_SECONDS = 90.0
"""A first start reads models and imports SDKs from a cold disk."""


class Child:
    """One `stayline` command running as a child; its output goes to a log file."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._in_service = False  #: from when it is ready until it is asked to end
        self.started = EVER

    async def start(self) -> None:
        self._in_service = False
        self.started = datetime.now(UTC)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *tethered([sys.executable, "-m", "stayline", *self._arguments]),
                env={**os.environ, **self._environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the command only, which then stops its children in order
            )

    @property
    def pid(self) -> int | None:
        """Of the process while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self._in_service = False
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self, timeout: float = 30.0) -> None:
        """Ask it to end, then insist."""
        self._in_service = False
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    def put_in_service(self) -> None:
        """It is ready: from now on it is not expected to end unless it is asked to."""
        self._in_service = True

    @property
    def died(self) -> str:
        """How it ended, if it did so in service and unasked; else empty."""
        code = self._process.returncode if self._process and self._in_service else None
        if code is None:
            return ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"The {self.name} {how}; its log is {self.log}."

    def check(self) -> None:
        """Raises: StaylineError: it has ended, with the last lines it wrote."""
        if self._process is not None and self._process.returncode is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-12:]
            raise StaylineError(
                f"The {self.name} ended with code {self._process.returncode}:\n" + "\n".join(tail),
                fix=f"Its log is {self.log}.",
            )


async def bridge_ready(child: Child, url: str) -> None:
    """Wait until the bridge takes calls and has loaded what they need.

    Raises:
        StaylineError: it ended, or does not become ready.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        await _poll(child, lambda: _answers(http, f"{url}/ready?warm"))


async def worker_ready(child: Child, client: Client) -> None:
    """Wait until the worker polls for workflows and activities. Temporal is taken to have this machine's clock.

    Raises:
        StaylineError: it ended, or does not become ready.
    """
    await _poll(child, lambda: worker_polls(client, since=child.started))


async def worker_polls(client: Client, since: datetime = EVER) -> bool:
    """Whether some worker serves the task queue.

    Args:
        since: Temporal tells also of pollers that ended minutes ago; only one that has asked since then counts.
    """
    for kind in (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY):
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=names.TASK_QUEUE), task_queue_type=kind
        )
        try:
            pollers = (await client.workflow_service.describe_task_queue(request)).pollers
        except RPCError:
            return False
        if all(poller.last_access_time.ToDatetime(UTC) < since for poller in pollers):
            return False
    return True


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _poll(child: Child, ready: Callable[[], Awaitable[bool]]) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await ready():
                child.check()
                await asyncio.sleep(0.1)
            child.put_in_service()
    except TimeoutError:
        raise StaylineError(
            f"The {child.name} is not ready after {READY_SECONDS:.0f} s.", fix=f"See {child.log}."
        ) from None
