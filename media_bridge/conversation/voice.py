"""The agent's voice in one call: clauses in, audio out, one utterance after the other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Self

from media_bridge.providers.base import SpeechChunk, TtsProvider, TtsSession, Utterance
from media_bridge.providers.fallback import Changed, Failed, Lineup, Member, understood
from stayline.errors import ProviderError

AUDIO_TIMEOUT = 8.0
"""Seconds without audio after which a voice that still owes some has failed."""

ROUNDS = 3
"""How often all voices are tried for an utterance before the agent is mute."""

PAUSE = 0.5
"""Seconds before the second round; twice that before the third."""

CLOSE_TIMEOUT = 1.0
"""Seconds that a failed voice has to say goodbye before the next one is tried."""


@dataclasses.dataclass(slots=True)
class _Job:
    """One utterance to speak. `clauses` is read by the voice task while the reply still fills it."""

    id: int
    clauses: deque[str] = dataclasses.field(default_factory=deque)
    ended: bool = False
    said: str = ""  #: everything that was ever asked for, for a second provider
    touched: float = 0.0  #: loop time of the last clause or of the end
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def touch(self) -> None:
        self.touched = asyncio.get_running_loop().time()
        self.changed.set()


class Voice:
    """Speaks utterances in order through the first TTS provider that works.

    Args:
        audio: told of each chunk: utterance, μ-law audio, characters spoken at its end (or None).
        done: told when an utterance has no more audio, also when it failed or was dropped while it was spoken.
        failed, changed: told of each failure of a provider, and when another one speaks.
        mute: told when nobody could speak an utterance.
    """

    def __init__(
        self,
        providers: Lineup[TtsProvider],
        call_id: str,
        audio: Callable[[int, bytes, int | None], None],
        done: Callable[[int], None],
        failed: Failed,
        changed: Changed,
        mute: Callable[[], None],
    ) -> None:
        self._providers = providers
        self._call_id = call_id
        self._audio = audio
        self._done = done
        self._failed = failed
        self._changed = changed
        self._mute = mute
        self._member: Member[TtsProvider] | None = None  #: who speaks, or spoke last
        self._jobs: deque[_Job] = deque()
        self._session: TtsSession | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._closed = False
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def say(self, utterance: int, text: str) -> None:
        job = next((j for j in self._jobs if j.id == utterance), None)
        if job is None:
            job = _Job(utterance)
            self._jobs.append(job)
        job.clauses.append(text)
        job.said += text
        job.touch()
        self._go_on()

    def end(self, utterance: int) -> None:
        job = next((j for j in self._jobs if j.id == utterance), None)
        if job is not None:
            job.ended = True
            job.touch()

    def drop(self) -> None:
        """Give up everything that is being or waits to be spoken."""
        self._jobs.clear()
        if self._speaking is not None:
            self._speaking.cancel()

    async def run(self) -> None:
        """Hold the connection until cancelled; raises what nobody could expect."""
        try:
            await self._broken
        finally:
            self._closed = True
            if self._speaking is not None:
                self._speaking.cancel()
                await asyncio.wait({self._speaking})
            if self._session is not None:
                await self._session.aclose()

    def _go_on(self) -> None:
        """Speak the next utterance, if none is being spoken."""
        if self._speaking is None and self._jobs and not self._closed:
            job = self._jobs[0]
            self._speaking = asyncio.create_task(self._speak(job))
            self._speaking.add_done_callback(lambda task: self._spoken(job, task))

    def _spoken(self, job: _Job, task: asyncio.Task[None]) -> None:
        self._speaking = None
        error = None if task.cancelled() else task.exception()
        if self._closed or self._broken.done():  # nobody would look at the error any more
            return
        if error is not None:
            self._broken.set_exception(error)
            return
        if self._jobs and self._jobs[0] is job:
            self._jobs.popleft()
        self._done(job.id)
        self._go_on()

    async def _speak(self, job: _Job) -> None:
        """Speak one utterance. Where a voice fails, the next one goes on with what was not spoken yet."""
        for number in range(ROUNDS):
            if number:
                await asyncio.sleep(PAUSE * number)
            for _ in self._providers.members:
                try:
                    member, session = await self._connected()
                except ProviderError:
                    break  # nobody accepts, and each was reported
                try:
                    await self._speak_with(member, session, job)
                    return
                except Exception as failure:
                    error = understood(member.ref, failure)
                    self._providers.failed(member, error)
                    self._failed("tts", error)
                    await self._leave()
                if job.ended and not job.clauses:
                    return
        self._mute()

    async def _speak_with(self, member: Member[TtsProvider], session: TtsSession, job: _Job) -> None:
        """Speak what is left of an utterance; if that fails, `job.clauses` is what is left then."""
        begin = len(job.said) - sum(map(len, job.clauses))  # its characters count from here
        spoken: int | None = begin

        def heard(chunk: SpeechChunk) -> None:
            nonlocal spoken
            if spoken == begin:
                self._providers.worked(member)
            spoken = None if chunk.chars is None else begin + chunk.chars
            self._audio(job.id, chunk.audio, spoken)

        job.touch()  # the time that it waited for its turn, or for a voice that failed, is not this voice's
        try:
            async with asyncio.timeout(AUDIO_TIMEOUT):
                utterance = await session.utterance()
            await _hear(utterance, job, heard)
        except Exception:
            if spoken is not None:  # else the voice does not tell: what it was not given yet is left
                job.clauses = deque(filter(None, [job.said[spoken:]]))
            raise

    async def _connected(self) -> tuple[Member[TtsProvider], TtsSession]:
        """The session that is there, unless a better voice is to be had; else a new one."""
        before = self._member
        if self._session is not None and before is not None:
            if not self._providers.better_than(before):
                return before, self._session
            await self._leave()
        member, session = await self._providers.connect(
            lambda provider: provider.connect(call_id=self._call_id), self._failed
        )
        self._member, self._session = member, session
        if before is not None and member is not before:
            better = self._providers.members.index(member) < self._providers.members.index(before)
            self._changed("tts", member.ref, "recovered" if better else "failed")
        return member, session

    async def _leave(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await session.aclose()
            except Exception as error:  # nobody needs it any more, and its failure was told already
                understood("tts", error)


async def _hear(utterance: Utterance, job: _Job, heard: Callable[[SpeechChunk], None]) -> None:
    """Feed an utterance with the job's text, and tell of its audio, until it has no more.

    Raises:
        TimeoutError: no audio came, though some was due.
    """
    failure: Exception | None = None
    try:
        async with asyncio.timeout(AUDIO_TIMEOUT):
            if job.clauses:  # at once: nobody else has to have their turn first
                await utterance.send(job.clauses[0])
                job.clauses.popleft()
        async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(utterance, job))
            with _Watch(job, patience) as watch:
                async for chunk in utterance:
                    watch.heard()
                    heard(chunk)
                    await asyncio.sleep(0)  # of much sound at once, the caller gets the first before the rest
            feeding.cancel()
    except* Exception as errors:
        failure = errors.exceptions[0]
    finally:
        await utterance.cancel()
    if failure is not None:
        raise failure


class _Watch:
    """Ends its time-out when audio is overdue. Without new text for a while silence is the language model's doing,
    not the voice's."""

    def __init__(self, job: _Job, patience: asyncio.Timeout) -> None:
        self._job = job
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()

    def heard(self) -> None:
        self._heard_at = self._loop.time()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(AUDIO_TIMEOUT, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = max(self._heard_at, self._job.touched)
        if now - since < AUDIO_TIMEOUT:
            self._timer = self._loop.call_at(since + AUDIO_TIMEOUT, self._look)
        elif self._job.ended or self._job.clauses:
            self._patience.reschedule(now)
        else:
            self._timer = self._loop.call_later(AUDIO_TIMEOUT, self._look)


async def _feed(utterance: Utterance, job: _Job) -> None:
    while True:
        while job.clauses:
            await utterance.send(job.clauses[0])
            job.clauses.popleft()
        if job.ended:
            await utterance.finish()
            return
        job.changed.clear()
        await job.changed.wait()
