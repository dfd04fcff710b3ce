"""The parts of a gateway that runs, started and stopped in the right order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import structlog
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from media_bridge.bridge import Bridge
from stayline import telemetry
from stayline.dev_server import RETENTION_DAYS, DevServer
from stayline.errors import ConfigError, StaylineError
from stayline.gateway.config import GatewayConfig
from stayline.gateway.plan import Plan
from stayline.gateway.sessions import Sessions
from stayline.messages import EndCall
from stayline.temporal import connect, data_converter, prepare_namespace
from stayline.worker import build_worker, promote_build

log = structlog.get_logger(__name__)

READY_WITHIN: Final = 60.0
"""Seconds for Temporal to answer, and for the lease, without which no call is taken."""
GOODBYE_WITHIN: Final = 25.0
"""Seconds that calls which nobody takes over get to say goodbye, be hung up, and be written down."""
ASKED_AT_ONCE: Final = 8
"""Connections to the public URL: of two that share an address, one would answer itself each time in 1 of 256."""
WORKER_BEYOND_GRACE: Final = 10.0
"""Seconds after `tool_grace` in which the worker must have stopped."""


class Running:
    """A bridge, a worker, and the dev server if there is one."""

    def __init__(self, config: GatewayConfig, planned: Plan) -> None:
        self._config = config
        self._plan = planned
        self._settings = planned.settings
        self._stack = AsyncExitStack()
        self._worker: asyncio.Task[None] | None = None
        self.client: Client
        self.bridge: Bridge
        self.sessions: Sessions

    @property
    def url(self) -> str:
        host, port = self.bridge.address
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"

    async def start(self) -> None:
        """
        Raises:
            ConfigError, StaylineError
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        planned, settings = self._plan, self._settings
        agents = {planned.agent.name: planned.agent}
        telemetry.configure(settings, "gateway")
        self.client = await self._connect()
        await prepare_namespace(self.client)
        if self._config.run_worker:
            await self._start_worker(agents)
        self.bridge = Bridge(settings, planned.twilio, agents, self.client, planned.environment)
        self.sessions = Sessions(self.client, settings, planned.twilio, self.bridge)
        self._stack.push_async_callback(self.bridge.stop)
        self._stack.push_async_callback(self.sessions.close)
        await self.bridge.start()
        await self._leased()

    async def _connect(self) -> Client:
        if (client := self._config.temporal_client) is not None:
            if not issubclass(
                client.data_converter.payload_converter_class, data_converter.payload_converter_class
            ):
                raise ConfigError(
                    "temporal_client cannot carry Stayline's messages.",
                    fix="Connect it with data_converter=stayline.temporal.data_converter, or one made from it.",
                )
            if self._settings.encryption_keys is not None and client.data_converter.payload_codec is None:
                raise ConfigError(
                    "STAYLINE_ENCRYPTION_KEYS is set, but temporal_client encrypts nothing.",
                    fix="Connect it with data_converter=stayline.temporal.converter_for(settings).",
                )
            return client
        address = self._config.temporal_address or None
        if address is None and not _configured():
            server = DevServer(self._settings)
            await self._stack.enter_async_context(server)
            client = await connect(self._settings, address=server.address, patience=READY_WITHIN)
            await prepare_namespace(client, RETENTION_DAYS)
            log.info("dev_server", temporal=server.address, ui=server.ui_url, data=str(self._settings.data_dir))
            return client
        return await connect(self._settings, address=address, patience=READY_WITHIN)

    async def _start_worker(self, agents: dict[str, Any]) -> None:
        from activities.records import RecordActivities  # SQLAlchemy: half a second

        records = await self._stack.enter_async_context(RecordActivities(self._settings.database))
        try:
            worker = build_worker(
                self.client, agents, self._settings, [records.save_call], credentials=self._plan.twilio
            )
        except RuntimeError as error:
            raise ConfigError(
                f"The worker cannot be started: {str(error).splitlines()[0]}.",
                fix="Two gateways of one process need a temporal_client each, or run_worker=False for one.",
            ) from error
        self._worker = asyncio.create_task(worker.run())
        self._stack.push_async_callback(self._stop_worker, worker)
        if self._settings.build_id and self._settings.promote_build:
            await promote_build(self.client, self._settings)

    async def _leased(self) -> None:
        """Wait until the bridge holds its lease, only then does it take calls, and is warm."""
        warm, leased = (asyncio.create_task(event.wait()) for event in (self.bridge.warm, self.bridge.leased))
        broken = asyncio.create_task(self.broken())
        try:
            await asyncio.wait({warm, broken}, return_when=asyncio.FIRST_COMPLETED)
            done, _ = await asyncio.wait(
                {leased, broken}, timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED
            )
            if broken in done:
                broken.result()
            if leased not in done:
                raise StaylineError("Temporal gave the bridge no lease.", fix="Does a worker run?", retryable=True)
        finally:
            for task in (warm, leased, broken):
                task.cancel()

    async def broken(self) -> None:
        """Never returns; raises what a part failed with."""
        parts = {asyncio.create_task(self.bridge.broken())}
        watched = parts | ({self._worker} if self._worker is not None else set())
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            raise StaylineError("The worker ended by itself.", retryable=True)
        finally:
            for part in parts:
                part.cancel()

    # --- the end -----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain, then stop every part. Nothing here waits without a limit."""
        self.bridge.draining = True
        try:
            await self._drain()
        finally:
            await self._stack.aclose()
            await asyncio.to_thread(telemetry.flush)

    async def _drain(self) -> None:
        """Let calls end, or be taken over. Those that nobody takes over hear a goodbye."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.drain_timeout
        while self.bridge.sessions and loop.time() < until:
            if await self._another_answers():
                return  # the bridge hands its calls over when it stops
            await asyncio.sleep(0.5)
        calls = {call_id for call_id, _ in self.bridge.sessions}
        if not calls:
            return
        log.info("calls_ended_by_stop", calls=len(calls))
        try:
            async with asyncio.timeout(GOODBYE_WITHIN), asyncio.TaskGroup() as ending:
                for call_id in calls:
                    ending.create_task(self._end(call_id))
        except TimeoutError:
            log.warning("calls_left_by_stop", calls=len(self.bridge.sessions))

    async def _end(self, call_id: str) -> None:
        handle = self.sessions.reader.handle(call_id)
        try:
            await handle.signal("end", EndCall(by="gateway", why="the gateway stops"))
            await handle.result()
        except Exception as error:  # the call is Temporal's; it ends by its own limits
            log.warning("call_not_ended", call_id=call_id, kind=type(error).__name__)

    async def _another_answers(self) -> bool:
        """Whether another bridge takes calls at the public URL; this one says there that it does not.

        Where several share an address, each new connection may reach any of them, this one too.
        """
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
                for _ in range(ASKED_AT_ONCE):
                    async with http.get(f"{self._settings.public}/ready?warm") as answer:
                        if answer.status == 200:
                            return True
        except (aiohttp.ClientError, TimeoutError):
            pass
        return False

    async def _stop_worker(self, worker: Worker) -> None:
        assert self._worker is not None
        if not self._worker.done():
            stopping = asyncio.create_task(worker.shutdown())
            limit = self._settings.tool_grace + WORKER_BEYOND_GRACE
            _, late = await asyncio.wait({stopping, self._worker}, timeout=limit)
            for task in late:
                task.cancel()
        worked = self._worker
        if worked.done() and not worked.cancelled() and (error := worked.exception()) is not None:
            log.error("worker_failed", kind=type(error).__name__)


def _configured() -> bool:
    """Whether anybody has said where Temporal is.

    Raises:
        ConfigError: what was said is wrong.
    """
    try:
        return bool(ClientConfig.load_client_connect_config().get("target_host"))
    except Exception as error:  # the SDK's own type for this is private to its Rust part
        raise ConfigError(f"Temporal's configuration is wrong: {error}.", fix="Check TEMPORAL_….") from error
