"""A media bridge: one process that holds live calls. Starts and stops its parts in the right order."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence

import aiohttp
import structlog
from aiohttp import web
from temporalio.client import Client

from media_bridge import live_access
from media_bridge.lease import BridgeActivities, hold_lease, lease_worker
from media_bridge.providers.loading import Adapter, Providers
from media_bridge.server.app import build_app
from media_bridge.shared import Shared
from stayline import telemetry
from stayline.agent import Agent
from stayline.errors import ConfigError, ProviderError, StaylineError
from stayline.messages import LeaseState
from stayline.settings import Settings, TwilioCredentials

log = structlog.get_logger(__name__)

CLOSED_WITHIN = 20.0
"""Seconds that sessions get to hand their calls over: a sentence that is begun is finished, for at most 15."""


class Bridge(Shared):
    """One bridge process.

    Args:
        agents: by name; their providers are loaded and warmed by `start`.
        environment: where the providers' keys and origins are; None: the process's own.
    """

    def __init__(
        self,
        settings: Settings,
        twilio: TwilioCredentials,
        agents: Mapping[str, Agent],
        client: Client,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(settings, twilio, agents, client, environment)
        self.address: tuple[str, int] = settings.listen
        self.own_address = ""  #: host:port at which other processes reach this bridge and no other
        self._activities = BridgeActivities(self.find, self._lease_state)
        self._background: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Make the providers, take the lease, listen; what calls need is loaded meanwhile (`Shared.warm`).

        A bridge that shares its address loads first: until it listens, the others take the calls.

        Raises:
            ConfigError: a provider refuses its configuration, or the address is taken.
        """
        providers = [self.providers_for(agent.spec()) for agent in self.agents.values()]
        if self.settings.reuse_port:
            await self._load(providers)
        worker = lease_worker(self.client, self.id, self._activities)
        self._background = [
            asyncio.create_task(worker.run()),
            asyncio.create_task(hold_lease(self.client, self.id, self.leased, self._activities.drained)),
            asyncio.create_task(self.spool.run()),
            asyncio.create_task(telemetry.watch_loop_lag(then=self._measured)),
        ]
        self._runner = web.AppRunner(build_app(self), access_log=None, shutdown_timeout=2)
        await self._runner.setup()
        host, port = self.settings.listen
        site = web.TCPSite(self._runner, host, port, reuse_port=self.settings.reuse_port or None)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host}:{port} ({error.strerror}).",
                fix="Stop what uses it, or set STAYLINE_LISTEN_ADDR.",
            ) from error
        self._site = site
        self.address = self._runner.addresses[0][:2]
        if self.settings.reuse_port:  # any bridge may answer there; this door is this one's
            await web.TCPSite(self._runner, host, 0).start()
        self.own_address = live_access.own_address(self.settings, self._runner.addresses[-1][1])
        if not self.warm.is_set():
            self._background.append(asyncio.create_task(self._load_meanwhile(providers)))
        log.info("bridge_started", bridge=self.id, address=f"{self.address[0]}:{self.address[1]}")

    async def _load(self, providers: Sequence[Providers]) -> None:
        """Load sessions, engines and SDKs before the first call needs them, in threads.

        An SDK takes one to three seconds to import, a speech engine as long. A bridge that takes the place of a
        dead one does not keep callers waiting for what they do not need yet: a greeting needs no language model.
        """
        await asyncio.to_thread(importlib.import_module, "media_bridge.session")
        await asyncio.gather(*(_warm(adapter) for each in providers for adapter in each.all))
        self.warm.set()
        log.info("bridge_warm", bridge=self.id)

    async def _load_meanwhile(self, providers: Sequence[Providers]) -> None:
        """A part of the bridge as the others are: ends when it is drained, or with what went wrong."""
        await self._load(providers)
        await self._activities.drained.wait()

    async def broken(self) -> None:
        """Never returns; raises what a part of the bridge failed with, so that the process is restarted."""
        done, _ = await asyncio.wait(self._background, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise StaylineError("A part of the bridge ended by itself.", retryable=True)

    async def stop(self) -> None:
        """Drain: take no more calls, hand over or finish the ones held, give the lease back, stop."""
        self.draining = True
        log.info("bridge_draining", calls=len(self.sessions))
        if self._site is not None:
            await self._site.stop()
        await self._hand_over()
        self._activities.drained.set()
        if self._background:
            # The lease ends by itself once `keep_lease` returns; the others are loops.
            await asyncio.wait({self._background[1]}, timeout=3)
            for task in self._background:
                task.cancel()
            await asyncio.wait(self._background, timeout=10)
        if self._runner is not None:
            await self._runner.cleanup()
        for providers in self.providers.values():
            await providers.aclose()
        log.info("bridge_stopped", bridge=self.id)

    async def _hand_over(self) -> None:
        """Move the calls to another bridge if one answers at the public URL; else let them end, within limits."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout
        while (self.sessions or self.attaching) and loop.time() < deadline:
            if await self._another_bridge_lives():
                break
            await asyncio.sleep(0.5)
        if not self.sessions and not self.attaching:
            return
        log.info("handing_over", calls=len(self.sessions))
        deadline = loop.time() + CLOSED_WITHIN
        told: set[tuple[str, int]] = set()
        while (self.sessions or self.attaching) and loop.time() < deadline:  # some may be attaching only now
            for key in self.sessions.keys() - told:
                self.sessions[key].close("")
                told.add(key)
            await asyncio.sleep(0.05)

    async def _another_bridge_lives(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http,
                http.get(f"{self.settings.public}/ready?warm") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _measured(self, lag_ms: float) -> None:
        """The event loop woke so late."""
        if self.warm.is_set() and self.capacity.measured(lag_ms):  # imports make it late, once
            overloaded = self.capacity.overloaded
            telemetry.metrics.overloaded(1 if overloaded else -1)
            log.warning(
                "bridge_overloaded" if overloaded else "bridge_recovered",
                loop_lag_ms=round(self.capacity.lag_ms, 1),
                calls=len(self.sessions),
            )

    def _lease_state(self) -> LeaseState:
        return LeaseState(
            calls=tuple({call_id for call_id, _ in self.sessions}),
            address=self.own_address,
            load=len(self.sessions) / self.settings.max_calls,
            loop_lag_ms=self.capacity.lag_ms,
        )


async def _warm(adapter: Adapter) -> None:
    """A vendor that is down now may be up when it is needed."""
    try:
        await adapter.warm()
    except ProviderError as error:
        log.warning("provider_not_warm", provider=error.provider, status=error.status)
