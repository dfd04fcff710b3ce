"""CallWorkflow: the life of one phone call, from the first webhook to the finished record.

Read `run` from top to bottom: the call lives, is let go, and is written down. Handlers only change the state
(`workflows/state.py`); `run` waits for what changed or fell due, and acts.

A failing update fails for its sender only (`failure_exception_types`); in a signal handler the same setting would
end the call, so every one of them turns what goes wrong into an `error` event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError

from workflows import effects
from workflows.bridge_errands import BridgeErrands
from workflows.carrier_errands import CarrierErrands
from workflows.errands import Errands, first_line
from workflows.reached import reach
from workflows.tool_runs import ToolRuns

with workflow.unsafe.imports_passed_through():
    from stayline.messages import (
        Accepted,
        Admission,
        Admit,
        Approve,
        CallCarry,
        CallResult,
        CallStart,
        CarrierStatus,
        Command,
        EndCall,
        Grant,
        NextStep,
        OpenSession,
        Record,
        RunTool,
        SayText,
        Step,
        TransferCall,
    )
    from stayline.models import ToolOutcome
    from stayline.names import CALL_WORKFLOW, SA_OUTCOME, SA_STATUS
    from stayline.timeline import CallRecord, CallSnapshot, TimelineEntry
    from workflows.commands import carry_out, read_command, refusal
    from workflows.conversation import conversation
    from workflows.limits import Deadline, next_deadline
    from workflows.outbound import Outbound
    from workflows.packing import LARGEST
    from workflows.records import take_record
    from workflows.state import CallState, Ending
    from workflows.statuses import take_status
    from workflows.story import Story

T = TypeVar("T")

END: Final = EndCall()
"""`end` without input."""
CARRIER_HANGS_UP_WITHIN: Final = timedelta(seconds=10)
"""After it was told to. Where the answer came too late, the caller was asked to wait, and it asks once more."""
LAST_WORD_WITHIN: Final = timedelta(seconds=5)
"""After the hang-up: for the carrier's `completed` and the bridge's last records."""

DIED_OVER_ITS_ANSWER: Final = "a bridge that has closed its stream and died is not waited for"
"""Patch: before it, the caller was on a dead line until `close_session` had run out of time."""
TOLD_TO_HANG_UP: Final = "a carrier that was told to hang up is given the time to do so"
"""Patch: before it, a request of ours cut off what the carrier was saying to a caller who waited."""
UNSAID_BY_CARRIER: Final = "the carrier says what no bridge could say"
"""Patch: before it, such a call was hung up without a word."""


@workflow.defn(name=CALL_WORKFLOW, failure_exception_types=[Exception])
class CallWorkflow:
    """One phone call."""

    @workflow.init
    def __init__(self, start: CallStart) -> None:
        self._start = start
        self._state = CallState.begin(start, workflow.now())
        self._tools = ToolRuns(self._state)
        self._screening = False
        self._errands = Errands(self._state, self._show)
        self._bridge = BridgeErrands(self._state, self._errands)
        self._carrier = CarrierErrands(self._state, self._errands, start.public_url)
        self._shown: tuple[str, str | None] = (self._state.status, None)
        self._story = Story()
        self._stays = False  #: it has more to remember than can be carried, so this run goes on to the end

    @workflow.run
    async def run(self, start: CallStart) -> CallResult:
        state = self._state
        try:
            await self._live()
        except asyncio.CancelledError:  # `temporal workflow cancel`
            state.command_end(None, "temporal", "cancelled", workflow.now())
        except Exception as error:
            self._note_bug(error)
            state.end("failed", "workflow", workflow.now(), say=state.agent.apology_text)
        self._show()
        try:
            await _see_through(self._let_go())
        except Exception as error:
            self._note_bug(error)
        state.finish(workflow.now())
        self._show()
        return await _see_through(self._write_down())

    # --- the call lives ----------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Carry out what handlers asked for and what falls due, until the call is over."""
        state = self._state
        while state.ending is None:
            self._begin_errands()
            deadline = next_deadline(state)
            wait = (deadline.at - workflow.now()) if deadline else None
            if deadline and wait is not None and wait <= timedelta(0):
                reach(deadline.limit, state, self._errands, self._bridge, self._carrier)
                self._show()
                continue
            if self._may_continue_as_new():
                packed = state.carried()
                if len(packed) <= LARGEST:
                    update = {"call": state.call, "carry": CallCarry(packed=packed)}
                    workflow.continue_as_new(self._start.model_copy(update=update))
                self._stays = True
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda deadline=deadline: self._stirred(deadline),  # type: ignore[misc]
                    timeout=wait,
                    timeout_summary=deadline.limit if deadline else None,
                )

    def _stirred(self, armed: Deadline | None) -> bool:
        """Something is to be done before the deadline that the timer is armed for."""
        state = self._state
        if state.ending or state.to_say or (state.transfer and not state.transfer.begun):
            return True
        if state.outbound and (state.outbound.strays or (state.dialling and not state.outbound.extended)):
            return True
        sooner = next_deadline(state)
        if sooner is not None and (armed is None or sooner.at < armed.at):
            return True
        return self._may_continue_as_new()

    def _begin_errands(self) -> None:
        state = self._state
        while state.to_say:
            self._errands.start(self._bridge.say(state.to_say.pop(0)))
        if state.transfer and not state.transfer.begun:
            state.transfer.begun = True
            if state.attached:
                self._errands.start(self._bridge.announce_transfer(state.attached, state.transfer))
        if state.outbound:
            self._begin_outbound_errands(state.outbound)

    def _begin_outbound_errands(self, outbound: Outbound) -> None:
        state = self._state
        if outbound.asked_at is None:
            state.dial(workflow.now())
            self._carrier.place_call()
            self._show()
        if state.dialling and not outbound.extended:
            outbound.extended = True
            self._errands.start(self._carrier.extend(), "carrier")
        while outbound.strays:
            self._errands.start(self._carrier.hang_up_stray(outbound.strays.pop(0)), "carrier")

    # --- the call is let go ------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Say goodbye, hang up, and wait a moment for the last words of carrier and bridge."""
        state, ending, errands = self._state, self._state.ending, self._errands
        assert ending is not None
        self._carrier.stop_fetching()
        never_dialled = state.outbound is not None and state.outbound.asked_at is None
        if ending.outcome != "rejected" and not never_dialled:
            session = state.attached
            if session is not None and state.carrier_over_at is None:
                await errands.unless_gone(self._bridge.say_goodbye(session, ending))
            if self._left_to_carrier(ending):
                await errands.unless_over(self._carrier.have_carrier_say(ending))
            elif ending.told and state.carrier_over_at is None and workflow.patched(TOLD_TO_HANG_UP):
                await self._carrier.is_over(CARRIER_HANGS_UP_WITHIN, "the carrier hangs up")
            if state.carrier_over_at is None:
                await errands.unless_gone(self._carrier.hang_up())
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: state.carrier_over_at is not None and state.records_complete,
                    timeout=LAST_WORD_WITHIN,
                    timeout_summary="last word of carrier and bridge",
                )
        errands.stop()

    def _left_to_carrier(self, ending: Ending) -> bool:
        """Somebody is there who has not heard the last words, and no bridge can say them."""
        if not ending.say or self._state.carrier_over_at is not None or not self._state.sessions:
            return False
        return ending.by_carrier or (not self._state.goodbye_heard and workflow.patched(UNSAID_BY_CARRIER))

    # --- the call is written down ------------------------------------------------------------------------

    async def _write_down(self) -> CallResult:
        """Save the record; tools that outlive the call are waited for, and the record is then replaced."""
        state = self._state
        assert state.ending is not None
        if state.running_tools:
            await effects.save_call(self._record(final=False))
        while True:
            await workflow.wait_condition(lambda: not state.running_tools and workflow.all_handlers_finished())
            self._show()
            written = len(state.timeline)
            await effects.save_call(self._record(final=True))
            if len(state.timeline) == written and not state.running_tools and workflow.all_handlers_finished():
                break
        self._show()
        return CallResult(outcome=state.ending.outcome, metrics=self.snapshot().metrics)

    def _record(self, *, final: bool) -> CallRecord:
        return CallRecord(snapshot=self.snapshot(), timeline=tuple(self._state.timeline), final=final)

    # --- what bridges and webhooks ask -------------------------------------------------------------------

    @workflow.update
    async def admit(self, ask: Admit) -> Admission:
        """The voice webhook: may this call come in, or one that we placed was answered. The same answer however
        often the webhook is repeated."""
        state = self._state
        if not state.take_leg(ask.carrier_call_id):
            return Admission(accepted=False, reason="the same call was dialled twice")
        if state.outbound is not None:
            state.outbound.answered(workflow.now())
        if state.admission is None and not self._screening:
            self._screening = True
            if ask.no_room is not None:
                state.admit(ask.no_room, workflow.now(), by="bridge")
            else:
                state.admit(await self._screen(), workflow.now())
            self._show()
        await workflow.wait_condition(lambda: state.admission is not None)
        assert state.admission is not None
        if state.admission.accepted:
            if state.ending is not None:
                return Admission(accepted=False, reason="the call is over")
            state.expect_token(ask.token_sha256)
        return state.admission

    async def _screen(self) -> Admission:
        if not self._start.has_policy:
            return Admission(accepted=True)
        try:
            return await effects.screen_call(self._state.call)
        except ActivityError as error:
            self._errands.note_failure("policy", error)
            return Admission(accepted=False, say=self._state.agent.apology_text, reason="the policy failed")

    @workflow.update
    def open_session(self, ask: OpenSession) -> Grant:
        """A stream has started. Its token is spent, and so is every other; an older session is replaced."""
        self._check_session(ask)
        state, now = self._state, workflow.now()
        self._carrier.stop_fetching()
        session, replaced = state.open_session(ask, now)
        if replaced is not None:
            self._errands.start(self._bridge.close_replaced(replaced))
        note, state.note = state.note, ""
        self._show()
        return Grant(
            session=session.number,
            call=state.call,
            agent=state.agent,
            messages=tuple(conversation(state.timeline, state.tools, state.agent)),
            running_tools=tuple(run.call for run in state.running_tools),
            seconds_left=state.seconds_left(now),
            resumed=state.was_cut,
            note=note,
            traceparent=self._start.traceparent,
        )

    @open_session.validator
    def _check_session(self, ask: OpenSession) -> None:
        if self._state.ending is not None:
            raise ApplicationError("the call is over", type="CallOver", non_retryable=True)
        if not self._state.tokens.get(ask.token_sha256, False):
            raise ApplicationError("wrong or used stream token", type="BadToken", non_retryable=True)

    @workflow.update
    async def run_tool(self, ask: RunTool) -> ToolOutcome:
        """Run a tool once, whoever asks how often; answers when it has ended."""
        self._tools.accept(ask)
        self._show()
        outcome = await self._tools.outcome(ask.call.id)
        self._show()
        return outcome

    @workflow.update
    def next_step(self, ask: NextStep) -> Step:
        """The carrier has come to the end of a stream or a dial and asks what to do."""
        state, now = self._state, workflow.now()
        if not state.take_leg(ask.carrier_call_id):
            return Step(action="hangup")
        self._carrier.stop_fetching()
        if ask.dial_status is not None:
            state.dial_ended(ask.dial_status, ask.dial_seconds, now)
        if state.ending is not None:
            state.ending.told = True  # asked again, it did not get the answer: it is the same one
            if ask.held and state.ending.say:
                state.ending.said = state.ending.saying = False  # who is asked to wait expects somebody
            step = Step(action="hangup", say="" if state.goodbye_heard else state.ending.say)
        elif state.transfer is not None:
            transfer = state.transfer
            state.detach("closed", now)
            transfer.begun = True
            transfer.dialled_at = transfer.dialled_at or now
            step = Step(
                action="dial",
                to=transfer.to,
                say="" if transfer.announced and state.closed_in_order else transfer.say,
                ring_timeout=state.agent.transfer_ring_timeout,
            )
        else:
            state.carrier_asks(ask.token_sha256, now)
            step = Step(action="connect")
        self._show()
        return step

    @workflow.signal
    def record(self, *inputs: Any) -> None:
        """A batch of timeline events from a bridge: a `Record`."""
        with self._guarded("record"):
            take_record(self._state, Record.model_validate(*inputs), workflow.now())

    @workflow.signal
    def carrier_status(self, *inputs: Any) -> None:
        """The carrier's own word on the call: a `CarrierStatus`."""
        with self._guarded("carrier_status"):
            take_status(self._state, CarrierStatus.model_validate(*inputs), workflow.now())

    @workflow.signal
    def bridge_lost(self, *inputs: Any) -> None:
        """A bridge is dead: its id. Ignored when it holds this call no longer."""
        with self._guarded("bridge_lost"):
            (bridge_id,) = inputs
            if not isinstance(bridge_id, str):
                raise ValueError("expected a bridge id")
            state = self._state
            if state.lose_bridge(bridge_id, workflow.now()) or state.ending is None:
                return
            session = state.last_held_by(bridge_id)
            if session is not None and workflow.patched(DIED_OVER_ITS_ANSWER):
                session.bridge_died = True

    # --- what people ask: updates that answer, and signals that Temporal's own UI and CLI can send ----------

    @workflow.update(name="end")
    def end_update(self, command: EndCall = END) -> Accepted:
        return self._accept(command)

    @workflow.update(name="transfer")
    def transfer_update(self, command: TransferCall) -> Accepted:
        return self._accept(command)

    @workflow.update(name="say")
    def say_update(self, command: SayText) -> Accepted:
        return self._accept(command)

    @workflow.update(name="approve")
    def approve_update(self, command: Approve) -> Accepted:
        return self._accept(command)

    @end_update.validator
    def _check_end(self, command: EndCall = END) -> None:
        self._refuse_if_wrong(command)

    @transfer_update.validator
    def _check_transfer(self, command: TransferCall) -> None:
        self._refuse_if_wrong(command)

    @say_update.validator
    def _check_say(self, command: SayText) -> None:
        self._refuse_if_wrong(command)

    @approve_update.validator
    def _check_approve(self, command: Approve) -> None:
        self._refuse_if_wrong(command)

    @workflow.signal(name="end")
    def end_signal(self, *inputs: Any) -> None:
        """End the call. Input: nothing, what to say, or an `EndCall` object."""
        with self._guarded("end"):
            self._accept(read_command(EndCall, inputs))

    @workflow.signal(name="transfer")
    def transfer_signal(self, *inputs: Any) -> None:
        """Transfer the call. Input: the number, or a `TransferCall` object."""
        with self._guarded("transfer"):
            self._accept(read_command(TransferCall, inputs))

    @workflow.signal(name="say")
    def say_signal(self, *inputs: Any) -> None:
        """Have the agent say something. Input: the text, or a `SayText` object."""
        with self._guarded("say"):
            self._accept(read_command(SayText, inputs))

    @workflow.signal(name="approve")
    def approve_signal(self, *inputs: Any) -> None:
        """Release a waiting tool call. Input: its id, or an `Approve` object (which may also refuse it)."""
        with self._guarded("approve"):
            self._accept(read_command(Approve, inputs))

    def _refuse_if_wrong(self, command: Command) -> None:
        reason = refusal(self._state, command)
        if reason is not None:
            raise ApplicationError(reason, type="Refused", non_retryable=True)

    def _accept(self, command: Command) -> Accepted:
        """Record who wants what and why, and change the state; `run` does the rest."""
        self._refuse_if_wrong(command)
        index = carry_out(self._state, command, workflow.now())
        self._show()
        return Accepted(index=index)

    # --- what anybody may read ---------------------------------------------------------------------------

    @workflow.query
    def snapshot(self) -> CallSnapshot:
        return self._state.snapshot(workflow.now())

    @workflow.query
    def timeline(self, after: int = 0) -> list[TimelineEntry]:
        """The entries from index `after` on."""
        return self._state.timeline[max(0, after) :]

    # --- small things ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self, signal: str) -> Iterator[None]:
        """What goes wrong in a signal handler is an event in the record, never the end of the call."""
        try:
            yield
        except ApplicationError as error:
            self._state.note_error(workflow.now(), signal, error.message)
        except Exception as error:
            self._state.note_error(workflow.now(), signal, f"input refused: {first_line(error)}")
        self._show()

    def _note_bug(self, error: Exception) -> None:
        """A fault of this very code costs the caller the call, but never the record."""
        workflow.logger.exception("the call's workflow failed")
        self._state.note_error(workflow.now(), "workflow", type(error).__name__)

    def _may_continue_as_new(self) -> bool:
        """The history is long and nothing is under way that a new run would not know of."""
        info = workflow.info()
        limit = self._start.history_limit
        if not (info.is_continue_as_new_suggested() or 0 < limit <= info.get_current_history_length()):
            return False
        state = self._state
        busy = self._stays or state.running_tools or state.to_say or self._errands.under_way
        return not busy and state.ending is None and workflow.all_handlers_finished()

    def _show(self) -> None:
        """Bring search attributes (on changes only) and the story in Temporal's UI up to date."""
        state = self._state
        status, outcome = state.status, state.ending.outcome if state.ending else None
        if (status, outcome) != self._shown:
            updates = [SearchAttributeKey.for_keyword(SA_STATUS).value_set(status)]
            if outcome is not None and outcome != self._shown[1]:
                updates.append(SearchAttributeKey.for_keyword(SA_OUTCOME).value_set(outcome))
            self._shown = (status, outcome)
            workflow.upsert_search_attributes(updates)
        workflow.set_current_details(self._story.tell(state))


async def _see_through(work: Coroutine[Any, Any, T]) -> T:
    """Finish even when the workflow is cancelled meanwhile: the record matters more."""
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
