"""A call on the bench: real workflow and tools on a real worker; bridge, carrier and database only write down."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from activities.policy import PolicyActivities
from activities.tools import ToolActivities
from stayline import Agent, CallInfo, Tool
from stayline.messages import (
    Admission,
    Admit,
    CallResult,
    CallStart,
    CarrierStatus,
    CloseSession,
    Dial,
    ExtendCall,
    Grant,
    HangUp,
    NextStep,
    OpenSession,
    PackedRecord,
    PlaceCall,
    Placed,
    Record,
    Redirect,
    RunTool,
    Speak,
    Step,
)
from stayline.models import ToolCall, ToolOutcome
from stayline.names import OUTBOUND_PREFIX, bridge_task_queue, call_workflow_id
from stayline.timeline import (
    AgentTurn,
    CallRecord,
    CallSnapshot,
    SessionClosed,
    TimelineEntry,
    TimelineEvent,
    UserTurn,
)
from workflows.bridge import BridgeWorkflow
from workflows.call import CallWorkflow
from workflows.packing import opened

T = TypeVar("T")

LEG = "CA1"  # the carrier's id of a call that is placed
TIMEOUT = 20.0  # seconds; a test that waits longer has failed


def agent(*tools: Tool, **settings: Any) -> Agent:
    engines = {"stt": "offline/moonshine", "llm": "offline/scripted", "tts": "offline/hibari"}
    return Agent(name="desk", tools=tools, **{"goodbye": "Goodbye.", **engines, **settings})


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again and again until the answer is true."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            if answer := await condition():
                return answer
            await asyncio.sleep(0.02)


def user(text: str, **fields: Any) -> UserTurn:
    return UserTurn(at=datetime.now(UTC), text=text, **fields)


def said(text: str, **fields: Any) -> AgentTurn:
    return AgentTurn(at=datetime.now(UTC), text=text, **fields)


class Outside:
    """Bridge, carrier and database as seen from the workflow: they write down what they were asked."""

    def __init__(self) -> None:
        self.spoken: list[Speak] = []
        self.closed: list[CloseSession] = []
        self.hung_up: list[str] = []  #: ids that the carrier knows
        self.canceled: list[str] = []  #: those among them that nobody may have answered
        self.redirected: list[str] = []  #: to a bridge
        self.carrier_said: list[str] = []
        self.placed: list[PlaceCall] = []
        self.extended: list[ExtendCall] = []
        self.saved: list[CallRecord] = []
        self.somebody_speaks = False
        self.call_is_over = False
        self.redirect_fails = False
        self.never_answers = False  #: the bridge, that it has closed a session
        self.places: Callable[[PlaceCall], Awaitable[Placed]] | None = None  #: instead of dialling leg `CA1`

    @activity.defn
    async def speak(self, speech: Speak) -> bool:
        if speech.source == "silence" and self.somebody_speaks:
            return False
        self.spoken.append(speech)
        return True

    @activity.defn
    async def close_session(self, close: CloseSession) -> None:
        self.closed.append(close)
        if self.never_answers:
            await asyncio.Event().wait()

    @activity.defn
    async def hang_up(self, ask: HangUp) -> bool:
        self.hung_up.append(ask.carrier_call_id or ask.call_id)
        if ask.unanswered:
            self.canceled.append(ask.carrier_call_id)
        return True

    @activity.defn
    async def redirect_call(self, ask: Redirect) -> bool:
        if self.redirect_fails:
            raise ApplicationError("no bridge answers", type="NoBridge")
        if ask.say:
            self.carrier_said.append(ask.say)
        else:
            self.redirected.append(ask.carrier_call_id or ask.call_id)
        return not self.call_is_over

    @activity.defn
    async def place_call(self, ask: PlaceCall) -> Placed:
        self.placed.append(ask)
        return await self.places(ask) if self.places else Placed(carrier_call_id=LEG)

    @activity.defn
    async def extend_call(self, ask: ExtendCall) -> bool:
        self.extended.append(ask)
        return True

    @activity.defn
    async def save_call(self, record: CallRecord | PackedRecord) -> None:
        self.saved.append(opened(record))


class Bench:
    """One worker, one bridge queue, one call at a time."""

    def __init__(
        self,
        client: Client,
        agent: Agent,
        outside: Outside,
        queue: str,
        bridge_id: str,
        dial: Dial | None = None,
    ) -> None:
        self.client = client
        self.agent = agent
        self.outside = outside
        self.queue = queue
        self.bridge_id = bridge_id
        self.dial = dial
        self.call_id = (OUTBOUND_PREFIX if dial else "CA") + uuid.uuid4().hex
        self.handle: WorkflowHandle[CallWorkflow, CallResult] = client.get_workflow_handle_for(
            CallWorkflow.run, call_workflow_id(self.call_id)
        )
        self._sequence: dict[int, int] = {}

    def start_input(self, **fields: Any) -> CallStart:
        call = CallInfo(
            call_id=self.call_id,
            from_number="+15550001111",
            to_number="+15550002222",
            direction="outbound" if self.dial else "inbound",
            started_at=datetime.now(UTC),
            agent=self.agent.name,
        )
        values = {
            "call": call,
            "agent": self.agent.spec(),
            "has_policy": self.agent.policy is not None,
            "public_url": "http://bridge.test",
            "outbound": self.dial,
            **fields,
        }
        return CallStart(**values)

    async def start(self, **fields: Any) -> None:
        """Start the workflow alone. On a time-skipping server, only a handle from here makes its clock jump."""
        self.handle = await self.client.start_workflow(
            CallWorkflow.run, self.start_input(**fields), id=self.handle.id, task_queue=self.queue
        )

    async def admit(self, token: str = "t1", **fields: Any) -> Admission:
        """As the voice webhook does it."""
        ask = Admit(token_sha256=token, bridge_id=self.bridge_id)

        def with_start() -> Awaitable[Admission]:
            start = WithStartWorkflowOperation(
                CallWorkflow.run,
                self.start_input(**fields),
                id=self.handle.id,
                task_queue=self.queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=timedelta(seconds=5),
            )
            return self.client.execute_update_with_start_workflow(
                CallWorkflow.admit, ask, start_workflow_operation=start
            )

        return await again(with_start)

    async def open(self, token: str = "t1", stream: str = "MZ1", bridge_id: str | None = None) -> Grant:
        ask = OpenSession(token_sha256=token, bridge_id=bridge_id or self.bridge_id, stream_id=stream)
        id = uuid.uuid4().hex
        return await again(lambda: self.handle.execute_update(CallWorkflow.open_session, ask, id=id))

    async def begin(self, **fields: Any) -> Grant:
        assert (await self.admit(**fields)).accepted
        return await self.open()

    async def record(self, *events: TimelineEvent, session: int = 1, first_seq: int | None = None) -> None:
        first = self._sequence.get(session, 1) if first_seq is None else first_seq
        self._sequence[session] = max(self._sequence.get(session, 1), first + len(events))
        await self.handle.signal("record", Record(session=session, first_seq=first, events=events))

    async def stream_ends(self, reason: Any = "stopped", session: int = 1) -> None:
        closed = SessionClosed(at=datetime.now(UTC), session=session, reason=reason)
        await self.record(closed, session=session)

    async def carrier(self, status: Any, **fields: Any) -> None:
        await self.handle.signal("carrier_status", CarrierStatus(status=status, **fields))

    async def answered(self, token: str = "t1", leg: str = LEG) -> Admission:
        """The voice webhook of a call that we placed."""
        ask = Admit(token_sha256=token, bridge_id=self.bridge_id, carrier_call_id=leg)
        id = uuid.uuid4().hex
        return await again(lambda: self.handle.execute_update(CallWorkflow.admit, ask, id=id))

    async def next_step(self, token: str = "next", **fields: Any) -> Step:
        ask = NextStep(token_sha256=token, bridge_id=self.bridge_id, **fields)
        id = uuid.uuid4().hex
        return await again(lambda: self.handle.execute_update(CallWorkflow.next_step, ask, id=id))

    async def tool(self, name: str, id: str = "call_1", **arguments: Any) -> ToolOutcome:
        ask = self.asked(name, id, **arguments)
        return await again(lambda: self.handle.execute_update(CallWorkflow.run_tool, ask, id=id))

    async def start_tool(self, name: str, id: str = "call_1", **arguments: Any) -> Any:
        return await self.handle.start_update(
            CallWorkflow.run_tool,
            self.asked(name, id, **arguments),
            id=id,
            wait_for_stage=WorkflowUpdateStage.ACCEPTED,
        )

    def asked(self, name: str, id: str, **arguments: Any) -> RunTool:
        return RunTool(session=1, call=ToolCall(id=id, name=name, arguments=arguments))

    async def snapshot(self) -> CallSnapshot:
        return await self.handle.query(CallWorkflow.snapshot)

    async def timeline(self, kind: str | None = None) -> list[TimelineEntry]:
        entries = await self.handle.query(CallWorkflow.timeline, 0)
        return [e for e in entries if kind is None or e.event.type == kind]

    async def status(self, wanted: str) -> None:
        async def reached() -> bool:
            return (await self.snapshot()).status == wanted

        await until(reached)

    async def event(self, kind: str) -> Any:
        async def there() -> Any:
            found = await self.timeline(kind)
            return found[-1].event if found else None

        return await until(there)

    async def hang_up(self, session: int = 1) -> None:
        """The caller hangs up: the carrier says so, and the bridge records the end of its stream."""
        await self.stream_ends("stopped", session)
        await self.carrier("completed")

    async def result(self) -> CallResult:
        async with asyncio.timeout(TIMEOUT):
            return await self.handle.result()


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask as the bridge does: an update that meets a run just continuing as new is refused, and asked again."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                return await ask()
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.05)


@asynccontextmanager
async def bench(
    client: Client,
    agent: Agent,
    *,
    worker: dict[str, Any] | None = None,
    bridge: bool = True,
    dial: Dial | None = None,
) -> AsyncIterator[Bench]:
    """A worker for calls to this agent, and a bridge's worker unless there is to be none. `dial`: we place it."""
    outside = Outside()
    queue, bridge_id = f"calls-{uuid.uuid4().hex}", uuid.uuid4().hex[:8]
    throttle = timedelta(milliseconds=200)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                client,
                task_queue=queue,
                workflows=[CallWorkflow, BridgeWorkflow],
                activities=[
                    ToolActivities({agent.name: agent}).run,
                    PolicyActivities({agent.name: agent}).screen_call,
                    outside.place_call,
                    outside.hang_up,
                    outside.redirect_call,
                    outside.extend_call,
                    outside.save_call,
                ],
                max_heartbeat_throttle_interval=throttle,
                default_heartbeat_throttle_interval=throttle,
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
                **(worker or {}),
            )
        )
        if bridge:
            await stack.enter_async_context(bridge_worker(client, bridge_id, outside))
        yield Bench(client, agent, outside, queue, bridge_id, dial)


def bridge_worker(client: Client, bridge_id: str, outside: Outside) -> Worker:
    return Worker(
        client, task_queue=bridge_task_queue(bridge_id), activities=[outside.speak, outside.close_session]
    )


async def refused(update: Awaitable[Any]) -> ApplicationError:
    """The error with which an update was refused."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await update
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause
