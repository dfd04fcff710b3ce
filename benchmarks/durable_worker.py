"""The worker of the durability benchmarks, a process of its own: the product's, and one for the bare workflow with
the same settings, copied from it. Arguments: address of Temporal, data folder.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.records import RecordActivities
from benchmarks.durable_bare import QUEUE, BareCall, bare_look_up
from benchmarks.durable_bridge_calls import desk
from stayline.names import TASK_QUEUE
from stayline.settings import Settings, TwilioCredentials
from stayline.temporal import connect
from stayline.tether import tethered
from stayline.worker import build_worker


async def main(address: str, folder: str) -> None:
    settings = Settings(data_dir=Path(folder), carrier="lab")
    client = await connect(settings, address=address)
    nobody = TwilioCredentials(account_sid="AC" + "0" * 32, auth_token="none", base_url="http://127.0.0.1:9")
    async with RecordActivities(settings.database) as records:
        worker = build_worker(client, {"desk": desk()}, settings, [records.save_call], credentials=nobody)
        same: dict[str, Any] = {
            **worker.config(),
            "task_queue": QUEUE,
            "workflows": [BareCall],
            "activities": [bare_look_up],
        }
        async with worker, Worker(**same):
            await asyncio.Event().wait()


async def polled(client: Client, queue: str) -> bool:
    """Whether some worker polls the queue for workflow tasks."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    return bool((await client.workflow_service.describe_task_queue(request)).pollers)


@asynccontextmanager
async def worker(client: Client, folder: Path) -> AsyncIterator[psutil.Process]:
    """That process, polling."""
    address = client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        *tethered([sys.executable, "-m", "benchmarks.durable_worker", address, str(folder)])
    )
    try:
        async with asyncio.timeout(90):
            while not (await polled(client, TASK_QUEUE) and await polled(client, QUEUE)):
                assert process.returncode is None, "the worker has ended"
                await asyncio.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.kill()  # its calls are over; nobody waits for what it would do on its way out
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
