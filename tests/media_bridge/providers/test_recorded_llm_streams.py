"""Real replies of OpenAI and Anthropic, recorded by others, played to the adapters over a local server.

Any recording of the same kind (YAML, one `interactions` list with a streamed response each) that is put into the
folder is tested too. What is expected is read from the vendors' own summary of the reply where it has one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import LlmProvider, LlmUsage, ProviderConfig
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.models import ToolCall
from tests.media_bridge.providers.llm import Heard, hear, request

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "recordings" / "llm-streams"


def recordings() -> list[Any]:
    found = [
        pytest.param(
            interaction["request"]["uri"], interaction["response"]["body"]["string"], id=f"{path.stem}-{n}"
        )
        for path in sorted(FOLDER.glob("*.yaml"))
        for n, interaction in enumerate(yaml.safe_load(path.read_text())["interactions"])
    ]
    missing = pytest.mark.skip(reason=f"NO RECORDINGS of language models in {FOLDER.parent.name}/{FOLDER.name}")
    return found or [pytest.param("", "", id="none", marks=missing)]


@pytest.mark.parametrize(("uri", "sse"), recordings())
async def test_a_recorded_reply_arrives_whole(uri: str, sse: str) -> None:
    anthropic = "anthropic" in uri
    async with playing(sse) as url:
        llm = anthropic_llm(url) if anthropic else openai_llm(url)
        heard = await hear(llm, request())
        await llm.aclose()
    expected = expect_anthropic(events_of(sse)) if anthropic else expect_openai(events_of(sse))
    assert heard.text == expected.text
    assert heard.calls == expected.calls
    assert heard.malformed == [None] * len(heard.calls)
    assert heard.usage == expected.usage
    assert heard.text or heard.calls


@contextlib.asynccontextmanager
async def playing(sse: str) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        recorded = sse.encode()
        for start in range(0, len(recorded), 777):  # pieces that respect neither lines nor characters
            await response.write(recorded[start : start + 777])
        return response

    app = web.Application()
    app.router.add_post("/v1/responses", answer)
    app.router.add_post("/v1/messages", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def openai_llm(url: str) -> LlmProvider:
    return OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key="test-key", base_url=url))


def anthropic_llm(url: str) -> LlmProvider:
    return AnthropicLlm(ProviderConfig("anthropic", "claude-haiku-5-5", api_key="test-key", base_url=url))


def events_of(sse: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in sse.splitlines() if line.startswith("data:")]


def expect_openai(events: list[dict[str, Any]]) -> Heard:
    """From `response.completed`, which repeats the whole reply."""
    (response,) = [event["response"] for event in events if event["type"] == "response.completed"]
    expected = Heard()
    texts = []
    for item in response["output"]:
        if item["type"] == "message":
            texts.append("".join(part["text"] for part in item["content"]))
        elif item["type"] == "function_call":
            expected.calls.append(
                ToolCall(id=item["call_id"], name=item["name"], arguments=json.loads(item["arguments"]))
            )
    expected.text = " ".join(texts)
    usage = response["usage"]
    cached = usage["input_tokens_details"]["cached_tokens"]
    expected.usage = [LlmUsage(usage["input_tokens"], usage["output_tokens"], cached)]
    return expected


def expect_anthropic(events: list[dict[str, Any]]) -> Heard:
    """Anthropic repeats nothing, so the blocks are put together here, by index, after the fact."""
    expected = Heard()
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "said": "", "json": ""}
        elif event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            block["said"] += delta.get("text", "")
            block["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            usage = event["usage"]
            cached = usage["cache_read_input_tokens"]
            total = usage["input_tokens"] + usage["cache_creation_input_tokens"] + cached
            expected.usage = [LlmUsage(total, usage["output_tokens"], cached)]
    expected.text = " ".join(b["said"] for b in blocks.values() if b["type"] == "text")
    expected.calls = [
        ToolCall(id=b["id"], name=b["name"], arguments=json.loads(b["json"] or "{}"))
        for b in blocks.values()
        if b["type"] == "tool_use"
    ]
    return expected
