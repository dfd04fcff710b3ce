"""An event loop for tests that Hypothesis calls many times, and a client whose Temporal has gone away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RetryConfig

from tests.stayline.commands.test_calls_live import Cuttable

T = TypeVar("T")
ONCE = RetryConfig(initial_interval_millis=1, max_interval_millis=1, max_retries=1)


class Away:
    def __init__(self, runner: asyncio.Runner, target: str) -> None:
        self._runner = runner
        self.client = runner.run(_connected_once(target))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


@contextmanager
def temporal_away(target: str) -> Iterator[Away]:
    """
    Args:
        target: a Temporal that is there, for a client begins with a connection.
    """
    with asyncio.Runner() as runner:
        yield Away(runner, target)


async def _connected_once(target: str) -> Client:
    relay = Cuttable(target)
    await relay.mend()
    address = f"127.0.0.1:{relay.port}"
    client = await Client.connect(address, data_converter=pydantic_data_converter, retry_config=ONCE)
    await relay.cut()
    return client
