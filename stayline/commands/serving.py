"""`stayline serve` (a media bridge) and `stayline worker`, each one process until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import structlog

from stayline import logs, startup, telemetry
from stayline.agent import Agent, load_agents
from stayline.checks import Problem, check_agent, check_database, check_settings, refuse_if_wrong
from stayline.errors import ConfigError
from stayline.settings import Settings, TwilioCredentials
from stayline.temporal import connect, prepare_namespace

log = structlog.get_logger(__name__)

TEMPORAL_PATIENCE = 60.0
"""Seconds that a starting process waits for Temporal: all parts may be started at once."""


def agents_of(settings: Settings, references: Sequence[str]) -> dict[str, Agent]:
    """The agents given on the command line, else those of the settings.

    Raises:
        ConfigError
    """
    return load_agents(list(references) or list(settings.agents))


async def serve(settings: Settings, references: Sequence[str]) -> None:
    """Run a media bridge until SIGTERM or SIGINT, then drain.

    Raises:
        ConfigError: anything that would fail on a call.
    """
    from media_bridge.bridge import Bridge

    logs.configure_logging(settings, "bridge")
    telemetry.configure(settings, "bridge")
    twilio = TwilioCredentials()
    agents = agents_of(settings, references)
    problems = check_settings(settings, twilio, database=False)
    _check([*problems, *(p for agent in agents.values() for p in check_agent(agent.spec()))])
    client = await connect(settings, patience=TEMPORAL_PATIENCE)
    bridge = Bridge(settings, twilio, agents, client)
    stop = _stop_signal()
    try:
        await bridge.start()
        broken, stopped = asyncio.create_task(bridge.broken()), asyncio.create_task(stop.wait())
        warmed = asyncio.create_task(bridge.warm.wait())
        await asyncio.wait({broken, stopped, warmed}, return_when=asyncio.FIRST_COMPLETED)
        startup.over()  # what there is now stays: a full collection would walk through it while the audio waits
        await asyncio.wait({broken, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            await broken
        broken.cancel()
        warmed.cancel()
    finally:
        await bridge.stop()
        telemetry.shutdown()


async def work(settings: Settings, references: Sequence[str]) -> None:
    """Run a worker until SIGTERM or SIGINT; running tools get `tool_grace` seconds.

    Raises:
        ConfigError: anything that would fail on a call.
    """
    # Imported here, as the bridge is above: each process loads its own half only.
    from activities.records import RecordActivities
    from stayline.worker import build_worker, promote_build

    logs.configure_logging(settings, "worker")
    telemetry.configure(settings, "worker")
    agents = agents_of(settings, references)
    problems = [p for agent in agents.values() for p in check_agent(agent.spec(), providers=False)]
    _check([*check_database(settings), *problems])
    twilio = TwilioCredentials()
    if not twilio.account_sid or not twilio.auth_token.get_secret_value():
        raise ConfigError(
            "The worker has no Twilio credentials, so it could not hang up or redirect a call.",
            fix="Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN.",
        )
    metrics = telemetry.serve_metrics(settings.metrics_addr) if settings.metrics_addr else None
    client = await connect(settings, patience=TEMPORAL_PATIENCE)
    await prepare_namespace(client)
    stop = _stop_signal()
    async with (
        RecordActivities(settings.database) as records,
        build_worker(client, agents, settings, [records.save_call]),
    ):
        startup.over()
        log.info("worker_started", agents=sorted(agents), build=settings.build_id or None)
        if settings.build_id and settings.promote_build:
            await promote_build(client, settings)
            log.info("build_promoted", build=settings.build_id)
        await stop.wait()
        log.info("worker_stopping")
    if metrics is not None:
        metrics.close()
    telemetry.shutdown()


def _check(problems: Sequence[Problem]) -> None:
    """Say what is doubtful, refuse what is wrong."""
    for problem in problems:
        if problem.severity == "warning":
            log.warning("check", problem=problem.message, fix=problem.fix or None)
    refuse_if_wrong(problems)


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def once(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, once, number)
    return stop
