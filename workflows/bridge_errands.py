"""What a call asks of the bridge that holds it: to say something, and to let go of the caller."""

from __future__ import annotations

import contextlib
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutError, TimeoutType

from workflows import effects
from workflows.errands import Errands

with workflow.unsafe.imports_passed_through():
    from stayline.messages import CloseSession, Speak
    from stayline.timeline import LimitReached
    from workflows.state import CallState, Ending, Session, Transfer


class BridgeErrands:
    def __init__(self, state: CallState, errands: Errands) -> None:
        self._state = state
        self._errands = errands

    async def say(self, speech: Speak) -> None:
        session = self._state.attached
        if session is not None:
            await self._speak(session, speech.model_copy(update={"session": session.number}))

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
        return await self._speak(session, self.speech(then_say, "silence"))

    async def _speak(self, session: Session, speech: Speak) -> bool:
        """What nobody takes up is for a bridge that is dead, also where no heartbeat of it has named the call.

        Raises:
            ActivityError
        """
        try:
            return await effects.speak(session.bridge_id, speech)
        except ActivityError as error:
            cause = error.cause
            unheard = isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
            if unheard and self._state.attached is session:
                self._state.lose_bridge(session.bridge_id, workflow.now())
            raise

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
            self._errands.note_failure("bridge", error)
            if state.attached is session:
                state.lose_bridge(session.bridge_id, workflow.now())

    async def say_goodbye(self, session: Session, ending: Ending) -> None:
        """Close the stream with the last words, unless the model says its own or the carrier is to say them."""
        say = "" if ending.said or ending.saying or ending.by_carrier else ending.say
        ending.saying = not ending.by_carrier
        try:
            await effects.close_session(session.bridge_id, self._closing(session, say, ending.outcome))
            ending.said = ending.said or (ending.saying and session.closed not in ("lost", "bridge_lost"))
        except ActivityError as error:
            self._errands.note_failure("bridge", error)
        finally:
            ending.said = self._state.goodbye_heard  # a bridge that died over its answer may have closed in order
            ending.saying = False

    async def close_replaced(self, session: Session) -> None:
        await effects.close_session(session.bridge_id, self._closing(session, "", "replaced"))

    def speech(self, text: str, source: Literal["operator", "limit", "silence"]) -> Speak:
        state = self._state
        return Speak(call_id=state.call.call_id, session=len(state.sessions), text=text, source=source)

    def _closing(self, session: Session, say: str, reason: str) -> CloseSession:
        return CloseSession(call_id=self._state.call.call_id, session=session.number, say=say, reason=reason)
