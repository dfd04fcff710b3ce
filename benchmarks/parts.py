"""What was in the way of a bridge or a worker, each beside what it does instead: CPU time, in one run.

    python -m benchmarks.parts

The other side of each socket is in this process too and counts for both, so the true ratios are larger.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import orjson
from aiohttp import web
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from websockets.asyncio.client import connect

from benchmarks import machine
from media_bridge.audio import mulaw
from media_bridge.audio.loudness import is_loud
from media_bridge.audio.quiet import QuietTogether
from media_bridge.providers.base import LlmRequest, ProviderConfig
from media_bridge.providers.openai_llm import OpenAILlm
from media_bridge.providers.vendor_socket import send_frame
from stayline import event_loop
from stayline.models import UserMessage
from stayline.temporal import data_converter
from workflows.call import CallWorkflow

HISTORY = Path(__file__).parent.parent / "tests" / "histories" / "eventful_call.json"
RESULTS = Path(__file__).parent / "results" / "parts.json"
FRAME = mulaw.silence(20)
MEDIA = json.dumps({"event": "media", "sequenceNumber": "4", "media": {"payload": "f39/" * 53}, "streamSid": "MZ1"})
MAGNITUDES = tuple(abs(int(value)) for value in mulaw.decode(bytes(range(256))))
WORDS = ["It", "is", "half", "past", "nine,", "and", "we", "are", "open", "until", "six."]


Work = Callable[[], Awaitable[object]]


async def vendor() -> tuple[web.AppRunner, str]:
    """A websocket that takes everything, and a model that answers at once."""

    async def sink(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    async def reply(request: web.Request) -> web.StreamResponse:
        await request.read()
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
        events: list[dict[str, Any]] = [
            {"type": "response.output_text.delta", "delta": f"{word} ", "item_id": "i", "output_index": 0}
            for word in WORDS
        ]
        events.append({"type": "response.completed", "response": {"id": "r", "output": [], "usage": usage}})
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        await answer.write(body.encode())
        return answer

    app = web.Application()
    app.add_routes([web.get("/", sink), web.post("/v1/responses", reply)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


async def micros(work: Work, times: int) -> float:
    """CPU time of one, in microseconds: the best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        for _ in range(times):
            await work()
        best = min(best, (time.process_time() - begun) / times * 1e6)
    return best


def plain(work: Callable[[], object]) -> Work:
    async def awaited() -> object:
        return work()

    return awaited


def replay(runner: WorkflowRunner) -> Work:
    """A worker takes over a call of 21 workflow tasks."""
    history = WorkflowHistory.from_json("eventful_call", HISTORY.read_text())

    async def work() -> object:
        replayer = Replayer(workflows=[CallWorkflow], data_converter=data_converter, workflow_runner=runner)
        return await replayer.replay_workflow(history)

    return work


async def main() -> None:
    runner, origin = await vendor()
    socket = await connect(origin.replace("http", "ws"), compression=None, proxy=None)
    llm = OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="key", base_url=origin))
    request = LlmRequest("Be brief.", [UserMessage(text="When do you close?")], (), "CA1")
    quiet = QuietTogether()
    client = openai.AsyncOpenAI(api_key="key", base_url=f"{origin}/v1", max_retries=0)

    async def by_websockets() -> None:
        await socket.send(FRAME)
        await asyncio.sleep(0)  # as in a call: the frame before is gone when the next one comes

    async def by_us() -> None:
        await send_frame(socket, FRAME)
        await asyncio.sleep(0)

    async def five_frames() -> None:
        for _ in range(5):
            await by_us()

    async def together() -> None:
        for _ in range(5):
            if piece := quiet.add(FRAME, 0):
                await send_frame(socket, piece)
            await asyncio.sleep(0)

    async def typed() -> None:
        body = llm._response_parameters(request)
        async with await client.responses.create(**body) as stream:
            async for _ in stream:
                pass

    async def without_sdk() -> None:
        async for _ in llm.stream(request):
            pass

    pairs: list[tuple[str, Work, Work, int]] = [
        (
            "read a Media Streams message: orjson instead of json",
            plain(lambda: json.loads(MEDIA)),
            plain(lambda: orjson.loads(MEDIA)),
            20_000,
        ),
        (
            "is a frame loud: a table of bytes instead of a sum over a tuple",
            plain(lambda: sum(map(MAGNITUDES.__getitem__, FRAME))),
            plain(lambda: is_loud(FRAME)),
            20_000,
        ),
        (
            "a frame to a vendor, with its way and the vendor: written by us instead of by websockets' `send`",
            by_websockets,
            by_us,
            5_000,
        ),
        (
            "100 ms of a quiet caller to a vendor, with its way and the vendor: one piece instead of five frames",
            five_frames,
            together,
            1_000,
        ),
        (
            "a language model's reply of ten words, with the model: without the SDK",
            typed,
            without_sdk,
            100,
        ),
        (
            "a worker takes over a call of 21 workflow tasks: without the SDK's sandbox",
            replay(
                SandboxedWorkflowRunner(
                    restrictions=SandboxRestrictions.default.with_passthrough_modules("stayline", "pydantic")
                )
            ),
            replay(UnsandboxedWorkflowRunner()),
            20,
        ),
    ]
    rows = []
    for what, before, after, times in pairs:
        was, is_now = await micros(before, times), await micros(after, times)
        print(f"{what:70} {was:9.1f} {is_now:9.1f} us  {is_now / was:.2f}")
        scale, unit = (1000, "ms") if is_now >= 10_000 else (1, "µs")
        figure, before_it = round(is_now / scale, 1), round(was / scale, 1)
        rows.append({"what": what, "figure": figure, "unit": f"{unit}; was {before_it}", "goal": "", "met": None})
    await socket.close()
    await llm.aclose()
    await runner.cleanup()
    told = {**machine.heading("what was in the way", "python -m benchmarks.parts"), "rows": rows}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    event_loop.run(main())
