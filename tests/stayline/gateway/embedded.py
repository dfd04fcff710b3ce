"""A gateway inside a test: real Temporal, the lab carrier, callers on strings; vendors played by fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from temporalio.client import Client

from stayline import Gateway, GatewayConfig, Session
from stayline.errors import StaylineError
from stayline.gateway import SessionEvent
from stayline.lab.carrier import LabCarrier
from stayline.ports import free_port
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.openai import FakeOpenAI
from tests.whole_call.house import ACCOUNT, TOKEN
from tests.whole_call.puppet import Puppet

NUMBER = "+15550100002"
PATIENCE = 30.0


class Embedded:
    """What a test needs of a running gateway."""

    def __init__(self, gateway: Gateway, carrier: LabCarrier, deepgram: FakeDeepgram, openai: FakeOpenAI) -> None:
        self.gateway = gateway
        self.config = gateway.config
        self.carrier = carrier
        self.deepgram = deepgram
        self.openai = openai
        self._floor = asyncio.Lock()

    async def greeted(self) -> Puppet:
        """A caller who has heard the greeting."""
        caller = Puppet(self.deepgram, self._floor)
        await caller.ring(self.carrier, NUMBER)
        await caller.hears_out()
        return caller

    async def session(self, caller: Puppet) -> Session:
        session = await self.gateway.get_session(caller.sid)
        assert session is not None
        return session


class Listener:
    """Reads a session's events in a task of its own."""

    def __init__(self, session: Session, **options: Any) -> None:
        self.events: list[SessionEvent] = []
        self._task = asyncio.create_task(self._read(session, options))
        self._news = asyncio.Event()

    async def _read(self, session: Session, options: dict[str, Any]) -> None:
        async for event in session.events(**options):
            self.events.append(event)
            self._news.set()

    @property
    def types(self) -> list[str]:
        return [event.type.value for event in self.events]

    def of(self, kind: str) -> list[SessionEvent]:
        return [event for event in self.events if event.type == kind]

    async def until(self, kind: str, count: int = 1) -> SessionEvent:
        """Wait for the event; the call must not end before."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                assert not self._task.done(), self.types
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1]

    async def end(self) -> list[SessionEvent]:
        """Wait until the events have come to their end by themselves."""
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self.events


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that only asking shows; an answer that may come later is waited for."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            try:
                if await condition():
                    return
            except StaylineError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(0.05)


def config(
    directory: Path, client: Client | None, port: int, environment: dict[str, str], **more: Any
) -> GatewayConfig:
    values: dict[str, Any] = {
        "account_sid": ACCOUNT,
        "auth_token": TOKEN,
        "phone_number": NUMBER,
        "listen_addr": f"127.0.0.1:{port}",
        "stt_provider": "deepgram",
        "llm_provider": "openai",
        "tts_provider": "elevenlabs",
        "greeting": "Hello there.",
        "carrier": "lab",
        "temporal_client": client,
        "environment": environment,
        **more,
    }
    values["settings"] = {"data_dir": directory, "drain_timeout": 1, **values.get("settings", {})}
    return GatewayConfig(**values)


@asynccontextmanager
async def vendors(reply: Any = None) -> AsyncIterator[tuple[dict[str, str], FakeDeepgram, FakeOpenAI]]:
    """Deepgram, OpenAI and ElevenLabs as fakes, and the environment in which they are found."""
    async with (
        FakeDeepgram(ms_per_char=30) as deepgram,
        FakeOpenAI(reply) as openai,
        FakeElevenLabs(ms_per_char=30) as elevenlabs,
    ):
        environment = {
            "DEEPGRAM_BASE_URL": deepgram.url,
            "DEEPGRAM_API_KEY": deepgram.api_key,
            "OPENAI_BASE_URL": openai.url,
            "OPENAI_API_KEY": openai.key,
            "ELEVENLABS_BASE_URL": elevenlabs.url,
            "ELEVENLABS_API_KEY": elevenlabs.api_key,
        }
        yield environment, deepgram, openai


@contextmanager
def log_configuration_of_before() -> Iterator[None]:
    configured = structlog.is_configured()
    yield
    if not configured:
        structlog.reset_defaults()


@asynccontextmanager
async def embedded(
    directory: Path, client: Client | None, *, reply: Any = None, **more: Any
) -> AsyncIterator[Embedded]:
    """A gateway that takes lab calls; `more` are fields of its configuration."""
    port = free_port()
    async with (
        vendors(reply) as (environment, deepgram, openai),
        LabCarrier(f"http://127.0.0.1:{port}", ACCOUNT, TOKEN) as carrier,
    ):
        with pytest.MonkeyPatch.context() as patch, log_configuration_of_before():
            patch.setenv("TWILIO_BASE_URL", carrier.rest_url)
            gateway = Gateway(config(directory, client, port, environment, **more))
            async with gateway:
                yield Embedded(gateway, carrier, deepgram, openai)
