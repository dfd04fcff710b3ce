"""`stayline calls` against a real Temporal server, a real worker with the real workflow, and a real database."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.worker import Worker
from typer.testing import CliRunner

from activities.policy import PolicyActivities
from activities.records import RecordActivities
from activities.records_db import CallStore
from activities.tools import ToolActivities
from stayline import tool
from stayline.commands.calls import calls_app
from stayline.commands.calls_find import Calls
from stayline.commands.calls_listed import Filters
from stayline.commands.calls_replay import fetch_histories, read_history, replay
from stayline.commands.calls_steer import Refused, steer, waiting_tool
from stayline.commands.calls_watch import (
    AttemptFailed,
    Began,
    CallWatcher,
    Ended,
    Happened,
    LivePrinter,
    Lost,
    Regained,
    WaitsForApproval,
    WatchEvent,
)
from stayline.commands.terminal import UsageError
from stayline.errors import StaylineError
from stayline.messages import Approve, EndCall, SayText, TransferCall
from stayline.names import CALL_WORKFLOW, call_workflow_id
from stayline.timeline import CallEnded, CallRecord
from tests.workflows.bench import Bench, Outside, agent, bridge_worker, said, until, user
from workflows.bridge import BridgeWorkflow
from workflows.call import CallWorkflow

pytestmark = pytest.mark.timeout(120)


class Station:
    """A weather station that is offline at first."""

    def __init__(self) -> None:
        self.failures = 2

    def tool(self) -> Any:
        @tool(retries=4, backoff=0.1, filler="Let me check.")
        async def get_weather(location: str) -> dict[str, Any]:
            """Get the weather."""
            if self.failures:
                self.failures -= 1
                raise ConnectionError("weather station offline")
            return {"sky": "clear", "celsius": 17}

        return get_weather


@tool(needs_approval=True)
async def refund(order: int) -> str:
    """Give the money back."""
    return f"refunded {order}"


@dataclass
class Desk:
    """A worker for one agent, a call at it, and the two sources that commands read."""

    bench: Bench
    url: str
    calls: Calls
    outside: Outside

    @property
    def call_id(self) -> str:
        return self.bench.call_id


@asynccontextmanager
async def desk(client: Client, url: str, *tools: Any) -> AsyncIterator[Desk]:
    outside = Outside()
    front = agent(*(tools or (Station().tool(), refund)))
    queue, bridge_id = f"calls-{uuid.uuid4().hex}", uuid.uuid4().hex[:8]
    async with (
        RecordActivities(url) as records,
        Worker(
            client,
            task_queue=queue,
            workflows=[CallWorkflow, BridgeWorkflow],
            activities=[
                ToolActivities({front.name: front}).run,
                PolicyActivities({front.name: front}).screen_call,
                outside.hang_up,
                outside.redirect_call,
                records.save_call,
            ],
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        ),
        bridge_worker(client, bridge_id, outside),
    ):
        calls = Calls(client, lambda: CallStore(url))
        bench = Bench(client, front, outside, queue, bridge_id)
        try:
            yield Desk(bench, url, calls, outside)
        finally:
            await calls.close()
            # No call stays behind: lists of other tests would wait for a worker that is gone.
            with contextlib.suppress(RPCError):
                await bench.handle.terminate()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'calls.db'}"


@pytest.fixture
async def front(client: Client, url: str) -> AsyncIterator[Desk]:
    async with desk(client, url) as made:
        yield made


async def seen(calls: Calls, filters: Filters, call_id: str) -> bool:
    return call_id in [call.call_id for call in await calls.list_calls(filters)]


async def ended(front: Desk) -> None:
    await front.bench.hang_up()
    await front.bench.result()


class Listener:
    """Collects what a watcher emits, and can wait for it."""

    def __init__(self) -> None:
        self.events: list[WatchEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: WatchEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def heard(self, wanted: Callable[[WatchEvent], bool]) -> None:
        async with asyncio.timeout(30):
            while not any(map(wanted, self.events)):
                self._changed.clear()
                await self._changed.wait()


# --- finding ---------------------------------------------------------------------------------------------


async def test_a_live_call_is_listed_and_read_from_its_workflow(front: Desk) -> None:
    await front.bench.begin()
    await front.bench.record(said("Hello!", source="greeting"), user("Hi."))
    await until(lambda: seen(front.calls, Filters(live=True), front.call_id))
    (listed,) = [c for c in await front.calls.list_calls(Filters()) if c.call_id == front.call_id]
    assert (listed.running, listed.status, listed.from_number) == (True, "active", "+15550001111")

    async def told() -> bool:
        return (await front.calls.read(front.call_id)).record.snapshot.metrics.turn_count == 2

    await until(told)
    found = await front.calls.read(front.call_id)
    assert found.source == "live"
    assert found.ui_url.endswith(call_workflow_id(front.call_id))
    assert front.calls.away == []


async def test_an_ended_call_is_read_from_the_database_and_else_from_its_history(
    front: Desk, client: Client
) -> None:
    await front.bench.begin()
    await front.bench.record(user("Hi."))
    await ended(front)
    found = await front.calls.read(front.call_id)
    assert found.source == "database"
    without = Calls(client, None)
    again = await without.read(front.call_id)
    assert again.source == "history"
    assert again.record.timeline == found.record.timeline
    await until(lambda: seen(without, Filters(outcome="caller_hung_up"), front.call_id))


async def test_a_call_is_found_by_its_beginning_and_as_the_last(front: Desk) -> None:
    await front.bench.begin()
    await until(lambda: seen(front.calls, Filters(live=True), front.call_id))
    assert await front.calls.resolve(front.call_id[:14]) == front.call_id
    assert await front.calls.resolve(call_workflow_id(front.call_id)) == front.call_id
    assert await front.calls.resolve("last", live=True) == front.call_id
    await ended(front)
    assert await front.calls.resolve(front.call_id[:14]) == front.call_id


async def test_a_call_that_began_this_moment_is_found_by_its_id(front: Desk) -> None:
    await front.bench.begin()
    assert await front.calls.resolve(front.call_id) == front.call_id


@pytest.mark.parametrize("given", ["CAnobody", "'; DROP TABLE calls", "\\", "", "call-"])
async def test_an_unknown_call_is_a_usage_error(front: Desk, given: str) -> None:
    with pytest.raises(UsageError):
        await front.calls.resolve(given)
    assert front.calls.away == []


async def test_an_ambiguous_beginning_names_the_calls(front: Desk, client: Client, url: str) -> None:
    await front.bench.begin()
    first = front.call_id
    second = Bench(client, front.bench.agent, front.outside, front.bench.queue, front.bench.bridge_id)
    second.call_id = first[:20] + "zz"
    second.handle = client.get_workflow_handle_for(CallWorkflow.run, call_workflow_id(second.call_id))
    await second.begin()
    await until(lambda: seen(front.calls, Filters(live=True), second.call_id))
    await until(lambda: seen(front.calls, Filters(live=True), first))
    with pytest.raises(UsageError, match="several calls") as error:
        await front.calls.resolve(first[:20])
    assert first in str(error.value)
    assert second.call_id in str(error.value)


async def test_without_a_database_the_list_still_works_and_says_so(front: Desk, client: Client) -> None:
    await front.bench.begin()
    calls = Calls(client, lambda: CallStore("postgresql://u:secret@127.0.0.1:1/x"))
    await until(lambda: seen(front.calls, Filters(live=True), front.call_id))
    assert await seen(calls, Filters(), front.call_id)
    (away,) = calls.away
    assert "cannot be reached" in str(away)
    assert "secret" not in str(away)
    await calls.close()


async def test_a_running_call_without_a_worker_says_what_is_missing(client: Client, url: str) -> None:
    async with desk(client, url) as front:
        await front.bench.begin()
        call_id = front.call_id
        front.bench.handle = client.get_workflow_handle_for(CallWorkflow.run, "nothing to terminate")
    calls = Calls(client, lambda: CallStore(url))
    with pytest.raises(StaylineError, match="No worker answers") as error:
        await calls.read(call_id)
    assert "stayline worker" in error.value.fix
    await calls.close()
    await client.get_workflow_handle(call_workflow_id(call_id)).terminate()


# --- watching --------------------------------------------------------------------------------------------


async def test_watching_tells_everything_once_and_ends_with_the_call(front: Desk, client: Client) -> None:
    heard = Listener()
    screen = Console(file=io.StringIO(), width=100, highlight=False)
    printer = LivePrinter(screen)

    def emit(event: WatchEvent) -> None:
        heard(event)
        printer(event)

    watcher = CallWatcher(client, front.call_id, emit, interval=0.02, appears_within=20)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watcher.run())
        await front.bench.begin()
        await front.bench.record(user("What's the weather?"))
        await front.bench.tool("get_weather", location="Lisbon")
        await front.bench.start_tool("refund", id="call_2", order=4711)
        await heard.heard(lambda event: isinstance(event, WaitsForApproval))
        assert await waiting_tool(client, front.call_id) == "call_2"
        approval = Approve(tool_call_id="call_2", approved=True, by="mia@desk", why="good customer")
        await steer(client, front.call_id, approval)
        await heard.heard(lambda event: isinstance(event, Happened) and "refunded" in str(event.entry))
        await ended(front)
        snapshot = await watching
    assert snapshot is not None
    assert snapshot.status == "ended"
    assert isinstance(heard.events[0], Began)
    assert isinstance(heard.events[-1], Ended)
    indices = [event.entry.index for event in heard.events if isinstance(event, Happened)]
    assert indices == list(range(len(indices)))
    assert isinstance([event.entry.event for event in heard.events if isinstance(event, Happened)][-1], CallEnded)
    assert isinstance(screen.file, io.StringIO)
    printed = screen.file.getvalue()
    for told in (
        "caller   What's the weather?",
        'tool     get_weather(location="Lisbon")',
        "attempt 1 failed",
        "✓ get_weather  3 attempts",
        "⏸ refund waits for approval",
        "mia@desk approves tool call call_2",
        "ended: the caller hung up",
    ):
        assert printed.count(told) == 1, printed


async def test_watching_tells_of_retries_while_they_happen(client: Client, url: str) -> None:
    """The tool goes on only when the watcher has told of its failed attempt."""
    told = asyncio.Event()
    failed = False

    @tool(retries=3, backoff=0.1)
    async def reserve() -> str:
        """Fails once, then waits until somebody has seen it."""
        nonlocal failed
        if not failed:
            failed = True
            raise ConnectionError("booking system busy")
        await told.wait()
        return "reserved"

    async with desk(client, url, reserve) as front:
        await front.bench.begin()
        heard = Listener()
        screen = Console(file=io.StringIO(), width=100, highlight=False)
        printer = LivePrinter(screen)

        def emit(event: WatchEvent) -> None:
            heard(event)
            printer(event)

        async with asyncio.TaskGroup() as group:
            group.create_task(CallWatcher(client, front.call_id, emit, interval=0.02).run())
            running = await front.bench.start_tool("reserve")
            await heard.heard(lambda event: isinstance(event, AttemptFailed))
            found = await front.calls.read(front.call_id)
            told.set()
            await running.result()
            await ended(front)
    (attempt,) = [event.tool for event in heard.events if isinstance(event, AttemptFailed)]
    assert (attempt.name, attempt.failed.number, attempt.max_attempts) == ("reserve", 1, 4)
    assert attempt.failed.error == "ConnectionError: booking system busy"
    assert found.retried == (attempt,)
    assert isinstance(screen.file, io.StringIO)
    assert "attempt 2 of 4 follows" in screen.file.getvalue()
    assert screen.file.getvalue().count("booking system busy") == 1, "not again when the tool has settled"


async def test_watching_an_unknown_call_is_a_usage_error(client: Client) -> None:
    with pytest.raises(UsageError):
        await CallWatcher(client, "CAnobody", lambda _: None).run()


class Cuttable:
    """A TCP relay to Temporal that can be cut and mended: Temporal away, as its clients see it."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            far_writer.close()
            self._pipes.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


async def test_watching_survives_temporals_absence(front: Desk, client: Client) -> None:
    await front.bench.begin()
    relay = Cuttable(client.service_client.config.target_host)
    await relay.mend()
    far = await Client.connect(f"127.0.0.1:{relay.port}", data_converter=pydantic_data_converter)
    heard = Listener()
    async with asyncio.TaskGroup() as group:
        group.create_task(CallWatcher(far, front.call_id, heard, interval=0.02).run())
        await heard.heard(lambda event: isinstance(event, Happened))
        await relay.cut()
        await heard.heard(lambda event: isinstance(event, Lost))
        await front.bench.record(user("Are you there?"))
        await relay.mend()
        await heard.heard(lambda event: isinstance(event, Regained))
        await heard.heard(lambda event: "Are you there?" in str(event))
        await ended(front)
    await relay.cut()
    indices = [event.entry.index for event in heard.events if isinstance(event, Happened)]
    assert indices == list(range(len(indices)))


async def test_watching_gives_up_when_temporal_stays_away(front: Desk, client: Client) -> None:
    await front.bench.begin()
    relay = Cuttable(client.service_client.config.target_host)
    await relay.mend()
    far = await Client.connect(f"127.0.0.1:{relay.port}", data_converter=pydantic_data_converter)
    heard = Listener()
    watching = asyncio.create_task(CallWatcher(far, front.call_id, heard, interval=0.02, patience=0.1).run())
    await heard.heard(lambda event: isinstance(event, Happened))
    await relay.cut()
    with pytest.raises(StaylineError):
        await watching


# --- steering --------------------------------------------------------------------------------------------


async def test_commands_reach_the_call_with_who_and_why(front: Desk, client: Client) -> None:
    await front.bench.begin()
    await steer(client, front.call_id, SayText(text="One moment.", by="mia@desk", why="slow"))
    await steer(client, front.call_id, TransferCall(to="+15550100999", by="mia@desk", why="VIP"))
    commanded = [entry.event for entry in await front.bench.timeline("commanded")]
    assert [(c.command, c.by, c.why, c.detail) for c in commanded] == [  # type: ignore[union-attr]
        ("say", "mia@desk", "slow", "One moment."),
        ("transfer", "mia@desk", "VIP", "+15550100999"),
    ]
    await steer(client, front.call_id, EndCall(by="mia@desk"))
    await front.bench.carrier("completed")
    await front.bench.result()


async def test_a_refusal_is_the_workflows_own_reason(front: Desk, client: Client) -> None:
    await front.bench.begin()
    with pytest.raises(Refused, match="no tool call 'x' waits for approval"):
        await steer(client, front.call_id, Approve(tool_call_id="x", approved=True))
    with pytest.raises(Refused, match="no tool call waits"):
        await waiting_tool(client, front.call_id)
    await ended(front)
    with pytest.raises(Refused, match="the call is over"):
        await steer(client, front.call_id, EndCall())
    with pytest.raises(UsageError, match="knows no call"):
        await steer(client, "CAnobody", EndCall())


# --- replay and export -----------------------------------------------------------------------------------


@workflow.defn(name=CALL_WORKFLOW, sandboxed=False)
class Tomorrow:
    """A later CallWorkflow that forgot the timer and begins with an activity."""

    @workflow.run
    async def run(self, start: Any) -> None:
        await workflow.execute_activity("audit_call", start_to_close_timeout=timedelta(seconds=1))


async def test_replay_says_ok_or_where_the_code_differs(front: Desk, client: Client, tmp_path: Path) -> None:
    await front.bench.begin()
    await front.bench.tool("get_weather", location="Lisbon")
    await ended(front)
    histories = await fetch_histories(client, front.call_id)
    path = tmp_path / "exported.json"
    path.write_text(histories[0].to_json())
    (report,) = await replay([read_history(path)])
    assert report.ok
    assert report.workflow_id == call_workflow_id(front.call_id)
    (differs,) = await replay(histories, Tomorrow)
    assert not differs.ok
    assert differs.difference is not None
    assert differs.difference.event_id is not None
    assert differs.difference.today == "starts an activity"
    assert differs.difference.recorded


async def test_the_history_of_a_call_that_continued_as_new_is_all_its_runs(front: Desk, client: Client) -> None:
    await front.bench.begin(history_limit=20)

    async def continued() -> bool:
        await front.bench.record(user("and another thing"))
        return (await front.bench.snapshot()).run_count > 1

    await until(continued)
    histories = await fetch_histories(client, front.call_id)
    assert len(histories) > 1
    assert all(report.ok for report in await replay(histories))
    await ended(front)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("no json", "holds no workflow history"),
        ("{}", "holds no workflow history"),
        ('{"events": []}', "holds no workflow history"),
        ("[1, 2]", "holds no workflow history"),
        (
            '{"events": [{"eventId": "1", "workflowExecutionStartedEventAttributes":'
            ' {"workflowType": {"name": "Other"}}}]}',
            "is the history of Other",
        ),
    ],
)
def test_a_file_that_is_no_history_is_a_usage_error(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read_history(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_history(tmp_path / "nothing.json")


# --- the command itself ----------------------------------------------------------------------------------


class Shell:
    """Runs `stayline calls …` as a person does: the real command, in a thread, with an environment of its own."""

    def __init__(self, address: str, url: str) -> None:
        self._environment = {"TEMPORAL_ADDRESS": address, "STAYLINE_DATABASE_URL": url, "COLUMNS": "100"}

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Returns exit code, output and errors."""
        runner = CliRunner(env=self._environment)
        result = await asyncio.to_thread(runner.invoke, calls_app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr


async def test_the_commands_as_a_person_runs_them(front: Desk, client: Client, url: str, tmp_path: Path) -> None:
    shell = Shell(client.service_client.config.target_host, url)
    await front.bench.begin()
    await front.bench.record(user("Hello?"))
    short = front.call_id[:14]
    told = f"Call {front.call_id} is being ended.\n"
    assert await shell("end", front.call_id, "--why", "test") == (0, told, "")
    await front.bench.carrier("completed")
    await front.bench.result()

    code, out, errors = await shell("list", "--json")
    assert (code, errors) == (0, "")
    assert front.call_id in [call["call_id"] for call in json.loads(out)]

    code, out, errors = await shell("show", short)
    assert (code, errors) == (0, "")
    assert "caller   Hello?" in out
    assert "ends the call, saying: Goodbye." in out

    code, out, errors = await shell("show", short, "--json")
    assert json.loads(out)["source"] == "database"

    code, out, errors = await shell("watch", short, "--json")
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "ended"

    code, out, errors = await shell("export", short, "--record")
    assert CallRecord.model_validate_json(out).snapshot.outcome == "completed"

    history = tmp_path / "new" / "history.json"
    assert await shell("export", short, "--out", str(history)) == (0, "", f"Wrote {history}.\n")
    code, out, errors = await shell("replay", str(history))
    assert (code, errors) == (0, "")
    assert out.startswith(f"OK call-{front.call_id}")

    assert await shell("end", short) == (1, "", "error: Refused: the call is over.\n")
    code, out, errors = await shell("show", "CAnobody")
    assert (code, out) == (2, "")
    assert "There is no call 'CAnobody'" in errors
    assert (await shell("transfer", short, "0123"))[0] == 2
    assert (await shell("list", "--status", "busy"))[0] == 2


async def test_replay_exits_with_1_where_code_differs(
    front: Desk, client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await front.bench.begin()
    await ended(front)
    monkeypatch.setattr("workflows.call.CallWorkflow", Tomorrow)
    shell = Shell(client.service_client.config.target_host, url)
    code, out, _ = await shell("replay", front.call_id)
    assert code == 1
    assert out.startswith(f"DIFFERS call-{front.call_id} at event ")
    assert "today's code:  starts an activity" in out


async def test_the_commands_without_temporal(url: str) -> None:
    shell = Shell("127.0.0.1:1", url)
    code, out, errors = await shell("list")
    assert (code, out) == (0, "No calls.\n")
    assert errors.startswith("note: Temporal does not answer at 127.0.0.1:1.")
    code, out, errors = await shell("end", "last")
    assert (code, out) == (1, "")
    assert "Temporal does not answer" in errors
    code, out, errors = await Shell("127.0.0.1:1", "postgresql://u:secret@127.0.0.1:1/x")("list", "--json")
    assert (code, out) == (1, "")
    assert "Neither Temporal nor the call records database" in errors
    assert "secret" not in errors


async def test_the_command_runs_as_a_process(url: str) -> None:
    """Once: entry point, exit code, no traceback."""
    program = "from stayline.commands.main import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "calls", "replay", "no-such-file.json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert (process.returncode, out.decode()) == (2, "")
    assert errors.decode() == "error: no-such-file.json cannot be read: No such file or directory.\n"
