"""Records the histories that `test_replay.py` replays: `python -m tests.workflows.record_histories [NAME …]`.

Run it when a new kind of call should be guarded, never to make a failing replay pass: a call in progress during a
deploy would fail in the same way.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter

from stayline import CallInfo, RejectCall
from stayline.dev_server import DevServer
from stayline.messages import Dial
from stayline.settings import Settings
from tests.workflows.bench import LEG, agent, bench, said, until, user
from tests.workflows.test_lost_bridge import LivingBridge, lease, worker
from tests.workflows.test_tools import desk as tool_desk

HISTORIES = Path(__file__).parents[1] / "histories"
_STACK_TRACE = re.compile(r'"stackTrace": "(?:[^"\\]|\\.)*"')  # holds paths of one machine


async def write(name: str, handle: WorkflowHandle[Any, Any], run_id: str | None = None) -> None:
    client_handle = handle._client.get_workflow_handle(handle.id, run_id=run_id) if run_id else handle
    history = await client_handle.fetch_history()
    text = _STACK_TRACE.sub('"stackTrace": ""', history.to_json())
    (HISTORIES / f"{name}.json").write_text(text + "\n")
    print(f"{name}: {len(history.events)} events")


async def eventful_call(client: Client) -> None:
    """Tools, approval, a lost bridge, a transfer that fails, words from people, a goodbye."""
    async with bench(client, tool_desk) as call:
        await call.begin()
        await call.record(said("Hello, how can I help?"), user("Book me in"))
        await call.tool("book", "c1", date="2026-12-01")
        waiting = await call.start_tool("refund", "c2", amount=5)
        await call.handle.signal("approve", "c2")
        await waiting.result()
        await call.handle.signal("say", "One moment.")
        await call.handle.signal("say", {"nonsense": True})
        await call.handle.signal("bridge_lost", call.bridge_id)

        async def fetched() -> bool:
            return bool(call.outside.redirected)

        await until(fetched)
        await call.next_step("t2")
        await call.open("t2")
        await call.tool("transfer_call", "c3", to="support")
        await call.stream_ends("closed", session=2)
        await call.next_step("t3")
        await call.next_step("t3", dial_status="busy")
        await call.open("t3")
        await call.handle.signal("end")
        await call.stream_ends("closed", session=3)
        await call.carrier("completed")
        await call.result()
        await write("eventful_call", call.handle)


async def rejected_call(client: Client) -> None:
    desk = agent()

    @desk.on_call
    def policy(info: CallInfo) -> None:
        raise RejectCall("We are closed.")

    async with bench(client, desk) as call:
        await call.admit()
        await call.result()
        await write("rejected_call", call.handle)


async def continued_call(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin(history_limit=25)
        first = (await call.handle.describe()).run_id
        for n in range(10):
            await call.record(user(f"question {n}"))

        async def continued() -> bool:
            return (await call.snapshot()).run_count == 2

        await until(continued)
        await call.hang_up()
        await call.result()
        await write("continued_call_first_run", call.handle, first)
        await write("continued_call_second_run", call.handle, (await call.handle.describe()).run_id)


async def lost_bridge(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        await call.open(bridge_id="lost")
        handle = await lease(client, call.queue, "lost")
        bridge = LivingBridge(call.call_id)
        async with worker(client, "lost", bridge):

            async def taken() -> bool:
                return bridge.taken >= 1

            await until(taken)
        await handle.result()
        await write("lost_bridge", handle)
        await call.carrier("completed")
        await call.result()


async def outbound_call(client: Client) -> None:
    """Dialled, rung, answered by a machine, moved to another bridge, transferred, ended; its leg dialled twice."""
    async with bench(client, agent(), dial=Dial(ring_timeout=20, machine_detection=True)) as call:
        await call.start()
        await call.event("call_dialled")
        await call.carrier("initiated", carrier_call_id=LEG)
        await call.carrier("ringing", carrier_call_id=LEG)
        await call.carrier("ringing", carrier_call_id="CA2")

        async def hung_up() -> bool:
            return call.outside.hung_up == ["CA2"]

        await until(hung_up)
        await call.answered()
        await call.open()
        await call.carrier("in-progress", carrier_call_id=LEG, answered_by="machine_start")
        await call.record(said("Hello, how can I help?"), user("Who is this?"))
        await call.handle.signal("bridge_lost", call.bridge_id)

        async def fetched() -> bool:
            return call.outside.redirected == [LEG]

        await until(fetched)
        await call.next_step("t2", carrier_call_id=LEG)
        await call.open("t2")
        await call.handle.signal("transfer", "+15551234567")

        async def announced() -> bool:
            return bool(call.outside.closed)

        await until(announced)
        await call.stream_ends("closed", session=2)
        await call.next_step("t3", carrier_call_id=LEG)
        await call.next_step("t4", dial_status="busy", carrier_call_id=LEG)
        await call.open("t4")
        await call.handle.signal("end", {"by": "bridge", "why": "no voice", "by_carrier": True})

        async def closed() -> bool:
            return len(call.outside.closed) == 2

        await until(closed)
        await call.stream_ends("closed", session=3)
        await call.next_step("t5", carrier_call_id=LEG)
        await call.carrier("completed", carrier_call_id=LEG)
        await call.result()
        await write("outbound_call", call.handle)


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with DevServer(Settings(data_dir=Path(folder)), port=0, ui=False) as server:
            client = await Client.connect(
                server.address, identity="recorder", data_converter=pydantic_data_converter
            )
            await record_all(client)


async def record_all(client: Client) -> None:
    for record in (eventful_call, rejected_call, continued_call, lost_bridge, outbound_call):
        if not sys.argv[1:] or record.__name__ in sys.argv[1:]:
            await record(client)


if __name__ == "__main__":
    asyncio.run(main())
