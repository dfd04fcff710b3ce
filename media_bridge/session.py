"""One attachment of a call to this bridge: a carrier stream, a pipeline, a record.

The reader never waits: while the workflow is asked for the grant, caller audio gathers. Whatever goes wrong
ends this session only; the call itself belongs to the workflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, Protocol

import structlog
from temporalio.client import Client

from media_bridge.audio import playout as out
from media_bridge.audio.line import Line
from media_bridge.audio.mulaw import BYTES_PER_MS
from media_bridge.audio.recording import StereoRecorder
from media_bridge.call_link import CallLink
from media_bridge.carriers import twilio_stream
from media_bridge.conversation import events as ev
from media_bridge.conversation.realtime_pipeline import RealtimePipeline
from media_bridge.conversation.text_pipeline import TextPipeline
from media_bridge.live_events import LiveEvents
from media_bridge.providers.loading import Providers
from media_bridge.records import RecordSender
from stayline import logs, telemetry
from stayline.messages import Grant
from stayline.models import AgentSpec
from stayline.settings import Settings
from stayline.telemetry import attributes as attr
from stayline.timeline import AgentSource, SessionClosed

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 5.0
"""Seconds that a closing session gives its last records before they are left to the spool."""

BACKLOG_FRAMES = 500
"""Caller frames (10 s) kept while the grant is awaited."""

CloseReason = Literal["stopped", "closed", "lost"]


class Socket(Protocol):
    """What a session needs of a websocket."""

    async def send_str(self, data: str) -> None: ...

    async def close(self) -> object: ...


class Session:
    """Holds one call's audio from the grant to the end of the stream."""

    def __init__(
        self,
        grant: Grant,
        stream_sid: str,
        socket: Socket,
        client: Client,
        settings: Settings,
        providers_for: Callable[[AgentSpec], Providers],
        live: LiveEvents,
    ) -> None:
        self.grant = grant
        self.call_id = grant.call.call_id
        self.closed = asyncio.Event()
        self._closing = False
        self._stream_sid = stream_sid
        self._socket = socket
        self._records = RecordSender(
            client,
            self.call_id,
            grant.session,
            settings.spool_dir,
            lambda: (self._audio_in_ms, self._pipeline.heard_ms),
        )
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._audio_in_ms = 0
        self._line = Line()
        self._recorder: StereoRecorder | None = None
        if settings.record_audio and grant.agent.record_audio:
            path = settings.recordings_dir / f"{self.call_id}-{grant.session}.wav"
            self._recorder = StereoRecorder(path)
        self._reason: CloseReason = "closed"
        self._link = CallLink(client, self.call_id)
        pipeline = RealtimePipeline if grant.agent.mode == "realtime" else TextPipeline
        self._pipeline = pipeline(
            grant,
            providers_for(grant.agent),
            self._link,
            self._send,
            self._records,
            time.monotonic,
        )
        self._live = live.open(self.call_id, grant.session)
        self._pipeline.watch(self._live)

    async def run(self) -> None:
        """Hold the conversation until it ends or the stream does."""
        telemetry.metrics.session_opened(self.grant.resumed)
        context = telemetry.call_context(self.grant.traceparent)
        common: dict[str, str | int] = {
            attr.CALL_ID: self.call_id,
            attr.SESSION: self.grant.session,
            attr.AGENT: self.grant.agent.name,
        }
        logs.bind_call(self.call_id, self.grant.session)
        with telemetry.span(attr.SPAN_SESSION, attributes=common, context=context):
            log.info("session_opened", resumed=self.grant.resumed)
            sending = asyncio.create_task(self._records.run())
            writing = asyncio.create_task(self._write())
            try:
                await self._pipeline.run()
            except Exception as error:
                self._reason = "lost"
                log.exception("session_failed", kind=type(error).__name__)
            finally:
                await self._finish(sending, writing)
                telemetry.metrics.session_closed(self._reason)
                log.info("session_closed", reason=self._reason)

    async def _finish(self, sending: asyncio.Task[None], writing: asyncio.Task[None]) -> None:
        self._closing = True
        self._live.close()
        for task in (sending, writing):
            task.cancel()
        await asyncio.wait({sending, writing})
        recording = ""
        if self._recorder is not None:
            recording = str(self._recorder.path)
            self._recorder.close()
        self._records.put(
            SessionClosed(
                at=datetime.now(UTC),
                session=self.grant.session,
                reason=self._reason,
                recording=recording,
                audio_in_ms=self._audio_in_ms,
                audio_out_ms=self._pipeline.heard_ms,
            )
        )
        # The record goes first: the carrier asks what is next as soon as the socket closes.
        await self._records.close(CLOSE_TIMEOUT)
        with contextlib.suppress(ConnectionError):
            await self._socket.close()
        self.closed.set()

    # --- from the carrier ---

    def receive(self, message: twilio_stream.Message) -> None:
        """One message of the stream, after `start`."""
        match message:
            case twilio_stream.Media(audio=audio):
                self._audio_in_ms += len(audio) // BYTES_PER_MS
                self._live.audio("audio_received", len(audio))
                agent = self._line.frame(len(audio))
                if self._recorder is not None:
                    self._recorder.write(audio, agent)
                self._pipeline.audio_in(audio)
            case twilio_stream.Mark(name=name):
                self._pipeline.mark(name)
            case twilio_stream.DtmfPressed(digit=digit):
                self._pipeline.feed(ev.KeyPressed(digit))
            case twilio_stream.Stop():
                self.stream_gone("stopped")
            case _:
                pass

    def stream_gone(self, reason: CloseReason) -> None:
        """The stream ended. The first reason counts; a session that closes by itself has one already."""
        if not self._closing:
            self._closing = True
            self._reason = reason
            self._pipeline.stream_gone()

    # --- from the workflow ---

    def say(self, text: str, source: AgentSource) -> bool:
        """Say something. A sentence meant for silence is not said when somebody speaks; False then."""
        if source == "silence" and not self._pipeline.silent:
            return False
        if text:
            self._pipeline.feed(ev.SayRequested(text, source))
        return True

    def interrupt(self) -> None:
        """Have the agent fall silent now."""
        self._pipeline.feed(ev.InterruptRequested())

    def close(self, say: str) -> None:
        """Say it, let it be heard, close the stream."""
        self._pipeline.feed(ev.CloseRequested(say))

    # --- to carrier and workflow ---

    def _send(self, messages: list[out.Outbound]) -> None:
        for message in messages:
            match message:
                case out.SendAudio(audio):
                    self._line.sent(audio)
                    self._live.audio("audio_sent", len(audio))
                    self._outbox.put_nowait(twilio_stream.media(self._stream_sid, audio))
                case out.SendMark(name):
                    self._outbox.put_nowait(twilio_stream.mark(self._stream_sid, name))
                case out.SendClear():
                    self._line.clear()
                    self._outbox.put_nowait(twilio_stream.clear(self._stream_sid))

    async def _write(self) -> None:
        try:
            while True:
                await self._socket.send_str(await self._outbox.get())
        except ConnectionError:  # the reader notices the same and ends the session
            return


class Backlog:
    """Frames that arrive while the grant is awaited, handed to the session in order."""

    def __init__(self) -> None:
        self._messages: deque[twilio_stream.Message] = deque(maxlen=BACKLOG_FRAMES)

    def receive(self, message: twilio_stream.Message) -> None:
        self._messages.append(message)

    def hand_over(self, session: Session) -> None:
        while self._messages:
            session.receive(self._messages.popleft())
