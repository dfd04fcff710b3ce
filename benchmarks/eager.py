"""What beginning early saves: a reply that the model starts before the turn is surely over, against one that waits.

    .venv/bin/python -m benchmarks.eager                # 8 turns each way, a model of 400 ms to its first token
    .venv/bin/python -m benchmarks.eager --turns 20 --llm-ms 250

Two calls at once on one bridge, through the fakes of tests/: the recogniser (Flux) tells of a probable end of turn
after 200 ms of silence and of the end after 600; one agent acts on the first, the other has no eager turns. Both
have the same model and voice. Figures are the record's own: from the last voiced audio to the first sound sent.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import structlog

from stayline.dev_server import DevServer
from stayline.settings import Settings
from stayline.timeline import AgentTurn, TurnLatency
from tests.fakes.misbehaviour import slow
from tests.whole_call.house import Scene, client_of, scene, vendor_agent

NUMBERS = {"eager": "+15550100011", "waits": "+15550100012"}
FLUX = "deepgram/flux-general-en"


async def turns(stage: Scene, way: str, count: int) -> list[TurnLatency]:
    caller = await stage.greeted(NUMBERS[way])
    for number in range(count):
        await caller.asks(f"question {number}", ms=700)
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    replies = [event for event in events if isinstance(event, AgentTurn) and event.source == "reply"]
    return [reply.latency for reply in replies if reply.latency is not None]


def median(values: list[int | None]) -> float:
    return statistics.median(value for value in values if value is not None)


async def compare(count: int, llm_ms: int) -> None:
    agents = [
        vendor_agent(name=way, stt=FLUX, numbers=[number], greeting="Hello there.", record_audio=False, **settings)
        for (way, number), settings in zip(
            NUMBERS.items(), ({"options": {"stt": {"eager_eot_threshold": 0.4}}}, {}), strict=True
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            DevServer(Settings(data_dir=Path(folder)), port=0, ui=False) as server,
            scene(await client_of(server), Path(folder), *agents) as stage,
        ):
            stage.openai.always = slow(llm_ms / 1000)
            eager, waits = await asyncio.gather(*(turns(stage, way, count) for way in NUMBERS))
    totals = {"eager": eager, "waits": waits}
    for way, latencies in totals.items():
        total = median([latency.total_ms for latency in latencies])
        saved = [latency.saved_ms for latency in latencies if latency.saved_ms is not None]
        told = f", {statistics.median(saved):.0f} ms saved in each of {len(saved)} turns" if saved else ""
        print(f"{way:6} first sound {total:5.0f} ms median (n={len(latencies)}){told}")
    ratio = median([x.total_ms for x in eager]) / median([x.total_ms for x in waits])
    print(f"eager / waits: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--llm-ms", type=int, default=400, help="to the model's first token")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    asyncio.run(compare(options.turns, options.llm_ms))


if __name__ == "__main__":
    main()
