"""The carrier's media websocket: checked before it is accepted, then one session per socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

import structlog
from aiohttp import WSMessage, WSMsgType, web

from media_bridge.admission import token_hash
from media_bridge.call_link import CallLink, SessionRefused
from media_bridge.carriers import signature, twilio_stream
from media_bridge.server.idle import Idle
from media_bridge.shared import Shared
from stayline import logs, telemetry
from stayline.errors import StaylineError
from stayline.messages import OpenSession
from stayline.names import CALL_PARAMETER, OUTBOUND_PREFIX

if TYPE_CHECKING:
    from media_bridge.session import Session

log = structlog.get_logger(__name__)

START_TIMEOUT = 10.0
"""Seconds from the upgrade to `start`."""
POLICY_VIOLATION = 1008
CROWD = 2
"""Sockets that may be without a call, per call that the bridge may hold. The signature of an upgrade is the same
for every call, so whoever has seen one can open many; all calls of a bridge that has died come at once as well."""
_PLACED = re.compile(re.escape(OUTBOUND_PREFIX) + r"[A-Za-z0-9_-]{1,60}")


class StreamHandler:
    """`/ws/media-stream`."""

    def __init__(self, bridge: Shared) -> None:
        self._bridge = bridge
        self._settings = bridge.settings
        self._connections: set[_Connection] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self._settings.validate_signatures:
            url = self._settings.public + request.path
            token = self._bridge.twilio.auth_token.get_secret_value()
            if not signature.check_stream(token, url, request.headers.get(signature.HEADER)):
                telemetry.metrics.refused("stream_signature")
                if logs.once("stream_signature"):
                    log.warning("stream_refused", reason="signature")
                raise web.HTTPForbidden(text="signature")
        if self._waiting >= CROWD * self._settings.max_calls:
            telemetry.metrics.refused("stream_crowd")
            if logs.once("stream_crowd"):
                log.warning("stream_refused", reason="too many sockets without a call")
            raise web.HTTPServiceUnavailable(text="busy")
        socket = web.WebSocketResponse(compress=False, max_msg_size=twilio_stream.MAX_MESSAGE)
        await socket.prepare(request)
        connection = _Connection(self._bridge, socket)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
        return socket

    @property
    def _waiting(self) -> int:
        """Sockets that have no call yet."""
        return sum(not connection.has_call for connection in self._connections)


class _Connection:
    """Reads one socket. The reader never waits for anything but the socket."""

    def __init__(self, bridge: Shared, socket: web.WebSocketResponse) -> None:
        from media_bridge.session import Backlog  # loaded by then, or now: see `Bridge._load`

        self._bridge = bridge
        self._socket = socket
        self._protocol = twilio_stream.StreamProtocol()
        self._backlog = Backlog()
        self._session: Session | None = None
        self._attached: asyncio.Task[None] | None = None
        self._gone = False

    @property
    def has_call(self) -> bool:
        return self._session is not None

    async def run(self) -> None:
        try:
            await self._read()
        except twilio_stream.ProtocolError as error:
            self._refuse(f"protocol: {error}", key="protocol")
        except TimeoutError:
            self._refuse("no message in time", key="idle")
        finally:
            await self._leave()

    async def _read(self) -> None:
        """
        Raises:
            TimeoutError: no `start` in time, or nothing at all for too long.
        """
        limit = self._bridge.settings.stream_idle_timeout
        async with Idle(limit, begin_with=min(limit, START_TIMEOUT)) as idle:
            while True:
                if not self._take(await self._socket.receive()):
                    return
                if self._protocol.start is not None:
                    idle.heard()

    def _take(self, message: WSMessage) -> bool:
        """Whether more is to be read."""
        if message.type is not WSMsgType.TEXT:
            if message.type is WSMsgType.BINARY:
                raise twilio_stream.ProtocolError("a binary message")
            return False  # closed, closing, or broken (too large a message among them)
        parsed = self._protocol.receive(message.data)
        if self._session is not None:
            self._session.receive(parsed)
        elif isinstance(parsed, twilio_stream.Start):
            self._attached = asyncio.create_task(self._attach(parsed))
        elif self._attached is not None:
            self._backlog.receive(parsed)
        return not isinstance(parsed, twilio_stream.Stop)

    async def _attach(self, start: twilio_stream.Start) -> None:
        """Trade the stream's token for a grant, then hold the call."""
        from media_bridge.session import Session

        bridge = self._bridge
        named = start.parameters.get(CALL_PARAMETER, "")
        call_id = named if _PLACED.fullmatch(named) else start.call_sid  # the token proves either
        logs.bind_call(call_id)
        bridge.attaching.add(call_id)
        try:
            if named and call_id != named:
                raise SessionRefused("The stream names no call that we placed.")
            account = bridge.twilio.account_sid
            if account and start.account_sid != account:
                raise SessionRefused("The stream is of another account.")
            grant = await CallLink(bridge.client, call_id).open_session(
                OpenSession(
                    token_sha256=token_hash(start.parameters.get("token", "")),
                    bridge_id=bridge.id,
                    stream_id=start.stream_sid,
                ),
                bridge.settings.admission_timeout,
            )
            session = Session(
                grant,
                start.stream_sid,
                self._socket,
                bridge.client,
                bridge.settings,
                bridge.providers_for,
                bridge.live,
            )
        except (StaylineError, TimeoutError) as error:
            self._refuse(str(error) or "Temporal did not answer in time", key=f"attach {type(error).__name__}")
            await self._socket.close(code=POLICY_VIOLATION, message=b"refused")
            return
        finally:
            bridge.attaching.discard(call_id)
        key = (session.call_id, grant.session)
        bridge.sessions[key] = session
        bridge.capacity.arrived(session.call_id)
        bridge.spool.busy.add(key)
        self._session = session
        running = asyncio.create_task(session.run())
        try:
            await asyncio.sleep(0)  # let the pipeline start before it gets what has gathered
            self._backlog.hand_over(session)
            if self._gone:
                session.stream_gone("lost")
            await asyncio.shield(running)
        finally:
            if not running.done():
                session.stream_gone("lost")
                await asyncio.wait({running})
            del bridge.sessions[key]
            bridge.spool.busy.discard(key)

    async def _leave(self) -> None:
        """The socket is done: end the session as what it was, and wait for its last records."""
        self._gone = True
        if self._session is not None:
            self._session.stream_gone("lost")
        if self._attached is not None:
            # A grant that is under way is waited for: the workflow must hear that its session is closed.
            await asyncio.wait({self._attached})
            if not self._attached.cancelled() and (error := self._attached.exception()) is not None:
                log.error("session_failed", kind=type(error).__name__, exc_info=error)
        with contextlib.suppress(ConnectionError):
            await self._socket.close()

    def _refuse(self, reason: str, key: str) -> None:
        telemetry.metrics.refused(key.replace(" ", "_").lower())
        if logs.once(f"stream {reason}"):  # reasons are few: none quotes what was sent
            log.warning("stream_refused", reason=reason)
