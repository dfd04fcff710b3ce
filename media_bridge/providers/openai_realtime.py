"""OpenAI Realtime: a model that hears and speaks, over one websocket a call. μ-law both ways, as the line has it.

This file carries messages. What is sent, and the options, are in `openai_realtime_messages`; what OpenAI's messages
mean is in `openai_realtime_talk`, and for the turns of the caller in `openai_realtime_turns`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers.base import ProviderConfig, RealtimeEvent, RealtimeProfile, RealtimeRequest
from media_bridge.providers.llm_http import error_from_body
from media_bridge.providers.openai_client import request_id, require_key, versioned_origin
from media_bridge.providers.openai_realtime_messages import (
    OpenAIRealtimeOptions,
    append,
    prefix_ms,
    read,
    seed,
    session_update,
    silence_ms,
)
from media_bridge.providers.openai_realtime_talk import SessionFailed, Talk
from media_bridge.providers.openai_realtime_turns import CallerTurns
from media_bridge.providers.vendor_socket import (
    MALFORMED,
    lost,
    open_socket,
    parsed,
    scrub,
    send_frame,
    send_now,
    warm_origin,
)
from stayline.errors import ProviderError
from stayline.models import ToolMessage

log = logging.getLogger(__name__)

SESSION_SECONDS: Final = 3600.0
"""OpenAI then closes with 1001, "Your session hit the maximum duration of 60 minutes."; nothing can be resumed."""


class OpenAIRealtime:
    """See `RealtimeProvider`."""

    profile = RealtimeProfile(
        native_mulaw=True,
        can_truncate=True,
        can_cancel=True,
        manual_responses=True,
        speaks_during_tools=True,
        session_seconds=SESSION_SECONDS,
    )

    def __init__(self, config: ProviderConfig) -> None:
        require_key(config)
        self._config = config
        self._options: OpenAIRealtimeOptions = read(config)
        self._origin = versioned_origin(config)
        self._sessions = 0

    async def warm(self) -> None:
        await warm_origin(self._origin)

    async def connect(self, request: RealtimeRequest) -> OpenAISession:
        """Open and configure one call's session, and tell it the conversation so far.

        Raises:
            ProviderError: OpenAI refused the connection or the configuration, or could not be reached in time.
        """
        limit = self._options.connect_timeout
        try:
            async with asyncio.timeout(limit):
                socket = await self._open(request)
                try:
                    await self._configure(socket, request)
                except BaseException:
                    socket.transport.abort()
                    raise
        except TimeoutError:
            raise ProviderError("openai", f"no session within {limit:g} s.", retryable=True) from None
        turns = CallerTurns(prefix_ms(self._options), silence_ms(self._options), self._clean)
        by_itself = request.interruption == "immediate"
        talk = Talk(request.call_id, turns, answers=by_itself, clean=self._clean)
        return OpenAISession(self._config, socket, talk, turns)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""

    async def _open(self, request: RealtimeRequest) -> ClientConnection:
        self._sessions += 1
        key = self._config.api_key
        reference = request_id(request.call_id, "realtime", self._sessions)
        return await open_socket(
            "openai",
            self._origin,
            "/realtime",
            query=[("model", self._config.model)],
            headers={
                "Authorization": f"Bearer {key}",
                # By these OpenAI's support finds a call; its id says nothing of who called.
                "OpenAI-Safety-Identifier": request.call_id.encode("ascii", "replace").decode()[:64],
                **reference,
            },
            secret=key,
            timeout=self._options.connect_timeout,
        )

    async def _configure(self, socket: ClientConnection, request: RealtimeRequest) -> None:
        try:
            await self._wait_for(socket, "session.created")
            await socket.send(session_update(self._config, self._options, request))
            await self._wait_for(socket, "session.updated")
            for item in seed(request.messages):
                await socket.send(item)
        except ConnectionClosed as closed:
            raise lost("openai", closed) from None

    async def _wait_for(self, socket: ClientConnection, kind: str) -> None:
        while True:
            message = parsed(await socket.recv())
            if message.get("type") == kind:
                return
            if message.get("type") == "error":
                raise _failure(self._config, message.get("error"))

    def _clean(self, text: str) -> str:
        return scrub(text, self._config.api_key)


class OpenAISession:
    """One call's session. Messages are read when the next event is asked for; nothing runs beside that."""

    def __init__(self, config: ProviderConfig, socket: ClientConnection, talk: Talk, turns: CallerTurns) -> None:
        self._config = config
        self._socket = socket
        self._talk = talk
        self._turns = turns
        self._events: deque[RealtimeEvent] = deque()
        self._sending = asyncio.Lock()
        self._error: ProviderError | None = None
        self._closed = False
        self._ignored: set[str] = set()

    @property
    def handle(self) -> str:
        return ""

    async def send(self, audio: bytes) -> None:
        self._turns.sent += len(audio)
        await self._transmit(append(audio))

    def send_now(self, audio: bytes) -> bool:
        if self._closed or self._error is not None or not send_now(self._socket, append(audio), text=True):
            return False
        self._turns.sent += len(audio)
        return True

    async def say(self, text: str) -> None:
        self._talk.say(text)
        await self._flush()

    async def respond(self) -> None:
        self._talk.respond()
        await self._flush()

    async def note(self, text: str) -> None:
        self._talk.note(text)
        await self._flush()

    async def tool_result(self, result: ToolMessage, *, respond: bool) -> None:
        self._talk.tool_result(result, respond=respond)
        await self._flush()

    async def cancel(self) -> None:
        self._talk.cancel()
        await self._flush()

    async def truncate(self, response: str, heard_ms: int) -> None:
        self._talk.truncate(response, heard_ms)
        await self._flush()

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        return self

    async def __anext__(self) -> RealtimeEvent:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            try:
                raw = await self._socket.recv()
            except ConnectionClosed as closed:
                self._lost(closed)
                continue
            self._hear(raw)
            with contextlib.suppress(ProviderError):  # what was heard comes first
                await self._flush()
        return self._events.popleft()

    async def aclose(self) -> None:
        self._closed = True
        self._events.clear()
        await self._socket.close()

    def _hear(self, raw: str | bytes) -> None:
        kind = "text"
        try:
            message = parsed(raw)
            kind = str(message["type"])
            self._events += self._talk.handle(message)
        except SessionFailed as failed:
            self._error = _failure(self._config, failed.body)
        except MALFORMED:
            if kind not in self._ignored:
                self._ignored.add(kind)
                log.warning("openai realtime: ignored a malformed message (%s)", kind[:60])

    async def _flush(self) -> None:
        async with self._sending:  # else what one task wants could overtake what another has wanted before
            while self._talk.outbox:
                await self._transmit(self._talk.outbox.popleft().encode())
        if self._error is not None and not self._closed:
            raise self._error

    async def _transmit(self, message: bytes) -> None:
        if self._closed:
            return
        if self._error is None:
            try:
                await send_frame(self._socket, message, text=True)
            except ConnectionClosed as closed:
                self._lost(closed)
        if self._error is not None and not self._closed:
            raise self._error

    def _lost(self, closed: ConnectionClosed) -> None:
        if self._error is None:
            self._error = lost("openai", closed)


def _failure(config: ProviderConfig, body: object) -> ProviderError:
    error: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    if error.get("code") == "session_expired":
        return ProviderError("openai", "the session is too old.", retryable=True)
    return error_from_body(config, error)
