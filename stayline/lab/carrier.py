"""The simulated carrier: speaks Twilio's webhooks, Media Streams and REST interface to a bridge."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from stayline.lab.call import Behaviour, DialOutcome, LabCall
from stayline.lab.callee import Callee
from stayline.lab.events import EventLog, LabEvent
from stayline.lab.line import Caller, Listener
from stayline.lab.outbound import Order, OutboundCall
from stayline.lab.rest import Fault, RestApi, RestRequest
from stayline.lab.webhooks import Webhooks

_LAST_WORDS = 5.0
"""Seconds that calls get to tell the bridge that they end, when the carrier stops."""


class LabCarrier:
    """A carrier with one account. Use as an async context manager; what lives in it ends with it.

    ```python
    async with LabCarrier(bridge_url, account_sid, auth_token) as carrier:
        call = await carrier.place_call("+15550100001", "+15550100002", caller=caller)
        await call.wait()
    ```

    Args:
        bridge_url: origin where the bridge listens.
        account_sid, auth_token: what bridge and workers have as `TWILIO_ACCOUNT_SID` and `TWILIO_AUTH_TOKEN`.
        rest_host, rest_port: where the REST interface listens; port 0 takes a free one.
        public_url: origin that the bridge believes it has (`STAYLINE_PUBLIC_URL`); empty: `bridge_url`.
        behaviour: where Twilio may do the one or the other.
        on_event: told of everything that happens, as it happens.
    """

    def __init__(
        self,
        bridge_url: str,
        account_sid: str,
        auth_token: str,
        *,
        rest_host: str = "127.0.0.1",
        rest_port: int = 0,
        public_url: str = "",
        behaviour: Behaviour | None = None,
        on_event: Callable[[LabEvent], None] | None = None,
    ) -> None:
        self.bridge_url = bridge_url
        self.account_sid = account_sid
        self.calls: dict[str, LabCall] = {}
        self.log = EventLog(on_event)
        self.behaviour = behaviour or Behaviour()
        self.on_order: Callable[[OutboundCall], object] | None = None  #: told of each call that is placed by REST
        self._auth_token = auth_token
        self._public_url = public_url
        self._rest = RestApi(account_sid, auth_token, self.calls, self.log, self._place_order)
        self._rest_address = (rest_host, rest_port)
        self._rest_runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._webhooks: Webhooks | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        # request logs would hold phone numbers, and the event feed says more
        runner = web.AppRunner(self._rest.app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._rest_address).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._rest_runner = runner
        self._session = aiohttp.ClientSession()
        self._webhooks = Webhooks(self._session, self._auth_token, self.bridge_url, self._public_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for call in self.calls.values():
                call.hang_up("carrier")
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
        finally:
            if self._session is not None:
                await self._session.close()
            if self._rest_runner is not None:
                await self._rest_runner.cleanup()

    @property
    def rest_url(self) -> str:
        """The origin that `TWILIO_BASE_URL` gets."""
        if self._rest_runner is None:
            raise RuntimeError("the carrier is not running; use `async with`")
        host, port = self._rest_runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @property
    def events(self) -> deque[LabEvent]:
        return self.log.events

    @property
    def dial_outcomes(self) -> dict[str, DialOutcome]:
        """How numbers and SIP addresses take a dialled call; those that are not named answer it."""
        return self.behaviour.dials

    @property
    def callees(self) -> dict[str, Callee]:
        """Who takes the calls that are placed by REST; numbers that are not named answer and listen."""
        return self.behaviour.callees

    @property
    def requests(self) -> list[RestRequest]:
        """The REST requests that came."""
        return self._rest.requests

    @property
    def faults(self) -> deque[Fault]:
        """What the next REST requests meet, one each."""
        return self._rest.faults

    async def place_call(self, from_number: str, to_number: str, *, caller: Caller | None = None) -> LabCall:
        """Call the bridge. Returns at once; `LabCall.wait` waits for the end.

        Args:
            caller: who speaks and hears; default: somebody who listens and says nothing.
        """
        call = LabCall(
            account_sid=self.account_sid,
            from_number=from_number,
            to_number=to_number,
            caller=caller or Listener(),
            webhooks=self._running,
            behaviour=self.behaviour,
            log=self.log,
        )
        self._begin(call)
        return call

    def _place_order(self, order: Order) -> OutboundCall:
        call = OutboundCall(
            order,
            self.callees.get(order.to_number, Callee()),
            account_sid=self.account_sid,
            webhooks=self._running,
            behaviour=self.behaviour,
            log=self.log,
        )
        self._begin(call)
        if self.on_order is not None:
            self.on_order(call)
        return call

    @property
    def _running(self) -> Webhooks:
        if self._webhooks is None:
            raise RuntimeError("the carrier is not running; use `async with`")
        return self._webhooks

    def _begin(self, call: LabCall) -> None:
        self.calls[call.sid] = call
        task = asyncio.create_task(call.run(), name=f"lab call {call.sid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
