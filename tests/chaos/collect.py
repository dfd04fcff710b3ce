"""What is left to see when all calls are over: histories, and what the processes still hold. Uses no code of ours
but the process handles: what it writes is for the auditor."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil  # type: ignore[import-untyped]
from temporalio.client import Client, WorkflowExecutionStatus

from tests.chaos.ledger import Ledger

CALLS_END_WITHIN = 75.0
"""Seconds after the last caller is gone."""
SETTLED_WITHIN = 20.0
"""Seconds until a bridge has let go of what it held for its calls."""


class _Process(Protocol):
    @property
    def pid(self) -> int | None: ...


async def collect(
    folder: Path, client: Client, bridges: Mapping[str, _Process], ports: Mapping[str, int], seen: Ledger
) -> None:
    """Wait for the end of all calls, for some time, then write histories and processes down as they are."""
    loop = asyncio.get_running_loop()
    until = loop.time() + CALLS_END_WITHIN
    while loop.time() < until:
        if not [found async for found in client.list_workflows(_RUNNING_CALLS)]:
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.5)  # the list lags behind
    out = folder / "histories"
    out.mkdir(exist_ok=True)
    index: list[dict[str, Any]] = []
    async for found in client.list_workflows():
        handle = client.get_workflow_handle(found.id, run_id=found.run_id)
        history = await handle.fetch_history()
        status = WorkflowExecutionStatus(found.status or 0).name
        row = {"id": found.id, "run_id": found.run_id, "type": found.workflow_type, "status": status}
        index.append(row | {"file": f"{found.id}.{found.run_id}.json"})
        (out / index[-1]["file"]).write_text(history.to_json())
    (folder / "workflows.json").write_text(json.dumps(index))
    for name, child in bridges.items():
        seen.write("left", name=name, **await _settled(child, ports.get(name, 0)))


_RUNNING_CALLS = "WorkflowType = 'CallWorkflow' AND ExecutionStatus = 'Running'"


async def _settled(child: _Process, port: int) -> dict[str, Any]:
    """How a process stands when it changes no more."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLED_WITHIN
    before: dict[str, Any] = {}
    while True:
        now = await look_at(child, port)
        quiet = not now.get("calls") and now == before
        if quiet or loop.time() > until:
            return now
        before = now
        await asyncio.sleep(2.0)


async def look_at(child: _Process, port: int) -> dict[str, Any]:
    """What a process holds: file descriptors, sockets, threads; and what it says itself, where it has a port."""
    pid = child.pid
    if pid is None:
        return {"dead": True}
    seen: dict[str, Any] = _of_proc(pid)
    if port:
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=timeout) as http:
                async with http.get(f"http://127.0.0.1:{port}/health") as answer:
                    state = await answer.json()
                    seen |= {"calls": state["calls"], "tasks": state["tasks"], "inbound": _inbound(pid)}
                async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    seen |= _metrics(await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            seen["silent"] = type(error).__name__
    return seen


def _of_proc(pid: int) -> dict[str, Any]:
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return {"dead": True}
    sockets = sum(link.startswith("socket:") for link in links)
    return {"pid": pid, "fds": len(links) - sockets, "sockets": sockets, "threads": threads}


def _inbound(pid: int) -> int:
    """Connections to its own ports: each has a task in its HTTP server, also while nothing is asked."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return 0
    doors = {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port in doors for one in found)


def _metrics(text: str) -> dict[str, float]:
    wanted = {
        "stayline_sessions_active": "sessions",
        "stayline_records_waiting": "records_waiting",
    }
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in wanted:
            found[wanted[name]] = found.get(wanted[name], 0.0) + float(line.rpartition(" ")[2])
    return found
