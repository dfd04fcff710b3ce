"""The `on_call` policy as an activity."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.policy import PolicyActivities
from stayline import Agent, CallInfo, RejectCall
from stayline.messages import Admission


def desk() -> Agent:
    return Agent(name="desk", stt="offline/moonshine", llm="offline/scripted", tts="offline/hibari")


def call(agent: str = "desk", number: str = "+15550001111") -> CallInfo:
    return CallInfo(call_id="CA1", from_number=number, to_number="+2", started_at=datetime.now(UTC), agent=agent)


async def screen(agent: Agent, info: CallInfo) -> Admission:
    answer = await ActivityEnvironment().run(PolicyActivities({"desk": agent}).screen_call, info)
    assert isinstance(answer, Admission)
    return answer


async def test_without_a_policy_everybody_comes_in() -> None:
    assert (await screen(desk(), call())).accepted


async def test_a_rejection_says_what_the_caller_hears() -> None:
    agent = desk()

    @agent.on_call
    async def policy(info: CallInfo) -> None:
        if info.from_number.endswith("1111"):
            raise RejectCall("Not today.")

    refused = await screen(agent, call())
    assert (refused.accepted, refused.say) == (False, "Not today.")
    assert (await screen(agent, call(number="+15550002222"))).accepted


async def test_an_agent_that_this_worker_does_not_serve() -> None:
    with pytest.raises(ApplicationError) as caught:
        await screen(desk(), call(agent="other"))
    assert caught.value.non_retryable
