"""The language models, each before its fake."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import LlmProvider
from media_bridge.providers.offline.scripted import ScriptedLlm
from media_bridge.providers.openai_llm import OpenAILlm
from tests.conformance.suite import Subject, maker
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import FakeLlm, Part
from tests.fakes.openai import FakeOpenAI


@dataclasses.dataclass(slots=True)
class LlmBench:
    """An adapter and its vendor.

    Attributes:
        make: the adapter, with these options and perhaps another key.
        fake: None: it runs here, or it is the vendor itself.
        reference: where a request names the call.
    """

    make: Callable[..., LlmProvider]
    fake: FakeLlm | None = None
    reference: Callable[[dict[str, Any]], Any] = lambda body: None

    def answers(self, *parts: Part) -> None:
        """What the fake answers; a vendor itself answers what it likes."""
        self.answers_by(lambda body: parts)

    def answers_by(self, reply: Callable[[dict[str, Any]], Sequence[Part]]) -> None:
        if self.fake is not None:
            self.fake.reply = reply


@asynccontextmanager
async def openai(**options: Any) -> AsyncIterator[LlmBench]:
    async with FakeOpenAI() as fake:
        make = maker(OpenAILlm, "openai", "gpt-6-luna", key=fake.key, base_url=fake.url, **options)
        yield LlmBench(make, fake, lambda body: body.get("metadata", {}).get("call_id"))


@asynccontextmanager
async def anthropic() -> AsyncIterator[LlmBench]:
    async with FakeAnthropic() as fake:
        make = maker(AnthropicLlm, "anthropic", "claude-haiku-5-5", key=fake.key, base_url=fake.url)
        yield LlmBench(make, fake, lambda body: body.get("metadata", {}).get("user_id"))


SCENARIO = Path(__file__).resolve().parents[2] / "examples/demo/scenario.yaml"


@asynccontextmanager
async def scripted() -> AsyncIterator[LlmBench]:
    yield LlmBench(maker(ScriptedLlm, "offline", "scripted", scenario=str(SCENARIO)))


_HERE = "It runs here: there is no vendor, key or connection."
_WRITTEN = "It says and asks for what its scenario file holds; `test_scripted` puts it to its own suite."
SUBJECTS: Sequence[Subject[LlmBench]] = (
    Subject("openai/gpt-6-luna", openai),
    Subject(
        "openai/gpt-6-luna (api=chat, effort=none)",
        lambda: openai(api="chat", effort="none"),
        {
            "the_call_can_be_found": "A server of one's own may refuse fields that it does not know.",
        },
    ),
    Subject("anthropic/claude-haiku-5-5", anthropic),
    Subject(
        "offline/scripted",
        scripted,
        {
            **dict.fromkeys(
                (
                    "a_wrong_key",
                    "too_many_requests",
                    "nobody_listens",
                    "a_reply_that_breaks_off",
                    "an_unknown_message",
                    "an_error_in_the_stream",
                    "leaving_closes_the_connection",
                    "a_cancelled_request",
                    "the_call_can_be_found",
                    "usage_is_told",
                ),
                _HERE,
            ),
            **dict.fromkeys(
                (
                    "text_comes_in_pieces",
                    "a_tool_round_trip",
                    "parallel_calls",
                    "malformed_arguments",
                    "tools_are_offered",
                    "everything_a_history_can_hold",
                    "a_reply_of_nothing",
                ),
                _WRITTEN,
            ),
        },
    ),
)
