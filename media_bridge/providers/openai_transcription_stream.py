"""One call's ear at OpenAI, over as many live transcription sessions as it takes.

This file carries messages and keeps the session; what they mean is in `openai_turns` and `openai_local_turns`. A
session lasts 60 minutes at most ("Your session hit the maximum duration of 60 minutes", close code 1001). It is
renewed before, between two turns if there is such a moment, and the old one serves until the new one is there. One
that breaks is replaced once; what was not written down yet is heard again in both cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.audio.mulaw import bytes_to_ms
from media_bridge.providers.base import ProviderConfig, SttEvent
from media_bridge.providers.hearing_queue import HearingQueue
from media_bridge.providers.llm_http import error_from_body
from media_bridge.providers.openai_local_turns import LocalTurns
from media_bridge.providers.openai_turns import ServerTurns, TranscriptionFailed
from media_bridge.providers.vendor_socket import MALFORMED, lost, parsed, scrub
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

RENEW_MS = 55 * 60_000  #: of audio; from here on, the session is renewed when nobody speaks …
RENEW_LATEST_MS = 59 * 60_000  #: … and here in any case
RENEW_AGAIN_MS = 10_000  #: of audio; then a renewal that failed is tried again
EXPIRED = "maximum duration"  #: in the reason of a close (code 1001) at the end of a session's time
LOSS_WINDOW = 60.0
"""Seconds after a lost session in which a second one may not be lost."""

_STATUS_CODES = {"invalid_api_key": "authentication_error", "model_not_found": "not_found_error"}
"""OpenAI's `error.code` where its `error.type` says only that the request was invalid."""

AnyTurns = ServerTurns | LocalTurns


class TranscriptionStream:
    """One call's ear, over as many sessions as it takes."""

    def __init__(
        self,
        config: ProviderConfig,
        socket: ClientConnection,
        open_: Callable[[], Awaitable[ClientConnection]],
        turns: AnyTurns,
        final_timeout: float,
    ) -> None:
        self._config = config
        self._socket = socket
        self._open = open_
        self._turns = turns
        self._final_timeout = final_timeout
        self._events = HearingQueue()
        self._said = ""  #: OpenAI's last error message in this session
        self._expired = False  #: it ended because it was old
        self._lost_at = -math.inf  #: by the event loop's clock
        self._overdue: asyncio.TimerHandle | None = None
        self._ignored: set[str] = set()
        self._received = 0  #: bytes of audio, ever …
        self._began_ms = 0  #: … and milliseconds of it when this session began
        self._renew_from_ms = 0  #: a renewal failed: not before this position
        self._renewal_due = asyncio.Event()
        self._successor: ClientConnection | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._more = asyncio.Event()
        self._run_task = asyncio.create_task(self._run(), name="openai-stt")

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, audio: bytes) -> None:
        """Queue audio for sending. While there is no session it is kept, up to a minute of it."""
        if self._events.ended:
            return
        self._received += len(audio)
        self._turns.push(audio)
        self._publish()
        age_ms = bytes_to_ms(self._received) - self._began_ms
        if age_ms >= RENEW_LATEST_MS or (age_ms >= RENEW_MS and self._turns.quiet):
            self._renewal_due.set()
        if self._more.is_set():
            await asyncio.sleep(0)  # audio that comes in bulk, not in real time: let it flow out
        self._more.set()

    def __aiter__(self) -> AsyncIterator[SttEvent]:
        return self

    async def __anext__(self) -> SttEvent:
        return await self._events.get()

    async def aclose(self) -> None:
        """Close; what is not written down yet is lost. Takes half a second at most."""
        self._events.close()
        self._run_task.cancel()
        await asyncio.gather(self._run_task, return_exceptions=True)
        self._leave(self._socket)
        if self._successor is not None:
            self._leave(self._successor)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    # --- the sessions --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                error = await self._session()
                self._leave(self._socket)
                if error is None:
                    assert self._successor is not None
                    self._socket, self._successor = self._successor, None
                else:
                    self._check(error)
                    self._socket = await self._open()
        except ProviderError as error:
            self._fail(error)
        except Exception as error:
            log.exception("openai stt: the adapter failed")
            self._fail(ProviderError("openai", f"the adapter failed ({type(error).__name__}).", retryable=True))
        finally:
            self._rest()

    async def _session(self) -> ProviderError | None:
        """One session, until it is lost (returns why) or has a successor."""
        self._said, self._expired = "", False
        self._more.set()
        self._publish(progress=True)
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(self._hear())
            renewal = tasks.create_task(self._renew())
            pump = tasks.create_task(self._pump())
            await asyncio.wait((hearing, renewal), return_when=asyncio.FIRST_COMPLETED)
            for task in (hearing, renewal, pump):
                task.cancel()
        self._rest()
        self._turns.new_session()
        self._began_ms = self._renew_from_ms = bytes_to_ms(self._received)
        self._renewal_due.clear()
        return hearing.result() if self._successor is None else None

    def _check(self, error: ProviderError) -> None:
        """Whether a lost session is to be replaced.

        Raises:
            ProviderError: it is not.
        """
        if self._expired:
            return
        now = asyncio.get_running_loop().time()
        if not error.retryable or now - self._lost_at < LOSS_WINDOW:
            raise error
        self._lost_at = now
        log.info("openai stt: %s; connecting again", error.message)

    async def _renew(self) -> None:
        """Open the next session when it is time, while this one goes on."""
        while True:
            await self._renewal_due.wait()
            self._renewal_due.clear()
            if bytes_to_ms(self._received) < self._renew_from_ms:
                continue
            try:
                self._successor = await self._open()
            except ProviderError as error:
                log.warning("openai stt: the session could not be renewed yet: %s", error.message)
                self._renew_from_ms = bytes_to_ms(self._received) + RENEW_AGAIN_MS
            else:
                return

    async def _pump(self) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader learns it too, and acts
            while True:
                await self._more.wait()
                self._more.clear()
                for message in self._turns.outgoing():
                    await self._socket.send(message)

    async def _hear(self) -> ProviderError:
        """Take messages until the session is lost; returns why."""
        try:
            while True:
                error = self._take(await self._socket.recv())
                if error is not None:
                    return error
        except ConnectionClosed as closed:
            self._expired = self._expired or (closed.rcvd is not None and EXPIRED in closed.rcvd.reason)
            return lost("openai", closed, self._said)

    def _take(self, raw: str | bytes) -> ProviderError | None:
        message = parsed(raw)
        kind = str(message.get("type"))
        try:
            if kind == "error":
                self._told(message["error"])
                return None
            progress = self._turns.handle(message)
        except TranscriptionFailed as failed:
            return refusal(self._config, failed.body)
        except MALFORMED:
            if kind not in self._ignored:
                self._ignored.add(kind)
                log.warning("openai stt: ignored a malformed message (%s)", kind[:40])
            return None
        self._publish(progress=progress)
        return None

    def _told(self, error: Mapping[str, Any]) -> None:
        """Most errors leave the session as it is; of one that ends it, this is the reason."""
        if self._turns.rejected(error):
            self._publish(progress=True)
            return
        self._expired = self._expired or error.get("code") == "session_expired"
        self._said = scrub(str(error.get("message") or error.get("code")), self._config.api_key)
        log.warning("openai stt: error: %s", self._said)

    def _fail(self, error: ProviderError) -> None:
        self._turns.give_up()
        self._events.put(self._turns.due())
        self._events.fail(error)

    def _leave(self, socket: ClientConnection) -> None:
        """Say goodbye to a session without waiting for it."""
        task = asyncio.create_task(socket.close(), name="openai-stt-goodbye")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # --- what is due ---------------------------------------------------------------------------------

    def _publish(self, *, progress: bool = False) -> None:
        """Tell what is new, and watch for what is due: words, `final_timeout` after the last sign of them."""
        self._events.put(self._turns.due())
        if not self._turns.answer_due:
            self._rest()
        elif progress or self._overdue is None:
            self._rest()
            self._overdue = asyncio.get_running_loop().call_later(self._final_timeout, self._out_of_time)

    def _rest(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _out_of_time(self) -> None:
        self._overdue = None
        if self._turns.out_of_time():
            self._said = f"no words within {self._final_timeout:g} s"
            self._socket.transport.abort()
        else:
            self._publish()


def refusal(config: ProviderConfig, body: object) -> ProviderError:
    """The ProviderError for an error object of the session."""
    error = dict(body) if isinstance(body, Mapping) else {"message": str(body)}
    error["code"] = _STATUS_CODES.get(str(error.get("code")), error.get("code"))
    error["message"] = scrub(str(error.get("message") or error["code"]), config.api_key)
    return error_from_body(config, error)
