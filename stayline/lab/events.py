"""What happened in the lab, in order: for printing, and for tests that wait on it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

Kind = Literal[
    "call",  # the caller dials
    "webhook",  # the bridge answered a webhook
    "twiml",  # a verb is carried out
    "status",  # the bridge was told how the call stands
    "answered",
    "stream_opened",
    "stream_refused",
    "stream_closed",  # the bridge closed it properly
    "stream_broken",  # it broke off
    "stream_stopped",  # the call left it: `stop`
    "first_audio",  # the bridge's first audio on a stream
    "mark",  # echoed, played or cleared
    "clear",
    "dtmf",
    "caller_speaks",
    "caller_done",
    "agent_speaks",
    "agent_done",
    "dial",
    "rest",
    "fault",  # the lab was told to fail the call
    "error",  # by Twilio's error code
    "hang_up",
    "ended",
]

HISTORY = 20_000
"""Events kept in memory; a long load test must not grow without end."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabEvent:
    seconds: float  #: since the carrier came up
    call_sid: str  #: empty where it concerns no call
    kind: Kind
    detail: str = ""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


class EventLog:
    """An append-only feed that can be listened to and waited on. Belongs to one event loop."""

    def __init__(self, on_event: Callable[[LabEvent], None] | None = None) -> None:
        self.events: deque[LabEvent] = deque(maxlen=HISTORY)
        self._on_event = on_event
        self._began = time.monotonic()
        self._waiters: list[tuple[Callable[[LabEvent], bool], asyncio.Future[LabEvent]]] = []

    def add(self, kind: Kind, detail: str = "", *, call_sid: str = "", **data: Any) -> None:
        event = LabEvent(round(time.monotonic() - self._began, 3), call_sid, kind, detail, data)
        self.events.append(event)
        for waiter in self._waiters[:]:
            matches, future = waiter
            if not future.done() and matches(event):
                future.set_result(event)
        if self._on_event is not None:
            self._on_event(event)

    def of(self, kind: Kind, call_sid: str = "") -> list[LabEvent]:
        return [e for e in self.events if e.kind == kind and call_sid in ("", e.call_sid)]

    async def wait_for(self, kind: Kind, *, call_sid: str = "", count: int = 1, timeout: float = 10.0) -> LabEvent:
        """The `count`-th event of that kind, past or future.

        Raises:
            TimeoutError: it did not happen within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while len(seen := self.of(kind, call_sid)) < count:
                future: asyncio.Future[LabEvent] = asyncio.get_running_loop().create_future()
                waiter = (lambda e: e.kind == kind and call_sid in ("", e.call_sid), future)
                self._waiters.append(waiter)
                try:
                    await future
                finally:
                    self._waiters.remove(waiter)
        return seen[count - 1]
