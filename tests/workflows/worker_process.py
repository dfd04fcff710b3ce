"""A worker as `stayline worker` runs it, in a process of its own, to be killed. Arguments: address, queue."""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from stayline import Agent, ToolContext, tool
from stayline.settings import Settings
from stayline.worker import build_worker
from tests.workflows.bench import Outside, agent


@tool(heartbeat_timeout=1, backoff=0.05)
async def fragile(context: ToolContext) -> str:
    """Takes for ever on its first attempt."""
    while context.attempt == 1:
        context.heartbeat()
        await asyncio.sleep(0.1)
    return f"done in attempt {context.attempt}"


def fragile_agent() -> Agent:
    return agent(fragile)


async def main(address: str, queue: str) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    agents = {"desk": fragile_agent()}
    await build_worker(client, agents, Settings(), [Outside().save_call], task_queue=queue).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
