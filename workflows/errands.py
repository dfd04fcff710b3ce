"""Errands: what a living call asks of its bridge and its carrier beside everything else, and what falls due.

An errand ends with the call, and its failure never does more than leave a note in the record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows import effects

with workflow.unsafe.imports_passed_through():
    from stayline.messages import CloseSession, Speak
    from stayline.timeline import LimitReached
    from workflows.limits import Limit
    from workflows.state import CallState, Ending, Session, Transfer


class Errands:
    def __init__(self, state: CallState, public_url: str, show: Callable[[], None]) -> None:
        self._state = state
        self._public_url = public_url
        self._show = show
        self._tasks: list[asyncio.Task[None]] = []
        self._fetching: asyncio.Task[None] | None = None

    # --- owning them -------------------------------------------------------------------------------------

    def start(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.create_task(self._without_harm(errand))
        self._tasks.append(task)
        return task

    @property
    def under_way(self) -> bool:
        return not all(task.done() for task in self._tasks)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def unless_gone(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run one to its end, but stop as soon as the caller, or the bridge that held them, is gone."""
        state, task = self._state, self.start(errand)
        session = state.attached
        await workflow.wait_condition(
            lambda: (
                task.done()
                or state.carrier_over_at is not None
                or (session is not None and session.closed == "bridge_lost")
            )
        )
        if not task.done():
            task.cancel()

    async def _without_harm(self, errand: Coroutine[Any, Any, None]) -> None:
        try:
            await errand
        except Exception as error:
            self.note_failure("bridge", error)
        self._show()

    def note_failure(self, where: str, error: Exception) -> None:
        if not is_cancelled_exception(error):
            cause = error.cause if isinstance(error, ActivityError) and error.cause else error
            self._state.note_error(workflow.now(), where, first_line(cause), retryable=True)

    # --- the bridge --------------------------------------------------------------------------------------

    async def say(self, speech: Speak) -> None:
        session = self._state.attached
        if session is not None:
            await effects.speak(session.bridge_id, speech.model_copy(update={"session": session.number}))

    async def prompt(self) -> None:
        """Ask a silent caller whether they are there; a bridge that hears somebody says nothing."""
        state = self._state
        if await self._is_silent(state.agent.silence_text):
            state.add(LimitReached(at=workflow.now(), limit="silence_prompt"))
        else:
            state.heard(workflow.now())

    async def end_of_silence(self) -> None:
        """End a silent call, unless the bridge hears somebody who has not come to the end of a turn."""
        state, session = self._state, self._state.attached
        silent = True
        with contextlib.suppress(ActivityError):
            silent = await self._is_silent("")
        if not silent or state.attached is not session or state.last_sound_at is not None:
            state.heard(workflow.now())
            return
        state.add(LimitReached(at=workflow.now(), limit="silence"))
        state.end("silence_limit", "limit", workflow.now(), say=state.agent.goodbye)

    async def _is_silent(self, then_say: str) -> bool:
        session = self._state.attached
        if session is None:
            return False
        return await effects.speak(session.bridge_id, self.speech(then_say, "silence"))

    async def announce_transfer(self, session: Session, transfer: Transfer) -> None:
        """Close the stream with the announcement; the carrier then asks for the next step, which is to dial."""
        state = self._state
        transfer.announced = True  # beforehand: the carrier may ask before the bridge has answered
        try:
            await effects.close_session(session.bridge_id, self._closing(session, transfer.say, "transfer"))
            if state.attached is session:
                state.detach("closed", workflow.now())
        except ActivityError as error:
            transfer.announced = False
            self.note_failure("bridge", error)
            if state.attached is session:
                state.lose_bridge(session.bridge_id, workflow.now())

    async def say_goodbye(self, session: Session, ending: Ending) -> None:
        say, said = "" if ending.said else ending.say, ending.said
        ending.said = True  # beforehand, as above
        try:
            await effects.close_session(session.bridge_id, self._closing(session, say, ending.outcome))
        except ActivityError as error:
            ending.said = said
            self.note_failure("bridge", error)

    async def close_replaced(self, session: Session) -> None:
        await effects.close_session(session.bridge_id, self._closing(session, "", "replaced"))

    def speech(self, text: str, source: Literal["operator", "limit", "silence"]) -> Speak:
        state = self._state
        return Speak(call_id=state.call.call_id, session=len(state.sessions), text=text, source=source)

    def _closing(self, session: Session, say: str, reason: str) -> CloseSession:
        return CloseSession(call_id=self._state.call.call_id, session=session.number, say=say, reason=reason)

    # --- the carrier -------------------------------------------------------------------------------------

    def fetch_back(self) -> None:
        """Begin to have the carrier ask for the next step at a living bridge."""
        if self._state.detached:
            self._state.detached.redirecting = True
        self._fetching = self.start(self._fetch_back())

    async def _fetch_back(self) -> None:
        state, gone = self._state, self._state.detached
        if gone is None:
            return
        window = gone.since + timedelta(seconds=state.agent.reattach_timeout) - workflow.now()
        try:
            alive = await effects.redirect_call(
                state.call.call_id, self._public_url, max(window, timedelta(seconds=1))
            )
        except ActivityError as error:  # `redirecting` stays: only the end of the window is left
            self.note_failure("carrier", error)
            return
        gone.asked_at = workflow.now()
        gone.redirecting = False
        if not alive and state.detached is gone:
            state.left_at = gone.since
            state.end("caller_hung_up", "caller", workflow.now())

    def stop_fetching(self) -> None:
        """The caller is back, or gone."""
        if self._fetching is not None and not self._fetching.done():
            self._fetching.cancel()
        self._fetching = None
        if self._state.detached:
            self._state.detached.redirecting = False

    async def hang_up(self) -> None:
        state = self._state
        try:
            await effects.hang_up(state.call.call_id)
            state.left_at = state.left_at or workflow.now()
        except ActivityError as error:
            self.note_failure("carrier", error)


def reach(limit: Limit, state: CallState, errands: Errands) -> None:
    """A deadline has passed: change the state, or begin an errand."""
    now, agent = workflow.now(), state.agent
    match limit:
        case "ring":
            state.add(LimitReached(at=now, limit="ring"))
            state.end("no_stream", "limit", now)
        case "duration_warning":
            state.warned = True
            state.add(LimitReached(at=now, limit="duration_warning"))
            state.to_say.append(errands.speech(agent.warning_text, "limit"))
        case "duration":
            state.add(LimitReached(at=now, limit="duration"))
            state.end("duration_limit", "limit", now, say=agent.limit_text)
        case "silence_prompt":
            state.prompted = True
            errands.start(errands.prompt())
        case "silence":
            state.last_sound_at = None  # no deadline while the bridge is asked; a sound meanwhile sets it
            errands.start(errands.end_of_silence())
        case "caller_gone":
            state.left_at = state.detached.since if state.detached else now
            state.end("caller_hung_up", "caller", now)
        case "redirect":
            errands.fetch_back()
        case "reattach":
            state.add(LimitReached(at=now, limit="reattach"))
            state.left_at = state.left_at or now
            state.end("lost", "limit", now)
        case "dial_unsettled":
            state.settle_transfer("answered" if state.dial_outlasted_ringing else "caller_left", None, now)
        case "dial_forgotten":
            state.settle_transfer("answered", None, now)


def first_line(error: BaseException) -> str:
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
