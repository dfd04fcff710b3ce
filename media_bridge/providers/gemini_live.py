"""Gemini Live: a model that hears and speaks, over one websocket a call. It takes and gives linear PCM.

This file carries messages and converts the sound on its way in. What is sent is in `gemini_messages`, what its
messages mean in `gemini_talk`, and the caller's turns are found in `gemini_caller`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.audio.pcm import MulawToPcm
from media_bridge.providers import gemini_messages as to_send
from media_bridge.providers.base import ProviderConfig, RealtimeEvent, RealtimeProfile, RealtimeRequest
from media_bridge.providers.gemini_messages import GeminiOptions
from media_bridge.providers.gemini_talk import Talk
from media_bridge.providers.vendor_socket import (
    MALFORMED,
    lost,
    open_socket,
    parsed,
    scrub,
    send_frame,
    warm_origin,
)
from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError
from stayline.models import ToolMessage

log = logging.getLogger(__name__)

SESSION_SECONDS: Final = 600.0
"""A connection lasts about ten minutes; `goAway` comes before its end. The session itself goes on by its handle."""
SETUP_TIMEOUT: Final = 4.0
"""Seconds until the configuration is accepted; Google may also never answer a wrong one."""
SEND_TIMEOUT: Final = 3.0
"""Seconds in which the connection must take what we send. It has no pings: Google answers them after 8 to 30 s."""

_PATH: Final = "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"


class GeminiLive:
    """See `RealtimeProvider`. `config.base_url` is an http origin."""

    profile: RealtimeProfile

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._options: GeminiOptions = to_send.read(config)
        self._origin = config.base_url or PROVIDERS["google"].default_base_url
        self.profile = RealtimeProfile(
            native_mulaw=False,
            can_truncate=False,
            can_cancel=False,
            speaks_during_tools=not self._options.blocking_tools,
            can_resume=True,
            session_seconds=SESSION_SECONDS,
        )

    async def warm(self) -> None:
        await warm_origin(self._origin)

    async def connect(self, request: RealtimeRequest) -> GeminiSession:
        """Open and configure one call's session, and tell it the conversation so far.

        Raises:
            ProviderError: Google refused the connection or the configuration, or could not be reached in time.
        """
        talk = Talk(blocking=self._options.blocking_tools)
        socket = await open_socket(
            "google",
            self._origin,
            _PATH.format(version=self._options.api_version),
            headers={"x-goog-api-key": self._config.api_key},
            secret=self._config.api_key,
            pings=False,
        )
        try:
            async with asyncio.timeout(SETUP_TIMEOUT):
                await self._configure(socket, talk, request)
        except BaseException as error:
            socket.transport.abort()
            if isinstance(error, ConnectionClosed):
                raise _closed(self._config, error, ready=talk.ready) from None
            if isinstance(error, TimeoutError):
                what = f"the session was not accepted within {SETUP_TIMEOUT:g} s."
                raise ProviderError("google", what, retryable=True) from None
            raise
        return GeminiSession(self._config, socket, talk)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""

    async def _configure(self, socket: ClientConnection, talk: Talk, request: RealtimeRequest) -> None:
        await socket.send(to_send.setup(self._config, self._options, request))
        while not talk.ready:
            talk.handle_message(parsed(await socket.recv()))
        if not request.resume and (turns := to_send.history(request.messages)):
            await socket.send(to_send.content(turns, answer=False))


class GeminiSession:
    """One connection. A task reads it; the caller's sound, too, may tell something (see `gemini_caller`)."""

    def __init__(self, config: ProviderConfig, socket: ClientConnection, talk: Talk) -> None:
        self._config = config
        self._socket = socket
        self._talk = talk
        self._pcm = MulawToPcm(to_send.INPUT_RATE)
        self._events: asyncio.Queue[RealtimeEvent | None] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._error: ProviderError | None = None
        self._closed = False
        self._ignored = False
        self._reader = asyncio.create_task(self._read(), name="gemini-live")

    @property
    def handle(self) -> str:
        return self._talk.handle

    async def send(self, audio: bytes) -> None:
        if self._closed:
            return
        for event in self._talk.hear(audio):
            self._events.put_nowait(event)
        if pcm := self._pcm.push(audio):
            await self._transmit(to_send.audio(pcm))

    async def say(self, text: str) -> None:
        self._talk.say(text)
        await self._flush()

    async def respond(self) -> None:
        self._talk.respond()
        await self._flush()

    async def note(self, text: str) -> None:
        """As the protocol says; a note waits until the model does not speak, for it would silence it."""
        self._talk.note(text)
        await self._flush()

    async def tool_result(self, result: ToolMessage, *, respond: bool) -> None:
        self._talk.tool_result(result, respond=respond)
        await self._flush()

    async def cancel(self) -> None:
        """Gemini has no such message."""

    async def truncate(self, response: str, heard_ms: int) -> None:
        """Gemini cuts its memory itself, and only when it hears the caller interrupt."""

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        return self

    async def __anext__(self) -> RealtimeEvent:
        event = await self._events.get()
        if event is not None and not self._closed:
            return event
        self._events.put_nowait(None)
        if self._error is not None and not self._closed:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection; when this returns, its conversation may be taken up by another."""
        self._closed = True
        self._events.put_nowait(None)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        try:
            while True:
                self._hear(await self._socket.recv())
                await self._flush()
        except ConnectionClosed as closed:
            self._lost(closed)
        except ProviderError:
            pass  # kept for whoever reads or sends next
        except Exception as error:
            log.exception("gemini live: the adapter failed")
            self._error = ProviderError("google", f"the adapter failed ({type(error).__name__}).", retryable=True)
        finally:
            self._events.put_nowait(None)

    def _hear(self, raw: str | bytes) -> None:
        try:
            for event in self._talk.handle_message(parsed(raw)):
                self._events.put_nowait(event)
        except MALFORMED:
            if not self._ignored:
                self._ignored = True
                log.warning("gemini live: ignored a malformed message")

    async def _flush(self) -> None:
        async with self._sending:  # else what one task wants could overtake what another has wanted before
            while self._talk.outbox:
                await self._transmit(self._talk.outbox.popleft())

    async def _transmit(self, message: str) -> None:
        if self._closed:
            return
        if self._error is None:
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await send_frame(self._socket, message.encode(), text=True)
            except ConnectionClosed as closed:
                self._lost(closed)
            except TimeoutError:
                self._error = ProviderError("google", "the connection takes nothing any more.", retryable=True)
                self._socket.transport.abort()
        if self._error is not None and not self._closed:
            raise self._error

    def _lost(self, closed: ConnectionClosed) -> None:
        if self._error is None:
            self._error = _closed(self._config, closed, ready=True)
        for event in self._talk.lost():
            self._events.put_nowait(event)


def _closed(config: ProviderConfig, closed: ConnectionClosed, *, ready: bool) -> ProviderError:
    """What Google meant by closing. All it says is in the close frame, also that the key is wrong (1007).

    1008 ends a session that was accepted for reasons that another one does not share ("Operation is not
    implemented", "Requested entity was not found": googleapis/js-genai#1236); before that, the model or its
    configuration is wrong. 1011 is a fault of theirs, or the quota.
    """
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else (None, "")
    said = scrub(reason, config.api_key)
    error = lost("google", closed, said)
    lowered = said.lower()
    if "api key" in lowered or "api_key" in lowered:
        error.retryable, error.fix = False, "Check GOOGLE_API_KEY."
    elif ready and code == 1008:
        error.retryable = True
    elif not ready and code == 1008 and "not found" in lowered:
        error.fix = f"Check the model's name, {config.model!r}."
    return error
