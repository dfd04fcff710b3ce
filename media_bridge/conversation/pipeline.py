"""The text pipeline of one attached call: carries out what `Conversation` decides.

STT events, language-model tokens, audio and marks become events; commands become tasks and frames. There are no
decisions here. Everything runs on one event loop, so an event and all that follows from it is one step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog

from media_bridge.audio import playout as out
from media_bridge.call_link import CallLink
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.core import Conversation
from media_bridge.conversation.ear import Ear
from media_bridge.conversation.observer import SessionObserver
from media_bridge.conversation.reply import ReplyFailure, stream_reply
from media_bridge.conversation.voice import Voice
from media_bridge.providers.loading import Providers
from media_bridge.records import RecordSender
from stayline.errors import ProviderError
from stayline.messages import Grant
from stayline.timeline import CallError

log = structlog.get_logger(__name__)

RECORD_PATIENCE = 0.25
"""Seconds that a tool waits for the records before it; Temporal may be away, and the tool is asked for anyway."""


class TextPipeline:
    """STT, language model and TTS around one conversation.

    Args:
        grant: what the workflow gave.
        send: queues messages for the carrier; never blocks.
        records: takes timeline events for the workflow; never blocks.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        grant: Grant,
        providers: Providers,
        link: CallLink,
        send: Callable[[list[out.Outbound]], None],
        records: RecordSender,
        clock: Callable[[], float],
    ) -> None:
        self._grant = grant
        self._agent = grant.agent
        self._providers = providers
        self._link = link
        self._send = send
        self._records = records
        self._clock = clock
        self._t0 = clock()
        self._audio_t0: int | None = None  #: stream time of the first caller frame
        self._playout = out.Playout()
        self._conversation = Conversation(
            grant.agent,
            datetime.now(UTC),
            grant.messages,
            grant.running_tools,
            grant.resumed,
            grant.note,
        )
        call_id = grant.call.call_id
        self._ear = Ear(providers.stt, call_id, self._heard, self._provider_failed)
        self._voice = Voice(providers.tts, call_id, self._audio, self._voiced, self._provider_failed)
        self._observer = SessionObserver(grant)
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._replies: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._inbox: deque[ev.Event] = deque()
        self._busy = False
        self._said_at: dict[int, int] = {}  #: utterance -> stream time of its first clause
        self._tts_ms: dict[int, int] = {}  #: utterance -> milliseconds from there to its first audio
        self._done = asyncio.Event()

    @property
    def heard_ms(self) -> int:
        """Milliseconds of agent audio that the caller heard so far."""
        return self._playout.heard_ms

    @property
    def silent(self) -> bool:
        """Nobody speaks, and nobody is about to."""
        return self._conversation.silent

    # --- the session's side ---

    async def run(self) -> None:
        """Hold the conversation until it closes the stream, or until cancelled.

        Raises:
            ProviderError: the caller cannot be heard with any provider.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._spawn(self._voice.run())
                self._spawn(self._listen())
                self.feed(ev.CallStarted())
                await self._done.wait()
                for task in list(self._running):
                    task.cancel()
        finally:
            self._tasks = None
            for timer in self._timers.values():
                timer.cancel()
            self._observer.close()

    def audio_in(self, audio: bytes) -> None:
        """One frame from the caller."""
        if self._audio_t0 is None:
            self._audio_t0 = self._now()
        self._ear.audio(audio)
        self.pump()

    def mark(self, name: str) -> None:
        self._playout.mark(name, self._now())
        self.pump()

    def stream_gone(self) -> None:
        """The carrier's stream ended: settle what was heard, then stop."""
        self.feed(ev.StreamGone())
        self._done.set()

    def feed(self, event: ev.Event) -> None:
        """Take one event and carry out what follows from it, in order, before anything else."""
        self._inbox.append(event)
        if self._busy or self._tasks is None:  # the carrier's last frames may come after the end
            return
        self._busy = True
        try:
            while self._inbox:
                item = self._inbox.popleft()
                self._observer.event(item)
                for command in self._conversation.handle(item, self._now()):
                    self._observer.command(command)
                    self._carry_out(command)
        finally:
            self._busy = False

    def pump(self) -> None:
        """Send what is due; called with every caller frame, mark and piece of speech."""
        messages, news = self._playout.due(self._now())
        if messages:
            self._send(messages)
        for item in news:
            if isinstance(item, out.Started):
                self.feed(ev.SpeechBegan(item.utterance, self._tts_ms.pop(item.utterance, None)))
            else:
                self._speech_ended(item)

    # --- commands ---

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.Say(utterance, text):
                if self._playout.add_text(utterance, text):
                    self._said_at[utterance] = self._now()
                self._voice.say(utterance, text)
            case do.EndUtterance(utterance):
                self._voice.end(utterance)
            case do.PauseSpeech():
                self._send(self._playout.pause(self._now()))
            case do.ResumeSpeech():
                self._playout.resume()
                self.pump()
            case do.DropSpeech():
                self._voice.drop()
                messages, ended = self._playout.drop(self._now())
                self._send(messages)
                for item in ended:
                    self._speech_ended(item)
            case do.StopAfterSentence():
                self._playout.stop_after_sentence(self._now())
                self.pump()
            case do.StartReply(reply):
                self._replies[reply] = self._spawn(self._reply(command))
            case do.CancelReply(reply):
                if (task := self._replies.pop(reply, None)) is not None:
                    task.cancel()
            case do.RunTool():
                self._spawn(self._run_tool(command))
            case do.Record(event):
                self._records.put(event)
            case do.StartTimer(name, ms):
                self._stop_timer(name)
                loop = asyncio.get_running_loop()
                self._timers[name] = loop.call_later(ms / 1000, self._timer, name)
            case do.StopTimer(name):
                self._stop_timer(name)
            case do.Close():
                self._done.set()

    def _stop_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self.feed(ev.TimerFired(name))

    async def _reply(self, command: do.StartReply) -> None:
        reply = command.reply
        try:
            async for event in stream_reply(
                self._providers.llm, self._grant, reply, command.messages, self._provider_failed
            ):
                if reply not in self._replies:
                    return
                if isinstance(event, (ev.ReplyText, ev.ReplyTool)):
                    self.feed(event)
                else:
                    self._records.put(event)
        except ReplyFailure:
            self._replies.pop(reply, None)
            self.feed(ev.ReplyFailed(reply))
        else:
            self._replies.pop(reply, None)
            self.feed(ev.ReplyDone(reply))

    async def _run_tool(self, command: do.RunTool) -> None:
        # The question stands in the record before the tool that it led to.
        await self._records.caught_up(RECORD_PATIENCE)
        with self._observer.tool(command.call):
            outcome = await self._link.run_tool(self._grant.session, command.call)
        self.feed(ev.ToolDone(outcome))

    # --- voice and ear ---

    async def _listen(self) -> None:
        try:
            await self._ear.run()
        except ProviderError:
            # Every recogniser failed: say so, and let the workflow end the call.
            self.feed(ev.SayRequested(self._agent.apology_text, "apology"))
            await self._link.end("no speech recogniser works")

    def _heard(self, event: ev.Event) -> None:
        if isinstance(event, ev.CallerTurn) and event.speech_end_ms is not None:
            event = ev.CallerTurn(
                event.text, event.confidence, event.speech_end_ms + (self._audio_t0 or 0), event.speech_ms
            )
        self.feed(event)

    def _audio(self, utterance: int, audio: bytes, chars: int | None) -> None:
        if (said := self._said_at.pop(utterance, None)) is not None:
            self._tts_ms[utterance] = self._now() - said
        self._playout.add_audio(utterance, audio, chars)
        self.pump()

    def _voiced(self, utterance: int) -> None:
        self._playout.close(utterance)
        self.pump()

    def _speech_ended(self, ended: out.Ended) -> None:
        self._said_at.pop(ended.utterance, None)
        self._tts_ms.pop(ended.utterance, None)
        self.feed(ev.SpeechEnded(ended.utterance, ended.heard, ended.complete, ended.speech_ms))

    def _provider_failed(self, role: str, error: ProviderError) -> None:
        log.warning("provider_failed", role=role, provider=error.provider, status=error.status)
        self._observer.failover(role, error)
        at = datetime.now(UTC)
        self._records.put(
            CallError(at=at, where=role, provider=error.provider, message=str(error), retryable=error.retryable)
        )

    # --- inside ---

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the session at the latest."""
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _now(self) -> int:
        return int((self._clock() - self._t0) * 1000)
