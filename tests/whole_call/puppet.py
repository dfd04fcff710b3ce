"""A caller on strings: the test says when it speaks and hangs up, and reads what was really played to it.

Its voice is a tone. What the tone says is told to the fake recogniser at the moment it begins; one caller begins
at a time, so that concurrent calls never get each other's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stayline.lab.call import LabCall
from stayline.lab.carrier import LabCarrier
from stayline.lab.line import Spoken, quiet_frame
from stayline.lab.voice import is_voiced
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.sound import tone

FRAME_MS = 20
FRAME_BYTES = 160
PATIENCE = 30.0
"""Seconds that a test waits for anything that the caller should hear or the call should come to."""


class Puppet:
    """One caller.

    Args:
        recogniser: the fake that every call of the test is heard by.
        floor: shared by its callers: who holds it may begin to speak.

    Attributes:
        call: set by `ring`.
        heard_ms: agent speech played to the caller so far.
        quiet_ms: silence since the agent was last heard.
        queued_ms: agent speech that the carrier still holds.
        clears: how often the agent's buffered speech was thrown away.
    """

    call: LabCall

    def __init__(self, recogniser: FakeDeepgram, floor: asyncio.Lock) -> None:
        self.heard_ms = 0
        self.quiet_ms = 10**6
        self.queued_ms = 0.0
        self.clears = 0
        self._recogniser = recogniser
        self._floor = floor
        self._voice = b""
        self._keys = ""
        self._leave = False
        self._tick = asyncio.Event()

    # --- the lab's side ---

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        self.queued_ms = queued_ms
        if is_voiced(heard):
            self.quiet_ms = 0
            self.heard_ms += FRAME_MS
        else:
            self.quiet_ms += FRAME_MS
        digit, self._keys = self._keys[:1], self._keys[1:]
        frame, self._voice = self._voice[:FRAME_BYTES], self._voice[FRAME_BYTES:]
        self._tick.set()
        return Spoken(frame or quiet_frame(at_ms), digit=digit, hang_up=self._leave)

    def cleared(self, at_ms: int) -> None:
        self.clears += 1

    def close(self) -> None:
        self._tick.set()

    # --- the test's side ---

    async def ring(self, carrier: LabCarrier, to: str = "+15550100002", caller: str = "+15550100001") -> str:
        """Dial. Returns the call's SID at once."""
        self.call = await carrier.place_call(caller, to, caller=self)
        return self.call.sid

    @property
    def sid(self) -> str:
        return self.call.sid

    @property
    def speaking(self) -> bool:
        """The caller's own voice is on the line."""
        return bool(self._voice)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait for something that can only change as the call goes on."""
        async with asyncio.timeout(patience):
            while not condition():
                if self.call.over:
                    raise AssertionError(f"the call is over: {self.call.ended_by}")
                self._tick.clear()
                await self._tick.wait()

    async def begin(self, words: str | None, ms: int = 500) -> None:
        """Start to speak; returns when the recogniser has noticed. None: the words that it still expects."""
        script = self._recogniser.script
        async with self._floor:
            if words is not None:
                script.append(words)
            waiting = len(script)
            self._voice = tone(ms)
            await self.until(lambda: len(script) < waiting or not self._voice)

    async def say(self, words: str | None, ms: int = 500) -> None:
        """Speak to the end."""
        await self.begin(words, ms)
        await self.until(lambda: not self._voice)

    def falls_silent(self) -> None:
        """Stop in mid-sentence."""
        self._voice = b""

    def press(self, keys: str) -> None:
        self._keys += keys

    async def hears(self, ms: int = 100, patience: float = PATIENCE) -> None:
        """Wait until the agent speaks: so much more of it was heard than now."""
        goal = self.heard_ms + ms
        await self.until(lambda: self.heard_ms >= goal, patience)

    async def hears_out(self, quiet_ms: int = 300) -> None:
        """Wait until the agent, who has been speaking, has come to an end."""
        await self.until(lambda: self.heard_ms > 0 and self.quiet_ms >= quiet_ms and not self.queued_ms)

    async def asks(self, words: str, ms: int = 500) -> None:
        """Say something and hear the whole answer."""
        await self.say(words, ms)
        before = self.heard_ms
        await self.until(lambda: self.heard_ms > before)
        await self.hears_out()

    async def leaves(self) -> None:
        """Hang up, and wait until everybody was told."""
        self._leave = True
        await self.call.wait()
