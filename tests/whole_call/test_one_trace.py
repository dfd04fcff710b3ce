"""One trace tells the whole call, over bridge, workflow and activities, and nothing of what was said or by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stayline import telemetry, tool
from stayline.dev_server import DevServer
from stayline.lab.place import CALLER
from stayline.settings import Settings
from stayline.telemetry import attributes as attr
from stayline.temporal import connect
from tests.fakes.llm import Call, Say
from tests.whole_call.house import house, vendor_agent, vendors

QUESTION = "where is my purple umbrella"
ANSWER = "It is behind the yellow door."


@tool(retries=2, backoff=0.1)
async def find_umbrella(colour: str) -> str:
    """Find an umbrella."""
    return f"the {colour} one is found"


def model(body: dict[str, Any]) -> list[Any]:
    if body["input"][-1].get("type") == "function_call_output":
        return [Say(ANSWER)]
    return [Call("find_umbrella", {"colour": "purple"})]


async def test_one_trace_without_anything_personal(
    temporal_server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    settings = Settings(data_dir=tmp_path)
    telemetry.configure(settings, "test", exporter=exporter)
    client = await connect(settings, address=temporal_server.address)
    try:
        async with (
            vendors(monkeypatch, [QUESTION], model),
            house(client, tmp_path, vendor_agent(tools=[find_umbrella])) as home,
        ):
            result = await home.call([{"say": "Where is my purple umbrella?"}, {"hang_up": True}])
            await home.over(result.call_sid)
        telemetry.flush()
        spans = exporter.get_finished_spans()
    finally:
        telemetry.shutdown()

    call = next(span for span in spans if span.name == attr.SPAN_CALL)
    trace = [span for span in spans if span.context.trace_id == call.context.trace_id]
    names = {span.name for span in trace}
    assert {
        attr.SPAN_CALL,
        attr.SPAN_SESSION,
        attr.SPAN_TURN,
        attr.SPAN_STT,
        attr.SPAN_LLM,
        attr.SPAN_TOOL,
        attr.SPAN_TTS,
        attr.SPAN_PLAYOUT,
        "RunWorkflow:CallWorkflow",
        "RunActivity:find_umbrella",
        "RunActivity:save_call",
    } <= names, sorted(names)
    ids = [span.context.span_id for span in trace]
    assert len(ids) == len(set(ids))

    said = " ".join(span.to_json() for span in spans)
    for secret in ("umbrella?", "purple", "yellow door", CALLER, CALLER.removeprefix("+")):
        assert secret not in said, f"{secret!r} left the process"
