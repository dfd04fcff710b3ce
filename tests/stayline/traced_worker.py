"""The traced workflow in a process of its own, until SIGTERM: `python -m tests.stayline.traced_worker QUEUE`."""

from __future__ import annotations

import asyncio
import signal
import sys

from temporalio import activity
from temporalio.worker import Worker

from stayline import telemetry
from stayline.logs import configure_logging
from stayline.settings import load_settings
from stayline.telemetry import attributes
from stayline.temporal import connect
from tests.stayline.traced_workflow import TracedCall


@activity.defn
async def book(text: str) -> str:
    """Fails once, with an error that quotes the caller; then succeeds."""
    with telemetry.span(attributes.SPAN_TOOL, attributes={attributes.TOOL: "book", attributes.PII_USER_TEXT: text}):
        if activity.info().attempt == 1 and text != "last":
            raise ValueError(f"cannot book: {text}")
    return text


async def main(queue: str) -> None:
    settings = load_settings()
    configure_logging(settings, "worker")
    telemetry.configure(settings, "worker")
    client = await connect(settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Nothing is cached: every task replays the workflow from its beginning.
    worker = Worker(client, task_queue=queue, workflows=[TracedCall], activities=[book], max_cached_workflows=0)
    async with worker:
        await stop.wait()
    telemetry.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
