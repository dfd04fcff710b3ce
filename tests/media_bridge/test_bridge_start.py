"""When a bridge listens, and when what its calls need is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from temporalio.client import Client

from media_bridge.bridge import Bridge
from stayline import Agent
from stayline.errors import ConfigError
from stayline.ports import free_port
from stayline.providers import LlmProfile, LlmRequest, TextDelta
from stayline.settings import TwilioCredentials, load_settings


class Slow:
    """A language model that is loaded when the test says so, or cannot be."""

    profile = LlmProfile()

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.loaded = asyncio.Event()
        self.wrong: ConfigError | None = None

    async def warm(self) -> None:
        self.asked.set()
        await self.loaded.wait()
        if self.wrong is not None:
            raise self.wrong

    async def stream(self, request: LlmRequest) -> AsyncIterator[TextDelta]:
        yield TextDelta("Yes.")

    async def aclose(self) -> None: ...


@asynccontextmanager
async def starting(client: Client, folder: Path, model: Slow, *, shared: bool) -> AsyncIterator[tuple[Bridge, str]]:
    """A bridge, and where it will answer. It is drained in the end, whatever it had reached."""
    address = f"127.0.0.1:{free_port()}"
    settings = load_settings(data_dir=folder, listen_addr=address, carrier="lab", reuse_port=shared)
    agent = Agent(name="slow", stt="deepgram/nova-3", llm=model, tts="deepgram/aura-2-thalia-en")
    vendors = {"DEEPGRAM_API_KEY": "key", "DEEPGRAM_BASE_URL": "http://127.0.0.1:9"}
    bridge = Bridge(settings, TwilioCredentials(), {"slow": agent}, client, vendors)
    try:
        yield bridge, f"http://{address}"
    finally:
        await bridge.stop()


async def status(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, (await answer.json())["why"]


async def test_a_bridge_takes_calls_before_its_providers_are_loaded(client: Client, tmp_path: Path) -> None:
    model = Slow()
    async with starting(client, tmp_path, model, shared=False) as (bridge, url):
        await bridge.start()
        await bridge.leased.wait()
        assert await status(f"{url}/ready") == (200, "")
        assert await status(f"{url}/ready?warm") == (503, "warming")
        model.loaded.set()
        await bridge.warm.wait()
        assert await status(f"{url}/ready?warm") == (200, "")


async def test_a_bridge_that_shares_its_address_loads_before_it_listens(client: Client, tmp_path: Path) -> None:
    model = Slow()
    async with starting(client, tmp_path, model, shared=True) as (bridge, url):
        start = asyncio.create_task(bridge.start())
        await model.asked.wait()
        assert not start.done()
        with pytest.raises(aiohttp.ClientConnectionError):
            await status(f"{url}/ready")
        model.loaded.set()
        await start
        await bridge.leased.wait()
        assert await status(f"{url}/ready?warm") == (200, "")


async def test_a_provider_that_cannot_be_loaded_ends_the_bridge(client: Client, tmp_path: Path) -> None:
    model = Slow()
    model.wrong = ConfigError("There is no such engine.")
    async with starting(client, tmp_path, model, shared=False) as (bridge, _):
        await bridge.start()
        model.loaded.set()
        with pytest.raises(ConfigError, match="no such engine"):
            await bridge.broken()
