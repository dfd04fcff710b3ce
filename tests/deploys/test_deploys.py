"""Deploys while people talk: bridges, workers, workflow code and agents are exchanged, and no call is lost."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from stayline.names import call_workflow_id
from tests.chaos import agents, ledger
from tests.chaos.fleet import Front, fleet
from tests.deploys.live import copied, ended, events, histories, lines, load, more_calls, nothing_lost

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("front", ["balancer", "shared"])
async def test_bridges_are_exchanged_one_after_the_other(tmp_path: Path, front: Front) -> None:
    """Each is told to stop when its successor takes calls; it hands its calls over and ends by itself."""
    async with fleet(tmp_path, bridges=2, workers=1, front=front) as town:
        async with load(town):
            for old in list(town.bridges):
                await town.start_bridge()
                assert await town.stop_bridge(old) == 0, "it ended by itself, in time"
        await nothing_lost(town)
        moved = [event for event in events(town, "session_opened") if event["resumed"]]
        assert moved, "no call was handed over: this has tested nothing"
        assert {event["reason"] for event in events(town, "session_closed")} <= {"closed", "stopped"}


async def test_workers_are_exchanged_one_after_the_other(tmp_path: Path) -> None:
    async with fleet(tmp_path, bridges=1, workers=2) as town:
        async with load(town):
            for old in list(town.workers):
                await town.start_worker()
                assert await town.stop_worker(old) == 0
        await nothing_lost(town)


async def test_workflow_code_changes_under_load(tmp_path: Path) -> None:
    """Calls that live go on with the code that they began on, new ones begin on the new one. It has one step more
    in each call's life, so a history of one build does not fit the other."""
    changed = copied(
        "workflows",
        tmp_path / "next",
        (
            "call.py",
            "        state = self._state\n        while state.ending is None:\n",
            f"        state = self._state\n        await workflow.sleep(0.001, summary={NEW_STEP!r})\n"
            "        while state.ending is None:\n",
        ),
    )
    second = {"STAYLINE_BUILD_ID": "two", "STAYLINE_PROMOTE_BUILD": "true"}
    second |= {"PYTHONPATH": str(changed), "PYTHONSAFEPATH": "1"}
    async with fleet(
        tmp_path, bridges=1, workers=1, STAYLINE_BUILD_ID="one", STAYLINE_PROMOTE_BUILD="true"
    ) as town:
        old = list(town.workers)
        async with load(town):
            before = {call.sid for call in town.lab_calls}
            await town.start_worker(**second)
            await promoted(town.processes.children["w2"].log)
            assert any(not call.over for call in town.lab_calls)
            await more_calls(town)
        await ended(town)  # only now may the old build be stopped
        for name in old:
            assert await town.stop_worker(name) == 0
        await nothing_lost(town)
        builds = {id: builds_of(history) for id, history in histories(town).items()}
        assert all(len(found) == 1 for found in builds.values()), "no call has changed its build"
        assert all(builds[call_workflow_id(sid)] == {"one"} for sid in before if call_workflow_id(sid) in builds)
        assert {"one", "two"} == set.union(*builds.values())
        for id, history in histories(town).items():
            assert took_new_step(history) is (builds[id] == {"two"})


async def test_an_agent_changes_and_live_calls_do_not_notice(tmp_path: Path) -> None:
    """The bridges and workers are exchanged for ones that know another agent. Who was talking to the former one
    goes on with it, at the new bridges; who calls now, meets the new one."""
    (tmp_path / "agents").mkdir()
    text = Path(agents.__file__).read_text()
    for old, new in (('"Hello there."', '"Welcome, my friend."'), ("agent = Agent(\n", f"{AGENT_CHANGES}\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "agents" / "agents.py").write_text(text)
    async with fleet(tmp_path, bridges=1, workers=1) as town:
        town.realtime = 0
        asked: dict[str, set[str]] = defaultdict(set)  # the instructions that the model got, by call
        answer = town.vendors.openai.reply

        def noted(body: dict[str, Any]) -> Any:
            asked[body["metadata"]["call_id"]].add(str(body.get("instructions", "")))
            return answer(body)

        town.vendors.openai.reply = noted
        async with load(town):
            town.agents = [f"{tmp_path / 'agents' / 'agents.py'}:{name}" for name in ("agent", "voice")]
            before = list(town.bridges), list(town.workers)
            await town.start_worker()
            for name in before[1]:
                assert await town.stop_worker(name) == 0
            await town.start_bridge()
            for name in before[0]:
                assert await town.stop_bridge(name) == 0
            await more_calls(town)
        await nothing_lost(town)
        assert all(len(instructions) == 1 for instructions in asked.values()), "it changed within a call"
        is_new = {call: "NEW RULES" in instructions.pop() for call, instructions in asked.items()}
        heard = lines(town, ledger.CALLERS, kind="heard", having="Welcome, my friend.")
        greeted = {line["call"] for line in heard}
        assert set(is_new.values()) == {True, False}
        inbound = {call: new for call, new in is_new.items() if not call.startswith("out-")}
        assert {call for call, new in inbound.items() if new} == greeted & set(inbound)
        handed_over = [event for event in events(town, "session_opened") if event["resumed"]]
        assert handed_over, "no call lived through the change: this has tested nothing"


NEW_STEP = "a new step"
AGENT_CHANGES = "agent = Agent(\n    instructions='NEW RULES: be brief.',"


async def promoted(log: Path) -> None:
    """Wait until the worker has made its build the current one: it says nothing more of its start."""
    async with asyncio.timeout(40):
        while "build_promoted" not in log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def builds_of(history: list[dict[str, Any]]) -> set[str]:
    """The builds whose workers have run a workflow."""
    found = set()
    for event in history:
        completed = event.get("workflowTaskCompletedEventAttributes")
        if completed:
            found.add(completed["deploymentVersion"]["buildId"])
    return found


def took_new_step(history: list[dict[str, Any]]) -> bool:
    """Whether there is the timer that only the changed code starts, by its summary."""
    timers = (event for event in history if "timerStartedEventAttributes" in event)
    summaries = (event.get("userMetadata", {}).get("summary", {}).get("data", "") for event in timers)
    return any(base64.b64decode(data) == json.dumps(NEW_STEP).encode() for data in summaries)
