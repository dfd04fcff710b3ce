"""A bridge process that only keeps its lease, to be killed. Arguments: server address, bridge id, call ids."""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.workflows.test_lost_bridge import LivingBridge, worker


async def main(address: str, bridge_id: str, *calls: str) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    await worker(client, bridge_id, LivingBridge(*calls)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
