"""One reply, when language models misbehave: who goes on, from where, and what is told.

The models are scripted: each request meets the next of its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from media_bridge.conversation import events as ev
from media_bridge.conversation import reply as module
from media_bridge.conversation.reply import CUT_OFF, ReplyFailure, stream_reply
from media_bridge.providers.base import (
    LlmEvent,
    LlmProfile,
    LlmProvider,
    LlmRequest,
    LlmUsage,
    TextDelta,
    ToolCallDelta,
)
from media_bridge.providers.fallback import Lineup
from stayline.errors import ProviderError
from stayline.messages import Grant
from stayline.models import AgentMessage, AgentSpec, CallInfo, NoteMessage, ToolCall, UserMessage
from stayline.timeline import Usage
from tests.sample_call import START

Step = LlmEvent | Exception | None
"""None: it hangs."""


class Model:
    """A language model."""

    profile = LlmProfile()

    def __init__(self, name: str, *answers: Sequence[Step]) -> None:
        self.name = name
        self.answers = list(answers)
        self.requests: list[LlmRequest] = []

    async def warm(self) -> None: ...

    async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        self.requests.append(request)
        for step in self.answers.pop(0):
            if step is None:
                await asyncio.Event().wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield step

    async def aclose(self) -> None: ...


class Asked:
    """A question put to some models."""

    def __init__(self, *models: Model) -> None:
        members: list[tuple[str, LlmProvider]] = [(f"{model.name}/m", model) for model in models]
        self.now = 0.0
        self.lineup = Lineup[LlmProvider]("llm", members, lambda: self.now)
        self.failures: list[str] = []
        self.served: list[str] = []
        call = CallInfo(
            call_id="CA1", from_number="", to_number="", direction="inbound", carrier="lab", started_at=START
        )
        self.grant = Grant(session=1, call=call, agent=AgentSpec(name="agent"), seconds_left=60)

    async def answer(self) -> list[ev.ReplyText | ev.ReplyTool | Usage]:
        stream = stream_reply(
            self.lineup,
            self.grant,
            1,
            (UserMessage(text="where is my order"),),
            lambda role, error: self.failures.append(str(error)),
            self.served.append,
        )
        return [event async for event in stream]

    async def text(self) -> str:
        return "".join(event.text for event in await self.answer() if isinstance(event, ev.ReplyText))


LOST = ProviderError("a", "gone", retryable=True)


async def test_a_reply_and_what_it_cost() -> None:
    asked = Asked(Model("a", [TextDelta("On "), TextDelta("its way."), LlmUsage(10, 3, 5)]))
    answer = await asked.answer()
    assert answer[:2] == [ev.ReplyText(1, "On "), ev.ReplyText(1, "its way.")]
    (usage,) = answer[2:]
    assert isinstance(usage, Usage)
    assert (usage.provider, usage.model, usage.cached_tokens) == ("a", "m", 5)
    assert asked.served == ["a/m"]


@pytest.mark.parametrize("trouble", [LOST, KeyError("choices"), None])
async def test_the_next_one_is_asked_when_nothing_came(trouble: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_TOKEN_TIMEOUT", 0.05)
    a, b = Model("a", [trouble]), Model("b", [TextDelta("On its way.")])
    asked = Asked(a, b)
    assert await asked.text() == "On its way."
    assert len(asked.failures) == 1
    assert asked.served == ["b/m"]
    assert [member.ref for member in asked.lineup.order()] == ["b/m", "a/m"], "the failed one rests"


async def test_in_mid_sentence_the_next_one_goes_on() -> None:
    a, b = Model("a", [TextDelta("It is on its way,"), LOST]), Model("b", [TextDelta("and comes today.")])
    asked = Asked(a, b)
    assert await asked.text() == "It is on its way, and comes today."
    assert b.requests[0].messages[1:] == [
        AgentMessage(text="It is on its way,", interrupted=True),
        NoteMessage(text=CUT_OFF),
    ]
    assert asked.served == ["a/m", "b/m"]


async def test_one_that_has_asked_for_a_tool_is_not_replaced() -> None:
    call = ToolCall(id="t1", name="lookup", arguments={})
    b = Model("b", [TextDelta("Well.")])
    asked = Asked(Model("a", [ToolCallDelta(call), LOST]), b)
    with pytest.raises(ReplyFailure):
        await asked.answer()
    assert b.requests == []


async def test_when_all_fail_there_is_no_reply() -> None:
    asked = Asked(Model("a", [LOST]), Model("b", [LOST]))
    with pytest.raises(ReplyFailure):
        await asked.answer()
    assert len(asked.failures) == 2
    assert asked.served == []


async def test_the_preferred_one_is_asked_again_after_its_rest() -> None:
    a = Model("a", [LOST], [TextDelta("Back.")])
    asked = Asked(a, Model("b", [TextDelta("One.")], [TextDelta("Two.")]))
    assert await asked.text() == "One."
    assert await asked.text() == "Two."
    asked.now = 20
    assert await asked.text() == "Back."
    assert asked.served == ["b/m", "b/m", "a/m"]
