"""What all sessions of a bridge process share: settings, agents, providers, the sessions themselves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from temporalio.client import Client

from media_bridge.capacity import Capacity, NoRoom
from media_bridge.live_events import LiveEvents
from media_bridge.providers.loading import Providers, load_providers
from media_bridge.records import SpoolResender
from stayline.agent import Agent
from stayline.models import AgentSpec
from stayline.settings import Settings, TwilioCredentials

if TYPE_CHECKING:
    from media_bridge.session import Session


class Shared:
    """The state of one bridge process; routes and sessions hold it, `media_bridge.bridge` starts and stops it.

    Args:
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
        self.settings = settings
        self.twilio = twilio
        self.agents = dict(agents)
        self.client = client
        self._environment = environment
        # Unique for every process: a lease offered to a dead process must not find its successor.
        self.id = f"{settings.bridge_id}-{secrets.token_hex(2)}"
        self.sessions: dict[tuple[str, int], Session] = {}  #: by call and session number
        self.live = LiveEvents()
        self.attaching: set[str] = set()  #: calls whose stream has come and whose grant has not
        self.capacity = Capacity(settings.max_calls, settings.max_loop_lag_ms)
        self.draining = False
        self.leased = asyncio.Event()
        self.warm = asyncio.Event()  #: what calls need is loaded; before, the first call may wait for it
        self.spool = SpoolResender(client, settings.spool_dir)
        self.providers: dict[str, Providers] = {}

    @property
    def lacking(self) -> NoRoom | None:
        """What keeps it from taking a new call; see `Capacity`."""
        return self.capacity.lacking(len(self.sessions), asyncio.get_running_loop().time())

    @property
    def unready(self) -> str:
        """Why it takes no new calls; empty: it takes them."""
        if self.draining:
            return "draining"
        if not self.leased.is_set():
            return "no lease"
        return self.lacking or ""

    def find(self, call_id: str, number: int) -> Session | None:
        return self.sessions.get((call_id, number))

    def interrupt(self, call_id: str) -> bool:
        """Have the agent of a call fall silent. False: this bridge does not hold the call."""
        numbers = [number for known, number in self.sessions if known == call_id]
        if numbers:
            self.sessions[call_id, max(numbers)].interrupt()
        return bool(numbers)

    def providers_for(self, agent: AgentSpec) -> Providers:
        """The agent's providers: one set per configuration, shared by all its calls."""
        key = repr((agent.stt, agent.llm, agent.tts, agent.realtime, agent.voice, agent.language, agent.options))
        if key not in self.providers:
            self.providers[key] = load_providers(agent, self._environment)
        return self.providers[key]
