"""What a call asks of its carrier: to dial, to fetch the caller back, to say the last words, to hang up."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from workflows import effects
from workflows.errands import Errands

with workflow.unsafe.imports_passed_through():
    from stayline.messages import ExtendCall, HangUp, PlaceCall, Redirect
    from workflows.state import CallState, Ending

SAFETY_NET: Final = timedelta(minutes=2)
"""The carrier ends a call that we placed so long after its maximum duration, whatever has become of us."""
LONGEST_TRANSFER: Final = timedelta(hours=4)
"""Of `<Dial>` at Twilio."""
NAMED_WITHIN: Final = timedelta(seconds=10)
"""A call that may have been dialled although the answer was lost: its webhooks name it soon, or never."""
CARRIER_ASKS_WITHIN: Final = timedelta(seconds=3)
"""After the stream was closed."""
CARRIER_TOLD_WITHIN: Final = timedelta(seconds=20)
SPOKEN_WITHIN: Final = timedelta(seconds=6)
SLOWEST_LETTER: Final = timedelta(milliseconds=120)


class CarrierErrands:
    """Errands at the carrier of one call.

    Args:
        public_url: where the carrier finds any bridge.
    """

    def __init__(self, state: CallState, errands: Errands, public_url: str) -> None:
        self._state = state
        self._errands = errands
        self._public_url = public_url
        self._fetching: asyncio.Task[None] | None = None
        self._placing: asyncio.Task[None] | None = None

    def place_call(self) -> None:
        self._placing = self._errands.start(self._place_call(), "carrier")

    async def _place_call(self) -> None:
        state, outbound = self._state, self._state.outbound
        assert outbound is not None
        assert outbound.asked_at is not None
        ask = PlaceCall(
            call_id=state.call.call_id,
            from_number=state.call.from_number,
            to_number=state.call.to_number,
            public_url=self._public_url,
            since=outbound.asked_at,
            time_limit=round(state.agent.max_duration + SAFETY_NET.total_seconds()),
            dial=outbound.dial,
        )
        try:
            placed = await effects.place_call(ask)
        except ActivityError as error:
            self._errands.note_failure("carrier", error)
            if state.call.carrier_call_id:  # its webhooks have come: the call is there
                return
            if isinstance(error.cause, ApplicationError) and error.cause.non_retryable:
                state.carrier_over("failed", "carrier", workflow.now())
            else:
                state.end("failed", "carrier", workflow.now())
            return
        outbound.placed_at = workflow.now()
        state.take_leg(placed.carrier_call_id)

    async def extend(self) -> None:
        """People will talk to people: the carrier's limit was made for the agent's."""
        state, outbound = self._state, self._state.outbound
        if outbound is None or outbound.answered_at is None:
            return
        until = workflow.now() + LONGEST_TRANSFER + SAFETY_NET - outbound.answered_at
        await effects.extend_call(
            ExtendCall(carrier_call_id=state.call.carrier_call_id, time_limit=round(until.total_seconds()))
        )

    def fetch_back(self) -> None:
        """Begin to have the carrier ask for the next step at a living bridge."""
        if self._state.detached:
            self._state.detached.redirecting = True
        self._fetching = self._errands.start(self._fetch_back(), "carrier")

    async def _fetch_back(self) -> None:
        state, gone = self._state, self._state.detached
        if gone is None:
            return
        window = gone.since + timedelta(seconds=state.agent.reattach_timeout) - workflow.now()
        try:
            alive = await effects.redirect_call(self._redirect(), max(window, timedelta(seconds=1)))
        except ActivityError as error:  # `redirecting` stays: only the end of the window is left
            self._errands.note_failure("carrier", error)
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

    async def have_carrier_say(self, ending: Ending) -> None:
        """The last words, spoken by the carrier, which asks what comes next when the stream has been closed; where
        it does not ask, it is told. It then hangs up by itself."""
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(lambda: ending.told, timeout=CARRIER_ASKS_WITHIN)
        if not ending.told:
            ending.told = True
            await effects.redirect_call(self._redirect(say=ending.say), CARRIER_TOLD_WITHIN)
        await self.is_over(SPOKEN_WITHIN + len(ending.say) * SLOWEST_LETTER, "the carrier speaks")

    async def is_over(self, within: timedelta, why: str) -> None:
        """Wait until the carrier says that the call is over, but not for longer."""
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(
                lambda: self._state.carrier_over_at is not None, timeout=within, timeout_summary=why
            )

    async def hang_up(self) -> None:
        state = self._state
        if state.outbound is not None and not await self._has_leg():
            return
        try:
            await effects.hang_up(
                HangUp(
                    call_id=state.call.call_id,
                    carrier_call_id=state.call.carrier_call_id,
                    unanswered=state.unanswered,
                )
            )
            state.left_at = state.left_at or workflow.now()
        except ActivityError as error:
            self._errands.note_failure("carrier", error)

    async def _has_leg(self) -> bool:
        """Whether the carrier's id of a call that we place is known; the request for it ends now, if need be."""
        state, placing = self._state, self._placing
        if placing is not None and not placing.done() and not state.call.carrier_call_id:
            placing.cancel()
            await workflow.wait_condition(placing.done)
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(
                lambda: state.call.carrier_call_id != "",
                timeout=NAMED_WITHIN,
                timeout_summary="is there a call at the carrier?",
            )
        return state.call.carrier_call_id != ""

    async def hang_up_stray(self, carrier_call_id: str) -> None:
        await effects.hang_up(
            HangUp(call_id=self._state.call.call_id, carrier_call_id=carrier_call_id, unanswered=True)
        )

    def _redirect(self, say: str = "") -> Redirect:
        call = self._state.call
        return Redirect(
            call_id=call.call_id, public_url=self._public_url, carrier_call_id=call.carrier_call_id, say=say
        )
