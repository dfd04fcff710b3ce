"""What the tests of deploys share: a fleet under load, and what must hold of it when all calls are over."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.chaos import ledger
from tests.chaos.auditor import audit
from tests.chaos.collect import look_at
from tests.chaos.fleet import Fleet

CALLS: Final = int(os.environ.get("DEPLOY_CALLS", "12"))
"""At once; more by the environment."""
EXCHANGES: Final = (2, 4)
KEPT_ALIVE: Final = 35.0
"""Seconds; aiohttp's client closes idle connections after 15 to 30."""
SPARE_TASKS: Final = 7


@asynccontextmanager
async def load(town: Fleet) -> AsyncIterator[None]:
    """So many people talk all the while: who hangs up is followed by somebody else. Ends with the last call."""
    done = asyncio.Event()

    async def place() -> None:
        while not done.is_set():
            await town.calls(1, exchanges=EXCHANGES)

    async with asyncio.TaskGroup() as places:
        for _ in range(CALLS):
            places.create_task(place())
        await town.talking(CALLS // 2)
        try:
            yield
        finally:
            done.set()


async def more_calls(town: Fleet, count: int = 4) -> None:
    """Wait until so many more have begun."""
    before = len(town.lab_calls)
    await town.until(lambda: len(town.lab_calls) >= before + count)


async def nothing_lost(town: Fleet) -> None:
    """Every call was seen through, no stream broke, and nobody was told of a break."""
    await idle(town)
    await town.collect()
    report = audit(town.folder)
    assert not report.findings, report.text()
    assert report.calls >= CALLS
    assert town.carrier.log.of("stream_broken") == []
    assert lines(town, ledger.CALLERS, kind="heard", having="cut off") == []
    outcomes = {event["outcome"] for event in events(town, "call_ended")}
    assert outcomes <= {"completed", "caller_hung_up", "transferred"}, outcomes


async def ended(town: Fleet) -> None:
    """Wait until the workflow of every call has ended, which is a little later than its caller's end of it."""
    running = "WorkflowType = 'CallWorkflow' AND ExecutionStatus = 'Running'"
    async with asyncio.timeout(60):
        await asyncio.sleep(1)  # the list lags behind
        while (await town.client.count_workflows(running)).count:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def idle(town: Fleet) -> None:
    """Wait, within bounds, until the carrier has closed the connections that it kept for further webhooks: each is
    a socket and a task of a bridge, and no leak. What is left then is for the auditor."""
    before = {line["name"]: line.get("tasks", 0) for line in lines(town, ledger.PROCESSES, kind="baseline")}
    loop = asyncio.get_running_loop()
    until = loop.time() + KEPT_ALIVE
    while loop.time() < until:
        ports = {name: town._balancer.members.get(name, ("", 0))[1] for name in town.bridges}
        now = {name: await look_at(town.bridges[name], port) for name, port in ports.items()}
        if all(seen.get("tasks", 0) <= before[name] + SPARE_TASKS for name, seen in now.items()):
            return
        await asyncio.sleep(0.5)


def lines(town: Fleet, book: str, kind: str, having: str = "") -> list[dict[str, Any]]:
    """What a ledger says of one kind, where the text has these words."""
    rows = [json.loads(row) for row in (town.folder / book).read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind and having in row.get("text", "")]


def histories(town: Fleet, kind: str = "CallWorkflow") -> dict[str, list[dict[str, Any]]]:
    """The histories of all workflows of a type, by workflow id; after `collect`."""
    index = json.loads((town.folder / "workflows.json").read_text())
    return {
        row["id"]: json.loads((town.folder / "histories" / row["file"]).read_text())["events"]
        for row in index
        if row["type"] == kind
    }


def events(town: Fleet, kind: str) -> list[dict[str, Any]]:
    """The timeline's events of a type, of all call records."""
    found = []
    for record in records(town):
        assert "timeline" in record, "a record of this length is not plain: let callers talk less"
        found += [entry["event"] for entry in record["timeline"] if entry["event"]["type"] == kind]
    return found


def records(town: Fleet) -> list[dict[str, Any]]:
    """The last record that each call has written: the input of its last `save_call`."""
    return [record for record in map(_record, histories(town).values()) if record is not None]


def _record(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    for event in reversed(history):
        scheduled = event.get("activityTaskScheduledEventAttributes")
        if scheduled and scheduled["activityType"]["name"] == "save_call":
            found: dict[str, Any] = json.loads(base64.b64decode(scheduled["input"]["payloads"][0]["data"]))
            return found
    return None


def copied(tree: str, to: Path, *changes: tuple[str, str, str]) -> Path:
    """A copy of a package of this repository with its text changed: (file, old, new), each found exactly once."""
    source = Path(__file__).parents[2] / tree
    shutil.copytree(source, to / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in changes:
        path = to / tree / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has changed; so must this test"
        path.write_text(text.replace(old, new))
    return to
