"""One call's connection to a realtime model: made, kept, renewed before its time is up, replaced when it is lost.

Vendors end a connection after minutes (Gemini: 10; OpenAI: 60), and any may break. The caller's sound of the open
turn is kept, and a new connection hears it again; the conversation so far is in its request, or comes with the
vendor's own handle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import LOUD
from media_bridge.audio.quiet import QuietTogether
from media_bridge.conversation.kept_sound import KeptSound
from media_bridge.conversation.model_health import ModelHealth
from media_bridge.providers.base import (
    Expiring,
    RealtimeEvent,
    RealtimeProfile,
    RealtimeProvider,
    RealtimeRequest,
    RealtimeSession,
    ResponseAudio,
    ResponseDone,
    SendsNow,
)
from media_bridge.providers.fallback import Changed, Failed, Lineup, Member, understood
from stayline.errors import ProviderError
from stayline.timeline import ChangeReason

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT: Final = 5.0
"""Seconds in which a model must accept a session and its configuration."""
ROUNDS: Final = 3
"""How often all models are tried in a row, at least, before the call is given up …"""
PATIENCE: Final = 5.0
"""… and for how many seconds. A caller endures that; the next call would meet the same vendors."""
PAUSE: Final = 0.5
"""Seconds before the second round, and before the second connection in a row; then twice that, …"""
LOSSES: Final = 4
"""Losses in a row, without a whole response between them, after which no model is tried any more."""
RETRY_SECONDS: Final = 5.0
"""Pause after a renewal that failed while the old connection still holds."""
WATCH_SECONDS: Final = 0.2
READ_OUT_SECONDS: Final = 0.1
"""Given to the reader of a connection that takes nothing any more."""

Send = Callable[[RealtimeSession], Awaitable[None]]


class _Renew(Exception):
    """The connection is to be replaced, for this reason."""

    def __init__(self, why: ChangeReason) -> None:
        super().__init__(why)
        self.why: ChangeReason = why


class ModelLink:
    """Keeps a call connected.

    Args:
        request: what a session begins with, given a handle to resume or "".
        heard: told of each event, with the position in the caller's audio (milliseconds) at which the connection's
            own positions begin.
        lost: told when there is no connection any more.
        back: told when there is one: its profile, and whether it is the old conversation with its open tool calls.
        may_renew: whether nobody would notice a change now.
        needed_from: position of the caller's audio from which a new connection must hear it.
    """

    def __init__(
        self,
        models: Lineup[RealtimeProvider],
        request: Callable[[str], RealtimeRequest],
        heard: Callable[[RealtimeEvent, int], None],
        lost: Callable[[], None],
        back: Callable[[RealtimeProfile, bool], None],
        may_renew: Callable[[], bool],
        needed_from: Callable[[], int],
        failed: Failed,
        changed: Changed,
    ) -> None:
        self._models = models
        self._request = request
        self._heard = heard
        self._lost = lost
        self._back = back
        self._may_renew = may_renew
        self._needed_from = needed_from
        self._failed = failed
        self._changed = changed
        self._kept = KeptSound()
        self._quiet = QuietTogether()
        self._frames: deque[bytes] = deque()  #: not sent yet
        self._outbox: deque[Send] = deque()
        self._now: Callable[[bytes], bool] | None = None  #: sends a frame at once, if it can
        self._more_audio = asyncio.Event()
        self._more_words = asyncio.Event()
        self._connected = False
        self._current: Member[RealtimeProvider] | None = None
        self._session: RealtimeSession | None = None
        self._next: tuple[Member[RealtimeProvider], RealtimeSession] | None = None  #: accepted, to be taken up
        self._offset = 0
        self._health = ModelHealth(0.0, None, suspicious=True)
        self._losses = 0
        self._retry_at = 0.0

    # --- the pipeline's side ---

    def audio(self, frame: bytes, loudness: int) -> None:
        """Caller audio, μ-law, and its `loudness`."""
        self._kept.add(frame)
        if not self._connected:
            return
        if loudness > LOUD:
            self._health.loud(mulaw.bytes_to_ms(len(frame)))
        piece = self._quiet.add(frame, loudness)
        if piece and (self._frames or self._now is None or not self._now(piece)):
            self._frames.append(piece)
            self._more_audio.set()
        self._forget_what_was_understood()

    def send(self, what: Send) -> None:
        """Ask or tell the model something, in order. Lost with the connection: whoever asked asks again."""
        self._outbox.append(what)
        self._more_words.set()

    def give_up(self) -> None:
        """The model owes something and is silent: leave it."""
        self._health.gave_up = True

    async def run(self) -> None:
        """Keep the call connected until cancelled.

        Raises:
            ProviderError: no model could be kept.
        """
        why: ChangeReason | None = None
        try:
            while True:
                await self._connect(why)
                why = await self._hold()
        finally:
            if self._next is not None:
                await _close(self._next[1])
            await self._leave()

    def _forget_what_was_understood(self) -> None:
        if self._health.has_proven(_now()):
            self._kept.needed_from(self._needed_from())

    # --- connecting ---

    async def _connect(self, why: ChangeReason | None) -> None:
        """Take up a session with the best model that accepts one.

        Raises:
            ProviderError: none does.
        """
        if self._next is not None:
            (member, session), self._next = self._next, None
            await self._leave()
            self._take_up(member, session, resumed=False)
            return
        current, handle = self._current, ""
        if why == "renewed" and current is not None and self._session is not None:
            handle = self._session.handle if current.provider.profile.can_resume else ""
        await self._leave()  # also because a vendor refuses a handle whose connection still lives
        if handle and current is not None:
            try:
                session = await self._open(current, self._request(handle))
            except ProviderError as error:
                self._failed("realtime", error)
            else:
                self._take_up(current, session, resumed=True)
                return
        last = ProviderError("realtime", "no provider is configured", retryable=False)
        begun, rounds = _now(), 0
        while rounds < ROUNDS or _now() - begun < PATIENCE:
            await asyncio.sleep(PAUSE * max(rounds, self._losses - 1))
            rounds += 1
            hopeless = True
            for member in self._models.order():
                try:
                    session = await self._open(member, self._request(""))
                except ProviderError as failure:
                    last, hopeless = failure, hopeless and not failure.retryable
                    self._models.failed(member, failure)
                    self._failed("realtime", failure)
                    continue
                self._take_up(member, session, resumed=False, renewed=why == "renewed")
                return
            if hopeless:
                break
        raise last

    async def _open(self, member: Member[RealtimeProvider], request: RealtimeRequest) -> RealtimeSession:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await member.provider.connect(request)
        except Exception as error:
            raise understood(member.ref, error) from error

    def _take_up(
        self, member: Member[RealtimeProvider], session: RealtimeSession, *, resumed: bool, renewed: bool = True
    ) -> None:
        """`renewed`: for the same model this is a change that is worth a record."""
        before, self._current, self._session = self._current, member, session
        if before is not None and before is not member:
            members = self._models.members
            better = members.index(member) < members.index(before)
            self._changed("realtime", member.ref, "recovered" if better else "failed")
        elif before is not None and renewed:
            self._changed("realtime", member.ref, "renewed")
        self._outbox.clear()
        self._quiet.drop()
        self._frames = self._kept.frames
        self._now = session.send_now if isinstance(session, SendsNow) else None
        self._more_audio.set()
        self._offset = self._kept.start_ms
        profile, now = member.provider.profile, _now()
        suspicious = self._health.hears or not self._health.is_deaf(now)
        self._health = ModelHealth(now, profile.session_seconds, suspicious=suspicious)
        self._retry_at = 0.0
        self._connected = True
        self._back(profile, resumed)

    def _disconnected(self) -> None:
        """From this moment on nothing is heard of the old connection, and nothing sent to it."""
        if self._connected:
            self._forget_what_was_understood()  # the last of it since the caller's last frame
            self._connected = False
            self._now = None
            self._frames.clear()
            self._lost()

    async def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await _close(session)

    # --- holding ---

    async def _hold(self) -> ChangeReason:
        """Carry audio, words and events until the connection is lost or to be replaced; says why.

        Raises:
            ProviderError: it was lost, as often as that is borne.
        """
        session = self._session
        assert session is not None
        errors: BaseExceptionGroup[Exception] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(session))
                group.create_task(self._send_audio(session))
                group.create_task(self._send_words(session))
                group.create_task(self._watch())
        except* (ProviderError, _Renew) as found:
            errors = found
        self._disconnected()
        assert errors is not None
        whys = [error.why for error in errors.exceptions if isinstance(error, _Renew)]
        lost = [error for error in errors.exceptions if isinstance(error, ProviderError)]
        if lost and self._next is None:
            self._losses += 1
            if self._current is not None:
                self._models.failed(self._current, lost[0])
            self._failed("realtime", lost[0])
            if self._losses >= LOSSES:
                raise lost[0]
            return "failed"
        return whys[0]

    async def _read(self, session: RealtimeSession) -> None:
        events = aiter(session)
        while True:
            try:
                event = await anext(events)
            except StopAsyncIteration:
                raise ProviderError(self._ref, "the session ended", retryable=True) from None
            except Exception as error:
                raise understood(self._ref, error) from error
            if not self._connected:
                return
            self._note(event)
            if not isinstance(event, Expiring):
                self._heard(event, self._offset)
            if isinstance(event, ResponseAudio):
                await asyncio.sleep(0)  # of much sound at once, the caller gets the first before the last is read

    def _note(self, event: RealtimeEvent) -> None:
        self._health.note(event, _now())
        if not isinstance(event, ResponseDone):
            return
        if event.status == "failed":
            self._failed("realtime", ProviderError(self._ref, event.error or "a response failed", retryable=True))
        else:
            self._losses = 0
            if self._current is not None:
                self._models.worked(self._current)

    async def _send_audio(self, session: RealtimeSession) -> None:
        while True:
            while self._frames:
                await self._do(session.send(self._frames.popleft()))
            self._more_audio.clear()
            await self._more_audio.wait()

    async def _send_words(self, session: RealtimeSession) -> None:
        while True:
            while self._outbox:
                await self._do(self._outbox.popleft()(session))
            self._more_words.clear()
            await self._more_words.wait()

    async def _do(self, what: Awaitable[None]) -> None:
        try:
            await what
        except Exception as error:
            await asyncio.sleep(READ_OUT_SECONDS)  # what came before the loss is read first; that ends this, too
            raise understood(self._ref, error) from error

    # --- watching ---

    async def _watch(self) -> None:
        """
        Raises:
            ProviderError: the model is silent or deaf.
            _Renew: the connection is to be replaced.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            current, now = self._current, _now()
            if current is None or not self._connected:
                return
            if complaint := self._health.complaint(now):
                raise ProviderError(self._ref, complaint, retryable=True)
            if self._health.must_be_renewed(now):
                self._disconnected()
                raise _Renew("renewed")
            if now < self._retry_at or not self._may_renew():
                continue
            if self._health.may_be_renewed(now):
                await self._renew(current)
            elif self._models.better_than(current) and (best := self._models.order()[0]) is not current:
                await self._change_to(best, "recovered")

    async def _renew(self, current: Member[RealtimeProvider]) -> None:
        if current.provider.profile.can_resume and self._session is not None and self._session.handle:
            self._disconnected()
            raise _Renew("renewed")
        await self._change_to(current, "renewed")

    async def _change_to(self, member: Member[RealtimeProvider], why: ChangeReason) -> None:
        """Connect while the old connection still holds, and change over if that is still noticed by nobody."""
        request = self._request("")
        try:
            session = await self._open(member, request)
        except ProviderError as error:
            self._models.failed(member, error)
            self._failed("realtime", error)
            self._retry_at = _now() + RETRY_SECONDS
            return
        if self._connected and self._may_renew() and self._request("") == request:
            self._next = (member, session)
            self._disconnected()
            raise _Renew(why)
        await _close(session)

    @property
    def _ref(self) -> str:
        return self._current.ref if self._current is not None else "realtime"


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _close(session: RealtimeSession) -> None:
    try:
        async with asyncio.timeout(1.0):
            await session.aclose()
    except Exception as error:  # nobody needs it any more
        log.debug("session_not_closed", kind=type(error).__name__)
