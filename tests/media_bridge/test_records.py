"""Records on their way to a real workflow: order, numbers and batches, and what happens while Temporal is away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RetryConfig
from temporalio.worker import Worker

from media_bridge import records as module
from media_bridge.records import BATCH, RecordSender, SpoolResender
from stayline.messages import Record
from stayline.names import call_workflow_id
from stayline.timeline import AgentTurn, Interruption, TimelineEvent, Usage, UserTurn
from tests.media_bridge.providers.speech import until
from tests.stayline.commands.test_calls_live import Cuttable

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@workflow.defn(sandboxed=False)
class Notebook:
    """Keeps the records as they came, until it is closed."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._closed = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._closed)

    @workflow.signal
    def record(self, record: Record) -> None:
        self._records.append(record)

    @workflow.signal
    def close(self) -> None:
        self._closed = True

    @workflow.query
    def records(self) -> list[Record]:
        return self._records


class Desk:
    """A call's notebook, and a line to it that can be cut."""

    def __init__(self, client: Client, far: Client, line: Cuttable, call_id: str, folder: Path) -> None:
        self.client = client
        self.far = far
        self.line = line
        self.call_id = call_id
        self.folder = folder / "spool"
        self.handle = client.get_workflow_handle_for(Notebook.run, call_workflow_id(call_id))

    @property
    def spool(self) -> Path:
        return self.folder / f"{self.call_id}.1.json"

    def sender(self) -> RecordSender:
        return RecordSender(self.far, self.call_id, 1, self.folder)

    async def arrived(self) -> list[Record]:
        return await self.handle.query(Notebook.records)

    async def texts(self) -> list[str]:
        return [text(event) for record in await self.arrived() for event in record.events]

    async def closes(self) -> None:
        await self.handle.signal(Notebook.close)
        await self.handle.result()

    def spooled(self) -> list[str]:
        if not self.spool.exists():
            return []
        return [text(event) for event in Record.model_validate_json(self.spool.read_text()).events]


@pytest.fixture
async def desk(client: Client, tmp_path: Path) -> AsyncIterator[Desk]:
    call_id, queue = f"CA{uuid.uuid4().hex}", f"notes-{uuid.uuid4().hex}"
    line = Cuttable(client.service_client.config.target_host)
    await line.mend()
    far = await Client.connect(
        f"127.0.0.1:{line.port}",
        data_converter=pydantic_data_converter,
        retry_config=RetryConfig(initial_interval_millis=20, max_elapsed_time_millis=100),
    )
    async with Worker(client, task_queue=queue, workflows=[Notebook]):
        handle = await client.start_workflow(Notebook.run, id=call_workflow_id(call_id), task_queue=queue)
        yield Desk(client, far, line, call_id, tmp_path)
        if (await handle.describe()).status == 1:
            await handle.terminate()
    await line.cut()


@asynccontextmanager
async def running(work: RecordSender | SpoolResender) -> AsyncIterator[None]:
    task = asyncio.create_task(work.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


def said(words: str) -> UserTurn:
    return UserTurn(at=NOW, text=words)


def cost() -> Usage:
    return Usage(at=NOW, provider="openai", model="gpt-6-luna", input_tokens=3)


def text(event: TimelineEvent) -> str:
    return event.text if isinstance(event, UserTurn | AgentTurn) else event.type


async def a_moment() -> None:
    """Let every task go on until it waits for something outside."""
    for _ in range(10):
        await asyncio.sleep(0)


# --- sending ---------------------------------------------------------------------------------------------


async def test_events_arrive_in_order_numbered_and_in_batches(desk: Desk) -> None:
    sender, words = desk.sender(), [str(number) for number in range(2 * BATCH + 20)]
    for word in words:
        sender.put(said(word))
    async with running(sender):
        await sender.caught_up(10)
        sender.put(said("more"))
        await sender.caught_up(10)
    got = await desk.arrived()
    assert [(r.session, r.first_seq, len(r.events)) for r in got] == [
        (1, 1, BATCH),
        (1, BATCH + 1, BATCH),
        (1, 2 * BATCH + 1, 20),
        (1, 2 * BATCH + 21, 1),
    ]
    assert await desk.texts() == [*words, "more"]
    assert not desk.spool.exists(), "nothing is written to disk while all is well"


async def test_what_a_reply_cost_travels_with_the_next_event(desk: Desk) -> None:
    sender = desk.sender()
    async with running(sender):
        sender.put(cost())
        await a_moment()
        sender.put(said("hello"))
        await sender.caught_up(10)
        sender.put(cost())
        await sender.caught_up(10)  # a tool does not wait for it, and no signal is spent on it
        sender.put(said("again"))
        sender.put(cost())
        await sender.caught_up(10)
    await sender.close(10)
    assert [[text(event) for event in record.events] for record in await desk.arrived()] == [
        ["usage", "hello"],
        ["usage", "again", "usage"],
    ]


async def test_what_a_reply_cost_is_no_signal_of_its_own_when_it_comes_while_a_turn_is_sent(desk: Desk) -> None:
    sender = desk.sender()
    async with running(sender):
        sender.put(AgentTurn(at=NOW, text="hello"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # its signal is on its way
        sender.put(cost())
        await sender.caught_up(10)
        assert await desk.texts() == ["hello"]
        sender.put(said("again"))
        await sender.caught_up(10)
    assert [[text(event) for event in record.events] for record in await desk.arrived()] == [
        ["hello"],
        ["usage", "again"],
    ]


async def test_an_interruption_and_the_turn_that_it_cuts_share_a_signal(desk: Desk) -> None:
    sender = desk.sender()
    async with running(sender):
        sender.put(Interruption(at=NOW, mode="immediate"))
        await a_moment()
        sender.put(AgentTurn(at=NOW, text="Your order", interrupted=True))
        await sender.caught_up(10)
    assert await desk.texts() == ["interruption", "Your order"]
    assert len(await desk.arrived()) == 1


async def test_a_turn_of_the_caller_is_sent_after_its_answer_has_begun_unless_somebody_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 60)
    sender = desk.sender()
    async with running(sender):
        sender.put(said("one"))
        await a_moment()
        assert sender._pressing
        await sender.caught_up(10)
        assert not sender._pressing
        sender.put(said("two"))
        await a_moment()
        assert sender._pressing, "the one before was in a hurry, this one is not"
    await sender.close(10)
    assert await desk.texts() == ["one", "two"]


async def test_waiting_has_an_end(desk: Desk) -> None:
    sender = desk.sender()
    await sender.caught_up(10)  # nothing to wait for
    sender.put(said("hello"))
    await sender.caught_up(0.05)  # nobody sends
    await sender.close(10)
    assert await desk.texts() == ["hello"]
    assert not desk.spool.exists()
    await sender.close(10)
    assert len(await desk.arrived()) == 1


async def test_the_end_of_a_session_sends_what_its_sender_was_cancelled_over(desk: Desk) -> None:
    sender = desk.sender()
    async with running(sender):
        sender.put(cost())
        await a_moment()
    await sender.close(10)
    assert await desk.texts() == ["usage"]


async def test_records_of_a_call_that_is_over_are_given_up(desk: Desk) -> None:
    await desk.closes()
    sender = desk.sender()
    async with running(sender):
        sender.put(said("too late"))
        await sender.caught_up(10)
        await a_moment()
    await sender.close(10)
    assert await desk.texts() == []
    assert not desk.spool.exists()


# --- Temporal is away ------------------------------------------------------------------------------------


async def test_an_event_that_cannot_be_sent_costs_no_other(desk: Desk) -> None:
    """Half a surrogate pair: no JSON holds it, and Temporal's converter raises."""
    sender = desk.sender()
    for words in ("before", "half \ud800", "after"):
        sender.put(said(words))
    async with running(sender):
        await sender.caught_up(10)
    assert await desk.texts() == ["before", "after"]


async def test_waiting_records_are_on_disk_and_arrive_afterwards(desk: Desk) -> None:
    sender = desk.sender()
    async with running(sender):
        sender.put(said("before"))
        await sender.caught_up(10)
        await desk.line.cut()
        sender.put(said("one"))
        await until(lambda: desk.spooled() == ["one"])
        sender.put(said("two"))
        await until(lambda: desk.spooled() == ["one", "two"])
        assert Record.model_validate_json(desk.spool.read_text()).first_seq == 2
        await desk.line.mend()
        await sender.caught_up(10)
    assert await desk.texts() == ["before", "one", "two"]
    assert [record.first_seq for record in await desk.arrived()] == [1, 2]
    assert not desk.spool.exists()


async def test_records_are_on_disk_long_before_temporal_is_given_up(desk: Desk) -> None:
    """A bridge may die in the seconds in which its client still tries."""
    patient = await Client.connect(
        f"127.0.0.1:{desk.line.port}",
        data_converter=pydantic_data_converter,
        retry_config=RetryConfig(initial_interval_millis=20, max_elapsed_time_millis=3_600_000),
    )
    sender = RecordSender(patient, desk.call_id, 1, desk.folder)
    await desk.line.cut()
    async with running(sender):
        sender.put(said("one"))
        await until(lambda: desk.spooled() == ["one"])
        sender.put(said("two"))
        assert desk.spooled() == ["one", "two"]
        await desk.line.mend()
        await sender.caught_up(10)
        assert not desk.spool.exists()
        sender.put(said("three"))
        await sender.caught_up(10)
    assert await desk.texts() == ["one", "two", "three"]


async def test_a_session_that_ends_meanwhile_leaves_its_records_to_the_spool(desk: Desk) -> None:
    sender, words = desk.sender(), [str(number) for number in range(BATCH + 5)]
    await desk.line.cut()
    for word in words:
        sender.put(said(word))
    await sender.close(0.2)
    assert desk.spooled() == words

    async with running(SpoolResender(desk.client, desk.folder)):
        await until(lambda: not desk.spool.exists())
    assert [(r.session, r.first_seq) for r in await desk.arrived()] == [(1, 1), (1, BATCH + 1)]
    assert await desk.texts() == words
    assert list(desk.folder.iterdir()) == []


async def test_a_disk_that_cannot_be_written_costs_nothing_but_safety(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    sender = desk.sender()
    await desk.line.cut()
    sender.put(said("hello"))
    async with running(sender):
        await sender.caught_up(0.3)
        await desk.line.mend()
        await sender.caught_up(10)
    assert await desk.texts() == ["hello"]


# --- the resender ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESEND_SECONDS", 0.02)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


def leave(desk: Desk, *words: str, name: str = "") -> Path:
    """What an earlier process left in the spool."""
    desk.folder.mkdir(exist_ok=True)
    path = desk.folder / (name or desk.spool.name)
    path.write_text(Record(session=1, first_seq=1, events=tuple(map(said, words))).model_dump_json())
    return path


async def test_the_records_of_a_session_that_still_sends_are_left_to_it(desk: Desk) -> None:
    resender = SpoolResender(desk.client, desk.folder)
    resender.busy.add((desk.call_id, 1))
    own, other = leave(desk, "mine"), leave(desk, "another's", name=f"{desk.call_id}.2.json")
    async with running(resender):
        await until(lambda: not other.exists())
        assert own.exists()
        assert await desk.texts() == ["another's"]
        resender.busy.discard((desk.call_id, 1))
        await until(lambda: not own.exists())
    assert await desk.texts() == ["another's", "mine"]


async def test_what_another_bridge_has_sent_is_not_refused(desk: Desk) -> None:
    """A bridge is cut off; another one sends what it has left in the spool, and the call ends."""
    sender = desk.sender()
    await desk.line.cut()
    async with running(sender):
        sender.put(said("hello"))
        await until(lambda: desk.spooled() == ["hello"])
        async with running(SpoolResender(desk.client, desk.folder)):
            await until(lambda: not desk.spool.exists())
        await desk.closes()
        await desk.line.mend()
        await sender.caught_up(30)
    assert list(desk.folder.iterdir()) == []


async def test_what_another_bridge_adds_while_its_file_is_sent_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bridges on one machine share the spool, and each knows only its own sessions."""
    path = leave(desk, "one")
    send = module.send

    async def slowly(client: Client, call_id: str, record: Record) -> None:
        await send(client, call_id, record)
        if len(record.events) == 1:
            more = record.model_copy(update={"events": (said("one"), said("two"))})
            path.write_text(more.model_dump_json())

    monkeypatch.setattr(module, "send", slowly)
    async with running(SpoolResender(desk.client, desk.folder)):
        await until(lambda: not path.exists())
    assert await desk.texts() == ["one", "one", "two"]


async def test_the_resender_waits_for_temporal(desk: Desk) -> None:
    path = leave(desk, "hello")
    await desk.line.cut()
    async with running(SpoolResender(desk.far, desk.folder)):
        await asyncio.sleep(0.3)  # some rounds
        assert path.exists()
        await desk.line.mend()
        await until(lambda: not path.exists())
    assert set(await desk.texts()) == {"hello"}


async def test_records_of_a_closed_call_are_set_aside(desk: Desk) -> None:
    await desk.closes()
    path = leave(desk, "too late")
    async with running(SpoolResender(desk.client, desk.folder)):
        await until(lambda: not path.exists())
    (aside,) = desk.folder.iterdir()
    assert aside.name == f"{desk.call_id}.1.refused"
    assert "too late" in aside.read_text()


async def test_two_bridges_set_the_same_records_aside(desk: Desk) -> None:
    """They have one folder and look into it at the same time. Neither may end by it."""
    await desk.closes()
    path = leave(desk, "too late")
    async with running(SpoolResender(desk.client, desk.folder)), running(SpoolResender(desk.client, desk.folder)):
        for _ in range(5):
            await until(lambda: not path.exists())
            await a_moment()
            leave(desk, "too late")
    assert {path.suffix for path in desk.folder.iterdir()} <= {".refused", ".json"}


@pytest.mark.parametrize("content", [b"{", b'{"session": 1}', b"[]", b"\xff\xfe\x00"])
async def test_a_file_that_cannot_be_read_is_set_aside_and_the_next_is_sent(desk: Desk, content: bytes) -> None:
    desk.folder.mkdir()
    bad, strange = desk.folder / "CA0.1.json", desk.folder / "notes.json"
    bad.write_bytes(content)
    strange.write_text("not ours")
    good = leave(desk, "hello")
    async with running(SpoolResender(desk.client, desk.folder)):
        await until(lambda: not good.exists())
    assert {path.name for path in desk.folder.iterdir()} == {"CA0.1.bad", "notes.json"}
    assert await desk.texts() == ["hello"]


async def test_there_need_be_no_spool_yet(desk: Desk) -> None:
    async with running(SpoolResender(desk.client, desk.folder)):
        await a_moment()
        path = leave(desk, "hello")
        await until(lambda: not path.exists())
