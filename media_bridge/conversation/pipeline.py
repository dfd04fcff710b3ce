"""What both pipelines of an attached call share: they carry out what a pure core decides.

Events go to the core one by one; commands become frames, timers, tasks and records. There are no decisions here.
Everything runs on one event loop, so an event and all that follows from it is one step.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from media_bridge.audio import playout as out
from media_bridge.audio.line import CallerAudio
from media_bridge.call_link import CallLink
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.cancellation import end
from media_bridge.conversation.observer import SessionObserver
from media_bridge.records import RecordSender
from stayline.catalog import Role
from stayline.errors import ProviderError
from stayline.messages import Grant
from stayline.timeline import CallError, ChangeReason, ProviderChanged

log = structlog.get_logger(__name__)

RECORD_PATIENCE = 0.25
"""Seconds that a tool waits for the records before it; Temporal may be away, and the tool is asked for anyway."""


class Core(Protocol):
    """A pure turn-taking machine."""

    @property
    def silent(self) -> bool: ...

    def handle(self, event: ev.Event, at_ms: int) -> list[do.Command]: ...


class Watcher(Protocol):
    """Is shown what happens and what is done about it, as it happens. Must neither block nor raise."""

    def event(self, event: ev.Event) -> None: ...

    def command(self, command: do.Command) -> None: ...


class Pipeline(ABC):
    """One conversation and everything around it but its providers.

    Args:
        grant: what the workflow gave.
        core: decides.
        send: queues messages for the carrier; never blocks.
        records: takes timeline events for the workflow; never blocks.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        grant: Grant,
        core: Core,
        link: CallLink,
        send: Callable[[list[out.Outbound]], None],
        records: RecordSender,
        clock: Callable[[], float],
    ) -> None:
        self._grant = grant
        self._agent = grant.agent
        self._core = core
        self._link = link
        self._send = send
        self._records = records
        self._clock = clock
        self._t0 = clock()
        self._caller = CallerAudio()
        self._playout = out.Playout()
        self._observer = SessionObserver(grant)
        self._watchers: list[Watcher] = [self._observer]
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._inbox: deque[ev.Event] = deque()
        self._busy = False
        self._done = asyncio.Event()
        self._mute = False  #: no provider speaks any more; the carrier has been asked to

    @property
    def heard_ms(self) -> int:
        """Milliseconds of agent audio that the caller heard so far."""
        return self._playout.heard_ms

    @property
    def silent(self) -> bool:
        """Nobody speaks, and nobody is about to."""
        return self._core.silent

    def watch(self, watcher: Watcher) -> None:
        """Show somebody else too what happens."""
        self._watchers.append(watcher)

    # --- what a pipeline adds ---

    @abstractmethod
    def _begin(self) -> None:
        """Start its tasks with `_spawn`."""

    @abstractmethod
    def _listen_to(self, audio: bytes) -> None:
        """One frame from the caller."""

    @abstractmethod
    def _provide(self, command: do.Command) -> None:
        """Carry out a command that needs a provider."""

    def _tts_ms(self, utterance: int) -> int | None:
        """From the utterance's first clause to its first audio."""
        return None

    # --- the session's side ---

    async def run(self) -> None:
        """Hold the conversation until it closes the stream, or until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._begin()
                self.feed(ev.CallStarted())
                await self._done.wait()
                await end(self._running)
        finally:
            self._tasks = None
            for timer in self._timers.values():
                timer.cancel()
            self._observer.close()

    def audio_in(self, audio: bytes) -> None:
        """One frame from the caller."""
        now = self._now()
        self._caller.frame(len(audio), now)
        self._playout.frame(now)
        self._listen_to(audio)
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
                for watcher in self._watchers:
                    watcher.event(item)
                for command in self._core.handle(item, self._now()):
                    for watcher in self._watchers:
                        watcher.command(command)
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
                self.feed(ev.SpeechBegan(item.utterance, self._tts_ms(item.utterance)))
            else:
                self._speech_ended(item)

    # --- commands ---

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.PauseSpeech():
                self._send(self._playout.pause(self._now()))
            case do.ResumeSpeech():
                self._playout.resume()
                self.pump()
            case do.StopAfterSentence():
                self._playout.stop_after_sentence(self._now())
                self.pump()
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
            case _:
                self._provide(command)

    def _drop_speech(self) -> None:
        messages, ended = self._playout.drop(self._now())
        self._send(messages)
        for item in ended:
            self._speech_ended(item)

    def _stop_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self.feed(ev.TimerFired(name))

    async def _run_tool(self, command: do.RunTool) -> None:
        # The question stands in the record before the tool that it led to.
        await self._records.caught_up(RECORD_PATIENCE)
        with self._observer.tool(command.call):
            outcome = await self._link.run_tool(self._grant.session, command.call)
        self.feed(ev.ToolDone(outcome))

    def _speech_ended(self, ended: out.Ended) -> None:
        self.feed(ev.SpeechEnded(ended.utterance, ended.heard, ended.complete, ended.speech_ms))

    # --- providers ---

    def _provider_failed(self, role: str, error: ProviderError) -> None:
        log.warning("provider_failed", role=role, provider=error.provider, status=error.status)
        self._observer.failover(role, error)
        at = datetime.now(UTC)
        self._records.put(
            CallError(at=at, where=role, provider=error.provider, message=str(error), retryable=error.retryable)
        )

    def _provider_changed(self, role: Role, ref: str, why: ChangeReason) -> None:
        log.info("provider_changed", role=role, provider=ref, why=why)
        self._observer.serves(role, ref)
        self._records.put(ProviderChanged(at=datetime.now(UTC), role=role, provider=ref, why=why))

    def _voiceless(self) -> None:
        """No provider speaks any more: the carrier itself says so and ends the call. Never silence."""
        if not self._mute:
            self._mute = True
            why = "nothing is left that can speak"
            self._spawn(self._link.end(why, say=self._agent.apology_text, by_carrier=True))

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
