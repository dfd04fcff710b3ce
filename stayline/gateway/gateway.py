"""The gateway: a media bridge and a worker inside an application, with Temporal beside them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import structlog

from stayline import event_loop
from stayline.agent import Agent
from stayline.errors import ConfigError, StaylineError
from stayline.gateway.config import GatewayConfig
from stayline.gateway.log_lines import embed
from stayline.gateway.plan import plan
from stayline.gateway.running import Running
from stayline.gateway.session import Session
from stayline.gateway.sessions import Sessions
from stayline.messages import Dial
from stayline.outbound import place_call
from stayline.tools import Policy

log = structlog.get_logger(__name__)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Gateway:
    """Answers calls with an agent.

        gateway = Gateway(GatewayConfig(
            public_url="https://voice.example.com",
            stt_provider="deepgram",
            llm_provider="anthropic",
            llm_system_prompt="You are a helpful voice assistant. Keep responses brief.",
            tts_provider="elevenlabs",
        ))

        @gateway.on_call
        async def screen(call: CallInfo) -> None:
            if call.from_number in BLOCKED:
                raise RejectCall("Sorry, we cannot take your call.")

        gateway.run()

    Every call is a Temporal workflow: where TEMPORAL_ADDRESS (or the configuration) says, else on a dev server that
    the gateway starts and that keeps its data in `data_dir`. Several gateways on one Temporal namespace are one
    service and need one configuration: each sees the calls of all, and takes over those of one that dies.

    Raises:
        ConfigError: everything that would fail on a call, and what to do about it.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self._plan = plan(config)
        self._running: Running | None = None
        self._starting = asyncio.Lock()
        self._stopping: asyncio.Task[None] | None = None
        self._asked_to_stop = asyncio.Event()

    @property
    def name(self) -> str:
        """By which the registry knows it: "twilio", or "lab"."""
        return self._plan.settings.carrier

    @property
    def agent(self) -> Agent:
        """What answers."""
        return self._plan.agent

    @property
    def url(self) -> str:
        """Where it listens, as this machine sees it; the webhooks are below. Empty before `start`."""
        return self._running.url if self._running else ""

    def on_call(self, policy: Policy) -> Policy:
        """Have a function decide about each incoming call: it returns to accept, and raises `RejectCall` to refuse.

        A decorator, or called with the function. Without one every call is accepted. It runs in a worker; if it
        raises anything else, it is tried again, and then the caller hears an apology.

        Raises:
            ConfigError: it does not take one argument, the CallInfo.
        """
        return self._plan.agent.on_call(policy)

    # --- its life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, load the providers, listen. Returns when calls are taken.

        Raises:
            ConfigError: Temporal refuses us, or the address is taken.
            StaylineError: Temporal does not answer, or the gateway was stopped.
        """
        async with self._starting:
            if self._stopping is not None:
                raise StaylineError("This gateway was stopped.", fix="Make a new one.")
            if self._running is not None:
                return
            embed(self._plan.settings, self._plan.environment, self.config.logger)
            for problem in self._plan.warnings:
                log.warning("check", problem=problem.message, fix=problem.fix or None)
            running = Running(self.config, self._plan)
            await running.start()
            self._running = running
            log.info("gateway_started", agent=self.agent.name, url=running.url)

    async def stop(self) -> None:
        """Take no more calls, finish or hand over those there are, stop. Safe to call twice, and with live calls.

        Calls get `drain_timeout` seconds to end by themselves, or to be taken over by another gateway that answers
        at the public URL. Then the agent says goodbye, and their records are written. All of it has limits in time.
        """
        self._asked_to_stop.set()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def serve_forever(self) -> None:
        """Take calls until SIGINT or SIGTERM, or until somebody calls `stop`; then stop.

        Raises:
            StaylineError: a part of the gateway broke; let the process be started again.
        """
        await self.start()
        running = self._started()
        try:
            with _signals() as told:
                waits = [self._asked_to_stop.wait(), told.wait(), running.broken()]
                tasks = [asyncio.ensure_future(wait) for wait in waits]
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            await self.stop()

    def run(self) -> None:
        """`serve_forever`, for a program that does nothing else."""
        with contextlib.suppress(KeyboardInterrupt):
            event_loop.run(self.serve_forever())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _stop(self) -> None:
        async with self._starting:
            running, self._running = self._running, None
        if running is not None:
            await running.stop()
            log.info("gateway_stopped")

    # --- calls -------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Sessions:
        """The calls of all gateways that share Temporal.

        Raises:
            StaylineError: the gateway does not run.
        """
        return self._started().sessions

    async def get_session(self, call_sid: str) -> Session | None:
        """A call, live or ended, whatever process holds it; None: nobody knows it.

        Raises:
            StaylineError: it cannot be read now, or the gateway does not run.
        """
        return await self.sessions.get(call_sid)

    async def list_sessions(self, *, limit: int = 1000) -> list[Session]:
        """The calls that go on, newest first, of all gateways that share Temporal.

        Raises:
            StaylineError: they cannot be listed now, or the gateway does not run.
        """
        return await self.sessions.list(limit=limit)

    async def make_call(
        self, to: str, *, from_number: str = "", dial: Dial | None = None, call_id: str | None = None
    ) -> Session:
        """Have somebody called who then speaks with the agent. Returns when the call is recorded, before it rings.

        How it goes is told by the session's events and its `refresh`.

        Args:
            to: E.164 number, or a `sip:` address.
            from_number: the number that is shown; default: the gateway's `phone_number`.
            dial: ring time, machine detection, the carrier's recording.
            call_id: begins with "out-"; give your own, and asking twice calls once.
        Raises:
            ConfigError: a number is missing or cannot be dialled.
            StaylineError: Temporal does not answer, or the gateway does not run.
        """
        running, planned = self._started(), self._plan
        shown = from_number or planned.twilio.phone_number
        if not shown:
            raise ConfigError("There is no number to call from.", fix="Give phone_number or from_number.")
        placed = await place_call(
            running.client,
            planned.settings,
            planned.agent,
            to,
            from_number=shown,
            dial=dial,
            auth_token=planned.twilio.auth_token.get_secret_value(),
            call_id=call_id,
        )
        session = await running.sessions.get(placed)
        if session is None:
            raise StaylineError(f"The call {placed!r} was placed, but cannot be found.", retryable=True)
        return session

    def _started(self) -> Running:
        if self._running is None:
            raise StaylineError("The gateway does not run.", fix="await gateway.start() first.")
        return self._running


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once. In the main thread only."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def once(number: int) -> None:
        told.set()
        loop.remove_signal_handler(number)

    main = threading.current_thread() is threading.main_thread()
    for number in _SIGNALS if main else ():
        loop.add_signal_handler(number, once, number)
    try:
        yield told
    finally:
        for number in _SIGNALS if main else ():
            loop.remove_signal_handler(number)
