"""A call that the lab carrier places because its REST interface was asked to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine
from typing import Any, ClassVar, Final

from stayline.lab.call import Behaviour, Fetch, Given, LabCall
from stayline.lab.callee import Callee
from stayline.lab.events import EventLog
from stayline.lab.webhooks import Webhooks

STATUS_EVENTS: Final = ("initiated", "ringing", "answered", "completed")


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What a request to place a call asks for: the parameters that Stayline uses.

    Attributes:
        plan: the TwiML, once it is answered.
        ring_timeout, time_limit: seconds.
        status_events: what the status callback is told of.
        detection: whether machines are told from people; `detection_callback` hears of it, or, where there is
            none, the TwiML is asked for only when it is known.
    """

    to_number: str
    from_number: str
    plan: Fetch | Given
    status_callback: str = ""
    status_events: tuple[str, ...] = ("completed",)
    ring_timeout: float = 60
    time_limit: float = 14400
    detection: bool = False
    detection_callback: str = ""
    record: bool = False


class OutboundCall(LabCall):
    """Rings at somebody's, then asks for the TwiML of whoever had it placed.

    Attributes:
        order: as it was asked for.
        time_limit: seconds from the answer on; a REST request may move it.
        answered_by: what machine detection has found; empty until then.
    """

    direction: ClassVar[str] = "outbound-api"

    def __init__(
        self,
        order: Order,
        callee: Callee,
        *,
        account_sid: str,
        webhooks: Webhooks,
        behaviour: Behaviour,
        log: EventLog,
    ) -> None:
        super().__init__(
            account_sid=account_sid,
            from_number=order.from_number,
            to_number=order.to_number,
            caller=callee.caller(),
            webhooks=webhooks,
            behaviour=behaviour,
            log=log,
            plan=order.plan,
        )
        self.order = order
        self.time_limit = order.time_limit
        self.answered_by = ""
        self.status = "queued"
        self._callee = callee
        self._told = 0
        self._telling: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue()
        self._limit_moved = asyncio.Event()

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell())
        try:
            await super().run()
        finally:
            telling.cancel()

    def move_time_limit(self, seconds: float) -> None:
        self.time_limit = seconds
        self._limit_moved.set()

    def form(self) -> dict[str, str]:
        form = super().form()
        return form | ({"AnsweredBy": self.answered_by} if self.answered_by else {})

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        return [*super()._beside(), self._keep_time_limit(), self._detect()]

    async def _ring(self) -> None:
        callee, order = self._callee, self.order
        await asyncio.sleep(callee.queue_seconds)
        self._progressed("initiated", "initiated")
        if callee.status == "failed":
            await asyncio.sleep(callee.ring_seconds)
            return self._unanswered("failed")
        self.status = "ringing"
        self._progressed("ringing", "ringing")
        rings = callee.ring_seconds
        if callee.status == "no-answer" or rings > order.ring_timeout:
            await asyncio.sleep(order.ring_timeout)
            return self._unanswered("no-answer")
        await asyncio.sleep(rings)
        if callee.status == "busy":
            return self._unanswered("busy")
        self._answer()
        self._progressed("answered", "in-progress")
        if order.detection and not order.detection_callback:
            await asyncio.sleep(callee.detection_seconds)
            self.answered_by = callee.answered_by

    def _unanswered(self, status: str) -> None:
        self.status = status
        self._plan = None
        self._finish("caller", status)

    # --- what is told of it

    def _progressed(self, event: str, status: str) -> None:
        if event in self.order.status_events and self.order.status_callback:
            self._telling.put_nowait((self.order.status_callback, self._progress(status, self._told)))
            self._told += 1

    async def _tell(self) -> None:
        while True:
            url, form = await self._telling.get()
            try:
                await self._notify(url, form)
            finally:
                self._telling.task_done()

    async def _report(self) -> None:
        self._progressed("completed", self.status)
        await self._telling.join()
        self._event("ended", f"{self.status}, {self.seconds:.1f} s", by=self.ended_by)

    async def _detect(self) -> None:
        """Beside the call, the asynchronous kind: https://www.twilio.com/docs/voice/answering-machine-detection."""
        if not (self.order.detection and self.order.detection_callback):
            return
        await self._answered.wait()
        await asyncio.sleep(self._callee.detection_seconds)
        self.answered_by = self._callee.answered_by
        form = {
            "AccountSid": self.account_sid,
            "CallSid": self.sid,
            "AnsweredBy": self.answered_by,
            "MachineDetectionDuration": str(round(self._callee.detection_seconds * 1000)),
        }
        self._telling.put_nowait((self.order.detection_callback, form))

    async def _keep_time_limit(self) -> None:
        await self._answered.wait()
        while True:
            left = self.time_limit - self.seconds
            if left <= 0:
                self.hang_up("carrier")
                return
            self._limit_moved.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._limit_moved.wait(), left)
