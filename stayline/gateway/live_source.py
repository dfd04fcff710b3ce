"""Where a session's live events come from: the bridge in this process, or another one over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final

import aiohttp
import structlog
from temporalio.client import Client

from media_bridge import live_access
from media_bridge.live_events import LiveEvent, LiveLog
from media_bridge.shared import Shared
from stayline import logs
from stayline.settings import Settings, TwilioCredentials

log = structlog.get_logger(__name__)

APPEARS_WITHIN: Final = 3.0
"""Seconds: a session is in the record before its bridge has begun to hold it."""
AGAIN_AFTER: Final = 0.5
SILENCE: Final = 25.0
"""Seconds without even a comment after which a connection is taken for dead; the bridge sends one every ten."""

Changed = Callable[[], None]


class LiveSource:
    """Follows sessions wherever their bridge is.

    Args:
        bridge: the one of this process, if there is one.
    """

    def __init__(
        self, client: Client, settings: Settings, twilio: TwilioCredentials, bridge: Shared | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        self._twilio = twilio
        self._bridge = bridge

    async def follow(
        self, call_id: str, session: int, bridge_id: str, into: dict[int, LiveLog], told: Changed
    ) -> None:
        """Put a session's log into `into` and keep it up to date until the session is over.

        Returns also when the bridge is gone, cannot be reached, or has forgotten the session: live events are
        what can be had at the moment. `told` is called whenever there is news.
        """
        if self._bridge is not None and bridge_id == self._bridge.id:
            await self._follow_here(self._bridge, call_id, session, into, told)
        else:
            await self._follow_there(call_id, session, bridge_id, into, told)

    async def interrupt(self, call_id: str, bridge_id: str) -> bool:
        """Have the agent fall silent. False: its bridge does not hold the call, or cannot be reached."""
        if self._bridge is not None and bridge_id == self._bridge.id:
            return self._bridge.interrupt(call_id)
        address = await live_access.bridge_address(self._client, bridge_id)
        if not address:
            return False
        url = f"http://{address}" + live_access.INTERRUPT_PATH.format(call_id=call_id)
        try:
            async with self._http() as http, http.post(url, headers=self._right(call_id)) as answer:
                return answer.status == 204
        except (aiohttp.ClientError, TimeoutError):
            return False

    # --- in this process ---

    async def _follow_here(
        self, bridge: Shared, call_id: str, session: int, into: dict[int, LiveLog], told: Changed
    ) -> None:
        until = asyncio.get_running_loop().time() + APPEARS_WITHIN
        while (live := bridge.live.find(call_id, session)) is None:
            if asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.05)
        into[session] = live.log
        async for _ in live.follow():
            told()

    # --- in another ---

    async def _follow_there(
        self, call_id: str, session: int, bridge_id: str, into: dict[int, LiveLog], told: Changed
    ) -> None:
        mirror = into.setdefault(session, LiveLog())
        loop = asyncio.get_running_loop()
        until = loop.time() + APPEARS_WITHIN
        while True:
            seen = mirror.last
            if await self._listen(call_id, session, bridge_id, mirror, told):
                return
            if mirror.last > seen:
                until = loop.time() + APPEARS_WITHIN
            elif loop.time() > until:
                if logs.once(f"live events {bridge_id}"):
                    log.info("live_events_unreachable", bridge=bridge_id)
                return
            await asyncio.sleep(AGAIN_AFTER)

    async def _listen(self, call_id: str, session: int, bridge_id: str, mirror: LiveLog, told: Changed) -> bool:
        """One connection. True: nothing more is to be had."""
        address = await live_access.bridge_address(self._client, bridge_id)
        if not address:
            return False
        url = f"http://{address}" + live_access.LIVE_PATH.format(call_id=call_id)
        query = {"session": str(session), "after": str(mirror.last)}
        try:
            async with self._http() as http, http.get(url, params=query, headers=self._right(call_id)) as answer:
                if answer.status == 401:
                    if logs.once(f"live events {bridge_id}"):
                        log.warning("live_events_refused", bridge=bridge_id, fix="STAYLINE_LIVE_KEY differs there")
                    return True
                if answer.status != 200:
                    return False
                async for kind, data in _messages(answer):
                    if kind == "over":
                        return True
                    mirror.append(_event(data))
                    told()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass  # the bridge is gone, or cannot be reached from here
        return False

    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=3, sock_read=SILENCE))

    def _right(self, call_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {live_access.token(self._settings, self._twilio, call_id)}"}


async def _messages(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Server-sent events: the type and the JSON of each."""
    kind, data = "", ""
    async for line in answer.content:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not name and not value and kind:  # an empty line ends a message; a comment has a value
            yield kind, json.loads(data)
            kind, data = "", ""


def _event(data: Any) -> LiveEvent:
    return LiveEvent(data["seq"], data["type"], datetime.fromisoformat(data["at"]), data["total_bytes"])
