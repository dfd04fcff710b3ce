"""Tool calls as the workflow runs them: once each, with approval, under the tool's own limits, to the end.

A tool belongs to the call, not to the update that asked for it: it goes on when the bridge or the caller is gone.
"""

from __future__ import annotations

import asyncio
import builtins
import json
from datetime import datetime, timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

from workflows import effects

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter, ValidationError

    from stayline.messages import RunTool
    from stayline.models import ToolAttempt, ToolCall, ToolInvocation, ToolOutcome, ToolRun, ToolSpec, ToolStatus
    from stayline.timeline import ToolCalled, ToolSettled
    from workflows.commands import transfer_target
    from workflows.state import CallState

CUT_OFF_ERRORS: Final = frozenset({"ToolTimeout", "WorkerShutdown", "CutOff"})
"""Error types after which the tool may or may not have taken effect."""
ASKED_AGAIN_WITHIN: Final = timedelta(seconds=5)
"""After a tool's end: the model of a later session may ask for it before it is told of the result."""
ASKED_AGAIN: Final = "a tool that has just ended for an earlier session is not run again"
"""Patch: before it, only a running one was joined."""
CUT_OFF: Final = "it was cut off: no answer in time, or its worker died"

_ATTEMPTS: Final = TypeAdapter(tuple[ToolAttempt, ...])


class ToolRuns:
    """Runs a call's tools. All that must survive is in `CallState.tools`; here are only the running tasks."""

    def __init__(self, state: CallState) -> None:
        self._state = state
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, datetime] = {}  #: those that have just taken effect, or may have

    def accept(self, ask: RunTool) -> None:
        """Begin to run the tool, unless this call id has been asked before."""
        state, now, id = self._state, workflow.now(), ask.call.id
        if id in state.tools:
            return
        twin = self._twin(ask)
        state.put_tool(id, ToolRun(call=ask.call, session=ask.session, requested_at=now))
        state.add(ToolCalled(at=now, call=ask.call, duplicate_of=twin))
        spec = state.agent.tool(ask.call.name)
        if state.ended_at is not None:
            self._settle(_failed(ask.call, "The call is over."))
        elif ask.call.name in ("end_call", "transfer_call"):
            self._settle(self._built_in(ask))
        elif spec is None:
            known = ", ".join(tool.name for tool in state.agent.tools) or "none"
            self._settle(_failed(ask.call, f"There is no tool {ask.call.name!r}. Tools: {known}."))
        else:
            run = self._join(ask.call, twin) if twin else self._run(ask.call, spec)
            self._tasks[id] = asyncio.create_task(run)

    async def outcome(self, id: str) -> ToolOutcome:
        """Wait for how an accepted tool call ends."""
        await workflow.wait_condition(lambda: self._state.tools[id].outcome is not None)
        outcome = self._state.tools[id].outcome
        assert outcome is not None
        return outcome

    def _twin(self, ask: RunTool) -> str | None:
        """The id of a call of the same tool with the same arguments whose outcome will do: one that runs, or that
        has just ended for an earlier session, so that this model cannot have heard of it yet."""
        wanted, since = _canonical(ask.call), workflow.now() - ASKED_AGAIN_WITHIN
        for run in self._state.running_tools:
            if _canonical(run.call) == wanted and run.call.id in self._tasks:
                return run.call.id
        self._ended = {id: at for id, at in self._ended.items() if at >= since}
        for id in self._ended:
            run = self._state.tools[id]
            earlier = run.session < ask.session and _canonical(run.call) == wanted
            if earlier and workflow.patched(ASKED_AGAIN):
                return id
        return None

    async def _join(self, call: ToolCall, twin: str) -> None:
        outcome = await self.outcome(twin)
        self._settle(outcome.model_copy(update={"id": call.id}))

    async def _run(self, call: ToolCall, spec: ToolSpec) -> None:
        """Every way in which a tool can end becomes an outcome."""
        try:
            if spec.needs_approval:
                refused = await self._approval(call, spec)
                if refused is not None:
                    self._settle(refused)
                    return
            outcome = await self._attempt(call, spec)
            if outcome.status in ("succeeded", "unknown"):
                self._ended[call.id] = workflow.now()
            self._settle(outcome)
        except Exception as error:  # a bug here must not leave the agent waiting for ever
            workflow.logger.exception("tool run failed")
            self._settle(_failed(call, f"The tool {call.name} failed.", (_cut(1, type(error).__name__),)))

    async def _approval(self, call: ToolCall, spec: ToolSpec) -> ToolOutcome | None:
        """Wait for a person. None: go on."""
        state = self._state
        self._mark(call.id, waiting_approval=True)
        try:
            await workflow.wait_condition(
                lambda: call.id in state.approvals,
                timeout=timedelta(seconds=spec.approval_timeout),
                timeout_summary=f"approval of {spec.name}",
            )
        except builtins.TimeoutError:
            return _ended(call, "refused", f"Nobody approved {call.name} in time, so it was not done.")
        finally:
            self._mark(call.id, waiting_approval=False)
        if state.approvals[call.id]:
            return None
        return _ended(call, "refused", f"A person refused {call.name}, so it was not done.")

    async def _attempt(self, call: ToolCall, spec: ToolSpec) -> ToolOutcome:
        begun = workflow.now()
        invocation = ToolInvocation(call=self._state.call, arguments=call.arguments)
        try:
            returned = await effects.run_tool(spec, call.id, invocation)
        except ActivityError as error:
            outcome = _outcome_of_failure(call, error)
        else:
            outcome = ToolOutcome(
                id=call.id,
                name=call.name,
                status="succeeded",
                result=returned.result,
                attempts=returned.attempts,
            )
        return outcome.model_copy(update={"seconds": (workflow.now() - begun).total_seconds()})

    def _built_in(self, ask: RunTool) -> ToolOutcome:
        """`end_call` and `transfer_call`: the same commands that people give, given by the model."""
        state, now, call = self._state, workflow.now(), ask.call
        if state.ending is not None:
            return _failed(call, "The call is already ending.")
        if call.name == "end_call":
            if not state.agent.can_end_call:
                return _failed(call, "The agent may not end this call.")
            say = call.arguments.get("say")
            state.command_end(say if isinstance(say, str) else "", "agent", "", now)
            if not isinstance(say, str):
                state.model_says_goodbye(ask.session)
            return _ended(call, "succeeded", None, {"ended": True})
        name = call.arguments.get("to")
        number = state.agent.transfers.get(name) if isinstance(name, str) else None
        target = transfer_target(state.agent, number) if number else None
        if target is None:
            known = ", ".join(state.agent.transfers) or "none"
            return _failed(call, f"There is nobody called {name!r} to transfer to. Known: {known}.")
        if state.transfer is not None:
            return _failed(call, "The call is being transferred already.")
        state.begin_transfer(target, None, "agent", "", now)
        return _ended(call, "succeeded", None, {"transferring_to": name})

    def _settle(self, outcome: ToolOutcome) -> None:
        state, now = self._state, workflow.now()
        after_hangup = state.ended_at is not None or state.left_at is not None
        self._mark(outcome.id, outcome=outcome, after_hangup=after_hangup)
        self._tasks.pop(outcome.id, None)
        state.add(ToolSettled(at=now, outcome=outcome, after_hangup=after_hangup))
        state.heard(now)

    def _mark(self, id: str, **changes: Any) -> None:
        self._state.put_tool(id, self._state.tools[id].model_copy(update=changes))


def _outcome_of_failure(call: ToolCall, error: ActivityError) -> ToolOutcome:
    """`failed` when the tool itself had the last word, `unknown` when some attempt was cut off."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        attempts = _told_attempts(cause.details)
        if cause.type == "ToolError":
            return _failed(call, cause.message, attempts)
        if cause.type not in CUT_OFF_ERRORS and not any(a.error == CUT_OFF for a in attempts):
            return _failed(call, f"The tool {call.name} failed.", attempts)
    else:
        details = cause.last_heartbeat_details if isinstance(cause, TimeoutError) else ()
        attempts = _told_attempts(details)
        last_words = cause.cause if isinstance(cause, TimeoutError) else None
        if not attempts and isinstance(last_words, ApplicationError):
            attempts = _told_attempts(last_words.details)
        attempts = (*attempts, _cut(len(attempts) + 1))
    uncertain = f"{call.name} did not finish in time. It may or may not have taken effect; do not say that it did."
    return _ended(call, "unknown", uncertain, attempts=attempts)


def _told_attempts(details: Any) -> tuple[ToolAttempt, ...]:
    """The attempts as the tool's activity carries them: `{"attempts": [...]}` first among the details."""
    if details and isinstance(details[0], dict):
        try:
            return _ATTEMPTS.validate_python(details[0].get("attempts", ()))
        except ValidationError:
            return ()
    return ()


def _cut(number: int, error: str = CUT_OFF) -> ToolAttempt:
    return ToolAttempt(number=number, error=error)


def _failed(call: ToolCall, error: str, attempts: tuple[ToolAttempt, ...] = ()) -> ToolOutcome:
    return _ended(call, "failed", error, attempts=attempts)


def _ended(
    call: ToolCall,
    status: ToolStatus,
    error: str | None,
    result: Any = None,
    attempts: tuple[ToolAttempt, ...] = (),
) -> ToolOutcome:
    return ToolOutcome(id=call.id, name=call.name, status=status, result=result, error=error, attempts=attempts)


def _canonical(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments], sort_keys=True, ensure_ascii=False)
