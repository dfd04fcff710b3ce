"""Activity `screen_call`: the agent's `on_call` policy says whether a call comes in."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio import activity
from temporalio.exceptions import ApplicationError

from stayline.agent import Agent
from stayline.messages import Admission
from stayline.models import CallInfo


class PolicyActivities:
    """The policies of all agents that this worker serves."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = dict(agents)

    @activity.defn
    async def screen_call(self, call: CallInfo) -> Admission:
        """Run the policy once.

        Raises:
            ApplicationError: there is no such agent here. Whatever the policy raises beside `RejectCall` fails
                the attempt; the workflow answers the caller with an apology when no attempt succeeds.
        """
        agent = self._agents.get(call.agent)
        if agent is None:
            raise ApplicationError(
                f"this worker has no agent {call.agent!r}", type="UnknownAgent", non_retryable=True
            )
        rejection = await agent.screen(call)
        if rejection is None:
            return Admission(accepted=True)
        return Admission(accepted=False, say=rejection.say, reason="rejected by the agent's policy")
